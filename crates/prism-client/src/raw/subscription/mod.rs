//! A session that is opened again when it is lost.

mod feed;
mod shared;
mod shelf;
mod verdict;
mod words;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt, future::BoxFuture};
use prism_proto::pattern::{Position, SubscribeResponse, subscribe_request};
use tokio_util::task::AbortOnDropHandle;

use super::{Acks, Raw};
use crate::{Credits, Error, Result, SubscribeRequest};
use feed::Feed;

pub(super) use shared::Shared;
pub(super) use words::{Spoken, Word};

/// How to listen.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// How sessions are opened. Credits and confirmation are the client's.
    pub open: subscribe_request::Open,
    /// How many messages may be on their way, or wait to be taken.
    pub credits: Credits,
    /// Of how many acknowledged messages it is remembered that they were.
    pub remember: usize,
}

impl From<subscribe_request::Open> for Listen {
    /// With a window of as many messages as the opening has credits, or the usual one.
    fn from(open: subscribe_request::Open) -> Self {
        Self {
            credits: open.credits.map(Credits::Window).unwrap_or_default(),
            remember: SubscribeRequest::REMEMBER,
            open,
        }
    }
}

/// The messages of one identity, across as many sessions as it takes.
///
/// When a session is lost with its connection, or because the service is about to end, another one is
/// opened, after a pause, for as long as it takes; `opened` and a gap with the reason `CONNECTION_LOST`
/// then say where messages may be missing. The stream ends with the error that makes another attempt
/// useless: the registration is gone, a newer session took over, the request was refused. A clean end
/// does not exist.
///
/// What is said about messages ([`acks`](Self::acks)) is confirmed by the service, and said again in the next session
/// where it was not. A message that was acknowledged and comes again nevertheless is acknowledged again and not
/// yielded; `settled` is not yielded either.
///
/// Dropping it ends the session, whether or not everything that was said has arrived; [`close`](Self::close) waits
/// for that. A dropped `next` loses nothing.
#[must_use = "dropping a subscription ends its session"]
pub struct Subscription {
    shared: Arc<Shared>,
    raw: Raw,
    _feed: AbortOnDropHandle<()>,
}

impl Subscription {
    pub(super) async fn open(raw: Raw, listen: Listen, claim: Option<Box<dyn Claim>>) -> Result<Self> {
        let shared = Arc::new(Shared::new(&listen));
        let (feed, session) = Feed::open(raw.clone(), listen.open, claim, shared.clone()).await?;
        Ok(Self {
            shared,
            raw,
            _feed: AbortOnDropHandle::new(tokio::spawn(feed.run(session))),
        })
    }

    /// The next message; `None` after the error that ended the stream. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<SubscribeResponse>> {
        StreamExt::next(self).await
    }

    /// For saying what becomes of messages.
    pub fn acks(&self) -> Acks {
        Acks::new(self.shared.clone())
    }

    /// So many more messages may come.
    pub fn grant(&self, messages: u32) {
        self.shared.grant(messages);
    }

    /// How many messages were kept back because they had been acknowledged before.
    pub fn suppressed(&self) -> u64 {
        self.shared.suppressed()
    }

    /// Ends the session, once everything that was said about messages is confirmed.
    ///
    /// # Errors
    /// When it is not within the timeout of a call; what ended the subscription before that.
    pub async fn close(self) -> Result<()> {
        let patience = self.raw.timeout;
        let settled = tokio::time::timeout(patience, self.shared.settled()).await;
        settled.unwrap_or_else(|_| Err(Error::timed_out(patience)))
    }
}

impl Stream for Subscription {
    type Item = Result<SubscribeResponse>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.shared.poll_next(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.finish(Error::unsubscribed());
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// The registration that a subscription listens for.
pub(crate) trait Claim: Send {
    /// Its generation, as far as is known.
    fn generation(&self) -> Option<Position>;

    /// Called when the service says that the registration is not there any more. Returns once it is
    /// again, or fails when that will not be.
    fn regained(&mut self, lost: Error) -> BoxFuture<'_, Result<()>>;
}

/// A registration that nobody keeps: lost is lost.
struct Pinned(Option<Position>);

impl Claim for Pinned {
    fn generation(&self) -> Option<Position> {
        self.0
    }

    fn regained(&mut self, lost: Error) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(lost) })
    }
}
