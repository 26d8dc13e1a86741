//! What is stored: as much as there is in the inboxes, once, under names that an operator finds.

use std::time::Duration;

use prism_slot::{
    DeadQuery, DurableInbox, Enqueued, Fetch, InboxLimits, Message, Overflow, Priority, Terms, Verdict,
};
use prism_slot_redis::{ConnectionConfig, RedisLedger};
use prism_testkit::RedisServer;
use serde_json::json;

use super::{super::support, *};

/// All keys, the head and the sessions aside.
pub(super) async fn keys(admin: &Admin) -> Vec<String> {
    let all = admin.run(&["KEYS", "*"]).await.into_array();
    let all = all.into_iter().filter_map(|name| name.as_string());
    let mut keys: Vec<String> = all
        .filter(|name| *name != key("head") && *name != key("sessions"))
        .collect();
    keys.sort();
    keys
}

pub(super) async fn number(admin: &Admin, words: &[&str]) -> u64 {
    admin.run(words).await.as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_is_a_stream_that_an_operator_finds() {
    let server = RedisServer::start().await.unwrap();
    let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    let sent = message("hello");
    assert_eq!(store(&slot, "device-1", &sent).await, STORED);
    let stream = key("normal:device-1");
    assert_eq!(number(&admin, &["XLEN", &stream]).await, 1);
    let entries = admin.run(&["XRANGE", &stream, "-", "+"]).await.into_array();
    let fields = entries[0].clone().into_array()[1].clone().into_array();
    let reference = fields[1].as_string().unwrap();
    assert_eq!(
        (fields[0].as_string().unwrap().as_str(), &reference[..32]),
        ("m", sent.multicast.to_string().as_str())
    );
    let body = admin.run(&["GET", &key(&format!("body:{reference}"))]).await;
    assert!(body.into_bytes().unwrap().ends_with(b"hello"));
}

/// Nothing is kept for an identity but a field for its session, and nothing of a message but that it was stored, for
/// as long as that is to be known.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_leaves_nothing() {
    let server = RedisServer::start().await.unwrap();
    let limits = InboxLimits {
        dedupe: Duration::from_secs(60),
        ..InboxLimits::default()
    };
    let slot = open_with(server.addr(), json!({}), limits).await;
    let admin = Admin::to(server.addr()).await;
    let sent = message("x");
    let to = addresses(300);
    let outcomes = slot.enqueue(&to, sent.clone(), terms(), soon()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == STORED));
    for (number, address) in to.iter().enumerate() {
        let consumer = consume(&slot, address.identity.as_str(), 1).await;
        assert_eq!(fetch(&slot, &consumer).await.deliveries.len(), 1);
        let verdict = match number % 3 {
            0 => Verdict::Ack,
            1 => Verdict::Nack {
                delay: Duration::ZERO,
            },
            _ => continue,
        };
        settle(&slot, &consumer, &sent, verdict).await;
        if number % 3 == 1 {
            fetch(&slot, &consumer).await;
        }
    }
    for address in &to {
        slot.settle(
            &consumer(address.identity.as_str(), 1),
            vec![(sent.multicast, Verdict::Ack)],
            soon(),
        )
        .await
        .unwrap();
    }
    let left = keys(&admin).await;
    assert_eq!(left, [key("ends"), key(&format!("message:{}", sent.multicast))]);
    assert_eq!(number(&admin, &["HLEN", &key("sessions")]).await, 300);
    assert_eq!(
        slot.enqueue(&to[..1], sent.clone(), terms(), soon()).await,
        [Enqueued::Duplicate]
    );

    pass(&admin, Duration::from_secs(61)).await;
    while slot.sweep(soon()).await.unwrap().more {}
    assert_eq!(keys(&admin).await, [""; 0], "that it was stored is forgotten");
    for address in &to {
        slot.discard(address, soon()).await.unwrap();
    }
    assert_eq!(number(&admin, &["EXISTS", &key("sessions")]).await, 0);
}

