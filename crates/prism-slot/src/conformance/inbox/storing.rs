//! What is stored, for whom, how much of it and for how long.

use futures::future::join_all;

use super::*;

pub(super) async fn messages_come_in_order(fixture: Fixture) {
    let slot = fixture.open().await;
    let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    for text in &expected {
        slot.store("a", text).await;
    }
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, expected);
}

pub(super) async fn urgent_messages_come_first(fixture: Fixture) {
    let slot = fixture.open().await;
    for (text, priority) in [
        ("low", Priority::Low),
        ("normal 1", Priority::Normal),
        ("high 1", Priority::High),
        ("normal 2", Priority::Normal),
        ("high 2", Priority::High),
    ] {
        let terms = Terms { priority, ..terms() };
        assert_eq!(slot.enqueue(&["a"], &message(text), terms).await, [STORED]);
    }
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(
        slot.texts(&consumer).await,
        ["high 1", "high 2", "normal 1", "normal 2", "low"]
    );
}

pub(super) async fn inboxes_are_apart(fixture: Fixture) {
    let slot = fixture.open().await;
    let long = "é".repeat(128);
    let names = [
        "a", "a.b", "a.*", "a.>", "*", ">", ".", "a b", "a%20b", "a:b", "{a}", "$SYS", "A", "ключ", "a/b",
        "a\\b", "a'b", "\u{a0}", &long,
    ];
    for name in names {
        slot.store(name, name).await;
    }
    let shared = message("to all");
    let outcomes = slot.enqueue(&names, &shared, terms()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == STORED), "{outcomes:?}");
    for name in names {
        let consumer = slot.consumer(name, 1).await;
        assert_eq!(slot.texts(&consumer).await, [name, "to all"]);
        assert_eq!(slot.settle(&consumer, &shared, Verdict::Ack).await, Settled::Done);
    }
    assert_eq!(slot.depth(None).await.messages, names.len() as u64);
}

pub(super) async fn namespaces_have_their_own_inboxes(fixture: Fixture) {
    let here = fixture.open().await;
    let there = Subject((fixture.open)(format!("{}-other", fixture.namespace), InboxLimits::default()).await);
    here.store("a", "here").await;
    assert_eq!(there.depth(None).await.messages, 0);
    let consumer = there.consumer("a", 1).await;
    assert_eq!(there.fetch(&consumer).await, []);
}

pub(super) async fn stored_messages_arrive_unchanged(fixture: Fixture) {
    let slot = fixture.open().await;
    let full = Arc::new(Message {
        payload: (0..=255).collect::<Vec<u8>>().into(),
        content_type: "application/json; charset=utf-8".into(),
        headers: vec![
            ("traceparent".into(), "00-0af7-b7ad-01".into()),
            ("x".into(), String::new()),
        ],
        reply_to: Some("questions".into()),
        expects_reply: true,
        expires_at: Some(Timestamp(1_900_000_000_000)),
        receipts: Some("here".into()),
        ..(*message("")).clone()
    });
    let empty = message("");
    assert_eq!(slot.enqueue(&["a"], &full, terms()).await, [STORED]);
    assert_eq!(slot.enqueue(&["a"], &empty, terms()).await, [STORED]);
    let consumer = slot.consumer("a", 1).await;
    let deliveries = slot.fetch(&consumer).await;
    let messages: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.message.clone())
        .collect();
    assert_eq!(messages, [full, empty]);
}

pub(super) async fn stored_messages_outlive_the_opening(fixture: Fixture) {
    let slot = fixture.open().await;
    let kept = slot.store("a", "kept").await;
    let acked = slot.store("a", "acked").await;
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&consumer).await.len(), 2);
    slot.settle(&consumer, &acked, Verdict::Ack).await;
    slot.slot().close().await;
    let again = fixture.open().await;
    assert_eq!(
        again.enqueue(&["a"], &acked, terms()).await,
        [Enqueued::Duplicate],
        "that it was here is remembered"
    );
    let deliveries = {
        let consumer = again.consumer("a", 2).await;
        again.fetch(&consumer).await
    };
    assert_eq!(deliveries.len(), 1);
    assert_eq!((&deliveries[0].message, deliveries[0].attempt), (&kept, 2));
}

