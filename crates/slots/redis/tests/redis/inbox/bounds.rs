//! However much there is, no call holds the server up for long.

use std::{collections::BTreeSet, time::Duration};

use prism_slot::{
    DeadQuery, DeadReason, DurableInbox, Enqueued, Error, Fetch, Holder, InboxLimits, Overflow, Redriven,
    Terms, Verdict,
};
use prism_testkit::RedisServer;
use serde_json::json;

use super::{super::support::Admin, layout::number, *};

/// More than any call looks at.
const MANY: usize = 3_000;
/// How many messages one call ends at most, and some more.
const STEP: usize = 200;

fn roomy() -> InboxLimits {
    InboxLimits {
        max_messages: 1_000_000,
        max_dead_letters: 1_000_000,
        ..InboxLimits::default()
    }
}

fn brief() -> Terms {
    Terms {
        ttl: Duration::from_secs(5),
        ..terms()
    }
}

pub(super) fn of_another(mut address: Address) -> Address {
    address.holder = Holder([2; 16]);
    address
}

/// So many different messages in one inbox.
pub(super) async fn fill(slot: &RedisInbox, address: &Address, count: usize, terms: Terms) {
    for first in (0..count).step_by(100) {
        let some = (first..count.min(first + 100)).map(|number| {
            let to = [address.clone()];
            async move {
                slot.enqueue(&to, message(&number.to_string()), terms, soon())
                    .await
            }
        });
        let outcomes = futures::future::join_all(some).await;
        assert!(outcomes.iter().all(|outcome| *outcome == [STORED]));
    }
}

/// How many functions were called so far.
async fn calls(admin: &Admin) -> usize {
    let stats = admin.run(&["INFO", "commandstats"]).await.as_string().unwrap();
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_fcall:calls="));
    line.and_then(|line| line.split(',').next()?.parse().ok())
        .unwrap_or(0)
}

async fn roomy_slot() -> (RedisServer, RedisInbox, Admin) {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({}), roomy()).await;
    let admin = Admin::to(server.addr()).await;
    (server, slot, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_inbox_changes_hands_in_steps() {
    let (_server, slot, admin) = roomy_slot().await;
    fill(&slot, &address("a"), MANY, terms()).await;
    let mut other = consumer("a", 2);
    other.address = of_another(other.address);
    let before = calls(&admin).await;
    slot.open(&other, soon()).await.unwrap();
    assert!(calls(&admin).await - before > MANY / STEP, "not all at once");
    assert_eq!(fetch(&slot, &other).await.deliveries, [], "nothing is inherited");
    let depth = slot.depth(None, soon()).await.unwrap();
    assert_eq!((depth.messages, depth.dead), (0, MANY as u64));
    let query = DeadQuery {
        limit: 100,
        ..DeadQuery::default()
    };
    let page = slot.dead_letters(query.clone(), soon()).await.unwrap();
    assert!(
        page.more
            && page
                .letters
                .iter()
                .all(|letter| letter.reason == DeadReason::OtherHolder)
    );
    // Far behind the others.
    store(&slot, "b", &message("b")).await;
    let consumer = consume(&slot, "b", 1).await;
    let last = fetch(&slot, &consumer).await.deliveries[0].message.clone();
    let reason = String::new();
    settle(&slot, &consumer, &last, Verdict::Term { reason }).await;
    let whose = DeadQuery {
        identity: Some(identity("b")),
        ..query.clone()
    };
    let page = slot.dead_letters(whose, soon()).await.unwrap();
    assert_eq!((page.letters.len(), page.more), (1, false));
    assert_eq!(page.letters[0].message, last);

    let few = InboxLimits {
        max_dead_letters: 5,
        ..roomy()
    };
    slot.configure(few, soon()).await.unwrap();
    let before = calls(&admin).await;
    while slot.sweep(soon()).await.unwrap().more {}
    assert!(calls(&admin).await - before > MANY / STEP, "not all at once");
    assert_eq!(slot.depth(None, soon()).await.unwrap().dead, 5);
    let left = slot.dead_letters(query, soon()).await.unwrap().letters;
    assert_eq!((left.len(), &left[4].message), (5, &last));
}

/// Somebody whose opening was not finished is not the consumer.
#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_is_not_finished_hands_nothing_out() {
    let (_server, slot, _admin) = roomy_slot().await;
    fill(&slot, &address("a"), MANY, terms()).await;
    let mut other = consumer("a", 2);
    other.address = of_another(other.address);
    // It takes more calls than fit a millisecond or two.
    let opened = slot.open(&other, within(Duration::from_millis(2))).await;
    let fetched = slot.fetch(&other, all(), soon()).await;
    match opened {
        Ok(()) => assert_eq!(fetched.unwrap().deliveries, []),
        Err(_) => assert!(fetched.is_err(), "{fetched:?}"),
    }
    slot.open(&other, soon()).await.unwrap();
    assert_eq!(fetch(&slot, &other).await.deliveries, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_inbox_is_dropped_in_steps() {
    let (_server, slot, admin) = roomy_slot().await;
    fill(&slot, &address("a"), MANY / 2, terms()).await;
    fill(&slot, &of_another(address("a")), 10, terms()).await;
    fill(&slot, &address("a"), MANY / 2, terms()).await;
    let before = calls(&admin).await;
    let discarded = slot.discard(&address("a"), soon()).await.unwrap();
    assert_eq!((discarded.dropped.len(), discarded.more), (MANY, false));
    assert!(calls(&admin).await - before > MANY / STEP, "not all at once");
    assert_eq!(
        slot.depth(Some(&identity("a")), soon()).await.unwrap().messages,
        10
    );
}

/// What a step took is told whatever comes after it, and once.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_before_a_step_failed_is_told() {
    let (_server, slot, admin) = roomy_slot().await;
    let urgent = Terms {
        priority: Priority::High,
        ..terms()
    };
    fill(&slot, &address("a"), STEP, urgent).await;
    // Not ours, so that looking further than the urgent ones fails.
    let in_the_way = key("low:a");
    admin.run(&["SET", &in_the_way, "x"]).await;
    let some = slot.discard(&address("a"), soon()).await.unwrap();
    assert!(some.more && (1..STEP).contains(&some.dropped.len()), "{some:?}");
    let refused = slot.discard(&address("a"), soon()).await;
    assert!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "nothing was dropped: {refused:?}"
    );
    admin.run(&["DEL", &in_the_way]).await;
    let rest = slot.discard(&address("a"), soon()).await.unwrap();
    assert!(!rest.more);
    let told = some.dropped.iter().chain(&rest.dropped);
    let told: BTreeSet<_> = told.map(|ticket| ticket.multicast.0).collect();
    assert_eq!(
        (told.len(), some.dropped.len() + rest.dropped.len()),
        (STEP, STEP)
    );
    assert_eq!(rest.dropped[0].receipts.as_deref(), Some("here"));
}

