//! What may be in an inbox for a second time says so, and nothing else does.

use std::{sync::Arc, time::Duration};

use prism_slot::{Applied, Enqueued, InboxLimits, Settled, Verdict};
use tokio::sync::Notify;

use super::{
    super::Coordinator,
    delivering::{Fixture, delivery, fixture, fixture_with, settled, stored},
};
use crate::testing::{Fate, Op, id, soon, unavailable};

/// A slot that soon forgets what was settled, as JetStream does when its server is started again.
fn forgetful() -> Fixture {
    fixture_with(InboxLimits {
        dedupe: Duration::from_secs(5),
        ..InboxLimits::default()
    })
}

impl Fixture {
    /// A runner is at work until it stores something, and ends there; whoever looks then takes it for dead.
    async fn end_while_storing(
        &self,
        runner: Coordinator,
        work: impl Future<Output = ()> + Send + 'static,
        is_stored: bool,
    ) {
        let script = &self.inboxes.script;
        let stores = script.count(Op::Enqueue);
        script.next(
            Op::Enqueue,
            match is_stored {
                true => Fate::Late(Arc::new(Notify::new())),
                false => Fate::Hang,
            },
        );
        let working = tokio::spawn(work);
        script.reached(Op::Enqueue, stores + 1).await;
        working.abort();
        runner.end_abruptly().await;
        self.clock.advance(Duration::from_secs(11));
    }

    /// Acknowledges the message that is there, through a runner that ends before it has written that down; which attempt
    /// it says to be.
    async fn take(&self, reader: Coordinator) -> u32 {
        self.register.judge(|writes| {
            let is_known = writes.iter().any(|write| write.key.starts_with("part/"));
            match is_known {
                true => Fate::Refuse(unavailable(Applied::No)),
                false => Fate::Pass,
            }
        });
        let mut session = reader.subscribe("a", None, soon()).await.unwrap();
        let (multicast, _, attempt) = delivery(&mut session).await;
        session.say(multicast, Verdict::Ack, None);
        assert_eq!(settled(&mut session).await, [(multicast, Settled::Done)]);
        drop(session);
        reader.end_abruptly().await;
        self.register.heal();
        attempt
    }
}

/// However many runners end while they store it, whether they have stored it or not.
#[tokio::test]
async fn what_another_runner_stores_comes_again() {
    for number in 0..8 {
        let fixture = forgetful();
        let (last, last_reader) = (fixture.sibling(), fixture.sibling());
        let readers = [fixture.sibling(), fixture.sibling(), fixture.sibling()];
        let runners = [fixture.coordinator.clone(), fixture.sibling(), fixture.sibling()];
        fixture.register(&["a"]).await;
        // Each has looked after the others by itself, and does not so soon again.
        fixture.register.script.reached(Op::List, 8).await;
        let mut attempts = Vec::new();
        for (turn, (runner, reader)) in runners.into_iter().zip(readers).enumerate() {
            let (worker, is_stored) = (runner.clone(), number >> turn & 1 == 1);
            let work = async move {
                match turn {
                    0 => drop(worker.multicast(stored("x"), soon()).await),
                    _ => worker.look_after_once().await,
                }
            };
            fixture.end_while_storing(runner, work, is_stored).await;
            if is_stored {
                attempts.push((turn, fixture.take(reader).await));
            }
        }
        last.look_after_once().await;
        attempts.push((3, fixture.take(last_reader).await));
        for (turn, attempt) in attempts {
            assert_eq!(attempt, if turn == 0 { 1 } else { 2 }, "{number}, {turn}");
        }
    }
}

/// A slot that says nothing of a store may have done it; one that says that it has not has not.
#[tokio::test(start_paused = true)]
async fn what_may_have_been_stored_comes_again_and_nothing_else() {
    let fixture = fixture();
    let (refused, unsaid) = (
        Enqueued::NotStored("full".into()),
        Enqueued::Unknown("cut".into()),
    );
    let mut expected = Vec::new();
    for count in 0..4_u32 {
        for doubts in 0..1_u32 << count {
            let name = format!("{count}-{doubts:03b}");
            fixture.register(&[&name]).await;
            for attempt in 0..count {
                let is_doubtful = doubts >> attempt & 1 == 1;
                let outcome = if is_doubtful { &unsaid } else { &refused };
                fixture.inboxes.judge(&id(&name), outcome.clone());
            }
            expected.push((name, if doubts == 0 { 1 } else { 2 }));
        }
    }
    fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    for (name, attempt) in expected {
        let mut session = fixture.session(&name).await;
        assert_eq!(delivery(&mut session).await.2, attempt, "{name}");
    }
}
