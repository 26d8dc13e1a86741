//! The coordinator over slots whose calls go as a test says, with time in the test's hands.

mod adopting;
mod claiming;
mod conformity;
mod delivering;
mod explaining;
mod failing;
mod hanging;
mod leases;
mod outcomes;
mod reading;
mod registering;
mod repeating;
mod searching;
mod sending;
mod sessions;
mod settling;
mod straying;
mod telling;
mod tuning;
mod views;

use std::sync::Arc;

use prism_filter::{Document, Filter};
use prism_slot::{Error as SlotError, Timestamp, memory::ManualClock};

use super::{Config, Coordinator, Enumerate, Error, Held, Page, Register};
use crate::testing::{Broker, Script, Store, soon};

struct Fixture {
    coordinator: Coordinator,
    clock: Arc<ManualClock>,
    store: Arc<Store>,
    broker: Arc<Broker>,
}

fn fixture(change: impl FnOnce(&mut Config)) -> Fixture {
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    let (store, broker) = (Store::new(clock.clone()), Broker::new());
    let mut config = Config::named("test");
    change(&mut config);
    Fixture {
        coordinator: Coordinator::new(config, store.clone(), broker.clone(), None),
        clock,
        store,
        broker,
    }
}

impl Fixture {
    /// A second runner of the same namespace.
    fn sibling(&self) -> Coordinator {
        let (store, broker) = (self.store.clone(), self.broker.clone());
        Coordinator::new(Config::named("test"), store, broker, None)
    }

    fn script(&self) -> &Script {
        &self.store.script
    }

    async fn register(&self, name: &str, metadata: &str) -> Held {
        self.coordinator
            .register(request(name, metadata), soon())
            .await
            .unwrap()
    }

    async fn names(&self, filter: Filter) -> Vec<String> {
        let request = Enumerate {
            filter: Some(filter),
            ..Default::default()
        };
        names(&self.coordinator.enumerate(request, soon()).await.unwrap())
    }
}

fn names(page: &Page) -> Vec<String> {
    page.rows.iter().map(|row| row.identity().to_string()).collect()
}

fn request(name: &str, metadata: &str) -> Register {
    Register::new(name, Document::from_json(metadata.as_bytes()).unwrap()).unwrap()
}

fn slot_error(error: Error) -> SlotError {
    match error {
        Error::Slot(error) => error,
        other => panic!("{other:?}"),
    }
}
