//! That something is stored for identities, on its way to whoever has their sessions: batched, bounded, and never waited
//! for. Sessions look by themselves, too: a bell that is lost costs time and nothing else.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prism_slot::{DynMessaging, EVERY_POST, Identity, Outcome};
use tokio::{sync::Notify, time::Instant};

use super::note::{Bell, MAX_BYTES, Note};

/// For how many identities bells wait at most.
const MAX_WAITING: usize = 65_536;
/// How long bells may be under way.
const LIMIT: Duration = Duration::from_secs(2);
/// What an identity takes in a note beside its name, at most.
const FRAME: usize = 8;

/// Bells for other runners.
#[derive(Default)]
pub(crate) struct Bells {
    waiting: Mutex<VecDeque<Identity>>,
    filled: Notify,
}

impl Bells {
    pub(crate) fn ring(&self, identities: Vec<Identity>) {
        let mut waiting = self.waiting.lock();
        let room = MAX_WAITING.saturating_sub(waiting.len());
        waiting.extend(identities.into_iter().take(room));
        drop(waiting);
        self.filled.notify_one();
    }

    /// Rings what waits, for ever.
    pub(crate) async fn run(&self, namespace: &str, messaging: impl Fn() -> Arc<dyn DynMessaging>) {
        loop {
            self.filled.notified().await;
            while let Some((messaging, bell)) = self.next(&messaging) {
                let deadline = Instant::now() + LIMIT;
                let outcome = messaging
                    .send(EVERY_POST, Note::Bell(bell).encode(), deadline)
                    .await;
                if outcome != Outcome::Accepted {
                    tracing::debug!(namespace, ?outcome, "could not ring at other runners");
                }
            }
        }
    }

    /// As many as go into a note, and who takes it.
    fn next(&self, messaging: impl Fn() -> Arc<dyn DynMessaging>) -> Option<(Arc<dyn DynMessaging>, Bell)> {
        let messaging = messaging();
        let bell = self.take(MAX_BYTES.min(messaging.capability().max_payload))?;
        Some((messaging, bell))
    }

    fn take(&self, max_bytes: usize) -> Option<Bell> {
        let mut waiting = self.waiting.lock();
        let mut bytes = 0;
        let size = |identity: &Identity| {
            bytes += identity.as_str().len() + FRAME;
            bytes
        };
        let fits = waiting.iter().map(size).take_while(|bytes| *bytes <= max_bytes);
        let count = fits.count().max(1).min(waiting.len());
        (count > 0).then(|| Bell(waiting.drain(..count).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;

    #[test]
    fn bells_are_bounded_and_go_into_notes_that_are_not_too_large() {
        let bells = Bells::default();
        bells.ring(
            (0..MAX_WAITING)
                .map(|number| id(&format!("id-{number:05}")))
                .collect(),
        );
        bells.ring(vec![id("one-too-many")]);
        let (mut rung, mut notes) = (Vec::new(), 0);
        while let Some(bell) = bells.take(1_000) {
            assert!(Note::Bell(bell.clone()).encode().len() <= 1_000);
            rung.extend(bell.0);
            notes += 1;
        }
        assert!(notes < MAX_WAITING / 40, "one by one they would cost too much");
        assert_eq!((rung.len(), &rung[0]), (MAX_WAITING, &id("id-00000")));
        bells.ring(vec![id("longer than a note")]);
        assert_eq!(bells.take(1).map(|bell| bell.0.len()), Some(1));
        assert!(bells.take(1).is_none());
    }
}
