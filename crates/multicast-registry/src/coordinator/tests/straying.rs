//! Receipts of multicasts that no runner has in memory any more: they go into the ledger, however that fares.

use std::time::Duration;

use prism_slot::{Applied, MulticastId, Verdict};
use tokio::time::{Instant, sleep, timeout};

use super::{
    super::{Coordinator, Session},
    delivering::{Fixture, delivery, fixture, known, settled, stored, until},
};
use crate::{
    Stage,
    testing::{Fate, Op, late, soon, unavailable},
};

/// One runner that has sent so many messages to an identity and is gone, and another one with the identity's session, which
/// has all of them.
async fn left_behind(count: usize) -> (Fixture, Coordinator, Session, Vec<MulticastId>) {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a", "elsewhere"]).await;
    let mut multicasts = Vec::new();
    for _ in 0..count {
        let report = fixture.coordinator.multicast(only("a"), soon()).await.unwrap();
        multicasts.push(report.id);
    }
    fixture.coordinator.end_keeping(soon()).await;
    fixture.coordinator.end_abruptly().await;
    let mut session = sibling.subscribe("a", None, soon()).await.unwrap();
    for _ in 0..count {
        delivery(&mut session).await;
    }
    (fixture, sibling, session, multicasts)
}

fn only(name: &'static str) -> super::super::Multicast {
    super::super::Multicast {
        filter: Some(prism_filter::Filter::new().eq("$identity", name)),
        ..stored("x")
    }
}

/// Acknowledges these, and waits until that is settled.
async fn acknowledge(session: &mut Session, multicasts: &[MulticastId]) {
    for multicast in multicasts {
        session.say(*multicast, Verdict::Ack, None);
    }
    let mut count = 0;
    while count < multicasts.len() {
        count += settled(session).await.len();
    }
}

/// Very many of them are written down by a slow ledger, each in its time, and what is sent meanwhile is written up.
#[tokio::test(start_paused = true)]
async fn many_strays_are_all_written_down_and_starve_nobody() {
    let (fixture, sibling, mut session, multicasts) = left_behind(200).await;
    let slow = || Fate::Slow(Duration::from_millis(250));
    for op in [Op::Read, Op::Write] {
        fixture.register.script.always(op, slow());
    }
    acknowledge(&mut session, &multicasts).await;
    // They are on their way to the ledger.
    let reads = fixture.register.script.count(Op::Read);
    fixture.register.script.reached(Op::Read, reads + 1).await;
    let own = sibling.multicast(only("elsewhere"), soon()).await.unwrap().id;
    let tracker = sibling.shared.desk.get(own).unwrap();
    let began = Instant::now();
    let written = async {
        while tracker.is_unfinished() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), written).await.unwrap();
    let took = began.elapsed();
    sleep(Duration::from_secs(60)).await;
    for op in [Op::Read, Op::Write] {
        fixture.register.script.always(op, Fate::Pass);
    }
    let mut lost = 0;
    for multicast in multicasts {
        let known = known(&sibling, multicast).await;
        lost += usize::from(known[0].2 != Stage::Acked);
    }
    assert!(
        lost == 0 && took < Duration::from_secs(2),
        "{lost} are lost, and a multicast was written up after {took:?}"
    );
}

/// In whatever way the ledger is not there, they wait until it is.
#[tokio::test]
async fn strays_wait_for_the_ledger() {
    for failure in [unavailable(Applied::No), unavailable(Applied::Unknown), late()] {
        for op in [Op::Read, Op::Write] {
            let (fixture, sibling, mut session, multicasts) = left_behind(1).await;
            let ledger = &fixture.register.script;
            ledger.always(op, Fate::Refuse(failure.clone()));
            let before = ledger.count(op);
            acknowledge(&mut session, &multicasts).await;
            let tried_again = timeout(Duration::from_secs(5), ledger.reached(op, before + 2)).await;
            assert!(tried_again.is_ok(), "given up after {failure}");
            ledger.always(op, Fate::Pass);
            until(&sibling, multicasts[0], Stage::Acked, "").await;
        }
    }
}

/// A runner that ends while it writes them down does so at its end.
#[tokio::test]
async fn strays_are_written_down_at_the_end() {
    let (fixture, sibling, mut session, multicasts) = left_behind(1).await;
    let third = fixture.sibling();
    let ledger = &fixture.register.script;
    ledger.always(Op::Read, Fate::Hang);
    let before = ledger.count(Op::Read);
    acknowledge(&mut session, &multicasts).await;
    ledger.reached(Op::Read, before + 1).await;
    sibling.end_abruptly().await;
    ledger.always(Op::Read, Fate::Pass);
    sibling.end_keeping(soon()).await;
    until(&third, multicasts[0], Stage::Acked, "").await;
}
