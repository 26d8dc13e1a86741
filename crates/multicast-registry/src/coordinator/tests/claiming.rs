//! Idempotency keys while the ledger fails, or is full: a key is stuck with nobody who is gone, and nothing is sent twice.

use std::{sync::Arc, time::Duration};

use prism_slot::{Applied, Expect, InboxLimits, Ledger, MulticastId, Write};
use tokio::{sync::Notify, time::Instant};

use super::{
    super::{Error, Multicast},
    delivering::{Fixture, fixture, fixture_of, stored},
};
use crate::{
    Delivery, Report, Status,
    delivery::{KeyEntry, Phase, Runner, void},
    testing::{Fate, Op, id, soon, unavailable},
};

fn keyed(delivery: Delivery) -> Multicast {
    Multicast {
        delivery: Some(delivery),
        idempotency_key: Some("k".to_owned()),
        ..stored("x")
    }
}

fn is_about_runners(writes: &[Write]) -> bool {
    writes.iter().all(|write| write.key.starts_with("runner/"))
}

/// How the last write goes before the ledger is out of reach.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Nothing comes of it.
    Before,
    /// Only its answer does not come.
    After,
    /// As either, and the call is given up instead of waiting for an error.
    GivenUpBefore,
    GivenUpAfter,
}

/// Who repeats the call.
#[derive(Debug, Clone, Copy)]
enum Heir {
    Same,
    Other,
    /// Another one, and the first is dead.
    Survivor,
}

impl Fixture {
    /// Makes a call of which so many writes go well. Whether all did.
    async fn call_until_cut(&self, call: Multicast, at: usize, cut: Cut) -> bool {
        let stuck = Arc::new(Notify::new());
        let (mut count, at_cut) = (0, stuck.clone());
        self.register.judge(move |writes| {
            if count <= at && is_about_runners(writes) {
                return Fate::Pass;
            }
            count += 1;
            if count <= at {
                return Fate::Pass;
            }
            let lost = unavailable(Applied::Unknown);
            if count > at + 1 {
                return Fate::Refuse(lost);
            }
            at_cut.notify_one();
            match cut {
                Cut::Before => Fate::Refuse(lost),
                Cut::After => Fate::Lose(lost),
                Cut::GivenUpBefore => Fate::Hang,
                Cut::GivenUpAfter => Fate::Late(Arc::new(Notify::new())),
            }
        });
        let coordinator = self.coordinator.clone();
        let mut calling = tokio::spawn(async move { coordinator.multicast(call, soon()).await });
        let is_given_up = matches!(cut, Cut::GivenUpBefore | Cut::GivenUpAfter);
        let came_through = tokio::select! {
            outcome = &mut calling => outcome.unwrap().is_ok(),
            () = stuck.notified(), if is_given_up => {
                calling.abort();
                let _ = (&mut calling).await;
                false
            }
        };
        self.register.heal();
        came_through
    }

    /// Of which multicasts the ledger knows.
    async fn kept(&self) -> Vec<MulticastId> {
        let listed = self.register.list("cast/".to_owned(), None, 1_000, soon());
        let keys = listed.await.unwrap().keys.into_iter();
        keys.map(|key| key["cast/".len()..].parse().unwrap()).collect()
    }

    /// So many others, without a key.
    async fn send_others(&self, count: usize) -> Vec<MulticastId> {
        let mut others = Vec::new();
        for _ in 0..count {
            let other = self.coordinator.multicast(stored("y"), soon()).await.unwrap();
            // Only then may it go.
            self.coordinator.write_up_all(soon).await;
            others.push(other.id);
        }
        others
    }

    /// How often something was sent.
    async fn sent(&self, delivery: Delivery) -> usize {
        if delivery == Delivery::AtMostOnce {
            return self.broker.batches().len();
        }
        let inbox = self.coordinator.inbox().unwrap();
        inbox.depth(Some(&id("a")), soon()).await.unwrap().messages as usize
    }
}

/// Wherever the link to the ledger is cut, and whatever becomes of the call: soon after it is there again the same call
/// gets a definite answer, and what it is about is sent no more than once.
#[tokio::test(start_paused = true)]
async fn no_key_is_stuck_with_a_call_that_is_gone() {
    for delivery in [Delivery::AtMostOnce, Delivery::ExactlyOnce] {
        for cut in [Cut::Before, Cut::After, Cut::GivenUpBefore, Cut::GivenUpAfter] {
            for heir in [Heir::Same, Heir::Other, Heir::Survivor] {
                let mut at = 0;
                while !is_answered_soon(delivery, cut, heir, at).await {
                    at += 1;
                }
                assert!(at >= 2, "{delivery:?}, {cut:?}: it was not cut while it began");
            }
        }
    }
}

