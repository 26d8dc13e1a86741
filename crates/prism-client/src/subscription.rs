//! The messages of one identity.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt};

use crate::{Event, Result, raw, wire};

/// The messages of one identity, across as many sessions as it takes.
///
/// When a session is lost with its connection, or because the service is about to end, another one is
/// opened, after a pause, for as long as it takes. [`Event::Opened`] and an [`Event::Gap`] with
/// [`GapReason::ConnectionLost`](crate::GapReason::ConnectionLost) then say where messages may be
/// missing.
///
/// It ends with the error that makes another attempt useless, for example `UNREGISTERED`, or
/// `SUPERSEDED` when a newer session of the identity took over. A subscription that was made with
/// [`RegistrationHandle::subscribe`](crate::RegistrationHandle::subscribe) also outlives the loss of its
/// registration, if the handle gets it back.
///
/// Dropping it ends the session.
#[derive(Debug)]
#[must_use = "dropping a subscription ends its session"]
pub struct Subscription {
    answers: raw::Subscription,
    ended: bool,
}

impl Subscription {
    pub(crate) fn new(answers: raw::Subscription) -> Self {
        Self {
            answers,
            ended: false,
        }
    }

    /// The next event; `None` after the error that ended the subscription. Cancel safe: an event is lost
    /// only with the subscription itself.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        StreamExt::next(self).await
    }
}

impl Stream for Subscription {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let answer = ready!(self.answers.poll_next_unpin(cx));
        let event = answer.map(|answer| answer.and_then(wire::event));
        self.ended = !matches!(event, Some(Ok(_)));
        Poll::Ready(event)
    }
}
