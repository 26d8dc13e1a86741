use std::sync::Arc;

use prism_slot::{Epoch, Identity, Position, Revision, memory::ManualClock};
use tokio::sync::Notify;

use super::*;
use crate::{
    Delivery, Stage,
    delivery::{Cast, News},
    testing::{Fate, Op, durable::Register, id, soon},
};

fn tracker(names: &[&str]) -> Tracker {
    let now = Timestamp::now();
    let cast = Cast {
        id: MulticastId(1),
        position: Position {
            epoch: Epoch(1),
            revision: Revision(1),
        },
        delivery: Delivery::AtLeastOnce,
        required: Stage::Stored,
        began_at: now,
        expires_at: None,
        kept_until: Timestamp(now.0 + 3_600_000),
        recorded: true,
        key_window: Some(Duration::from_secs(60)),
    };
    let targets: Vec<Identity> = names.iter().map(|name| id(name)).collect();
    let all = 0..targets.len();
    Tracker::new(cast, targets.into(), None, vec![all])
}

/// Whoever reads that it is sent reads all that is known of it.
#[tokio::test]
async fn nothing_is_finished_while_parts_are_being_written() {
    let register = Register::new(64 << 20, Arc::new(ManualClock::new(Timestamp::now())));
    let books = Books::new(register.clone(), Runner(1));
    let tracker = Arc::new(tracker(&["a"]));
    assert!(books.begin(&tracker, None, soon(), soon()).await.unwrap());
    tracker.learn_at([(0, News::Reached(Stage::Stored))]);
    tracker.sent();

    let go = Arc::new(Notify::new());
    register.script.next(Op::Write, Fate::Wait(go.clone()));
    let writes = register.script.count(Op::Write);
    let flushing = {
        let (books, tracker) = (books.clone(), tracker.clone());
        tokio::spawn(async move { books.flush(&tracker, soon()).await })
    };
    register.script.reached(Op::Write, writes + 1).await;
    let finishing = {
        let (books, tracker) = (books.clone(), tracker.clone());
        tokio::spawn(async move { books.finish(&tracker, soon()).await })
    };
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let entry = books.cast(tracker.cast.id, soon()).await.unwrap().unwrap();
    assert_eq!(entry.phase, Phase::Running);
    go.notify_one();
    finishing.await.unwrap().unwrap();
    flushing.await.unwrap().unwrap();
    let entry = books.cast(tracker.cast.id, soon()).await.unwrap().unwrap();
    let parts = books.parts(&entry, soon()).await.unwrap();
    assert_eq!(
        (entry.phase, parts[0].1.states[0].stage),
        (Phase::Sent, Stage::Stored)
    );
}