/// Each is told once, whoever comes across it.
#[tokio::test(flavor = "multi_thread")]
async fn much_that_expires_at_once_expires_in_steps() {
    let (_server, slot, admin) = roomy_slot().await;
    let to = addresses(MANY);
    let sent = message("x");
    let outcomes = slot.enqueue(&to, sent.clone(), brief(), soon()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == STORED));
    fill(&slot, &address("a"), MANY, brief()).await;
    pass(&admin, Duration::from_secs(6)).await;
    let consumer = consume(&slot, "a", 1).await;
    let mut told = 0;
    let fetched = fetch(&slot, &consumer).await;
    assert!(fetched.deliveries.is_empty() && fetched.more);
    told += fetched.expired.len();
    assert!(told < MANY, "a fetch does not do it all");
    let mut sweeps = 0;
    loop {
        let swept = slot.sweep(soon()).await.unwrap();
        told += swept.expired.len();
        sweeps += 1;
        if !swept.more {
            break;
        }
    }
    assert_eq!(told, 2 * MANY, "in {sweeps} rounds");
    assert!(sweeps > MANY / STEP, "a sweep does not do it all");
    assert_eq!(slot.depth(None, soon()).await.unwrap().messages, 0);
}

/// What has expired is not in the way, however much of it there is, and is told later.
#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_full_of_what_has_expired_has_room() {
    for overflow in [Overflow::Reject, Overflow::DropOldest] {
        let (_server, slot, admin) = roomy_slot().await;
        fill(&slot, &address("a"), MANY, brief()).await;
        let limits = InboxLimits {
            max_messages: MANY as u32,
            overflow,
            ..roomy()
        };
        slot.configure(limits, soon()).await.unwrap();
        let waits = message("waits");
        let reason = String::new();
        store(&slot, "b", &waits).await;
        let other = consume(&slot, "b", 1).await;
        fetch(&slot, &other).await;
        settle(&slot, &other, &waits, Verdict::Term { reason }).await;
        let overflows = store(&slot, "a", &message("too much")).await;
        match overflow {
            Overflow::Reject => assert_eq!(overflows, Enqueued::Full),
            Overflow::DropOldest => assert!(
                matches!(overflows, Enqueued::Stored { displaced: Some(_) }),
                "{overflows:?}"
            ),
        }
        pass(&admin, Duration::from_secs(6)).await;
        // Behind all of what is due, in order of time.
        let before = calls(&admin).await;
        assert_eq!(store(&slot, "a", &message("fits")).await, STORED);
        // A part of what was due is enough, unless what came last ends first.
        assert!(calls(&admin).await - before <= MANY / 100);
        let mut told = 0;
        loop {
            let swept = slot.sweep(soon()).await.unwrap();
            told += swept.expired.len();
            if !swept.more {
                break;
            }
        }
        let displaced = usize::from(overflow == Overflow::DropOldest);
        assert_eq!(told, MANY - displaced, "{overflow:?}");
        let one = InboxLimits {
            max_messages: 1,
            overflow: Overflow::Reject,
            ..limits
        };
        slot.configure(one, soon()).await.unwrap();
        let query = DeadQuery {
            limit: 1,
            ..DeadQuery::default()
        };
        let id = slot.dead_letters(query, soon()).await.unwrap().letters[0].id;
        let back = slot.redrive(vec![(id, address("b"))], terms(), soon()).await;
        assert_eq!(back, Ok(vec![Redriven::Back]));
    }
}