pub(super) async fn a_message_is_stored_once(fixture: Fixture) {
    let limits = InboxLimits {
        dedupe: LIFE,
        ..InboxLimits::default()
    };
    let slot = fixture.open_within(limits).await;
    let sent = message("once");
    assert_eq!(slot.enqueue(&["a"], &sent, terms()).await, [STORED]);
    assert_eq!(
        slot.enqueue(&["a", "b"], &sent, terms()).await,
        [Enqueued::Duplicate, STORED],
        "each inbox for itself"
    );
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, ["once"]);
    slot.settle(&consumer, &sent, Verdict::Ack).await;
    assert_eq!(slot.enqueue(&["a"], &sent, terms()).await, [Enqueued::Duplicate]);
    assert_eq!(slot.fetch(&consumer).await, []);
    slot.pass(LIFE * 2).await;
    assert_eq!(slot.enqueue(&["a"], &sent, terms()).await, [STORED]);
}

pub(super) async fn what_may_have_been_stored_before_is_flagged(fixture: Fixture) {
    let slot = fixture.open().await;
    let again = |message: &Message| {
        Arc::new(Message {
            again: true,
            ..message.clone()
        })
    };
    let (first, forgotten) = (message("first"), again(&message("forgotten")));
    assert_eq!(slot.enqueue(&["a"], &first, terms()).await, [STORED]);
    assert_eq!(
        slot.enqueue(&["a", "b"], &again(&first), terms()).await,
        [Enqueued::Duplicate, STORED]
    );
    assert_eq!(slot.enqueue(&["a"], &forgotten, terms()).await, [STORED]);
    let twice = Fetch {
        max_deliver: 2,
        ..all()
    };
    let (consumer, other) = (slot.consumer("a", 1).await, slot.consumer("b", 1).await);
    for time in 1..=2 {
        let deliveries = slot.try_fetch(&consumer, twice).await.unwrap().deliveries;
        let came: Vec<_> = deliveries
            .iter()
            .map(|delivery| (&delivery.message, delivery.attempt))
            .collect();
        assert_eq!(
            came,
            [(&first, time), (&forgotten, time + 1)],
            "what is there already stays as it is"
        );
        let attempts: Vec<u32> = slot
            .fetch(&other)
            .await
            .iter()
            .map(|delivery| delivery.attempt)
            .collect();
        assert_eq!(attempts, [time + 1], "each inbox for itself");
        let verdict = Verdict::Nack {
            delay: Duration::ZERO,
        };
        for message in [&first, &forgotten] {
            assert_eq!(
                slot.settle(&consumer, message, verdict.clone()).await,
                Settled::Done
            );
        }
        slot.settle(&other, &first, verdict).await;
    }
    let fetched = slot.try_fetch(&consumer, twice).await.unwrap();
    assert_eq!(
        (fetched.deliveries.len(), fetched.dead.len()),
        (0, 2),
        "only handing it out counts for its end"
    );
    let attempts: Vec<u32> = slot.dead().await.iter().map(|letter| letter.attempts).collect();
    assert_eq!(attempts, [2, 2]);
}

/// At most two messages, and what happens to one more.
fn two(overflow: Overflow) -> InboxLimits {
    InboxLimits {
        max_messages: 2,
        overflow,
        ..InboxLimits::default()
    }
}

