//! What a consumer says about messages: when it is said, what is said again, what is kept from the consumer.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use prism_client::{
    Client, Credits, Error, Event, Message, Reason, Settled, SubscribeRequest, Subscription,
    testing::{FakeRegistry, Words, answers},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{
    SubscribeResponse,
    subscribe_request::{Message as Said, Open},
    subscribe_response::Message as Sent,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::support::{self, PATIENCE, builder};

type Answer = Result<SubscribeResponse, tonic::Status>;

/// One session, seen from the service.
struct Session {
    open: Open,
    answers: mpsc::UnboundedSender<Answer>,
    words: Words,
}

impl Session {
    fn send(&self, answer: SubscribeResponse) {
        self.answers.send(Ok(answer)).unwrap();
    }

    async fn hears(&mut self) -> Said {
        timeout(PATIENCE, self.words.recv())
            .await
            .expect("nothing was said")
            .expect("the session has ended")
    }

    /// What it hears next, but for credits.
    async fn hears_acks(&mut self) -> Vec<String> {
        loop {
            match self.hears().await {
                Said::Ack(ack) => return ack.delivery_ids,
                Said::Credit(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The sessions of a fake, in the order in which they are opened. Nothing is confirmed unless the test does.
struct Sessions(mpsc::UnboundedReceiver<Session>);

impl Sessions {
    fn of(fake: &FakeRegistry) -> Self {
        let (sessions, opened) = mpsc::unbounded_channel();
        let number = Mutex::new(0);
        fake.on_session(move |open, words| {
            let (answers, receiver) = mpsc::unbounded_channel();
            let mut number = number.lock();
            *number += 1;
            answers.send(Ok(answers::opened(*number))).unwrap();
            sessions.send(Session { open, answers, words }).unwrap();
            ready(Ok(UnboundedReceiverStream::new(receiver)))
        });
        Self(opened)
    }

    async fn next(&mut self) -> Session {
        timeout(PATIENCE, self.0.recv()).await.unwrap().unwrap()
    }
}

async fn started() -> (FakeRegistry, Sessions, Client) {
    let (fake, client) = support::started().await;
    let sessions = Sessions::of(&fake);
    (fake, sessions, client)
}

async fn message(subscription: &mut Subscription) -> Message {
    loop {
        let event = timeout(PATIENCE, subscription.next())
            .await
            .expect("no event came");
        if let Event::Message(message) = event.unwrap().unwrap() {
            return message;
        }
    }
}

#[tokio::test]
async fn every_word_is_said_and_tells_what_became_of_it() {
    let (_fake, mut sessions, client) = started().await;
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    let mut session = sessions.next().await;
    assert!(session.open.confirm);
    for text in ["a", "b", "c", "d"] {
        session.send(answers::stored_message(text, 1));
    }
    let mut messages = Vec::new();
    for _ in 0..4 {
        messages.push(message(&mut subscription).await);
    }
    assert!(messages[0].stored && messages[0].attempt == 1);

    let acked = messages[0].ack().await.unwrap();
    assert_eq!(session.hears_acks().await, ["m-1/a"]);
    session.send(answers::settled(&["m-1/a"]));
    assert_eq!(acked.settled().await.unwrap(), Settled::Done);

    messages[1].nack(Duration::from_secs(5)).await.unwrap();
    let Said::Nack(nack) = session.hears().await else {
        panic!()
    };
    assert_eq!(
        (nack.delivery_ids, nack.delay_ms),
        (vec!["m-1/b".to_owned()], 5_000)
    );
    messages[2].term("no such room").await.unwrap();
    let Said::Term(term) = session.hears().await else {
        panic!()
    };
    assert_eq!(
        (term.delivery_ids, term.reason.as_str()),
        (vec!["m-1/c".to_owned()], "no such room")
    );
    // From another task, as whoever works on it.
    let last = messages.pop().unwrap();
    let answered = tokio::spawn(async move { last.answer("done").await?.settled().await });
    let Said::Answer(answer) = session.hears().await else {
        panic!()
    };
    assert_eq!(
        (answer.delivery_id.as_str(), &*answer.payload),
        ("m-1/d", &b"done"[..])
    );
    assert_eq!(subscription.unsettled(), 3);
    let mut gone = answers::settled(&["m-1/b", "m-1/c"]);
    if let Some(Sent::Settled(settled)) = &mut gone.message {
        settled.gone_ids = vec!["m-1/d".to_owned()];
    }
    session.send(gone);
    assert_eq!(answered.await.unwrap().unwrap(), Settled::Gone);
    timeout(PATIENCE, subscription.close()).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_lost_session_has_not_confirmed_is_said_again_in_the_next_one() {
    let (_fake, mut sessions, client) = started().await;
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    let mut first = sessions.next().await;
    first.send(answers::stored_message("a", 1));
    first.send(answers::stored_message("b", 1));
    let (a, b) = (message(&mut subscription).await, message(&mut subscription).await);
    a.ack().await.unwrap();
    assert_eq!(first.hears_acks().await, ["m-1/a"]);
    drop(first);
    let acked = b.ack().await.unwrap();
    let mut second = sessions.next().await;
    let mut again = second.hears_acks().await;
    if again.len() < 2 {
        again.extend(second.hears_acks().await);
    }
    assert_eq!(again, ["m-1/a", "m-1/b"]);
    second.send(answers::settled(&["m-1/a", "m-1/b"]));
    assert_eq!(acked.settled().await.unwrap(), Settled::Done);
    assert_eq!(subscription.unsettled(), 0);
}

#[tokio::test]
async fn each_message_is_handed_out_until_it_is_acknowledged_and_not_after_that() {
    let (_fake, mut sessions, client) = started().await;
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    let mut session = sessions.next().await;
    session.send(answers::stored_message("a", 1));
    assert_eq!(message(&mut subscription).await.attempt, 1);
    session.send(answers::stored_message("a", 2));
    let again = message(&mut subscription).await;
    assert_eq!(again.attempt, 2, "nobody has acknowledged it");
    again.ack().await.unwrap();
    assert_eq!(session.hears_acks().await, ["m-1/a"]);
    // On its way while it was acknowledged, and then although that is settled.
    session.send(answers::stored_message("a", 3));
    session.send(answers::settled(&["m-1/a"]));
    session.send(answers::stored_message("a", 4));
    session.send(answers::stored_message("b", 1));
    assert_eq!(message(&mut subscription).await.payload, "b");
    assert_eq!(subscription.suppressed(), 2);
    assert_eq!(session.hears_acks().await, ["m-1/a"], "it is said once more");
    drop(session);
    // Nor in another session.
    let session = sessions.next().await;
    session.send(answers::stored_message("a", 5));
    session.send(answers::stored_message("c", 1));
    assert_eq!(message(&mut subscription).await.payload, "c");
    assert_eq!(subscription.suppressed(), 3);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let (_fake, mut sessions, client) = started().await;
    let request = SubscribeRequest {
        remember: 1,
        ..SubscribeRequest::from("alice")
    };
    let mut subscription = client.registry.subscribe(request).await.unwrap();
    let session = sessions.next().await;
    for text in ["a", "b"] {
        session.send(answers::stored_message(text, 1));
        message(&mut subscription).await.ack().await.unwrap();
        session.send(answers::settled(&[&format!("m-1/{text}")]));
    }
    timeout(PATIENCE, subscription.settled()).await.unwrap().unwrap();
    session.send(answers::stored_message("b", 2));
    session.send(answers::stored_message("a", 2));
    assert_eq!(message(&mut subscription).await.payload, "a");
    assert_eq!(subscription.suppressed(), 1);
}

#[tokio::test]
async fn a_consumer_that_does_not_read_is_not_sent_more_than_it_allows() {
    let (fake, mut sessions, client) = started().await;
    let request = SubscribeRequest {
        credits: Credits::Window(4),
        ..SubscribeRequest::from("alice")
    };
    let mut subscription = client.registry.subscribe(request).await.unwrap();
    let mut session = sessions.next().await;
    assert_eq!(session.open.credits, Some(4));
    for number in 0..4 {
        session.send(answers::stored_message(&number.to_string(), 1));
    }
    // The credits are used up, and what is said is heard all the same.
    let first = message(&mut subscription).await;
    let acked = first.ack().await.unwrap();
    session.hears_acks().await;
    session.send(answers::settled(&["m-1/0"]));
    assert_eq!(acked.settled().await.unwrap(), Settled::Done);
    for _ in 0..3 {
        message(&mut subscription).await;
    }
    let mut granted = 0;
    while granted < 4 {
        granted = fake.said().iter().fold(0, |granted, said| match said {
            Said::Credit(credit) => granted + credit.deliveries,
            _ => granted,
        });
        tokio::task::yield_now().await;
    }
    assert_eq!(granted, 4);
}

/// Confirmations come behind messages, and must not wait for those to be taken.
#[tokio::test]
async fn a_full_window_does_not_hold_up_confirmations() {
    let (_fake, mut sessions, client) = started().await;
    let request = SubscribeRequest {
        credits: Credits::Window(1),
        ..SubscribeRequest::from("alice")
    };
    let mut subscription = client.registry.subscribe(request).await.unwrap();
    let mut session = sessions.next().await;
    session.send(answers::stored_message("a", 1));
    let a = message(&mut subscription).await;
    session.send(answers::stored_message("b", 1));
    let acked = a.ack().await.unwrap();
    session.hears_acks().await;
    session.send(answers::settled(&["m-1/a"]));
    let settled = timeout(PATIENCE, acked.settled())
        .await
        .expect("it waits for `b`");
    assert_eq!(settled.unwrap(), Settled::Done);
}

#[tokio::test]
async fn a_service_that_sends_more_than_it_may_is_not_read() {
    const ALL: usize = 64;
    let fake = FakeRegistry::start().await.unwrap();
    let produced = Arc::new(AtomicUsize::new(0));
    let count = produced.clone();
    fake.on_subscribe(move |_| {
        let count = count.clone();
        let messages = stream::iter(0..ALL).map(move |number| {
            count.fetch_add(1, Ordering::Relaxed);
            let mut large = answers::message(&number.to_string());
            if let Some(Sent::Delivery(delivery)) = &mut large.message {
                delivery.payload = vec![0; 256 << 10].into();
            }
            large
        });
        let answers = stream::iter([answers::opened(1)]).chain(messages);
        ready(Ok(answers.map(Ok).chain(stream::pending())))
    });
    let client = builder(fake.endpoint()).connect().await.unwrap();
    let request = SubscribeRequest {
        credits: Credits::Window(2),
        ..SubscribeRequest::from("alice")
    };
    let mut subscription = client.registry.subscribe(request).await.unwrap();
    // Nothing says that no more will come, so this gives it the chance to.
    let mut seen = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen = produced.load(Ordering::Relaxed);
    }
    assert!(seen < ALL / 2, "{seen} were taken off it");
    for number in 0..ALL {
        assert_eq!(
            message(&mut subscription).await.delivery_id,
            format!("m-1/{number}")
        );
    }
}

#[tokio::test]
async fn manual_credits_are_given_by_the_consumer_alone() {
    let (_fake, mut sessions, client) = started().await;
    let request = SubscribeRequest {
        credits: Credits::Manual(1),
        ..SubscribeRequest::from("alice")
    };
    let mut subscription = client.registry.subscribe(request).await.unwrap();
    let mut session = sessions.next().await;
    assert_eq!(session.open.credits, Some(1));
    session.send(answers::message("a"));
    message(&mut subscription).await;
    subscription.grant(3);
    let Said::Credit(credit) = session.hears().await else {
        panic!()
    };
    assert_eq!(credit.deliveries, 3);
    session.send(answers::message("b"));
    message(&mut subscription).await;
    drop(session);
    assert_eq!(
        sessions.next().await.open.credits,
        Some(2),
        "they outlive a session"
    );
}

#[tokio::test]
async fn words_after_the_end_fail_with_what_ended_it() {
    let (_fake, mut sessions, client) = started().await;
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    let session = sessions.next().await;
    session.send(answers::stored_message("a", 1));
    let a = message(&mut subscription).await;
    let acked = a.ack().await.unwrap();
    let superseded = Failure::new(Reason::Superseded, "a newer session took over");
    session.answers.send(Err(superseded.into())).unwrap();
    let reason = |error: Error| error.reason();
    assert_eq!(
        reason(acked.settled().await.unwrap_err()),
        Some(Reason::Superseded)
    );
    assert_eq!(reason(a.ack().await.unwrap_err()), Some(Reason::Superseded));
    let end = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
    assert_eq!(reason(end.unwrap_err()), Some(Reason::Superseded));
    assert_eq!(
        reason(subscription.settled().await.unwrap_err()),
        Some(Reason::Superseded)
    );

    // What was confirmed before the end holds.
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    let session = sessions.next().await;
    session.send(answers::stored_message("a", 1));
    let acked = message(&mut subscription).await.ack().await.unwrap();
    session.send(answers::settled(&["m-1/a"]));
    acked.settled().await.unwrap();
    let superseded = Failure::new(Reason::Superseded, "a newer session took over");
    session.answers.send(Err(superseded.into())).unwrap();
    timeout(PATIENCE, subscription.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    timeout(PATIENCE, subscription.close()).await.unwrap().unwrap();

    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    let session = sessions.next().await;
    session.send(answers::stored_message("b", 1));
    let b = message(&mut subscription).await;
    drop(subscription);
    assert!(b.ack().await.unwrap_err().to_string().contains("dropped"));
}

#[tokio::test]
async fn what_would_end_the_session_is_not_said() {
    let (fake, mut sessions, client) = started().await;
    let mut subscription = client.registry.subscribe("alice").await.unwrap();
    let session = sessions.next().await;
    session.send(answers::message("a"));
    let a = message(&mut subscription).await;
    let field = |error: Error| error.field().map(str::to_owned);
    assert_eq!(
        field(a.nack(Duration::MAX).await.unwrap_err()).as_deref(),
        Some("delay")
    );
    assert_eq!(
        field(a.term("x".repeat(257)).await.unwrap_err()).as_deref(),
        Some("reason")
    );
    let large = vec![0_u8; (1 << 20) + 1];
    assert_eq!(
        field(a.answer(large).await.unwrap_err()).as_deref(),
        Some("payload")
    );
    let taken = prism_client::Answer {
        headers: [("Prism-Kind".to_owned(), "x".to_owned())].into(),
        ..Default::default()
    };
    assert_eq!(
        field(a.answer(taken).await.unwrap_err()).as_deref(),
        Some("headers")
    );
    assert!(fake.said().is_empty());
}

#[tokio::test]
async fn a_session_that_does_not_confirm_ends_in_time() {
    let (_fake, mut sessions, client) = started().await;
    let registry = client.registry.with_timeout(Duration::from_millis(200));
    let mut subscription = registry.subscribe("alice").await.unwrap();
    let session = sessions.next().await;
    session.send(answers::stored_message("a", 1));
    message(&mut subscription).await.ack().await.unwrap();
    let error = timeout(PATIENCE, subscription.close())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
}
