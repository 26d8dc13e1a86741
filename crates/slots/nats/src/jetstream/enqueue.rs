//! Storing messages.

use std::sync::Arc;

use prism_slot::{Address, Enqueued, Error, Message, Overflow, Terms};
use tokio::time::Instant;

use crate::jetstream::{
    api::{self, Failure, code},
    inboxes::Inboxes,
    layout::{Kind, rank},
    letter::Envelope,
    requests::{Request, Silence},
    streams::Stream,
    ttl,
};

impl Inboxes {
    /// Has the server store one message in many inboxes, and reads what it says to each.
    pub(crate) async fn enqueue(
        &self,
        addresses: &[Address],
        message: &Arc<Message>,
        terms: Terms,
        deadline: Instant,
    ) -> Vec<Enqueued> {
        let refused = |why: String| vec![Enqueued::NotStored(why); addresses.len()];
        let envelope = match Envelope::new(message, ttl(terms.ttl)) {
            Ok(envelope) => envelope,
            Err(why) => return refused(why),
        };
        let (stream, _) = match self.jetstream.stream(Kind::Messages, deadline).await {
            Ok(stream) => stream,
            Err(error) => return refused(error.to_string()),
        };
        let rank = rank(terms.priority);
        let requests = addresses.iter().map(|to| {
            let subject = self.jetstream.layout.messages(&to.identity, rank);
            api::message(subject, envelope.address(to), message.payload.clone())
        });
        self.put(stream, requests, deadline).await
    }

    /// Has the server store messages, and sees to limits that it does not know of.
    pub(crate) async fn put(
        &self,
        stream: &Stream,
        messages: impl ExactSizeIterator<Item = Request> + Send,
        deadline: Instant,
    ) -> Vec<Enqueued> {
        if let Some(most) = stream.lower_limit() {
            return self.put_counted(stream, messages.collect(), most, deadline).await;
        }
        let stored = self.jetstream.store(stream, messages, deadline).await;
        stored.into_iter().map(outcome).collect()
    }

    /// Looks first for how many there are. Those who do so at the same moment do not see each other's.
    async fn put_counted(
        &self,
        stream: &Stream,
        mut messages: Vec<Request>,
        most: u64,
        deadline: Instant,
    ) -> Vec<Enqueued> {
        let is_rejecting = self.limits.read().overflow == Overflow::Reject;
        let subjects: Vec<_> = messages.iter().map(|message| message.subject.clone()).collect();
        let names = subjects.iter().map(|subject| &**subject);
        let counts = self.jetstream.counts(stream, names, deadline).await;
        let is_full = |count: &Result<u64, Failure>| count.as_ref().is_ok_and(|count| *count >= most);
        for (message, count) in messages.iter_mut().zip(&counts) {
            if count.is_err() || is_rejecting && is_full(count) {
                api::never(&mut message.headers, self.jetstream.has_replicas);
            }
        }
        let stored = self.jetstream.store(stream, messages.into_iter(), deadline).await;
        let outcomes = stored
            .into_iter()
            .zip(&counts)
            .map(|(stored, count)| match (stored, count) {
                (Err(failure), Err(why)) if failure.is_conflict() => {
                    Enqueued::NotStored(Error::from(why.clone()).to_string())
                }
                (Err(failure), Ok(_)) if failure.is_conflict() => Enqueued::Full,
                (stored, _) => outcome(stored),
            });
        let outcomes: Vec<Enqueued> = outcomes.collect();
        let grown: Vec<_> = (outcomes.iter().zip(&counts).zip(&subjects))
            .filter(|((outcome, count), _)| matches!(outcome, Enqueued::Stored { .. }) && is_full(count))
            .filter_map(|((_, count), subject)| Some((&**subject, *count.as_ref().ok()?)))
            .collect();
        // If not, the next one makes room.
        self.jetstream.trim(stream, grown.into_iter(), deadline).await;
        outcomes
    }
}

/// What is known after a message was given to the stream.
pub(crate) fn outcome(stored: Result<api::Stored, Failure>) -> Enqueued {
    match stored {
        Ok(api::Stored { duplicate: true, .. }) => Enqueued::Duplicate,
        Ok(_) => Enqueued::Stored { displaced: None },
        Err(Failure::Unsent(why)) => Enqueued::NotStored(reason(why)),
        Err(Failure::Lost(why)) => Enqueued::Unknown(reason(why)),
        Err(Failure::Unreadable(why)) => Enqueued::Unknown(why),
        Err(Failure::Nobody) => Enqueued::NotStored("there is no stream now; it will be made".to_owned()),
        Err(Failure::Refused(refusal)) => match refusal.code {
            code::STORE_FAILED if refusal.description.contains("per subject") => Enqueued::Full,
            code::DUPLICATE_IN_PROCESS => Enqueued::Unknown(refusal.description),
            _ => Enqueued::NotStored(refusal.description),
        },
    }
}

fn reason(silence: Silence) -> String {
    match silence {
        Silence::Late => "nats did not answer before the deadline".to_owned(),
        Silence::Disconnected(why) => why,
    }
}
