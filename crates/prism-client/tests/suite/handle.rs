//! Registrations that stay.

use std::{future::ready, sync::Arc, time::Duration};

use prism_client::{
    Reason, RegisterRequest, RegistrationHandle, State,
    testing::{FakeRegistry, answers, in_turn},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{self, RegisterResponse, RenewResponse};
use prism_testkit::FaultProxy;
use serde_json::json;
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

use crate::support::{PATIENCE, builder};

/// Short enough to be awaited.
const RENEW_AFTER_MS: i64 = 100;

fn registered(revision: u64) -> RegisterResponse {
    RegisterResponse {
        renew_after_ms: Some(RENEW_AFTER_MS),
        ..answers::registered(revision)
    }
}

fn renewed(request: &pattern::RenewRequest) -> RenewResponse {
    let result = |lease: &pattern::renew_request::Lease| pattern::renew_response::Result {
        renew_after_ms: Some(RENEW_AFTER_MS),
        ..answers::renewed(&lease.identity)
    };
    RenewResponse {
        results: request.leases.iter().map(result).collect(),
    }
}

async fn changed(handle: &mut RegistrationHandle) -> State {
    timeout(PATIENCE, handle.changed())
        .await
        .expect("the state did not change")
}

#[tokio::test]
async fn the_handles_of_one_client_are_renewed_in_one_call_under_their_generations() {
    let fake = FakeRegistry::start().await.unwrap();
    let (sent, mut calls) = mpsc::unbounded_channel();
    fake.on_register(|_| ready(Ok(registered(4))));
    fake.on_renew(move |request| {
        let request = request.into_inner();
        let answer = renewed(&request);
        sent.send(request.leases).unwrap();
        ready(Ok(answer))
    });
    let client = builder(fake.endpoint())
        .namespace("presence")
        .connect()
        .await
        .unwrap();
    let mut handles = Vec::new();
    for name in ["a", "b", "c"] {
        handles.push(
            client
                .registry
                .register_handle(RegisterRequest::new(name))
                .await
                .unwrap(),
        );
    }
    // The first round may begin before the last handle is there.
    for _ in 0..10 {
        let mut leases = timeout(PATIENCE, calls.recv()).await.unwrap().unwrap();
        leases.sort_by(|one, other| one.identity.cmp(&other.identity));
        assert!(
            leases
                .iter()
                .all(|lease| lease.generation == Some(answers::position(4)))
        );
        if leases
            .iter()
            .map(|lease| lease.identity.as_str())
            .eq(["a", "b", "c"])
        {
            assert_eq!(
                fake.calls().last().unwrap().metadata("x-prism-namespace"),
                Some("presence")
            );
            return;
        }
    }
    panic!("no call renewed all three");
}

#[tokio::test]
async fn closing_unregisters_this_registration_and_ends_the_renewals() {
    let fake = FakeRegistry::start().await.unwrap();
    let (sent, mut unregistered) = mpsc::unbounded_channel();
    fake.on_register(|_| ready(Ok(registered(7))));
    fake.on_renew(|request| ready(Ok(renewed(request.get_ref()))));
    fake.on_unregister(move |request| {
        sent.send(request.into_inner()).unwrap();
        ready(Ok(answers::unregistered(true)))
    });
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let handle = client
        .registry
        .register_handle(RegisterRequest::new("a"))
        .await
        .unwrap();
    assert!(handle.close().await.unwrap());
    let request = unregistered.recv().await.unwrap();
    assert_eq!(
        (request.identity.as_str(), request.generation),
        ("a", Some(answers::position(7)))
    );
    let renewals = fake.count("Renew");
    tokio::time::sleep(Duration::from_millis(3 * RENEW_AFTER_MS as u64)).await;
    assert_eq!(fake.count("Renew"), renewals);
}

#[tokio::test]
async fn dropping_a_handle_only_ends_the_renewals() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_register(|_| ready(Ok(registered(7))));
    fake.on_renew(|request| ready(Ok(renewed(request.get_ref()))));
    let client = builder(fake.endpoint()).connect().await.unwrap();
    drop(
        client
            .registry
            .register_handle(RegisterRequest::new("a"))
            .await
            .unwrap(),
    );
    tokio::time::sleep(Duration::from_millis(3 * RENEW_AFTER_MS as u64)).await;
    assert_eq!((fake.count("Renew"), fake.count("Unregister")), (0, 0));
}