/// However a message ends, its body goes with the last one that holds it, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_stored_once_and_freed_with_its_last_inbox() {
    let server = RedisServer::start().await.unwrap();
    let limits = InboxLimits {
        max_messages: 2,
        overflow: Overflow::DropOldest,
        max_dead_letters: 1,
        ..InboxLimits::default()
    };
    let slot = open_with(server.addr(), json!({}), limits).await;
    let admin = Admin::to(server.addr()).await;
    let bodies = async || {
        let all = keys(&admin).await;
        let bodies = all.iter().filter(|name| name.starts_with(&key("body:"))).count();
        // The head counts them: by that it is known that no inbox is full.
        let head = admin.run(&["GET", &key("head")]).await.into_bytes().unwrap();
        assert_eq!(head[69..77], (bodies as u64).to_be_bytes());
        bodies
    };
    let sent = message(&"x".repeat(10_000));
    let names = [
        "acked",
        "given up",
        "cancelled",
        "discarded",
        "displaced",
        "expired",
        "left",
    ];
    let to: Vec<_> = names.map(address).into();
    let brief = Terms {
        ttl: Duration::from_secs(5),
        ..terms()
    };
    slot.enqueue(&to[..5], sent.clone(), terms(), soon()).await;
    slot.enqueue(&to[5..6], sent.clone(), brief, soon()).await;
    slot.enqueue(&to[6..], sent.clone(), terms(), soon()).await;
    assert_eq!(bodies().await, 1);
    let size = number(&admin, &["MEMORY", "USAGE", &stream_of("left")]).await;
    assert!(size < 9_000, "an entry is a reference: {size} bytes");

    let acked = consume(&slot, "acked", 1).await;
    fetch(&slot, &acked).await;
    assert_eq!(settle(&slot, &acked, &sent, Verdict::Ack).await, Settled::Done);
    let given_up = consume(&slot, "given up", 1).await;
    fetch(&slot, &given_up).await;
    let reason = String::new();
    let term = Verdict::Term { reason };
    assert_eq!(settle(&slot, &given_up, &sent, term).await, Settled::Done);
    let cancelled = slot
        .cancel(sent.multicast, &[to[2].identity.clone()], soon())
        .await;
    assert_eq!(cancelled, [Ok(true)]);
    assert_eq!(slot.discard(&to[3], soon()).await.unwrap().dropped.len(), 1);
    for _ in 0..2 {
        store(&slot, "displaced", &message("small")).await;
    }
    pass(&admin, Duration::from_secs(6)).await;
    assert_eq!(slot.sweep(soon()).await.unwrap().expired.len(), 1);
    assert_eq!(bodies().await, 3, "beside the small ones");
    let left = consume(&slot, "left", 1).await;
    assert_eq!(
        fetch(&slot, &left).await.deliveries[0].message,
        sent,
        "it is held to the last"
    );
    settle(&slot, &left, &sent, Verdict::Ack).await;
    let query = DeadQuery {
        limit: 10,
        ..DeadQuery::default()
    };
    let dead = slot.dead_letters(query, soon()).await.unwrap().letters;
    assert_eq!(dead[0].message, sent, "also by a dead letter");
    // Another one takes its place.
    let other = message("other");
    store(&slot, "given up", &other).await;
    let reason = String::new();
    fetch(&slot, &given_up).await;
    settle(&slot, &given_up, &other, Verdict::Term { reason }).await;
    let all = keys(&admin).await;
    let of_sent = format!("body:{}", sent.multicast);
    assert!(
        all.iter().all(|name| !name.starts_with(&key(&of_sent))),
        "{all:?}"
    );
    assert_eq!(bodies().await, 3, "the small ones, and the other one");
}

pub(super) fn stream_of(name: &str) -> String {
    key(&format!("normal:{name}"))
}

/// A message may be sent again by somebody else, who wants to hear of it elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn each_inbox_has_the_message_that_was_stored_in_it() {
    let server = RedisServer::start().await.unwrap();
    let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    let first = message("x");
    let second = Arc::new(Message {
        receipts: Some("elsewhere".into()),
        ..(*first).clone()
    });
    slot.enqueue(&[address("a")], first.clone(), terms(), soon())
        .await;
    let outcomes = slot
        .enqueue(&[address("a"), address("b")], second.clone(), terms(), soon())
        .await;
    assert_eq!(outcomes, [Enqueued::Duplicate, STORED]);
    for (name, expected) in [("a", first), ("b", second)] {
        let consumer = consume(&slot, name, 1).await;
        assert_eq!(fetch(&slot, &consumer).await.deliveries[0].message, expected);
        settle(&slot, &consumer, &expected, Verdict::Ack).await;
    }
    let all = keys(&admin).await;
    assert!(all.iter().all(|name| !name.contains("body:")), "{all:?}");
}

