//! One call: its deadline, and the attempts within it.

use std::{future::Future, time::Duration};

use prism_core::{
    backoff::{Backoff, Policy},
    failure::Reason,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{Applied, Error, Result};

/// What a second attempt would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing that the first did not do: a read, or a write that the service recognises.
    Harmless,
    /// Perhaps everything once more.
    Harmful,
}

/// How a call is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// For the log.
    pub(crate) method: &'static str,
    /// From the first attempt to the last answer.
    pub(crate) timeout: Duration,
    pub(crate) repeat: Repeat,
    /// How many attempts at most.
    pub(crate) attempts: u32,
    /// Between attempts.
    pub(crate) backoff: Policy,
}

/// Makes attempts until one succeeds, one fails for good, or there is no time for another one.
///
/// A failed attempt is repeated only when the service was away rather than unwilling
/// ([`Error::is_transient`]) and either nothing was applied or a repetition is harmless. A call that came too
/// soon is made again when the service says that it may. Where a store or
/// broker was away, the service has made its own attempts: more of ours would multiply with them, on a
/// backend that is coming back. `attempt` is given the call's deadline.
pub(crate) async fn run<T, F, Fut>(plan: Plan, mut attempt: F) -> Result<T>
where
    F: FnMut(Instant) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let began = Instant::now();
    let deadline = began + plan.timeout;
    let mut backoff = Backoff::new(plan.backoff);
    let mut maybe_applied = false;
    let mut before = None;
    tracing::debug!(method = plan.method, timeout = ?plan.timeout, "calling");
    loop {
        let outcome = timeout_at(deadline, attempt(deadline)).await;
        let error = match outcome {
            Ok(Ok(answer)) => {
                tracing::debug!(method = plan.method, took = ?began.elapsed(), "answered");
                return Ok(answer);
            }
            Ok(Err(error)) => error.after(before),
            Err(_) => Error::timed_out(plan.timeout).after(before),
        };
        maybe_applied |= error.applied() == Applied::Unknown;
        let next = next_attempt(&plan, &error, &mut backoff).filter(|next| *next < deadline);
        let Some(next) = next else {
            return Err(if maybe_applied {
                error.maybe_applied()
            } else {
                error
            });
        };
        let pause = next.saturating_duration_since(Instant::now());
        tracing::warn!(method = plan.method, %error, ?pause, "call failed, trying again");
        sleep_until(next).await;
        before = Some(error);
    }
}