/// Whether the first call came through.
async fn is_answered_soon(delivery: Delivery, cut: Cut, heir: Heir, at: usize) -> bool {
    let what = format!("{delivery:?}, {cut:?}, {heir:?}, {at}");
    let (fixture, call) = (fixture(), keyed(delivery));
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    fixture.coordinator.say_alive().await;
    sibling.say_alive().await;
    let came_through = fixture.call_until_cut(call.clone(), at, cut).await;
    let heir = match heir {
        Heir::Same => &fixture.coordinator,
        Heir::Other => &sibling,
        Heir::Survivor => {
            fixture.coordinator.end_abruptly().await;
            fixture.clock.advance(Duration::from_secs(11));
            sibling.say_alive().await;
            &sibling
        }
    };
    // Long before the key is given up by itself.
    let shortly = || Instant::now() + Duration::from_secs(20);
    let answer = heir.multicast(call.clone(), shortly()).await;
    let answer: Report = answer.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_ne!(answer.phase, Phase::Running, "{what}");
    let again = heir.multicast(call, shortly()).await.unwrap();
    assert_eq!((again.id, again.replayed), (answer.id, true), "{what}");
    heir.look_after_once().await;
    let sent = fixture.sent(delivery).await;
    let is_known = answer.targets.get(0).unwrap().status() != Status::Timeout;
    assert!(sent == 1 || sent == 0 && !is_known, "{what}: {sent}, {answer:?}");
    came_through
}

/// A runner that is taken for dead while it begins: it finds out before it sends, and takes nothing away from the call
/// that went ahead.
#[tokio::test]
async fn whoever_lost_its_key_sends_nothing() {
    for delivery in [Delivery::AtMostOnce, Delivery::ExactlyOnce] {
        for is_refused in [false, true] {
            for is_late in [false, true] {
                let mut at = 0;
                while is_overtaken(delivery, is_refused, is_late, at).await {
                    at += 1;
                }
                assert!(at >= 2, "{delivery:?}, {is_refused}: {at}");
            }
        }
    }
}