/// A large body travels once, whatever the number of inboxes, unless all who had it have let go of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_sent_once() {
    let server = RedisServer::start().await.unwrap();
    let proxy = prism_testkit::FaultProxy::start(server.addr()).await.unwrap();
    let slot = open_with(proxy.addr(), json!({}), InboxLimits::default()).await;
    let before = proxy.forwarded(prism_testkit::Direction::ToServer);
    let sent = message(&"x".repeat(500_000));
    let outcomes = slot
        .enqueue(&addresses(1_000), sent.clone(), terms(), soon())
        .await;
    assert!(outcomes.iter().all(|outcome| *outcome == STORED));
    let bytes = proxy.forwarded(prism_testkit::Direction::ToServer) - before;
    assert!(bytes < 700_000, "{bytes} bytes");
    let last = consume(&slot, "id-00999", 1).await;
    assert_eq!(fetch(&slot, &last).await.deliveries[0].message, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_an_inbox_and_a_ledger_share_a_server() {
    let server = RedisServer::start().await.unwrap();
    let registry = support::open(server.addr()).await;
    let inbox = open(server.addr()).await;
    let connection: ConnectionConfig = config(server.addr(), json!({})).connection();
    let beside_inbox = RedisLedger::open(NAMESPACE, connection).await.unwrap();
    let beside_registry = support::config(server.addr(), json!({})).connection();
    let beside_registry = RedisLedger::open(NAMESPACE, beside_registry).await.unwrap();
    support::register(&registry, support::request("a")).await.unwrap();
    assert_eq!(store(&inbox, "a", &message("x")).await, STORED);
    let write = prism_slot::Write {
        key: "a".into(),
        expect: prism_slot::Expect::Absent,
        body: Some("x".into()),
        ttl: SOON,
    };
    let written = prism_slot::Ledger::write(&beside_inbox, vec![write], soon()).await;
    assert!(written[0].is_ok(), "{written:?}");
    let read = prism_slot::Ledger::read(&beside_registry, vec!["a".into()], soon())
        .await
        .unwrap();
    assert_eq!(
        read[0].as_ref().unwrap().body,
        "x",
        "one ledger, whichever slot it is beside"
    );
    assert!(support::get(&registry, "a").await.is_some());
    assert_eq!(inbox.depth(None, soon()).await.unwrap().messages, 1);
    let admin = Admin::to(server.addr()).await;
    let libraries = admin.run(&["FUNCTION", "LIST"]).await.into_array();
    assert_eq!(libraries.len(), 3, "each brings its own functions");
}

/// The server's clock goes back by an hour: nobody's timeouts wait for it to come round again.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_stops_nothing() {
    let server = RedisServer::start().await.unwrap();
    let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    let (first, second) = (message("first"), message("second"));
    store(&slot, "a", &first).await;
    let consumer = consume(&slot, "a", 1).await;
    let patient = Fetch {
        ack_timeout: Duration::from_secs(60),
        ..all()
    };
    slot.fetch(&consumer, patient, soon()).await.unwrap();
    // Whoever saw a later time is one whose clock has since gone back.
    let (now, seen) = clock(&admin).await;
    set_clock(&admin, NAMESPACE, now, seen + 3_600_000).await;
    assert_eq!(store(&slot, "a", &second).await, STORED, "ids go on");
    assert_eq!(texts(&fetch(&slot, &consumer).await), ["second"]);
    pass(&admin, Duration::from_secs(61)).await;
    assert_eq!(
        texts(&fetch(&slot, &consumer).await),
        ["first", "second"],
        "and so does time"
    );
    let brief = Terms {
        ttl: Duration::from_secs(10),
        priority: Priority::High,
    };
    slot.enqueue(&[address("b")], message("brief"), brief, soon())
        .await;
    pass(&admin, Duration::from_secs(11)).await;
    assert_eq!(slot.sweep(soon()).await.unwrap().expired.len(), 1);
}
