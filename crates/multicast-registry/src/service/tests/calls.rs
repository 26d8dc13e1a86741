//! What every call has: a deadline, and an end that nobody's leaving changes.

use std::{sync::Arc, time::Duration};

use prism_core::failure::Reason;
use prism_proto::pattern::{self as proto, multicast_registry_pattern_server::MulticastRegistryPattern};
use serde_json::json;
use tokio::sync::Notify;

use super::{failure, fixture, registration, to};
use crate::testing::{Fate, Op, soon};

/// A client that leaves half-way does not leave its mutation half done: reading, merging and writing an
/// update are three steps.
#[tokio::test]
async fn a_mutation_is_done_even_if_its_caller_leaves() {
    let fixture = fixture(|_| {});
    fixture
        .service
        .register(to("test", registration("a", &json!({ "n": 1 }))))
        .await
        .unwrap();
    let hold = Arc::new(Notify::new());
    fixture.store.script.next(Op::Get, Fate::Late(hold.clone()));
    let update = proto::UpdateRequest {
        identity: "a".into(),
        patch: registration("a", &json!({ "n": 2 })).metadata,
        ..Default::default()
    };
    let mut call = Box::pin(fixture.service.update(to("test", update)));
    tokio::select! {
        _ = &mut call => panic!("it waits for the store"),
        () = fixture.store.script.reached(Op::Get, 1) => {}
    }
    drop(call);
    assert_eq!(
        fixture.service.mutations().len(),
        1,
        "still under way, and waited for by a drain"
    );
    hold.notify_one();
    fixture.service.mutations().close();
    fixture.service.mutations().wait().await;
    let read = proto::GetRequest { identity: "a".into() };
    let found = fixture.service.get(to("test", read)).await.unwrap().into_inner();
    let written = prism_filter::Document::from_proto(&found.identity.unwrap().metadata).unwrap();
    assert_eq!(written.to_value(), json!({ "n": 2 }));
}

/// A read ends with its caller: nobody needs the answer.
#[tokio::test]
async fn a_read_ends_with_its_caller() {
    let fixture = fixture(|_| {});
    fixture.store.script.always(Op::Get, Fate::Hang);
    let read = proto::GetRequest { identity: "a".into() };
    let mut call = Box::pin(fixture.service.get(to("test", read)));
    tokio::select! {
        _ = &mut call => panic!("it waits for the store"),
        () = fixture.store.script.reached(Op::Get, 1) => {}
    }
    drop(call);
    assert!(fixture.service.mutations().is_empty());
}

/// A mutation that overruns may still be applied; a read certainly is not.
#[tokio::test(start_paused = true)]
async fn a_call_that_overruns_says_whether_it_may_have_been_applied() {
    let fixture = fixture(|config| config.behavior.call_timeout = Duration::from_millis(500));
    fixture.coordinator.directory().ready(soon()).await.unwrap();
    for op in [Op::Register, Op::Get] {
        fixture.store.script.always(op, Fate::Hang);
    }
    let started = tokio::time::Instant::now();
    let status = fixture
        .service
        .register(to("test", registration("a", &json!({}))))
        .await
        .unwrap_err();
    assert!(started.elapsed() <= Duration::from_millis(500));
    let told = failure(&status);
    assert_eq!(
        (told.reason, told.applied),
        (Reason::DeadlineExceeded, Some(true))
    );
    let read = proto::GetRequest { identity: "a".into() };
    let told = failure(&fixture.service.get(to("test", read)).await.unwrap_err());
    assert_eq!(
        (told.reason, told.applied),
        (Reason::DeadlineExceeded, Some(false))
    );
}

/// The caller's own deadline counts where it is sooner or later than the namespace's, up to a bound.
#[tokio::test(start_paused = true)]
async fn the_callers_deadline_counts() {
    let fixture = fixture(|_| {});
    fixture.coordinator.directory().ready(soon()).await.unwrap();
    fixture.store.script.always(Op::Get, Fate::Hang);
    for (given, from, to_most) in [
        ("300m", 250, 300),
        ("20S", 19_000, 20_000),
        ("99H", 90_000, 100_000),
    ] {
        let mut request = to("test", proto::GetRequest { identity: "a".into() });
        request
            .metadata_mut()
            .insert("grpc-timeout", given.parse().unwrap());
        let started = tokio::time::Instant::now();
        failure(&fixture.service.get(request).await.unwrap_err());
        let took = started.elapsed().as_millis();
        assert!((from..=to_most).contains(&took), "{given}: {took} ms");
    }
}

/// A subscription whose opening never comes is not waited for without end.
#[tokio::test]
async fn a_subscription_that_is_never_opened_ends() {
    let fixture = fixture(|config| config.behavior.call_timeout = Duration::from_millis(200));
    let mut client = fixture.client().await;
    let request = to("test", tokio_stream::pending());
    let told = failure(&client.subscribe(request).await.unwrap_err());
    assert_eq!(told.reason, Reason::DeadlineExceeded);
    assert_eq!(fixture.coordinator.session_count(), 0);
}

/// A session ends when its client does.
#[tokio::test]
async fn a_session_ends_with_its_client() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    client
        .register(to("test", registration("a", &json!({}))))
        .await
        .unwrap();
    let open = proto::subscribe_request::Open {
        identity: "a".into(),
        ..Default::default()
    };
    let open = proto::SubscribeRequest {
        message: Some(proto::subscribe_request::Message::Open(open)),
    };
    let mut session = client
        .subscribe(to("test", tokio_stream::iter([open])))
        .await
        .unwrap()
        .into_inner();
    assert!(session.message().await.unwrap().is_some());
    assert_eq!(
        fixture.coordinator.session_count(),
        1,
        "a client that says no more still listens"
    );
    drop((session, client));
    while fixture.coordinator.session_count() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A defect of ours fails one call, says that nobody knows what it did, and harms no other one.
#[tokio::test]
async fn a_panic_fails_one_call() {
    let fixture = fixture(|_| {});
    fixture
        .service
        .register(to("test", registration("a", &json!({}))))
        .await
        .unwrap();
    fixture.broker.judge(|_| panic!("a defect"));
    let multicast = || to("test", proto::MulticastRequest::default());
    let told = failure(&fixture.service.multicast(multicast()).await.unwrap_err());
    assert_eq!((told.reason, told.applied), (Reason::Internal, Some(true)));
    assert!(fixture.service.multicast(multicast()).await.is_ok());
}