pub(super) async fn a_full_inbox_rejects(fixture: Fixture) {
    let slot = fixture.open_within(two(Overflow::Reject)).await;
    for expected in [STORED, STORED, Enqueued::Full] {
        assert_eq!(slot.enqueue(&["a"], &message("x"), terms()).await, [expected]);
    }
    assert_eq!(slot.enqueue(&["b"], &message("x"), terms()).await, [STORED]);
    let consumer = slot.consumer("a", 1).await;
    let deliveries = slot.fetch(&consumer).await;
    assert_eq!(
        slot.enqueue(&["a", "b"], &message("x"), terms()).await,
        [Enqueued::Full, STORED],
        "what is out counts"
    );
    slot.settle(&consumer, &deliveries[0].message, Verdict::Ack).await;
    assert_eq!(slot.enqueue(&["a"], &message("x"), terms()).await, [STORED]);
}

pub(super) async fn the_oldest_makes_room(fixture: Fixture) {
    let slot = fixture.open_within(two(Overflow::DropOldest)).await;
    for text in ["1", "2", "3"] {
        let outcomes = slot.enqueue(&["a"], &message(text), terms()).await;
        assert!(matches!(outcomes[..], [Enqueued::Stored { .. }]), "{outcomes:?}");
    }
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, ["2", "3"]);
}

pub(super) async fn what_makes_room_is_told(fixture: Fixture) {
    let slot = fixture.open_within(two(Overflow::DropOldest)).await;
    let first = Arc::new(Message {
        receipts: Some("here".into()),
        ..(*message("1")).clone()
    });
    let ticket = Some(Ticket::from(&*first));
    for (message, displaced) in [(first, None), (message("2"), None), (message("3"), ticket)] {
        let stored = slot.enqueue(&["a"], &message, terms()).await;
        assert_eq!(stored, [Enqueued::Stored { displaced }]);
    }
}

pub(super) async fn limits_apply_in_place(fixture: Fixture) {
    let slot = fixture.open_within(two(Overflow::Reject)).await;
    slot.store("a", "1").await;
    slot.store("a", "2").await;
    assert_eq!(
        slot.enqueue(&["a"], &message("x"), terms()).await,
        [Enqueued::Full]
    );
    let three = InboxLimits {
        max_messages: 3,
        ..two(Overflow::Reject)
    };
    slot.slot().configure(three, deadline()).await.unwrap();
    slot.store("a", "3").await;
    assert_eq!(
        slot.enqueue(&["a"], &message("x"), terms()).await,
        [Enqueued::Full]
    );
    let three = InboxLimits {
        overflow: Overflow::DropOldest,
        ..three
    };
    slot.slot().configure(three, deadline()).await.unwrap();
    let outcomes = slot.enqueue(&["a"], &message("4"), terms()).await;
    assert!(matches!(outcomes[..], [Enqueued::Stored { .. }]), "{outcomes:?}");
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, ["2", "3", "4"]);
}

pub(super) async fn a_lower_limit_removes_nothing(fixture: Fixture) {
    let three = |overflow| InboxLimits {
        max_messages: 3,
        ..two(overflow)
    };
    let slot = fixture.open_within(three(Overflow::Reject)).await;
    let first = slot.store("a", "1").await;
    let mut sent = vec![first.clone()];
    for text in ["2", "3"] {
        sent.push(slot.store("a", text).await);
        slot.store("b", text).await;
    }
    slot.store("b", "4").await;
    slot.slot()
        .configure(two(Overflow::Reject), deadline())
        .await
        .unwrap();
    assert_eq!(slot.depth(None).await.messages, 6);
    let full = [Enqueued::Full];
    assert_eq!(slot.enqueue(&["a"], &message("x"), terms()).await, full);
    assert_eq!(
        slot.enqueue(&["a"], &first, terms()).await,
        [Enqueued::Duplicate],
        "whether it is there comes before whether there is room"
    );
    for expected in [STORED, STORED, Enqueued::Full] {
        assert_eq!(slot.enqueue(&["c"], &message("x"), terms()).await, [expected]);
    }
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, ["1", "2", "3"]);
    slot.settle(&consumer, &sent[0], Verdict::Ack).await;
    assert_eq!(slot.enqueue(&["a"], &message("x"), terms()).await, full);
    slot.settle(&consumer, &sent[1], Verdict::Ack).await;
    slot.store("a", "5").await;
    assert_eq!(slot.enqueue(&["a"], &message("x"), terms()).await, full);

    slot.slot()
        .configure(two(Overflow::DropOldest), deadline())
        .await
        .unwrap();
    assert_eq!(slot.depth(Some("b")).await.messages, 3);
    let outcomes = slot.enqueue(&["b"], &message("5"), terms()).await;
    assert!(matches!(outcomes[..], [Enqueued::Stored { .. }]), "{outcomes:?}");
    let consumer = slot.consumer("b", 1).await;
    assert_eq!(slot.texts(&consumer).await, ["3", "4", "5"]);
}

