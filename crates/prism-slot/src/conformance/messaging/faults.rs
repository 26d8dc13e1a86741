//! What holds when the broker, or the way to it, fails.

use std::collections::BTreeSet;

use tokio::time::sleep;

use super::*;
use crate::conformance::{
    Fault,
    fault::{Cuts, LIMIT, eventually, in_time, soon},
};

/// How often the broker is killed.
const KILLS: usize = 6;
/// How many identities a message is for whose publish is cut, and how often it is published.
const MANY: usize = 300;
const ROUNDS: usize = 8;
/// The last thing that a listener is to hear.
const LAST: &str = "last";

impl Scene<Open> {
    async fn open(&self) -> Arc<dyn DynMessaging> {
        (self.stage.open)(self.namespace.clone(), roomy()).await
    }

    /// Past the way that faults befall.
    async fn beside(&self) -> Arc<dyn DynMessaging> {
        (self.stage.beside)(self.namespace.clone(), roomy()).await
    }
}

/// So that nothing is missing but by the fault.
fn roomy() -> Options {
    Options {
        room: Room {
            messages: 1_000_000,
            bytes: usize::MAX,
        },
        ..Options::default()
    }
}

async fn recovers(slot: &Arc<dyn DynMessaging>) {
    eventually("the slot works again", || async {
        slot.probe(deadline()).await.ok()
    })
    .await;
}

/// Publishes until somebody is known to have been there.
async fn accepted(slot: &Arc<dyn DynMessaging>, name: &str, message: &Arc<Message>) {
    eventually("somebody listens", || async {
        (publish(slot, &[name], message).await == [Outcome::Accepted]).then_some(())
    })
    .await;
}

/// What was heard up to the last thing, gaps as `None`.
async fn heard(listener: &mut Listener) -> Vec<Option<String>> {
    let mut heard = Vec::new();
    loop {
        let text = match next(listener).await {
            Received::Message(message) => Some(String::from_utf8(message.payload.to_vec()).unwrap()),
            Received::Gap { .. } => None,
        };
        if text.as_deref() == Some(LAST) {
            return heard;
        }
        heard.push(text);
    }
}

pub(super) async fn calls_end_in_the_dark(scene: Scene<Open>) {
    every_call_ends(scene, Fault::BlackHole).await;
}

pub(super) async fn calls_end_while_the_broker_stands_still(scene: Scene<Open>) {
    every_call_ends(scene, Fault::Frozen).await;
}

fn is_no_claim(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown(_) | Outcome::NotSent(_))
}

async fn every_call_ends(scene: Scene<Open>, fault: Fault) {
    let slot = scene.open().await;
    let (mut listener, post) = (listen(&slot, "a").await, slot.post(deadline()).await.unwrap());
    let (targets, other) = (["a", "b"].map(identity), identity("b"));
    scene.begin(fault).await;
    let (outcomes, sent, listened, posted, probed) = in_time(async {
        tokio::join!(
            slot.publish_batch(&targets, message("lost"), soon()),
            slot.send(post.address(), Bytes::new(), soon()),
            slot.listen(&other, soon()),
            slot.post(soon()),
            slot.probe(soon()),
        )
    })
    .await;
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(is_no_claim), "{outcomes:?}");
    assert!(is_no_claim(&sent), "{sent:?}");
    for refused in [listened.map(drop), posted.map(drop), probed] {
        assert!(
            matches!(refused, Err(Error::Timeout { .. } | Error::Unavailable { .. })),
            "{refused:?}"
        );
    }
    scene.end(fault).await;
    recovers(&slot).await;
    accepted(&slot, "a", &message(LAST)).await;
    let lost: Vec<_> = heard(&mut listener).await.into_iter().flatten().collect();
    assert!(lost.is_empty() || lost == ["lost"], "{lost:?}");
    assert!(lost.is_empty() || matches!(outcomes[0], Outcome::Unknown(_)));
    assert_eq!(
        publish(&slot, &["b"], &message("x")).await,
        [Outcome::NoSubscriber]
    );
}

pub(super) async fn lost_answers_leave_it_unknown(scene: Scene<Open>) {
    let (slot, beside) = (scene.open().await, scene.beside().await);
    let mut listener = listen(&beside, "a").await;
    let sent = message("x");
    scene.begin(Fault::LostReplies).await;
    let targets = [identity("a"), identity("nobody")];
    let outcomes = in_time(slot.publish_batch(&targets, sent.clone(), soon())).await;
    assert!(
        matches!(outcomes[..], [Outcome::Unknown(_), Outcome::Unknown(_)]),
        "{outcomes:?}"
    );
    expect(&mut listener, &sent).await;
    scene.end(Fault::LostReplies).await;
    recovers(&slot).await;
    accepted(&slot, "a", &message(LAST)).await;
    assert_eq!(heard(&mut listener).await, [], "it was not sent again");
}

