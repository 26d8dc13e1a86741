//! Sessions that have gone leave nothing.

use std::time::Duration;

use bytes::Bytes;
use prism_slot::{DurableInbox, Error, Fetch, InboxLimits, Terms, Verdict};
use prism_slot_nats::JetStreamInbox;
use prism_testkit::{NatsServer, eventually};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{STORED, address, all, config, consumer, message, store, take, terms};
use crate::{LONG, identity, plain, soon};

const IDLE: Duration = Duration::from_secs(1);
const SESSIONS: &str = "prism%2Equeue%-test%-sessions";

async fn open(server: &NatsServer) -> JetStreamInbox {
    let limits = InboxLimits {
        idle: IDLE,
        ..InboxLimits::default()
    };
    JetStreamInbox::open("test", config(&server.url()), limits)
        .await
        .unwrap()
}

/// What JetStream answers about the stream of sessions.
async fn ask(client: &async_nats::Client, what: &str, body: &Value) -> Value {
    let subject = format!("$JS.API.STREAM.{what}.{SESSIONS}");
    let answer = client.request(subject, Bytes::from(body.to_string())).await;
    let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
    assert_eq!(answer["error"], Value::Null);
    answer
}

async fn records(client: &async_nats::Client) -> u64 {
    let info = ask(client, "INFO", &json!({})).await;
    info["state"]["messages"].as_u64().unwrap()
}

/// Whatever they did, and not before they were silent for long.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_have_gone_are_forgotten() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let (slot, client) = (open(&server).await, plain(&server).await);
    let (sent, to) = (message("x"), ["acked", "cancelled"].map(address));
    let brief = Terms { ttl: IDLE, ..terms() };
    let outcomes = slot.enqueue(&to, sent.clone(), brief, soon()).await;
    assert_eq!(outcomes, [STORED; 2]);
    assert_eq!(take(&slot, "acked", 1).await.len(), 1);
    let ack = vec![(sent.multicast, Verdict::Ack)];
    slot.settle(&consumer("acked", 1), ack, soon()).await.unwrap();
    slot.open(&consumer("cancelled", 1), soon()).await.unwrap();
    let name = [identity("cancelled")];
    assert_eq!(slot.cancel(sent.multicast, &name, soon()).await, [Ok(true)]);
    slot.open(&consumer("there", 2), soon()).await.unwrap();
    assert_eq!(records(&client).await, 3);

    let begun = Instant::now();
    while begun.elapsed() < 4 * IDLE {
        let fetched = slot.fetch(&consumer("there", 2), all(), soon()).await;
        assert_eq!(fetched.map(|fetched| fetched.deliveries), Ok(vec![]));
        sleep(IDLE / 10).await;
    }
    let earlier = slot.open(&consumer("there", 1), soon()).await;
    assert_eq!(earlier, Err(Error::Fenced(identity("there"))));
    eventually(LONG, "of the others nothing is left", || async {
        records(&client).await <= 1
    })
    .await;
    eventually(LONG, "nor of it", || async { records(&client).await == 0 }).await;
    let heard = slot.fetch(&consumer("there", 2), all(), soon()).await;
    assert_eq!(heard, Err(Error::Fenced(identity("there"))));
    assert_eq!(store(&slot, "there", &sent, soon()).await, STORED);
    assert_eq!(take(&slot, "there", 2).await.len(), 1);
}

/// What is out is counted for as long as it lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_not_forgotten_before_what_it_has() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let slot = open(&server).await;
    assert_eq!(store(&slot, "a", &message("x"), soon()).await, STORED);
    let fetch = Fetch {
        ack_timeout: Duration::from_millis(1),
        ..all()
    };
    slot.open(&consumer("a", 1), soon()).await.unwrap();
    for attempt in 1..=2 {
        let fetched = slot.fetch(&consumer("a", 1), fetch, soon()).await.unwrap();
        assert_eq!(fetched.deliveries[0].attempt, attempt);
        sleep(3 * IDLE).await;
    }
    // Nor by another runner, which knows the record only as it is stored.
    let other = open(&server).await;
    assert_eq!(take(&other, "a", 2).await[0].attempt, 3);
    sleep(3 * IDLE).await;
    assert_eq!(take(&slot, "a", 3).await[0].attempt, 4);
}

/// A stream of the version before, and what that had stored there.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_the_version_before_are_forgotten_once_they_were_heard_of() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let (slot, client) = (open(&server).await, plain(&server).await);
    slot.open(&consumer("a", 1), soon()).await.unwrap();
    let found = ask(&client, "MSG.GET", &json!({ "seq": 1 })).await;
    let mut stream = ask(&client, "INFO", &json!({})).await["config"].take();
    slot.close().await;
    ask(&client, "DELETE", &json!({})).await;
    let of_before = stream.as_object_mut().unwrap();
    assert_eq!(of_before.remove("allow_msg_ttl"), Some(json!(true)));
    ask(&client, "CREATE", &stream).await;
    let (subject, body) = (&found["message"]["subject"], &found["message"]["data"]);
    let body = base64(body.as_str().unwrap());
    let subject = subject.as_str().unwrap().to_owned();
    client.request(subject, body.into()).await.unwrap();

    let slot = open(&server).await;
    assert_eq!(records(&client).await, 1);
    slot.fetch(&consumer("a", 1), all(), soon()).await.unwrap();
    eventually(LONG, "nothing is left", || async { records(&client).await == 0 }).await;
}

fn base64(text: &str) -> Vec<u8> {
    use ::base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(text).unwrap()
}