/// When to try again, if at all.
fn next_attempt(plan: &Plan, error: &Error, backoff: &mut Backoff) -> Option<Instant> {
    let safe = error.applied() == Applied::No || plan.repeat == Repeat::Harmless;
    let helps = match error.reason() {
        Some(Reason::BackendUnavailable) => false,
        // Without a time there is none at which it would be let in.
        Some(Reason::RateLimited | Reason::Overloaded) => error.retry_after().is_some(),
        _ => error.is_transient(),
    };
    if !safe || !helps || backoff.failures() + 1 >= plan.attempts {
        return None;
    }
    // Jitter goes on top of what the service asked for: all its callers were told the same.
    let pause = error.retry_after().unwrap_or_default() + backoff.pause();
    Some(Instant::now() + pause)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future};

    use prism_core::failure::Failure;

    use super::*;

    const PLAN: Plan = Plan {
        method: "Test",
        timeout: Duration::from_secs(10),
        repeat: Repeat::Harmful,
        attempts: 4,
        backoff: Policy {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(1),
        },
    };

    const HARMLESS: Plan = Plan {
        repeat: Repeat::Harmless,
        ..PLAN
    };

    fn draining() -> Error {
        Failure::new(Reason::Draining, "about to end")
            .not_applied()
            .into()
    }

    fn lost() -> Error {
        Failure::new(Reason::RunnerLost, "gone").maybe_applied().into()
    }

    /// Fails with these errors in turn and then succeeds; counts the attempts.
    async fn attempts(plan: Plan, errors: &[Error]) -> (Result<()>, usize) {
        let made = Cell::new(0);
        let result = run(plan, |_| {
            let error = errors.get(made.replace(made.get() + 1)).cloned();
            future::ready(error.map_or(Ok(()), Err))
        })
        .await;
        (result, made.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_applied_is_tried_again() {
        let (result, made) = attempts(PLAN, &[draining(), draining()]).await;
        assert_eq!((result.is_ok(), made), (true, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_applied_is_not_unless_that_is_harmless() {
        let (result, made) = attempts(PLAN, &[lost()]).await;
        assert_eq!(
            (result.unwrap_err().reason(), made),
            (Some(Reason::RunnerLost), 1)
        );
        let (result, made) = attempts(HARMLESS, &[lost()]).await;
        assert_eq!((result.is_ok(), made), (true, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final() {
        for reason in [
            Reason::AlreadyRegistered,
            Reason::Overloaded,
            Reason::InvalidIdentity,
            Reason::Conflict,
            Reason::BackendUnavailable,
        ] {
            let refusal = Error::from(Failure::new(reason, "no").not_applied());
            let (result, made) = attempts(HARMLESS, &[refusal]).await;
            assert_eq!((result.unwrap_err().reason(), made), (Some(reason), 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_and_the_last_error_is_told() {
        let (result, made) = attempts(PLAN, &vec![draining(); 9]).await;
        assert_eq!((result.unwrap_err().applied(), made), (Applied::No, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_effect_is_told_even_when_the_last_attempt_had_none() {
        let errors = [lost(), draining(), draining(), draining()];
        let (result, _) = attempts(HARMLESS, &errors).await;
        assert_eq!(result.unwrap_err().applied(), Applied::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_that_the_service_asks_for_is_kept() {
        let busy = Failure::new(Reason::NotReady, "wait")
            .not_applied()
            .retry_after(Duration::from_secs(3));
        let began = Instant::now();
        let (result, _) = attempts(PLAN, &[busy.into()]).await;
        assert!(result.is_ok());
        let waited = began.elapsed();
        assert!(
            waited >= Duration::from_secs(3) && waited <= Duration::from_millis(3_100),
            "{waited:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_when_to_come_again_waits_that_long() {
        let crowded = Failure::new(Reason::Overloaded, "too many wait").not_applied();
        let began = Instant::now();
        let (result, made) = attempts(PLAN, &[crowded.retry_after(Duration::from_secs(1)).into()]).await;
        assert_eq!((result.is_ok(), made), (true, 2));
        assert!(began.elapsed() >= Duration::from_secs(1));

        let limited = Failure::new(Reason::RateLimited, "too often").not_applied();
        let later = limited.clone().retry_after(Duration::from_secs(2));
        let began = Instant::now();
        let (result, made) = attempts(PLAN, &[later.into()]).await;
        assert_eq!((result.is_ok(), made), (true, 2));
        assert!(began.elapsed() >= Duration::from_secs(2));
        let (result, made) = attempts(PLAN, &[limited.into()]).await;
        assert_eq!(
            (result.unwrap_err().reason(), made),
            (Some(Reason::RateLimited), 1),
            "never is not later"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_beyond_the_deadline_is_not_begun() {
        let busy = Failure::new(Reason::NotReady, "wait")
            .not_applied()
            .retry_after(Duration::from_secs(30));
        let began = Instant::now();
        let (result, made) = attempts(PLAN, &[busy.into()]).await;
        assert_eq!((result.unwrap_err().reason(), made), (Some(Reason::NotReady), 1));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_passes_in_a_later_attempt_tells_what_the_one_before_failed_with() {
        let made = Cell::new(0);
        let result: Result<()> = run(PLAN, |_| {
            made.set(made.get() + 1);
            let first = made.get() == 1;
            async move {
                if first {
                    return Err(draining());
                }
                future::pending().await
            }
        })
        .await;
        let error = result.unwrap_err();
        assert_eq!(
            error.to_string(),
            "no answer within 10000 ms; the attempt before: about to end"
        );
        assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
    }

    #[tokio::test(start_paused = true)]
    async fn a_mute_service_costs_the_deadline_and_no_more() {
        let began = Instant::now();
        let result: Result<()> = run(PLAN, |_| future::pending()).await;
        assert!(matches!(
            result,
            Err(Error::DeadlineExceeded {
                applied: Applied::Unknown,
                ..
            })
        ));
        assert_eq!(began.elapsed(), PLAN.timeout);
    }
}
