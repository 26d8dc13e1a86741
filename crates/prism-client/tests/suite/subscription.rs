//! Sessions: what they yield, what they survive, what ends them.

use std::{future::ready, time::Duration};

use futures::stream;
use parking_lot::Mutex;
use prism_client::{
    Event, Gap, GapReason, Reason, RegisterRequest, Subscription,
    testing::{FakeRegistry, answers, in_turn},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{RegisterResponse, RenewResponse, SubscribeResponse};
use prism_testkit::FaultProxy;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::support::{PATIENCE, builder};

type Answer = Result<SubscribeResponse, tonic::Status>;

/// The sessions of a fake, in the order in which they are opened: what is sent into one arrives at its
/// subscriber.
struct Sessions(mpsc::UnboundedReceiver<mpsc::UnboundedSender<Answer>>);

impl Sessions {
    fn of(fake: &FakeRegistry) -> Self {
        let (sessions, opened) = mpsc::unbounded_channel();
        let number = Mutex::new(0);
        fake.on_subscribe(move |_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let mut number = number.lock();
            *number += 1;
            sender.send(Ok(answers::opened(*number))).unwrap();
            sessions.send(sender).unwrap();
            ready(Ok(UnboundedReceiverStream::new(receiver)))
        });
        Self(opened)
    }

    async fn next(&mut self) -> mpsc::UnboundedSender<Answer> {
        timeout(PATIENCE, self.0.recv()).await.unwrap().unwrap()
    }
}

async fn next(subscription: &mut Subscription) -> Event {
    timeout(PATIENCE, subscription.next())
        .await
        .expect("no event came")
        .unwrap()
        .unwrap()
}

