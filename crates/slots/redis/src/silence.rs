//! Noticing a dead peer.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How long a peer that was asked something has said nothing at all.
///
/// Counted over all calls, so that many short ones notice a dead connection as one long one does, and a
/// short one alone does not take a slow server for a dead one.
#[derive(Debug)]
pub(crate) struct Silence {
    origin: Instant,
    /// When it began, in microseconds since `origin` and at least 1; 0 when nothing is owed.
    began: AtomicU64,
}

impl Silence {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            began: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    pub(crate) fn begin(&self) {
        // Failing means that it began earlier.
        let _ = self
            .began
            .compare_exchange(0, self.now(), Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn end(&self) {
        self.began.store(0, Ordering::Release);
    }

    pub(crate) fn length(&self) -> Duration {
        match self.began.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            began => Duration::from_micros(self.now().saturating_sub(began)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_first_question_without_an_answer() {
        let (silence, second) = (Silence::new(), Duration::from_secs(1));
        tokio::time::advance(second).await;
        assert_eq!(silence.length(), Duration::ZERO, "nobody asked");
        silence.begin();
        tokio::time::advance(second).await;
        silence.begin();
        tokio::time::advance(second).await;
        assert_eq!(silence.length(), 2 * second);
        silence.end();
        tokio::time::advance(second).await;
        assert_eq!(silence.length(), Duration::ZERO);
        silence.begin();
        tokio::time::advance(second).await;
        assert_eq!(silence.length(), second);
    }
}
