//! What becomes of messages by somebody's word.

use super::*;

pub(super) async fn verdicts_hold(fixture: Fixture) {
    let slot = fixture.open().await;
    let messages = [
        slot.store("a", "ack").await,
        slot.store("a", "nack").await,
        slot.store("a", "term").await,
    ];
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&consumer).await.len(), 3);
    let reason = "unreadable".to_owned();
    let delay = Duration::ZERO;
    let verdicts = [
        Verdict::Ack,
        Verdict::Nack { delay },
        Verdict::Term {
            reason: reason.clone(),
        },
    ];
    let mut said: Vec<_> = messages
        .iter()
        .map(|message| message.multicast)
        .zip(verdicts)
        .collect();
    said.push((MulticastId::random(), Verdict::Ack));
    let settled = slot.slot().settle(&consumer, said, deadline()).await.unwrap();
    assert_eq!(
        settled,
        [Settled::Done, Settled::Done, Settled::Done, Settled::Gone]
    );
    assert_eq!(
        slot.settle(&consumer, &messages[0], Verdict::Ack).await,
        Settled::Gone
    );
    assert_eq!(slot.texts(&consumer).await, ["nack"]);
    let dead = slot.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (&dead[0].reason, dead[0].attempts),
        (&DeadReason::Terminated(reason), 1)
    );
    assert_eq!(dead[0].message, messages[2]);
}

pub(super) async fn only_what_was_handed_out_is_settled(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    let reason = "unreadable".to_owned();
    let verdicts = [
        Verdict::Ack,
        Verdict::Nack { delay: LIFE * 600 },
        Verdict::Term {
            reason: reason.clone(),
        },
    ];
    for verdict in &verdicts {
        assert_eq!(
            slot.settle(&consumer, &sent, verdict.clone()).await,
            Settled::Gone,
            "{verdict:?}"
        );
    }
    assert_eq!(slot.texts(&consumer).await, ["x"]);
    assert_eq!(
        slot.settle(&consumer, &sent, Verdict::Term { reason }).await,
        Settled::Done
    );
    let letters = slot
        .dead()
        .await
        .into_iter()
        .map(|letter| (letter.id, address("a")))
        .collect();
    let redriven = slot.slot().redrive(letters, terms(), deadline()).await.unwrap();
    assert_eq!(redriven, [Redriven::Back]);
    for verdict in verdicts {
        assert_eq!(
            slot.settle(&consumer, &sent, verdict).await,
            Settled::Gone,
            "a word of its former life"
        );
    }
    assert_eq!(slot.texts(&consumer).await, ["x"]);
}

pub(super) async fn what_is_released_was_not_handed_out(fixture: Fixture) {
    let slot = fixture.open().await;
    let (first, second) = (slot.store("a", "1").await, slot.store("a", "2").await);
    let consumer = slot.consumer("a", 1).await;
    for attempt in [1, 2] {
        let fetched = slot.fetch(&consumer).await;
        let attempts: Vec<u32> = fetched.iter().map(|delivery| delivery.attempt).collect();
        assert_eq!(attempts, [1, attempt]);
        assert_eq!(
            slot.settle(&consumer, &first, Verdict::Release).await,
            Settled::Done
        );
        assert_eq!(
            slot.settle(&consumer, &first, Verdict::Release).await,
            Settled::Gone
        );
        assert_eq!(slot.settle(&consumer, &first, Verdict::Ack).await, Settled::Gone);
        let delay = Duration::ZERO;
        assert_eq!(
            slot.settle(&consumer, &second, Verdict::Nack { delay }).await,
            Settled::Done
        );
    }
}

pub(super) async fn what_is_not_out_can_be_cancelled(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = message("x");
    slot.enqueue(&["a", "b"], &sent, terms()).await;
    slot.store("b", "stays").await;
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&consumer).await.len(), 1);
    let names = ["a", "b", "c"].map(identity);
    let cancelled = slot.slot().cancel(sent.multicast, &names, deadline()).await;
    assert_eq!(
        cancelled,
        [Ok(false), Ok(true), Ok(false)],
        "out, waiting, never there"
    );
    let other = slot.consumer("b", 1).await;
    assert_eq!(slot.texts(&other).await, ["stays"]);
    assert_eq!(slot.settle(&consumer, &sent, Verdict::Ack).await, Settled::Done);
}

pub(super) async fn discarded_inboxes_are_empty(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = Arc::new(Message {
        receipts: Some("here".into()),
        ..(*message("1")).clone()
    });
    // One of them is in another inbox too, where it stays.
    slot.enqueue(&["a", "b"], &sent, terms()).await;
    let second = slot.store("a", "2").await;
    let urgent = Terms {
        priority: Priority::High,
        ..terms()
    };
    let waits = message("3");
    let consumer = slot.consumer("a", 1).await;
    let mut other = address("a");
    other.holder = Holder([2; 16]);
    assert_eq!(slot.discard(&other).await, [], "another one's");
    assert_eq!(slot.texts(&consumer).await, ["1", "2"]);
    slot.enqueue(&["a"], &waits, urgent).await;
    let mut dropped = slot.discard(&address("a")).await;
    let mut expected = [&sent, &second, &waits].map(|message| Ticket::from(&**message));
    dropped.sort_by_key(|ticket| ticket.multicast.0);
    expected.sort_by_key(|ticket| ticket.multicast.0);
    assert_eq!(dropped, expected, "what is out, and what waits");
    assert_eq!(slot.discard(&address("a")).await, [], "each is told once");
    assert_eq!(
        slot.try_fetch(&consumer, all()).await,
        Err(Error::Fenced(identity("a")))
    );
    assert_eq!(slot.depth(None).await.messages, 1);
    // Its sessions may be counted from the beginning.
    let again = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&again).await, []);
}

pub(super) async fn depths_are_told(fixture: Fixture) {
    let slot = fixture.open().await;
    for text in ["1", "2", "3"] {
        slot.store("a", text).await;
    }
    slot.store("b", "1").await;
    let consumer = slot.consumer("a", 1).await;
    let two = Fetch {
        max_messages: 2,
        ack_timeout: Duration::from_secs(600),
        ..all()
    };
    slot.try_fetch(&consumer, two).await.unwrap();
    let depth = |messages, out| Depth {
        messages,
        out: Some(out),
        dead: 0,
    };
    assert_eq!(slot.depth(Some("a")).await, depth(3, 2));
    assert_eq!(slot.depth(Some("b")).await, depth(1, 0));
    assert_eq!(slot.depth(Some("c")).await, depth(0, 0));
    let all = slot.depth(None).await;
    assert!(all.out.is_none_or(|out| out == 2), "{all:?}");
    assert_eq!((all.messages, all.dead), (4, 0));
}
