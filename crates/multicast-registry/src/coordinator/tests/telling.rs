//! What is logged at which level.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use prism_proto::pattern::{self as proto, multicast_registry_pattern_server::MulticastRegistryPattern};
use prism_slot::{Applied, Outcome};
use tracing::{
    Event, Instrument, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

use super::{
    super::{Multicast, Register},
    fixture, request,
};
use crate::{
    metrics::Metrics,
    namespaces::Namespaces,
    service::Service,
    testing::{Fate, Op, soon, unavailable},
};

/// Keeps the level and the text of every event of this crate.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Told>>>);

/// The level, the text, and the names of the spans around it.
type Told = (Level, String, Vec<&'static str>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Kept {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if !event.metadata().target().starts_with("multicast_registry") {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let spans = context.event_scope(event).into_iter().flatten();
        let spans = spans.map(|span| span.name()).collect();
        self.0
            .lock()
            .unwrap()
            .push((*event.metadata().level(), text.0, spans));
    }
}

impl Kept {
    /// Hears what this thread says.
    ///
    /// As long as there is only one subscriber, `tracing` asks that of the thread which comes to a line of the
    /// log first whether anybody wants it, once for all; and in another test there is none. So there are two.
    fn listen(&self) -> (tracing::Dispatch, tracing::subscriber::DefaultGuard) {
        let other = tracing::Dispatch::new(tracing_subscriber::registry());
        let hearing = tracing_subscriber::registry().with(self.clone());
        (other, hearing.set_default())
    }

    fn find(&self, what: &str) -> Told {
        let kept = self.0.lock().unwrap();
        let found = kept.iter().find(|(_, text, _)| text.contains(what));
        found
            .unwrap_or_else(|| panic!("nothing says `{what}`: {kept:?}"))
            .clone()
    }
}

#[tokio::test(start_paused = true)]
async fn each_thing_is_told_at_its_level() {
    let kept = Kept::default();
    let _listening = kept.listen();
    let fixture = fixture(|_| {});
    let leased = Register {
        ttl: Some(Duration::from_secs(1)),
        ..request("leased", "{}")
    };
    fixture.coordinator.register(leased, soon()).await.unwrap();
    fixture.register("a", "{}").await;
    let session = fixture.coordinator.subscribe("a", None, soon()).await.unwrap();
    fixture
        .broker
        .judge(|targets| vec![Outcome::NotSent("no connection".to_owned()); targets.len()]);
    fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    drop(session);
    fixture.coordinator.unregister("a", None, soon()).await.unwrap();
    fixture.clock.advance(Duration::from_millis(1_100));
    fixture.names(Default::default()).await;
    let refused = unavailable(Applied::No);
    fixture.script().next(Op::Register, Fate::Refuse(refused));
    fixture.register("b", "{}").await;

    for (what, level) in [
        ("message=registered", Level::DEBUG),
        ("message=unregistered", Level::DEBUG),
        ("message=expired", Level::DEBUG),
        ("message=subscribed", Level::DEBUG),
        ("message=multicast", Level::INFO),
        ("message=sending again", Level::WARN),
        ("trying again", Level::WARN),
    ] {
        assert_eq!(kept.find(what).0, level, "{what}");
    }
}

/// What is told inside a call is told inside its span, which carries the trace; also by a mutation, which
/// runs on a task of its own.
#[tokio::test(start_paused = true)]
async fn everything_inside_a_call_belongs_to_it() {
    let kept = Kept::default();
    let _listening = kept.listen();
    let fixture = fixture(|config| config.behavior.call_timeout = Duration::from_secs(1));
    let namespaces = Namespaces::default();
    namespaces.insert(fixture.coordinator.clone());
    let service = Service::new(namespaces);
    let registration = proto::RegisterRequest {
        identity: "a".into(),
        ..Default::default()
    };
    let call = service.register(tonic::Request::new(registration));
    call.instrument(tracing::info_span!("call")).await.unwrap();
    assert_eq!(kept.find("message=registered").2, ["call"]);

    fixture.script().always(Op::Get, Fate::Hang);
    let read = proto::GetRequest { identity: "a".into() };
    let call = service.get(tonic::Request::new(read));
    call.instrument(tracing::info_span!("call")).await.unwrap_err();
    let (level, _, spans) = kept.find("could not be served");
    assert_eq!((level, spans), (Level::ERROR, vec!["call"]));
}

/// The metrics say what happened.
#[tokio::test]
async fn what_happens_is_counted() {
    let (metrics, slots) = (Metrics::default(), fixture(|_| {}));
    let (store, broker) = (slots.store.clone(), slots.broker.clone());
    let mut config = super::super::Config::named("n");
    config.behavior.retry_attempts = 0;
    let coordinator =
        super::super::Coordinator::with_metrics(config, store, broker, None, metrics.namespace("n"));
    let leased = Register {
        ttl: Some(Duration::from_secs(1)),
        ..request("leased", "{}")
    };
    coordinator.register(leased, soon()).await.unwrap();
    for name in ["a", "b"] {
        coordinator.register(request(name, "{}"), soon()).await.unwrap();
    }
    let mut session = coordinator.subscribe("a", None, soon()).await.unwrap();
    coordinator.multicast(Multicast::default(), soon()).await.unwrap();
    slots.clock.advance(Duration::from_millis(1_100));
    coordinator.enumerate(Default::default(), soon()).await.unwrap();
    let exported = metrics.encode();
    for line in [
        "multicast_registry_registered_identities{namespace=\"n\"} 2",
        "multicast_registry_sessions{namespace=\"n\"} 1",
        "multicast_registry_multicast_delivered_total_sum{namespace=\"n\"} 1.0",
        "multicast_registry_multicast_delivered_total_count{namespace=\"n\"} 1",
        "multicast_registry_delivery_failures_total{namespace=\"n\"} 2",
        "multicast_registry_enumerate_latency_seconds_count{namespace=\"n\"} 1",
        "multicast_registry_ttl_expiration_total{namespace=\"n\"} 1",
        "multicast_registry_session_dropped_total{namespace=\"n\"} 0",
    ] {
        assert!(exported.contains(line), "{line} is not in {exported}");
    }
    for _ in 0..1_100 {
        coordinator.multicast(Multicast::default(), soon()).await.unwrap();
    }
    while let Some(Ok(super::super::SessionEvent::Message(_))) = session.next().await {}
    drop(session);
    let exported = metrics.encode();
    assert!(exported.contains("multicast_registry_sessions{namespace=\"n\"} 0"));
    assert!(!exported.contains("multicast_registry_session_dropped_total{namespace=\"n\"} 0"));
}
