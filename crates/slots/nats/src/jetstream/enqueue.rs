//! Storing messages.

use std::sync::Arc;

use prism_slot::{Address, Enqueued, Message, Terms};
use tokio::time::Instant;

use crate::jetstream::{
    api::{self, Failure, code},
    inboxes::Inboxes,
    layout::{Kind, rank},
    letter::Envelope,
    requests::Silence,
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
        let stored = self.jetstream.store(stream, requests, deadline).await;
        stored.into_iter().map(outcome).collect()
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
