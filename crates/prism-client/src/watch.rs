//! The changes to the set that matches.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt};

use crate::{Result, WatchEvent, raw, wire};

/// The identities that match a filter, and then each change to that set, across as many streams as it takes.
///
/// It begins with a [`WatchEvent::Present`] for everything that matches, up to the first
/// [`WatchEvent::Bookmark`]. When its stream is lost it goes on by itself where it was, so that nothing is left
/// out and nothing told twice; where what happened meanwhile is not known any more,
/// [`WatchEvent::Restarted`] says that it begins anew. It ends with the error that makes another attempt
/// useless.
///
/// Dropping it ends the watch.
#[derive(Debug)]
#[must_use = "dropping a watch ends it"]
pub struct Watch {
    answers: raw::Watch,
    ended: bool,
}

impl Watch {
    pub(crate) fn new(answers: raw::Watch) -> Self {
        Self {
            answers,
            ended: false,
        }
    }

    /// The next event; `None` after the error that ended the watch. Cancel safe: an event is lost only with
    /// the watch itself.
    pub async fn next(&mut self) -> Option<Result<WatchEvent>> {
        StreamExt::next(self).await
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let answer = ready!(self.answers.poll_next_unpin(cx));
        let event = answer.map(|answer| answer.and_then(wire::watch_event));
        self.ended = !matches!(event, Some(Ok(_)));
        Poll::Ready(event)
    }
}
