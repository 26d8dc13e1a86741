//! What holds while the backend, or the way to it, does not answer.

use futures::future::join_all;
use tokio::time::sleep;

use super::*;
use crate::{
    Applied, DeadId,
    conformance::{
        Fault,
        fault::{Cuts, eventually, in_time, known, soon, unavailable},
        work::{PAUSE, until_known},
    },
};

/// How many inboxes a message is for, or how many messages are settled, when that is cut; and how often that is done, cut
/// or not.
const MANY: usize = 250;
const ROUNDS: u64 = 6;

impl Scene<Open> {
    pub(super) async fn open(&self) -> Subject {
        Subject((self.stage.open)(self.namespace.clone(), roomy()).await)
    }

    /// Past the way that faults befall.
    pub(super) async fn beside(&self) -> Subject {
        Subject((self.stage.beside)(self.namespace.clone(), roomy()).await)
    }
}

/// Room for whatever a case stores.
pub(in super::super) fn roomy() -> InboxLimits {
    InboxLimits {
        max_messages: 1_000_000,
        ..InboxLimits::default()
    }
}

/// Everything at once, which then is out for long.
pub(super) fn everything() -> Fetch {
    Fetch {
        max_messages: 1_000,
        max_bytes: 16 << 20,
        ack_timeout: Duration::from_secs(600),
        max_deliver: 10_000,
    }
}

impl Subject {
    /// Waits until it answers again.
    pub(super) async fn recovers(&self) {
        eventually("the slot works again", || async {
            self.slot().depth(None, deadline()).await.ok()
        })
        .await;
    }