pub(super) async fn a_publish_to_many_that_is_cut_is_told_one_by_one(scene: Scene<Open>) {
    let (slot, beside) = (scene.open().await, scene.beside().await);
    let names: Vec<String> = (0..MANY).map(|number| format!("id-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut listeners = Vec::new();
    for name in &names {
        listeners.push(listen(&beside, name).await);
    }
    let sent = message(&"x".repeat(100));
    let mut cuts = Cuts::new(&scene);
    let mut unknown = 0;
    for _ in 0..ROUNDS {
        let outcomes = cuts.within(publish(&slot, &names, &sent)).await;
        recovers(&slot).await;
        let last = publish(&beside, &names, &message(LAST)).await;
        assert!(last.iter().all(|outcome| *outcome == Outcome::Accepted));
        for (outcome, listener) in outcomes.iter().zip(&mut listeners) {
            let times = heard(listener).await.len();
            match outcome {
                Outcome::Accepted => assert_eq!(times, 1),
                Outcome::NotSent(_) => assert_eq!(times, 0),
                Outcome::Unknown(_) => assert!(times <= 1),
                Outcome::NoSubscriber => panic!("somebody listens"),
            }
            unknown += usize::from(matches!(outcome, Outcome::Unknown(_)));
        }
    }
    assert!(unknown > 0, "nothing was cut");
}

pub(super) async fn listeners_resume_after_a_restart(scene: Scene<Open>) {
    what_is_accepted_is_heard(scene, Fault::Restarted, 2).await;
}

pub(super) async fn listeners_resume_after_kills(scene: Scene<Open>) {
    what_is_accepted_is_heard(scene, Fault::Killed, KILLS).await;
}

/// What is known of numbered messages that were published one after the other.
#[derive(Default)]
struct Sent {
    accepted: BTreeSet<u64>,
    certainly_not: BTreeSet<u64>,
}

async fn what_is_accepted_is_heard(scene: Scene<Open>, fault: Fault, rounds: usize) {
    let (speaking, listening) = (scene.open().await, scene.open().await);
    let mut listener = listen(&listening, "a").await;
    let disturbing = async {
        for _ in 0..rounds {
            // A moment like any other: nothing is waited for here.
            sleep(Duration::from_millis(scene.random(10..200))).await;
            scene.befall(fault).await;
            accepted(&speaking, "a", &message("probe")).await;
        }
    };
    let sent = talk_until(&speaking, disturbing).await;
    accepted(&speaking, "a", &message(LAST)).await;
    let heard = heard(&mut listener).await;
    sent.agrees_with(&heard);
    let gaps = heard.iter().filter(|heard| heard.is_none()).count();
    assert!(
        gaps >= rounds && sent.accepted.len() > 20,
        "{gaps} gaps, {} accepted",
        sent.accepted.len()
    );
}

/// Publishes numbers until the other thing has ended.
async fn talk_until(slot: &Arc<dyn DynMessaging>, end: impl Future<Output = ()>) -> Sent {
    let (mut sent, target) = (Sent::default(), [identity("a")]);
    let talking = async {
        for number in 0.. {
            let numbered = message(&number.to_string());
            let outcome = slot
                .publish_batch(&target, numbered, Instant::now() + LIMIT)
                .await
                .remove(0);
            match outcome {
                Outcome::Accepted => drop(sent.accepted.insert(number)),
                // Whoever is away hears of a gap instead.
                Outcome::NoSubscriber | Outcome::NotSent(_) => drop(sent.certainly_not.insert(number)),
                Outcome::Unknown(_) => {}
            }
            if outcome != Outcome::Accepted {
                sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::select! {
        () = talking => {}
        () = end => {}
    }
    sent
}

impl Sent {
    /// What was accepted was heard once and in order, or stands in a gap; what was not sent was not heard.
    fn agrees_with(&self, heard: &[Option<String>]) {
        let (mut last, mut gaps) = (None, Vec::new());
        let mut numbers = BTreeSet::new();
        let mut is_gap = false;
        for heard in heard {
            let Some(number) = heard.as_ref().map(|text| text.parse::<u64>().ok()) else {
                is_gap = true;
                continue;
            };
            let Some(number) = number else { continue };
            assert!(numbers.insert(number), "{number} was heard twice");
            assert!(!self.certainly_not.contains(&number), "{number} was not sent");
            if self.accepted.contains(&number) {
                assert!(last < Some(number), "{number} after {last:?}");
            }
            if std::mem::take(&mut is_gap) {
                gaps.push(last..Some(number));
            }
            last = Some(number);
        }
        let end = is_gap.then_some(last..Some(u64::MAX));
        gaps.extend(end);
        for number in self.accepted.difference(&numbers) {
            assert!(
                gaps.iter().any(|gap| gap.contains(&Some(*number))),
                "{number} is missing without a word"
            );
        }
    }
}