/// A consumer that takes everything and says nothing, and the next one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_does_not_slow_down_what_is_not() {
    let (_server, slot, admin) = roomy_slot().await;
    fill(&slot, &address("a"), MANY, terms()).await;
    let patient = Fetch {
        ack_timeout: Duration::from_secs(60),
        max_messages: 1_000,
        ..all()
    };
    let mut order = Vec::new();
    for session in [1, 2] {
        let consumer = consume(&slot, "a", session).await;
        order.clear();
        while order.len() < MANY {
            let fetched = slot.fetch(&consumer, patient, soon()).await.unwrap();
            assert!(!fetched.deliveries.is_empty(), "after {}", order.len());
            assert_eq!(fetched.more, order.len() + fetched.deliveries.len() < MANY);
            order.extend(texts(&fetched));
        }
    }
    let expected: BTreeSet<String> = (0..MANY).map(|number| number.to_string()).collect();
    assert_eq!(order.iter().cloned().collect::<BTreeSet<_>>(), expected);
    let consumer = consume(&slot, "a", 3).await;
    pass(&admin, Duration::from_secs(61)).await;
    let first = slot.fetch(&consumer, patient, soon()).await.unwrap();
    assert_eq!(
        texts(&first),
        order[..first.deliveries.len()],
        "in the same order"
    );
}

/// Identities that had a session once cost nothing when they are gone, however many they are.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_have_gone_leave_nothing() {
    let (_server, slot, admin) = roomy_slot().await;
    let limits = InboxLimits {
        idle: Duration::from_secs(10),
        ..roomy()
    };
    slot.configure(limits, soon()).await.unwrap();
    let sessions = key("sessions");
    let count = async || number(&admin, &["HLEN", &sessions]).await;
    for name in 0..MANY {
        consume(&slot, &format!("id-{name}"), 1).await;
    }
    store(&slot, "id-7", &message("waits")).await;
    let (there, sweeps) = (consumer("id-8", 1), 2 * MANY / 64);
    for _ in 0..4 {
        pass(&admin, Duration::from_secs(4)).await;
        fetch(&slot, &there).await;
        for _ in 0..sweeps {
            slot.sweep(soon()).await.unwrap();
        }
    }
    assert_eq!(count().await, 2);
    fetch(&slot, &there).await;
    assert_eq!(texts(&fetch(&slot, &consumer("id-7", 1)).await), ["waits"]);
    // As versions before this one wrote it.
    let before = fred::types::Value::Bytes(bytes::Bytes::from([&[1, 1][..], &[0; 32]].concat()));
    let session = vec![sessions.as_str().into(), "before".into(), before];
    admin.run_bytes("HSET", session).await.unwrap();
    slot.sweep(soon()).await.unwrap();
    assert_eq!(count().await, 3);
    pass(&admin, Duration::from_secs(16)).await;
    slot.sweep(soon()).await.unwrap();
    assert_eq!(count().await, 1);
}

/// That it was heard of is written down from time to time, and counts from when it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_remembered_for_idle_after_it_was_heard_of() {
    let (_server, slot, admin) = roomy_slot().await;
    let limits = InboxLimits {
        idle: Duration::from_secs(10),
        ..roomy()
    };
    slot.configure(limits, soon()).await.unwrap();
    let session = consume(&slot, "a", 2).await;
    pass(&admin, Duration::from_millis(4_500)).await;
    fetch(&slot, &session).await;
    pass(&admin, Duration::from_millis(9_500)).await;
    slot.sweep(soon()).await.unwrap();
    let earlier = slot.open(&consumer("a", 1), soon()).await;
    assert_eq!(earlier, Err(Error::Fenced(identity("a"))));
    pass(&admin, Duration::from_secs(1)).await;
    slot.sweep(soon()).await.unwrap();
    assert_eq!(number(&admin, &["HLEN", &key("sessions")]).await, 0);
}