/// A call stops at this write, before it or after it, while another one goes ahead. Perhaps what it has begun is not taken
/// by the ledger, so that it takes everything back. False where it makes no more writes.
async fn is_overtaken(delivery: Delivery, is_refused: bool, is_late: bool, at: usize) -> bool {
    let what = format!("{delivery:?}, {is_refused}, {is_late}, {at}");
    let (fixture, call) = (fixture(), keyed(delivery));
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    fixture.coordinator.say_alive().await;
    let (go, stopped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (gate, stops) = (go.clone(), stopped.clone());
    let (mut count, mut refused) = (0, !is_refused);
    let here = format!("runner/{:016x}", fixture.coordinator.shared.runner.0);
    fixture.register.judge(move |writes| {
        if count > at && writes[0].key == here {
            return Fate::Refuse(unavailable(Applied::No));
        }
        if count > at || is_about_runners(writes) {
            return Fate::Pass;
        }
        count += 1;
        if count > at {
            stops.notify_one();
            return match is_late {
                true => Fate::Late(gate.clone()),
                false => Fate::Wait(gate.clone()),
            };
        }
        let begins = writes.iter().any(|write| write.key.starts_with("cast/"));
        if begins && !std::mem::replace(&mut refused, true) {
            return Fate::Refuse(unavailable(Applied::No));
        }
        Fate::Pass
    });
    let (coordinator, first) = (fixture.coordinator.clone(), call.clone());
    let mut calling = tokio::spawn(async move { coordinator.multicast(first, soon()).await });
    tokio::select! {
        _ = &mut calling => return false,
        () = stopped.notified() => {}
    }
    fixture.clock.advance(Duration::from_secs(11));
    sibling.say_alive().await;
    let ahead = tokio::spawn({
        let (sibling, call) = (sibling.clone(), call.clone());
        async move {
            sibling.look_after_once().await;
            sibling.multicast(call, soon()).await
        }
    });
    let ahead = ahead.await.unwrap();
    go.notify_one();
    let overtaken = calling.await.unwrap();
    let ahead = ahead.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    match &overtaken {
        Ok(report) => assert_eq!(report.id, ahead.id, "{what}"),
        Err(error) => assert_ne!(error.applied(), Applied::Unknown, "{what}: {error:?}"),
    }
    fixture.register.heal();
    let again = fixture.coordinator.multicast(call, soon()).await.unwrap();
    assert_eq!((again.id, again.replayed), (ahead.id, true), "{what}");
    assert_eq!(fixture.sent(delivery).await, 1, "{what}");
    true
}

/// Whoever is at work keeps its key, however long it takes.
#[tokio::test]
async fn a_call_at_work_keeps_its_key() {
    let (fixture, call) = (fixture(), keyed(Delivery::ExactlyOnce));
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    for (number, repeats) in [fixture.coordinator.clone(), sibling].into_iter().enumerate() {
        let call = Multicast {
            idempotency_key: Some(number.to_string()),
            ..call.clone()
        };
        fixture.coordinator.say_alive().await;
        let (go, reads) = (Arc::new(Notify::new()), fixture.register.script.count(Op::Read));
        let (gate, mut is_first) = (go.clone(), true);
        fixture.register.judge(move |writes| {
            let begins = writes.iter().any(|write| write.key.starts_with("cast/"));
            match begins && std::mem::take(&mut is_first) {
                true => Fate::Wait(gate.clone()),
                false => Fate::Pass,
            }
        });
        let (coordinator, first) = (fixture.coordinator.clone(), call.clone());
        let first = tokio::spawn(async move { coordinator.multicast(first, soon()).await });
        let second = tokio::spawn(async move { repeats.multicast(call, soon()).await });
        // A few times it has looked what became of the first.
        let looked = fixture.register.script.reached(Op::Read, reads + 9);
        let looked = tokio::time::timeout(Duration::from_secs(5), looked).await;
        assert!(looked.is_ok(), "it waits for the first");
        fixture.register.heal();
        go.notify_one();
        let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
        assert_eq!((second.id, second.replayed), (first.id, true));
    }
}

/// A ledger that is full of receipts gives up receipts, and not that something was sent.
#[tokio::test]
async fn receipts_make_room_and_keys_do_not() {
    let fixture = fixture_of(InboxLimits::default(), 4 << 10);
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let call = keyed(Delivery::ExactlyOnce);
    let first = fixture.coordinator.multicast(call.clone(), soon()).await.unwrap();
    let others = fixture.send_others(100).await;
    let sent = fixture.sent(Delivery::ExactlyOnce).await;
    let again = sibling.multicast(call.clone(), soon()).await.unwrap();
    assert_eq!((again.id, again.replayed), (first.id, true));
    assert_eq!(fixture.sent(Delivery::ExactlyOnce).await, sent);
    // Whom it was sent to is not known any more, and it is not as if it had been nobody.
    assert_eq!((again.targets.len(), again.tally.timeout), (0, 1));
    let kept = fixture.kept().await;
    assert!(
        !kept.contains(&others[0]) && kept.contains(&others[99]),
        "{kept:?}"
    );

    // Once the key is over, that it was sent makes room as well.
    fixture.clock.advance(Duration::from_secs(121));
    fixture.send_others(100).await;
    assert!(!fixture.kept().await.contains(&first.id));
}

/// What was begun and found no room takes no room.
#[tokio::test]
async fn what_is_withdrawn_makes_room() {
    let fixture = fixture_of(InboxLimits::default(), 0);
    fixture.register(&["a"]).await;
    fixture.register.judge(|writes| {
        let begins = writes.iter().any(|write| write.key.starts_with("cast/"));
        let is_void = writes[0].body.as_ref().is_some_and(|body| *body == void());
        match begins && !is_void {
            true => Fate::Refuse(unavailable(Applied::No)),
            false => Fate::Pass,
        }
    });
    let refused = fixture.coordinator.multicast(stored("x"), soon()).await;
    assert!(refused.is_err(), "{refused:?}");
    let parts = fixture.register.list("part/".to_owned(), None, 10, soon());
    assert_eq!(parts.await.unwrap().keys, Vec::<String>::new());
}

/// A runner of a version that does not look whether its multicast was ruled out keeps its key.
#[tokio::test]
async fn who_does_not_yield_is_not_taken_from() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let call = keyed(Delivery::ExactlyOnce);
    let older = Arc::new(parking_lot::Mutex::new(None));
    let claimed = older.clone();
    fixture.register.judge(move |writes| {
        *claimed.lock() = writes.first().cloned();
        Fate::Refuse(unavailable(Applied::No))
    });
    fixture.coordinator.say_alive().await;
    let refused = fixture.coordinator.multicast(call.clone(), soon()).await;
    assert!(refused.is_err());
    fixture.register.heal();
    let mut claim: Write = older.lock().take().unwrap();
    let mut entry = KeyEntry::decode(claim.body.take().unwrap()).unwrap();
    (entry.yields, entry.runner) = (false, Runner(1));
    let claim = Write {
        expect: Expect::Anything,
        body: Some(entry.encode()),
        ..claim
    };
    fixture.register.write(vec![claim], soon()).await;
    let shortly = Instant::now() + Duration::from_millis(300);
    let waited = fixture.coordinator.multicast(call, shortly).await;
    assert_eq!(waited, Err(Error::DeadlineExceeded));
    assert_eq!(fixture.sent(Delivery::ExactlyOnce).await, 0);
}