    /// Repeats a store until it is known to be in each inbox.
    pub(super) async fn stored(&self, names: &[&str], message: &Arc<Message>) {
        let mut open = names.to_vec();
        loop {
            let outcomes = self.enqueue(&open, message, terms()).await;
            let is_open = |outcome: &Enqueued| match outcome {
                Enqueued::Stored { .. } | Enqueued::Duplicate => false,
                Enqueued::Unknown(_) | Enqueued::NotStored(_) => true,
                Enqueued::Full => panic!("there is room"),
            };
            let left = open.iter().zip(&outcomes).filter(|(_, outcome)| is_open(outcome));
            open = left.map(|(name, _)| *name).collect();
            if open.is_empty() {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// Repeats verdicts until each is known to hold.
    async fn settled(&self, consumer: &Consumer, acks: &[(MulticastId, Verdict)]) {
        until_known(|| async { known(self.slot().settle(consumer, acks.to_vec(), deadline()).await) }).await;
    }

    /// How many messages are in each of these inboxes.
    async fn depths(&self, names: &[&str]) -> Vec<u64> {
        join_all(
            names
                .iter()
                .map(|name| async { self.depth(Some(name)).await.messages }),
        )
        .await
    }

    /// All that a session is handed.
    async fn handed(&self, consumer: &Consumer) -> Vec<Delivery> {
        let (mut handed, mut more) = (Vec::new(), true);
        while more {
            let fetched = self.try_fetch(consumer, everything()).await.unwrap();
            more = fetched.more;
            handed.extend(fetched.deliveries);
        }
        handed
    }

    /// All that a new session is handed.
    pub(super) async fn left(&self, name: &str, session_seq: u64) -> Vec<Delivery> {
        let consumer = self.consumer(name, session_seq).await;
        self.handed(&consumer).await
    }
}

pub(super) async fn calls_end_in_the_dark(scene: Scene<Open>) {
    every_call_ends(scene, Fault::BlackHole).await;
}

pub(super) async fn calls_end_while_the_backend_stands_still(scene: Scene<Open>) {
    every_call_ends(scene, Fault::Frozen).await;
}

async fn every_call_ends(scene: Scene<Open>, fault: Fault) {
    let slot = scene.open().await;
    let (settled, out, sent) = (
        slot.store("a", "settled").await,
        slot.store("a", "out").await,
        message("sent"),
    );
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.handed(&consumer).await.len(), 2);
    let acks = vec![(settled.multicast, Verdict::Ack)];
    scene.begin(fault).await;
    let to = ["b", "c"].map(address);
    let stores = slot.slot().enqueue(&to, sent.clone(), terms(), soon());
    let (stores, others) = in_time(async { tokio::join!(stores, unanswered(&slot, &consumer, &acks)) }).await;
    let backend = slot.slot().capability().backend;
    assert!(
        others.iter().all(|error| unavailable(error) == backend),
        "{others:?}"
    );
    assert_eq!(stores.len(), 2);
    for store in &stores {
        assert!(
            matches!(store, Enqueued::Unknown(_) | Enqueued::NotStored(_)),
            "{store:?}"
        );
    }
    scene.end(fault).await;
    slot.recovers().await;

    for (store, depth) in stores.iter().zip(slot.depths(&["b", "c"]).await) {
        assert!(depth == 0 || matches!(store, Enqueued::Unknown(_)), "{store:?}");
    }
    slot.stored(&["b", "c"], &sent).await;
    assert_eq!(slot.depths(&["b", "c"]).await, [1, 1], "each is there once");
    slot.settled(&consumer, &acks).await;
    let left = slot.left("a", 2).await;
    assert_eq!(
        (texts(&left), left[0].attempt > 1),
        (vec!["out".to_owned()], true)
    );
    let again = slot.consumer("a", 2).await;
    assert_eq!(slot.settle(&again, &out, Verdict::Ack).await, Settled::Done);
}

/// What calls of every other kind say that are not answered.
async fn unanswered(slot: &Subject, consumer: &Consumer, acks: &[(MulticastId, Verdict)]) -> Vec<Error> {
    let (slot, until, identities) = (slot.slot(), soon(), [identity("a")]);
    let query = DeadQuery {
        limit: 10,
        ..DeadQuery::default()
    };
    let letters = vec![(DeadId(1), address("a"))];
    let unused = address("d");
    let answers = tokio::join!(
        async { slot.open(consumer, until).await },
        async { slot.fetch(consumer, everything(), until).await.map(drop) },
        async { slot.settle(consumer, acks.to_vec(), until).await.map(drop) },
        async {
            slot.cancel(MulticastId(1), &identities, until)
                .await
                .remove(0)
                .map(drop)
        },
        async { slot.discard(&unused, until).await.map(drop) },
        async { slot.depth(None, until).await.map(drop) },
        async { slot.dead_letters(query, until).await.map(drop) },
        async { slot.redrive(letters, terms(), until).await.map(drop) },
        async { slot.probe(until).await },
        async { slot.sweep(until).await.map(drop) },
    );
    // There may be nothing to tidy where the backend does it.
    drop(answers.9);
    let first = [answers.0, answers.1, answers.2, answers.3, answers.4];
    let answers = first
        .into_iter()
        .chain([answers.5, answers.6, answers.7, answers.8]);
    answers
        .map(|answer| answer.expect_err("nothing answers"))
        .collect()
}

pub(super) async fn lost_answers_are_found_out(scene: Scene<Open>) {
    let (slot, beside) = (scene.open().await, scene.beside().await);
    let sent = message("x");
    scene.begin(Fault::LostReplies).await;
    let lost = in_time(
        slot.slot()
            .enqueue(&[address("a")], sent.clone(), terms(), soon()),
    )
    .await;
    assert!(matches!(lost[..], [Enqueued::Unknown(_)]), "{lost:?}");
    eventually("it is there", || async {
        (beside.depth(Some("a")).await.messages == 1).then_some(())
    })
    .await;
    scene.end(Fault::LostReplies).await;
    slot.recovers().await;
    let again = slot.enqueue(&["a"], &sent, terms()).await;
    assert_eq!(again, [Enqueued::Duplicate]);

    // Whose connections are all up.
    let slot = scene.open().await;
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, ["x"]);
    let acks = [(sent.multicast, Verdict::Ack)];
    scene.begin(Fault::LostReplies).await;
    let lost = in_time(slot.slot().settle(&consumer, acks.to_vec(), soon())).await;
    assert_eq!(lost.unwrap_err().applied(), Applied::Unknown);
    scene.end(Fault::LostReplies).await;
    slot.recovers().await;
    slot.settled(&consumer, &acks).await;
    assert_eq!(
        slot.enqueue(&["a"], &sent, terms()).await,
        [Enqueued::Duplicate],
        "also when it is settled"
    );
    assert_eq!(slot.left("a", 2).await, []);
}

pub(super) async fn a_store_for_many_that_is_cut_is_told_one_by_one(scene: Scene<Open>) {
    let (slot, beside) = (scene.open().await, scene.beside().await);
    let names: Vec<String> = (0..MANY).map(|number| format!("id-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut cuts = Cuts::new(&scene);
    let mut unknown = 0;
    for round in 0..ROUNDS {
        let sent = message(&"x".repeat(200));
        let told = cuts.within(slot.enqueue(&names, &sent, terms())).await;
        assert_eq!(told.len(), MANY);
        for (told, depth) in told.iter().zip(beside.depths(&names).await) {
            let is_there = depth > round;
            match told {
                Enqueued::Stored { .. } => assert!(is_there),
                Enqueued::NotStored(why) => assert!(!is_there, "{why}"),
                Enqueued::Unknown(_) => unknown += 1,
                other => panic!("{other:?}"),
            }
        }
        slot.stored(&names, &sent).await;
        let depths = beside.depths(&names).await;
        assert!(
            depths.iter().all(|depth| *depth == round + 1),
            "each is there once: {depths:?}"
        );
    }
    assert!(unknown > 0, "nothing was cut");
}

/// Also where inboxes are worked on in steps, of which some were taken before.
pub(super) async fn a_cancellation_that_is_cut_is_told_one_by_one(scene: Scene<Open>) {
    let (slot, beside) = (scene.open().await, scene.beside().await);
    let names: Vec<String> = (0..2 * MANY).map(|number| format!("id-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let identities: Vec<Identity> = names.iter().map(|name| identity(name)).collect();
    let mut cuts = Cuts::new(&scene);
    let (mut in_part, mut rounds) = (0, 0);
    // Where a cut comes before the first is taken back, or after the last, it has said nothing.
    while rounds < ROUNDS || in_part == 0 && rounds < 3 * ROUNDS {
        rounds += 1;
        let sent = message("x");
        beside.stored(&names, &sent).await;
        let cancel = slot.slot().cancel(sent.multicast, &identities, deadline());
        let told = cuts.within(cancel).await;
        assert_eq!(told.len(), names.len());
        let depths = beside.depths(&names).await;
        let mut taken = Vec::new();
        for ((told, depth), identity) in told.iter().zip(depths).zip(&identities) {
            match told {
                Ok(was_there) => assert!(*was_there),
                Err(error) => assert!(error.applied() == Applied::Unknown || depth == 1, "{error}"),
            }
            taken.extend(told.is_ok().then(|| identity.clone()));
        }
        in_part += u32::from((1..names.len()).contains(&taken.len()));
        let again = beside.slot().cancel(sent.multicast, &taken, deadline()).await;
        assert_eq!(again, vec![Ok(false); taken.len()], "it is gone");
        until_known(|| async {
            let told = slot.slot().cancel(sent.multicast, &identities, deadline()).await;
            known(told.into_iter().collect::<Result<Vec<bool>>>())
        })
        .await;
        let depths = beside.depths(&names).await;
        assert!(depths.iter().all(|depth| *depth == 0), "{depths:?}");
    }
    assert!(in_part > 0, "none was cut in the middle");
}

pub(super) async fn verdicts_that_are_cut_hold_or_are_unknown(scene: Scene<Open>) {
    let (slot, beside) = (scene.open().await, scene.beside().await);
    let mut cuts = Cuts::new(&scene);
    let mut unknown = 0;
    for round in 0..ROUNDS {
        join_all((0..MANY).map(|number| {
            let beside = &beside;
            async move { drop(beside.store("a", &number.to_string()).await) }
        }))
        .await;
        let consumer = slot.consumer("a", 2 * round + 1).await;
        let out = slot.handed(&consumer).await;
        assert_eq!(out.len(), MANY);
        let acks: Vec<_> = out
            .iter()
            .map(|delivery| (delivery.message.multicast, Verdict::Ack))
            .collect();
        let settle = slot.slot().settle(&consumer, acks.clone(), deadline());
        let told = cuts.within(settle).await;
        match known(told) {
            Some(settled) => {
                assert_eq!(settled, [Settled::Done; MANY]);
                assert_eq!(beside.depth(Some("a")).await.messages, 0);
            }
            None => unknown += 1,
        }
        slot.settled(&consumer, &acks).await;
        assert_eq!(
            slot.left("a", 2 * round + 2).await,
            [],
            "nothing that is settled comes again"
        );
    }
    assert!(unknown > 0, "nothing was cut");
}
