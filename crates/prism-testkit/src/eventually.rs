//! Waiting for a condition.

use std::{future::Future, panic::Location, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks at the condition.
const POLL: Duration = Duration::from_millis(5);

/// Returns once `condition` holds; looks again every few milliseconds.
///
/// `what` completes the sentence "waited in vain until …".
///
/// # Panics
/// After `within`, naming `what` and the caller; also when one look takes that long.
#[track_caller]
pub fn eventually<F, C>(within: Duration, what: &str, mut condition: F) -> impl Future<Output = ()>
where
    F: FnMut() -> C,
    C: Future<Output = bool>,
{
    eventually_some(within, what, move || {
        let holds = condition();
        async move { holds.await.then_some(()) }
    })
}

/// As [`eventually`], for a condition that yields something.
///
/// # Panics
/// As [`eventually`].
#[track_caller]
pub fn eventually_some<F, C, T>(within: Duration, what: &str, mut condition: F) -> impl Future<Output = T>
where
    F: FnMut() -> C,
    C: Future<Output = Option<T>>,
{
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + within;
        let mut looks = 0;
        loop {
            looks += 1;
            match timeout_at(deadline, condition()).await {
                Ok(Some(value)) => return value,
                Ok(None) if Instant::now() < deadline => sleep(POLL).await,
                _ => panic!("waited {within:?} in vain until {what} ({looks} looks, from {caller})"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_comes_true_is_seen() {
        let mut looks = 0;
        let seen = eventually_some(Duration::from_secs(1), "the third look", || {
            looks += 1;
            ready((looks == 3).then_some(looks))
        });
        assert_eq!(seen.await, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "waited 1s in vain until pigs fly")]
    async fn a_condition_that_stays_false_is_named() {
        eventually(Duration::from_secs(1), "pigs fly", || ready(false)).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "in vain until somebody answers (1 looks")]
    async fn a_look_that_hangs_is_named() {
        eventually(Duration::from_secs(1), "somebody answers", pending).await;
    }
}
