//! What moves from one stream to another is stored there before it is removed here, and a runner may end in between.

use std::time::Duration;

use prism_slot::{DeadLetter, DeadQuery, DurableInbox, InboxLimits, Redriven, Settled, Verdict};
use prism_slot_nats::JetStreamInbox;
use prism_testkit::{NatsServer, eventually};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{STORED, address, all, config, consumer, message, store, take, terms};
use crate::{LONG, SHORT, identity, soon};

/// What servers notice for how long, here.
const BRIEF: Duration = Duration::from_millis(100);

/// A server at which `half` may remove nothing from one of the streams, as if it ended before it did.
async fn server(stream: &str) -> NatsServer {
    let denied = format!("$JS.API.STREAM.MSG.DELETE.prism%2Equeue%-test%-{stream}");
    let half =
        format!("{{ user: half, password: p, permissions: {{ publish: {{ deny: [\"{denied}\"] }} }} }}");
    let rules =
        format!("jetstream: enabled, authorization {{ users: [{{ user: whole, password: p }}, {half}] }}");
    NatsServer::start_with(&rules).await.unwrap()
}

fn url(server: &NatsServer, user: &str) -> String {
    server.url().replace("://", &format!("://{user}:p@"))
}

async fn plain(server: &NatsServer) -> async_nats::Client {
    let login = async_nats::ConnectOptions::with_user_and_password("whole".into(), "p".into());
    login.connect(server.url()).await.unwrap()
}

async fn open_as(server: &NatsServer, user: &str) -> JetStreamInbox {
    let limits = InboxLimits {
        dedupe: BRIEF,
        ..InboxLimits::default()
    };
    JetStreamInbox::open("test", config(&url(server, user)), limits)
        .await
        .unwrap()
}

async fn dead(slot: &JetStreamInbox) -> Vec<DeadLetter> {
    let query = DeadQuery {
        limit: 100,
        ..DeadQuery::default()
    };
    slot.dead_letters(query, soon()).await.unwrap().letters
}

fn term() -> Verdict {
    Verdict::Term {
        reason: "no".to_owned(),
    }
}

/// Whatever a server knew of what was stored in a stream, it has forgotten when this returns.
async fn forgotten(client: &async_nats::Client, subject: &str) {
    let mut first = true;
    eventually(LONG, "the server forgets", || {
        let is_first = std::mem::take(&mut first);
        async move {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", "x");
            let stored = client
                .send_request(subject.to_owned(), async_nats::Request::new().headers(headers))
                .await
                .unwrap();
            let stored: Value = serde_json::from_slice(&stored.payload).unwrap();
            !is_first && stored["duplicate"].is_null()
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_buried_once_however_late_that_is_found_undone() {
    let server = server("messages").await;
    let (half, whole) = (open_as(&server, "half").await, open_as(&server, "whole").await);
    let client = plain(&server).await;
    let stream = "prism%2Equeue%-test%-dead";
    let info = client
        .request(format!("$JS.API.STREAM.INFO.{stream}"), "".into())
        .await
        .unwrap();
    let mut info: Value = serde_json::from_slice(&info.payload).unwrap();
    info["config"]["duplicate_window"] = json!(BRIEF.as_nanos() as u64);
    let config = serde_json::to_vec(&info["config"]).unwrap();
    let updated = client
        .request(format!("$JS.API.STREAM.UPDATE.{stream}"), config.into())
        .await
        .unwrap();
    assert!(!updated.payload.windows(7).any(|part| part == b"\"error\""));

    for name in ["a", "b"] {
        let sent = message("x");
        assert_eq!(store(&half, name, &sent, soon()).await, STORED);
        // What the other runner remembers of it will not be so.
        assert_eq!(take(&whole, name, 1).await.len(), 1);
        assert_eq!(take(&half, name, 2).await.len(), 1);
        let said = vec![(sent.multicast, term())];
        let settled = half
            .settle(&consumer(name, 2), said, Instant::now() + SHORT)
            .await;
        assert_eq!(settled.as_deref(), Ok(&[Settled::Done][..]));
        let depth = whole.depth(Some(&identity(name)), soon()).await.unwrap();
        assert_eq!((depth.messages, depth.dead), (1, 1), "not removed");
    }
    // Also where the letter has gone back before it was found.
    let letter = dead(&whole).await.remove(1);
    let back = whole
        .redrive(vec![(letter.id, address("b"))], terms(), soon())
        .await;
    assert_eq!(back, Ok(vec![Redriven::Back]));
    forgotten(&client, "prism.queue.test.d.%-").await;
    for (name, messages) in [("a", 0), ("b", 1)] {
        let came = take(&whole, name, 3).await.len() as u64;
        let depth = whole.depth(Some(&identity(name)), soon()).await.unwrap();
        assert_eq!(
            (came, depth.messages, depth.dead),
            (messages, messages, 1 - messages)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_may_have_gone_back_before_says_so() {
    let server = server("dead").await;
    let (half, whole) = (open_as(&server, "half").await, open_as(&server, "whole").await);
    let client = plain(&server).await;
    let (first, second) = (message("first"), message("second"));
    for sent in [&first, &second] {
        assert_eq!(store(&whole, "a", sent, soon()).await, STORED);
    }
    take(&whole, "a", 1).await;
    let said = vec![(first.multicast, term()), (second.multicast, term())];
    whole.settle(&consumer("a", 1), said, soon()).await.unwrap();
    let letters = dead(&whole).await;
    assert_eq!(letters.len(), 2);
    let redrive = async |slot: &JetStreamInbox, number: usize, deadline| {
        let letters = vec![(letters[number].id, address("a"))];
        slot.redrive(letters, terms(), deadline).await
    };
    let unknown = redrive(&half, 0, Instant::now() + SHORT).await;
    assert!(unknown.is_err(), "{unknown:?}");
    assert_eq!(redrive(&whole, 1, soon()).await, Ok(vec![Redriven::Back]));
    let deliveries = take(&whole, "a", 1).await;
    assert_eq!(deliveries.len(), 2);
    assert!(deliveries.iter().all(|delivery| !delivery.message.again));
    let said = vec![(first.multicast, Verdict::Ack), (second.multicast, Verdict::Ack)];
    whole.settle(&consumer("a", 1), said, soon()).await.unwrap();
    forgotten(&client, "prism.queue.test.m.%-.0").await;

    assert_eq!(redrive(&whole, 0, soon()).await, Ok(vec![Redriven::Back]));
    assert_eq!(fetched(&whole).await, [(first.multicast, true)]);
    assert_eq!(redrive(&whole, 0, soon()).await, Ok(vec![Redriven::Gone]));
    let notes = client
        .request("$JS.API.STREAM.INFO.prism%2Equeue%-test%-sessions", "".into())
        .await
        .unwrap();
    let notes: Value = serde_json::from_slice(&notes.payload).unwrap();
    assert_eq!(notes["state"]["messages"], 1, "the session, and nothing else");
}

/// What comes, and whether it says that it may have come before.
async fn fetched(slot: &JetStreamInbox) -> Vec<(prism_slot::MulticastId, bool)> {
    let fetched = slot.fetch(&consumer("a", 1), all(), soon()).await.unwrap();
    let deliveries = fetched.deliveries.iter();
    deliveries
        .map(|delivery| (delivery.message.multicast, delivery.message.again))
        .collect()
}