async fn text(subscription: &mut Subscription) -> String {
    match next(subscription).await {
        Event::Message(message) => String::from_utf8(message.payload.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn assert_reopened(subscription: &mut Subscription, session_seq: u64) {
    let opened = next(subscription).await;
    assert!(
        matches!(opened, Event::Opened(opened) if opened.session_seq == session_seq),
        "{opened:?}"
    );
    let gap = Gap {
        dropped: 0,
        reason: GapReason::ConnectionLost,
    };
    assert_eq!(next(subscription).await, Event::Gap(gap));
}

fn failure(reason: Reason) -> tonic::Status {
    Failure::new(reason, "x").into()
}

#[tokio::test]
async fn messages_and_gaps_arrive_in_order() {
    let fake = FakeRegistry::start().await.unwrap();
    let mut sessions = Sessions::of(&fake);
    let client = builder(fake.endpoint())
        .namespace("presence")
        .connect()
        .await
        .unwrap();
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    let session = sessions.next().await;
    for answer in [
        answers::message("1"),
        answers::gap(3, "SLOW_CONSUMER"),
        answers::message("2"),
    ] {
        session.send(Ok(answer)).unwrap();
    }
    assert!(matches!(next(&mut subscription).await, Event::Opened(opened) if opened.session_seq == 1));
    assert_eq!(text(&mut subscription).await, "1");
    let gap = Gap {
        dropped: 3,
        reason: GapReason::SlowConsumer,
    };
    assert_eq!(next(&mut subscription).await, Event::Gap(gap));
    assert_eq!(text(&mut subscription).await, "2");
    let call = &fake.calls()[0];
    assert_eq!(call.metadata("x-prism-namespace"), Some("presence"));
    assert_eq!(call.metadata("grpc-timeout"), None, "a session has no end");
}

#[tokio::test]
async fn an_abandoned_next_loses_nothing() {
    let fake = FakeRegistry::start().await.unwrap();
    let mut sessions = Sessions::of(&fake);
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    next(&mut subscription).await;
    let session = sessions.next().await;
    for number in 0..50 {
        let waiting = timeout(Duration::from_micros(200 * (number % 5)), subscription.next()).await;
        assert!(waiting.is_err(), "nothing was sent");
        session.send(Ok(answers::message(&number.to_string()))).unwrap();
        assert_eq!(text(&mut subscription).await, number.to_string());
    }
    // And not in the middle of a reconnection either.
    drop(session);
    for _ in 0..20 {
        if let Ok(event) = timeout(Duration::from_millis(1), subscription.next()).await {
            assert!(matches!(event.unwrap().unwrap(), Event::Opened(_)));
            break;
        }
    }
    sessions.next().await.send(Ok(answers::message("after"))).unwrap();
    loop {
        if let Event::Message(message) = next(&mut subscription).await {
            assert_eq!(message.payload, "after");
            break;
        }
    }
}

#[tokio::test]
async fn a_session_outlives_draining_and_a_silent_end() {
    let fake = FakeRegistry::start().await.unwrap();
    let mut sessions = Sessions::of(&fake);
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    next(&mut subscription).await;
    sessions
        .next()
        .await
        .send(Err(failure(Reason::Draining)))
        .unwrap();
    assert_reopened(&mut subscription, 2).await;
    drop(sessions.next().await);
    assert_reopened(&mut subscription, 3).await;
    sessions
        .next()
        .await
        .send(Ok(answers::message("still here")))
        .unwrap();
    assert_eq!(text(&mut subscription).await, "still here");
}

#[tokio::test]
async fn a_session_outlives_its_connection() {
    let fake = FakeRegistry::start().await.unwrap();
    let mut sessions = Sessions::of(&fake);
    let proxy = FaultProxy::start(fake.address()).await.unwrap();
    let client = builder(format!("http://{}", proxy.addr()))
        .connect()
        .await
        .unwrap();
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    next(&mut subscription).await;
    let _first = sessions.next().await;
    proxy.refuse().await;
    proxy.cut();
    // It is away for a while.
    let early = timeout(Duration::from_millis(100), subscription.next()).await;
    assert!(early.is_err(), "{early:?}");
    proxy.accept().await.unwrap();
    assert_reopened(&mut subscription, 2).await;
    sessions.next().await.send(Ok(answers::message("back"))).unwrap();
    assert_eq!(text(&mut subscription).await, "back");
}

#[tokio::test]
async fn a_dead_connection_under_a_quiet_session_is_noticed() {
    let fake = FakeRegistry::start().await.unwrap();
    let mut sessions = Sessions::of(&fake);
    let proxy = FaultProxy::start(fake.address()).await.unwrap();
    let keepalive = Some((Duration::from_millis(100), Duration::from_millis(100)));
    let client = builder(format!("http://{}", proxy.addr()))
        .keepalive(keepalive)
        .connect()
        .await
        .unwrap();
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    next(&mut subscription).await;
    let _first = sessions.next().await;
    let before = proxy.accepted();
    proxy.black_hole();
    let noticed = async {
        // Nothing but the silence tells it; the new connection hears nothing either until it is healed.
        let dialled = || ready(proxy.accepted() > before);
        prism_testkit::eventually(PATIENCE, "another connection is made", dialled).await;
        proxy.cut();
        proxy.heal();
    };
    tokio::join!(assert_reopened(&mut subscription, 2), noticed);
}

#[tokio::test]
async fn the_end_of_the_registration_and_a_newer_session_are_the_end() {
    for reason in [Reason::Unregistered, Reason::Superseded] {
        let fake = FakeRegistry::start().await.unwrap();
        let mut sessions = Sessions::of(&fake);
        let client = builder(fake.endpoint()).connect().await.unwrap();
        let mut subscription = client.registry.subscribe("alice").await.unwrap();
        next(&mut subscription).await;
        sessions.next().await.send(Err(failure(reason))).unwrap();
        let end = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
        assert_eq!(end.unwrap_err().reason(), Some(reason));
        assert!(subscription.next().await.is_none());
        assert_eq!(fake.count("Subscribe"), 1, "it must not be opened again");
    }
}

#[tokio::test]
async fn a_subscription_stays_with_the_registration_that_it_found() {
    let fake = FakeRegistry::start().await.unwrap();
    let (asked, mut generations) = mpsc::unbounded_channel();
    let turns = in_turn([Ok(()), Err(failure(Reason::StaleGeneration))]);
    fake.on_subscribe(move |open| {
        asked.send(open.generation).unwrap();
        ready(turns().map(|()| stream::iter([Ok(answers::opened(1))])))
    });
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    next(&mut subscription).await;
    let end = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
    assert_eq!(end.unwrap_err().reason(), Some(Reason::StaleGeneration));
    assert_eq!(generations.recv().await.unwrap(), None);
    assert_eq!(generations.recv().await.unwrap(), Some(answers::position(1)));
}

#[tokio::test]
async fn a_mute_service_does_not_keep_an_opening_waiting_for_ever() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_subscribe(|_| ready(Ok(stream::pending::<Answer>())));
    let client = builder(fake.endpoint())
        .timeout(Duration::from_millis(300))
        .connect()
        .await
        .unwrap();
    let error = timeout(PATIENCE, client.registry.subscribe("alice"))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
}

#[tokio::test]
async fn dropping_a_subscription_ends_its_session() {
    let fake = FakeRegistry::start().await.unwrap();
    let mut sessions = Sessions::of(&fake);
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let subscription = client.registry.subscribe("alice").await.unwrap();
    let session = sessions.next().await;
    drop(subscription);
    timeout(PATIENCE, session.closed())
        .await
        .expect("the session is still open");
}

#[tokio::test]
async fn more_sessions_than_fit_a_connection_leave_room_for_calls() {
    let fake = FakeRegistry::start().await.unwrap();
    let mut sessions = Sessions::of(&fake);
    fake.on_get(|_| ready(Ok(answers::found("a"))));
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let mut held = Vec::new();
    for number in 0..450 {
        held.push((
            client.registry.subscribe(format!("user-{number}")).await.unwrap(),
            sessions.next().await,
        ));
    }
    client.registry.get("a").await.unwrap();
}

#[tokio::test]
async fn a_session_of_a_handle_comes_back_with_its_registration() {
    let fake = FakeRegistry::start().await.unwrap();
    let mut sessions = Sessions::of(&fake);
    let registered = [1, 9].map(|revision| {
        Ok(RegisterResponse {
            // Nothing is due while the test runs.
            renew_after_ms: Some(3_600_000),
            ..answers::registered(revision)
        })
    });
    let registered = in_turn(registered);
    fake.on_register(move |_| ready(registered()));
    fake.on_renew(|_| {
        let results = vec![answers::not_renewed("alice", Reason::NotRegistered)];
        ready(Ok(RenewResponse { results }))
    });
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let handle = client
        .registry
        .register_handle(RegisterRequest::new("alice"))
        .await
        .unwrap();
    let mut subscription = handle.subscribe().await.unwrap();
    next(&mut subscription).await;
    sessions
        .next()
        .await
        .send(Err(failure(Reason::Unregistered)))
        .unwrap();
    assert_reopened(&mut subscription, 2).await;
    assert_eq!(handle.registration().generation.revision, 9);
    assert_eq!(fake.count("Register"), 2);
}

#[tokio::test]
async fn a_session_of_a_handle_ends_when_the_registration_is_lost_for_good() {
    let fake = FakeRegistry::start().await.unwrap();
    let mut sessions = Sessions::of(&fake);
    fake.on_register(|_| ready(Ok(answers::registered(1))));
    fake.on_renew(|_| {
        let results = vec![answers::not_renewed("alice", Reason::StaleGeneration)];
        ready(Ok(RenewResponse { results }))
    });
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let handle = client
        .registry
        .register_handle(RegisterRequest::new("alice"))
        .await
        .unwrap();
    let mut subscription = handle.subscribe().await.unwrap();
    next(&mut subscription).await;
    sessions
        .next()
        .await
        .send(Err(failure(Reason::Unregistered)))
        .unwrap();
    let end = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
    assert_eq!(end.unwrap_err().reason(), Some(Reason::StaleGeneration));
}
