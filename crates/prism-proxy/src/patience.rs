//! How long the answer to one request is kept for a client that does not read it.
//!
//! The server asks for more of an answer only when the client has room for it. A client that leaves none
//! would keep its call, and the place that the call has among all, for as long as it likes; and a stream that is not read
//! would keep the process from its end.

use std::{
    cell::Cell,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// After the time for an answer is over: to read that it is.
const GRACE: Duration = Duration::from_secs(1);

thread_local! {
    /// Of the request whose task runs on this thread now.
    static LIMIT: Cell<Limit> = const { Cell::new(Limit::NONE) };
}

/// When an answer has to have been read: so long after the first of both.
#[derive(Debug, Default)]
struct Limit {
    end: Option<Instant>,
    cut: Option<CancellationToken>,
}

impl Limit {
    const NONE: Self = Self { end: None, cut: None };
}

/// Says when the answer to the request that is being served ends at the latest: a moment later it has to have been read.
/// Only within [`limited`].
pub(crate) fn answer_by(end: Option<Instant>, cut: Option<CancellationToken>) {
    LIMIT.set(Limit { end, cut });
}

/// Serves one request, and drops it when its client has not read the answer in time.
pub(crate) async fn limited(request: impl Future<Output = ()>) {
    let mut request = pin!(request);
    let mut limit = Limit::NONE;
    // Made only for an answer that is not read at once: most are.
    let mut wait = Wait::default();
    std::future::poll_fn(|cx| {
        LIMIT.set(std::mem::take(&mut limit));
        let served = request.as_mut().poll(cx);
        limit = LIMIT.take();
        match served {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => wait.poll(&limit, cx),
        }
    })
    .await;
}

/// The wait for a limit.
#[derive(Default)]
struct Wait {
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    end: Option<Pin<Box<Sleep>>>,
    /// It is cut: this is the end.
    last: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    fn poll(&mut self, limit: &Limit, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(end) = limit.end.and_then(|end| end.checked_add(GRACE)) {
            let sleep = self.end.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        let Some(token) = &limit.cut else {
            return Poll::Pending;
        };
        if self.last.is_none() {
            let cut = self
                .cut
                .get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()));
            ready!(cut.as_mut().poll(cx));
        }
        let last = self
            .last
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + GRACE)));
        last.as_mut().poll(cx)
    }
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
            answer_by(Some(began + second), None);
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

    /// An answer without an end of its own.
    #[tokio::test(start_paused = true)]
    async fn what_is_cut_is_not_kept_for_a_client_that_does_not_read() {
        let cut = CancellationToken::new();
        let token = cut.clone();
        let unread = tokio::spawn(limited(async move {
            answer_by(None, Some(token));
            pending::<()>().await;
        }));
        tokio::time::sleep(GRACE * 100).await;
        assert!(!unread.is_finished(), "nothing was cut");
        let began = Instant::now();
        cut.cancel();
        tokio::time::timeout(GRACE * 10, unread)
            .await
            .expect("it was dropped")
            .unwrap();
        assert_eq!(began.elapsed(), GRACE);
    }
}
