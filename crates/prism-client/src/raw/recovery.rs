//! How the attempts to get a lost stream back are spaced.

use std::time::Duration;

use prism_core::backoff::{Backoff, Policy};
use tokio::time::Instant;

/// The pauses between sessions, or watches. They start over once one has held for longer than any of them:
/// one that is lost as soon as it is open is no success.
pub(super) struct Recovery {
    policy: Policy,
    backoff: Backoff,
    opened: Option<Instant>,
}

impl Recovery {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            backoff: Backoff::new(policy),
            opened: Some(Instant::now()),
        }
    }

    pub(super) fn opened(&mut self) {
        self.opened = Some(Instant::now());
    }

    pub(super) fn pause(&mut self) -> Duration {
        if self
            .opened
            .take()
            .is_some_and(|opened| opened.elapsed() > self.policy.cap)
        {
            self.backoff.reset();
        }
        self.backoff.pause()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_while_sessions_do_not_hold() {
        let policy = Policy {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(2),
        };
        let mut recovery = Recovery::new(policy);
        for _ in 0..20 {
            recovery.pause();
            recovery.opened();
        }
        assert!(recovery.backoff.failures() >= 20);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(recovery.pause() <= policy.base);
    }
}
