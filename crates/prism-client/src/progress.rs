//! A multicast that is followed as it is sent.

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

use crate::{MulticastEvent, Result, raw, wire};

/// What is told of one multicast as it is sent and acknowledged: its beginning, more of each target whenever more is
/// known, answers where they are collected, and its end.
///
/// It is over within the call's timeout, and earlier where nothing more is waited for. Dropping this does not stop it;
/// [`Registry::cancel_multicast`](crate::Registry::cancel_multicast) does. Where this is lost, its
/// [receipts](crate::Registry::receipts) tell the same, but for answers.
#[must_use = "what is not read is not known"]
pub struct MulticastProgress {
    events: BoxStream<'static, Result<MulticastEvent>>,
}

impl MulticastProgress {
    pub(crate) fn new(answers: raw::Progress) -> Self {
        let events = stream::unfold(Some(answers), |answers| async move {
            let mut answers = answers?;
            let event = answers.next().await?.and_then(wire::multicast_event);
            let answers = event.is_ok().then_some(answers);
            Some((event, answers))
        });
        Self {
            events: events.boxed(),
        }
    }

    /// What is told next; `None` after [`MulticastEvent::Ended`], and after an error, which leaves open whether the
    /// multicast goes on. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<MulticastEvent>> {
        self.events.next().await
    }
}

impl Stream for MulticastProgress {
    type Item = Result<MulticastEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(cx)
    }
}

impl std::fmt::Debug for MulticastProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MulticastProgress").finish_non_exhaustive()
    }
}