/// For a moment only.
fn brief() -> Terms {
    Terms { ttl: LIFE, ..terms() }
}

/// Everything that sweeping finds to have expired.
pub(super) async fn sweep(slot: &Subject) -> Vec<(Identity, Ticket)> {
    let mut expired = Vec::new();
    loop {
        let swept = slot.slot().sweep(deadline()).await.unwrap();
        expired.extend(swept.expired);
        if !swept.more {
            return expired;
        }
    }
}

pub(super) async fn messages_expire(fixture: Fixture) {
    let slot = fixture.open().await;
    let outcomes = slot.enqueue(&["a", "b"], &message("gone"), brief()).await;
    assert_eq!(outcomes, [STORED, STORED]);
    slot.store("a", "stays").await;
    let consumer = slot.consumer("a", 1).await;
    slot.pass(LIFE * 3).await;
    assert_eq!(slot.texts(&consumer).await, ["stays"]);
    sweep(&slot).await;
    assert_eq!(slot.depth(None).await.messages, 1);
    let other = slot.consumer("b", 1).await;
    assert_eq!(slot.fetch(&other).await, []);
}

pub(super) async fn what_expires_is_told(fixture: Fixture) {
    let slot = fixture.open().await;
    let gone = Arc::new(Message {
        receipts: Some("here".into()),
        ..(*message("gone")).clone()
    });
    slot.enqueue(&["a", "b"], &gone, brief()).await;
    let consumer = slot.consumer("a", 1).await;
    slot.pass(LIFE * 3).await;
    let fetched = slot.try_fetch(&consumer, all()).await.unwrap();
    let mut expired = sweep(&slot).await;
    expired.extend(fetched.expired.into_iter().map(|ticket| (identity("a"), ticket)));
    expired.sort_by(|(one, _), (other, _)| one.cmp(other));
    let both = ["a", "b"].map(|name| (identity(name), Ticket::from(&*gone)));
    assert_eq!(expired, both, "each is told once, by a fetch or a sweep");
}

/// Each has a moment more than the one before it, so that some find out on the way, or in a queue, that they are too late.
pub(super) async fn late_stores_store_nothing(fixture: Fixture) {
    let slot = fixture.open().await;
    let to: Vec<Address> = (0..10).map(|number| address(&format!("id-{number}"))).collect();
    let sent: Vec<Arc<Message>> = (0..200).map(|number| message(&format!("{number}"))).collect();
    let (began, moment) = (Instant::now(), Duration::from_micros(100));
    let stores = sent.iter().zip(0..).map(|(message, number)| {
        slot.slot()
            .enqueue(&to, message.clone(), terms(), began + moment * number)
    });
    let outcomes = join_all(stores).await;
    let is_late = |outcome: &&Enqueued| matches!(outcome, Enqueued::NotStored(_));
    assert_eq!(outcomes[0].iter().filter(is_late).count(), to.len());
    for (message, outcomes) in sent.iter().zip(&outcomes) {
        let late = to.iter().zip(outcomes).filter(|(_, outcome)| is_late(outcome));
        let late: Vec<Address> = late.map(|(address, _)| address.clone()).collect();
        let again = slot
            .slot()
            .enqueue(&late, message.clone(), terms(), deadline())
            .await;
        assert_eq!(again, vec![STORED; late.len()], "it was said not to be stored");
    }
}
