//! How long the answer to one request is kept for a client that does not read it.
//!
//! The server asks for more of an answer only when the client has room for it. A client that leaves none
//! would keep its call, and the place that the call has among all, for as long as it likes.

use std::{
    cell::Cell,
    pin::{Pin, pin},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// After the time for an answer is over: to read that it is.
const GRACE: Duration = Duration::from_secs(1);

thread_local! {
    /// Of the request whose task runs on this thread now.
    static LIMIT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Says when the answer to the request that is being served has to have been read. Only within
/// [`limited`].
pub(crate) fn answer_by(end: Instant) {
    LIMIT.set(end.checked_add(GRACE));
}

/// Serves one request, and drops it when its client has not read the answer in time.
pub(crate) async fn limited(request: impl Future<Output = ()>) {
    let mut request = pin!(request);
    let mut limit = None;
    // Made only for an answer that is not read at once: most are.
    let mut sleep: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(|cx| {
        LIMIT.set(limit);
        let served = request.as_mut().poll(cx);
        limit = LIMIT.take();
        match limit {
            Some(end) if served.is_pending() => {
                let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(end)));
                sleep.as_mut().poll(cx)
            }
            _ => served,
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn},
        task::Poll,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_request_does_not_wait_for_the_limit_of_another() {
        let began = Instant::now();
        let second = Duration::from_secs(1);
        let hurried = limited(async {
            answer_by(began + second);
            pending::<()>().await;
        });
        let mut polled = 0;
        let patient = limited(poll_fn(|cx| {
            polled += 1;
            if polled == 5 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let both = async { tokio::join!(hurried, patient) };
        tokio::time::timeout(GRACE * 10, both).await.expect("it was cut");
        assert_eq!(began.elapsed(), second + GRACE);
        assert_eq!(polled, 5, "it was not cut");
    }
}
