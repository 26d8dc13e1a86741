//! A registry whose identities have sessions, and get what is multicast to them.

use std::{
    collections::HashMap,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures::{StreamExt, channel::mpsc, stream};
use parking_lot::Mutex;
use prism_client::{
    Reason,
    testing::{FakeRegistry, answers},
};
use prism_proto::pattern::{
    MulticastRequest, MulticastResponse, RenewRequest, RenewResponse, Stage, SubscribeResponse,
    delivery_status::Status,
    register_response::Outcome,
    subscribe_response::{Delivery, Message},
};
use tonic::Status as Refusal;

use super::store::{Store, refused};

type Line = mpsc::UnboundedSender<Result<SubscribeResponse, Refusal>>;

/// Who is registered, and whose session is open.
#[derive(Clone, Default)]
pub(crate) struct Town {
    pub(crate) store: Store,
    lines: Arc<Mutex<HashMap<String, Line>>>,
    told: Arc<AtomicUsize>,
    multicasts: Arc<AtomicUsize>,
    /// Where messages are said to be delivered, and are not, or are twice.
    pub(crate) liar: Arc<Mutex<Option<Lie>>>,
}

/// What is not as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It is told that a message was delivered, to whoever's name ends so, and it never was.
    Lost(char),
    /// Every message comes twice, as two deliveries.
    Twice,
}

impl Town {
    pub(crate) async fn serve() -> (Self, FakeRegistry) {
        let town = Self::default();
        let fake = FakeRegistry::start().await.unwrap();
        let here = town.clone();
        fake.on_register(move |request| {
            let answer = here.store.register(request.get_ref());
            ready(match answer.outcome() {
                Outcome::Unspecified => Err(refused(Reason::AlreadyRegistered)),
                _ => Ok(answer),
            })
        });
        let here = town.clone();
        fake.on_register_many(move |requests| ready(Ok(here.store.register_many(&requests))));
        let here = town.clone();
        fake.on_update(move |request| ready(here.store.patch(request.get_ref())));
        let here = town.clone();
        fake.on_get(move |request| ready(here.store.get(&request.get_ref().identity)));
        let here = town.clone();
        fake.on_enumerate(move |request| ready(here.store.page(request.into_inner())));
        let here = town.clone();
        fake.on_renew(move |request| ready(Ok(here.renew(request.get_ref()))));
        let here = town.clone();
        fake.on_unregister(move |request| {
            let name = &request.get_ref().identity;
            let existed = here.store.get(name).is_ok();
            here.store.remove(name);
            here.lines.lock().remove(name);
            ready(Ok(answers::unregistered(existed)))
        });
        let here = town.clone();
        fake.on_subscribe(move |open| {
            let (line, messages) = mpsc::unbounded();
            let known = here.store.get(&open.identity);
            here.lines.lock().insert(open.identity, line);
            ready(known.map(|_| stream::iter([Ok(answers::opened(1))]).chain(messages)))
        });
        let here = town.clone();
        fake.on_multicast(move |request| ready(Ok(here.multicast(request.get_ref()))));
        (town, fake)
    }

    /// How often a message was told to somebody.
    pub(crate) fn told(&self) -> usize {
        self.told.load(Relaxed)
    }

    pub(crate) fn renew(&self, request: &RenewRequest) -> RenewResponse {
        let result = |identity: &str| match self.store.get(identity) {
            Ok(_) => answers::renewed(identity),
            Err(_) => answers::not_renewed(identity, Reason::NotRegistered),
        };
        let results = request.leases.iter().map(|lease| result(&lease.identity));
        RenewResponse {
            results: results.collect(),
        }
    }

    fn multicast(&self, request: &MulticastRequest) -> MulticastResponse {
        let names = self.store.matching(request.filter.as_ref());
        let all: Vec<_> = names.iter().map(String::as_str).collect();
        let mut answer = answers::delivered(&all);
        let id = format!("m-{}", self.multicasts.fetch_add(1, Relaxed));
        for status in &mut answer.statuses {
            if !self.tell(&id, &status.identity, request) {
                status.status = Status::Failed.into();
                status.stage = Stage::Resolved.into();
                status.reason = "NO_SUBSCRIBER".to_owned();
                answer.delivered_count -= 1;
                answer.failed_count += 1;
            }
        }
        answer
    }

    /// Whether there was somebody to tell, or it is claimed so.
    fn tell(&self, id: &str, name: &str, request: &MulticastRequest) -> bool {
        let lie = *self.liar.lock();
        if matches!(lie, Some(Lie::Lost(end)) if name.ends_with(end)) {
            return true;
        }
        let message = |delivery_id| SubscribeResponse {
            message: Some(Message::Delivery(Delivery {
                multicast_id: id.to_owned(),
                delivery_id,
                payload: request.payload.clone(),
                content_type: "text/plain".to_owned(),
                published_at: Some(answers::at(61)),
                headers: HashMap::new(),
                ..Default::default()
            })),
        };
        let lines = self.lines.lock();
        let Some(line) = lines.get(name) else { return false };
        if lie == Some(Lie::Twice) {
            let _ = line.unbounded_send(Ok(message(format!("{id}/{name}/again"))));
        }
        self.told.fetch_add(1, Relaxed);
        line.unbounded_send(Ok(message(format!("{id}/{name}")))).is_ok()
    }
}
