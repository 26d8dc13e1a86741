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
/// missing: of those that are sent once. What is stored comes again with the next session.
///
/// It ends with the error that makes another attempt useless, for example `UNREGISTERED`, or
/// `SUPERSEDED` when a newer session of the identity took over. A subscription that was made with
/// [`RegistrationHandle::subscribe`](crate::RegistrationHandle::subscribe) also outlives the loss of its
/// registration, if the handle gets it back.
///
/// # Acknowledging
///
/// [`Message::ack`](crate::Message::ack) and its kin may be called from any task. What a session had not confirmed
/// when it was lost is said again in the next one. A message that has been acknowledged and comes again nevertheless
/// is acknowledged again and kept back ([`suppressed`](Self::suppressed)), so that every message is handed out until
/// it is acknowledged, and not after that. One that has not been acknowledged is handed out again, with a higher
/// [`attempt`](crate::Message::attempt).
///
/// # Memory
///
/// No more messages than its [`Credits`](crate::Credits) allow wait to be taken, however slowly that is done.
///
/// Dropping it ends the session at once; [`close`](Self::close) waits for what was said about messages.
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

    /// So many more messages may come: with [`Credits::Manual`](crate::Credits::Manual), or to widen a window.
    pub fn grant(&self, messages: u32) {
        self.answers.grant(messages);
    }

    /// How many messages were kept back because they had been acknowledged before.
    pub fn suppressed(&self) -> u64 {
        self.answers.suppressed()
    }

    /// How many words about messages the service has not confirmed.
    pub fn unsettled(&self) -> usize {
        self.answers.acks().unsettled()
    }

    /// Waits until everything that was said about messages before is confirmed. Cancel safe.
    ///
    /// # Errors
    /// What ended the subscription before that.
    pub async fn settled(&self) -> Result<()> {
        self.answers.acks().settled().await
    }

    /// Ends the session, once everything that was said about messages is confirmed. Dropped before that, it ends the
    /// session all the same.
    ///
    /// What was sent and is not acknowledged goes back, with one of its attempts used up, whether or not it was taken
    /// from here: of a stored message that nobody took there is one attempt less until it is a dead letter. Who wants
    /// a few messages only allows no more with [`Credits::Manual`](crate::Credits::Manual).
    ///
    /// # Errors
    /// When it is not within the timeout of a call; what ended the subscription before that.
    pub async fn close(self) -> Result<()> {
        self.answers.close().await
    }
}

impl Stream for Subscription {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let answer = ready!(self.answers.poll_next_unpin(cx));
            let event =
                answer.map(|answer| answer.and_then(|answer| wire::event(answer, || self.answers.acks())));
            if let Some(Ok(None)) = event {
                continue;
            }
            let event = event.and_then(Result::transpose);
            self.ended = !matches!(event, Some(Ok(_)));
            return Poll::Ready(event);
        }
    }
}