#[tokio::test]
async fn an_outage_shows_and_passes() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_register(|_| ready(Ok(registered(1))));
    fake.on_renew(|request| ready(Ok(renewed(request.get_ref()))));
    let proxy = FaultProxy::start(fake.address()).await.unwrap();
    let client = builder(format!("http://{}", proxy.addr()))
        .connect()
        .await
        .unwrap();
    let mut handle = client
        .registry
        .register_handle(RegisterRequest::new("a"))
        .await
        .unwrap();
    proxy.refuse().await;
    proxy.cut();
    let state = changed(&mut handle).await;
    assert!(
        matches!(&state, State::Failing { error, .. } if error.is_transient()),
        "{state:?}"
    );
    proxy.accept().await.unwrap();
    assert!(matches!(changed(&mut handle).await, State::Live));
    assert_eq!(
        fake.count("Register"),
        1,
        "an outage is no reason to register again"
    );
}

#[tokio::test]
async fn what_was_lost_is_registered_again_with_the_metadata_that_it_had_last() {
    let fake = FakeRegistry::start().await.unwrap();
    let (sent, mut metadata) = mpsc::unbounded_channel();
    let turns = in_turn([Ok(registered(1)), Ok(registered(5))]);
    fake.on_register(move |request| {
        let request = request.into_inner();
        sent.send((request.metadata.contains_key("status"), request.replace))
            .unwrap();
        ready(turns())
    });
    fake.on_update(|_| ready(Ok(answers::updated("a"))));
    let lost = in_turn([Err(()), Ok(())].map(|turn| turn.map_err(|()| tonic::Status::not_found(""))));
    fake.on_renew(move |request| {
        let gone = vec![answers::not_renewed("a", Reason::EpochChanged)];
        ready(Ok(match lost() {
            Err(status) if status.code() == tonic::Code::NotFound => RenewResponse { results: gone },
            _ => renewed(request.get_ref()),
        }))
    });
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let request = RegisterRequest {
        metadata: json!({}),
        replace: true,
        ..RegisterRequest::new("a")
    };
    let handle = client.registry.register_handle(request).await.unwrap();
    handle.update(json!({"status": "online"})).await.unwrap();
    assert_eq!(metadata.recv().await.unwrap(), (false, true));
    let again = timeout(PATIENCE, metadata.recv()).await.unwrap().unwrap();
    assert_eq!(
        again,
        (true, false),
        "with the new metadata, and taking it from nobody"
    );
}

#[tokio::test]
async fn who_is_superseded_says_so_and_leaves_the_new_owner_alone() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_register(|_| ready(Ok(registered(1))));
    fake.on_renew(|_| {
        let results = vec![answers::not_renewed("a", Reason::StaleGeneration)];
        ready(Ok(RenewResponse { results }))
    });
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let mut handle = client
        .registry
        .register_handle(RegisterRequest::new("a"))
        .await
        .unwrap();
    let state = changed(&mut handle).await;
    assert!(
        matches!(&state, State::Lost { error } if error.reason() == Some(Reason::StaleGeneration)),
        "{state:?}"
    );
    assert!(!handle.close().await.unwrap());
    assert_eq!((fake.count("Register"), fake.count("Unregister")), (1, 0));
}

#[tokio::test]
async fn who_is_taken_over_just_before_closing_removes_nothing() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_register(|_| ready(Ok(answers::registered(1))));
    fake.on_unregister(|_| {
        ready(Err(Failure::new(Reason::StaleGeneration, "not yours")
            .not_applied()
            .into()))
    });
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let handle = client
        .registry
        .register_handle(RegisterRequest::new("a"))
        .await
        .unwrap();
    assert!(!handle.close().await.unwrap());
}

#[tokio::test]
async fn closing_waits_for_a_registration_under_way_and_removes_that_one() {
    let fake = FakeRegistry::start().await.unwrap();
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let turns = in_turn([Ok(registered(1)), Ok(registered(5))]);
    fake.on_register(move |_| {
        let answer = turns();
        let again = answer
            .as_ref()
            .is_ok_and(|answer| answer.generation == Some(answers::position(5)));
        let released = released.clone();
        async move {
            if again {
                released.notified().await;
            }
            answer
        }
    });
    fake.on_renew(|_| {
        let results = vec![answers::not_renewed("a", Reason::NotRegistered)];
        ready(Ok(RenewResponse { results }))
    });
    let (sent, mut unregistered) = mpsc::unbounded_channel();
    fake.on_unregister(move |request| {
        sent.send(request.into_inner().generation).unwrap();
        ready(Ok(answers::unregistered(true)))
    });
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let handle = client
        .registry
        .register_handle(RegisterRequest::new("a"))
        .await
        .unwrap();
    prism_testkit::eventually(PATIENCE, "it is being registered again", || {
        ready(fake.count("Register") == 2)
    })
    .await;

    let mut close = Box::pin(handle.close());
    let early = timeout(Duration::from_millis(200), &mut close).await;
    assert!(early.is_err(), "what is registered after the removal would stay");
    assert_eq!(fake.count("Unregister"), 0);
    release.notify_one();
    assert!(timeout(PATIENCE, close).await.unwrap().unwrap());
    assert_eq!(unregistered.recv().await.unwrap(), Some(answers::position(5)));
}
