//! Who does something for all that wait for it: one at a time.
//!
//! A fair mutex hands the turn from each that waits to the next, and each has to be scheduled first. Where a thousand
//! wait that is a thousand times the length of the runtime's queue, although the first of them has done what all wait
//! for. So all are woken together, and only those for whom it was not done yet want the turn.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// One turn, which somebody has or nobody.
#[derive(Debug, Default)]
pub(super) struct Turns {
    is_taken: AtomicBool,
    free: Notify,
}

/// The turn, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Ordering::Release);
        self.0.free.notify_waiters();
    }
}

impl Turns {
    /// Waits for the turn. Cancel safe.
    pub(super) async fn take(&self) -> Turn<'_> {
        let never = || None::<std::convert::Infallible>;
        match self.take_unless(never).await {
            Ok(turn) => turn,
            Err(done) => match done {},
        }
    }

    /// Waits for the turn, or until somebody else has done what it was wanted for. Cancel safe.
    ///
    /// # Errors
    /// What `done` says.
    pub(super) async fn take_unless<T>(&self, done: impl Fn() -> Option<T>) -> Result<Turn<'_>, T> {
        loop {
            let free = self.free.notified();
            tokio::pin!(free);
            free.as_mut().enable();
            if let Some(done) = done() {
                return Err(done);
            }
            if !self.is_taken.swap(true, Ordering::Acquire) {
                let turn = Turn(self);
                // Whoever had it may have done so since.
                return done().map_or(Ok(turn), Err);
            }
            free.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Poll};

    use super::*;

    #[tokio::test]
    async fn one_has_it_at_a_time() {
        let turns = Turns::default();
        let turn = turns.take().await;
        let second = turns.take();
        tokio::pin!(second);
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(turn);
        assert!(futures::poll!(second.as_mut()).is_ready());
    }

    /// Whichever of them runs first when it is done.
    #[tokio::test]
    async fn those_who_wait_do_not_wait_for_one_another() {
        let (turns, is_done) = (Turns::default(), AtomicBool::new(false));
        let done = || is_done.load(Ordering::Acquire).then_some(());
        let turn = turns.take().await;
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(turns.take_unless(done))).collect();
        for wait in &mut waiting {
            assert!(futures::poll!(wait.as_mut()).is_pending());
        }
        is_done.store(true, Ordering::Release);
        drop(turn);
        for wait in waiting.iter_mut().rev() {
            assert!(matches!(futures::poll!(wait.as_mut()), Poll::Ready(Err(()))));
        }
    }

    #[tokio::test]
    async fn a_turn_that_is_given_up_is_somebody_elses() {
        let turns = Arc::new(Turns::default());
        let turn = turns.take().await;
        let waits = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.take().await) }
        });
        tokio::task::yield_now().await;
        drop(turn);
        waits.await.unwrap();
    }
}
