//! Dead letters.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use prism_slot::{
    Address, DeadId, DeadLetter, DeadPage, DeadQuery, Enqueued, Error, Redriven, Result, Terms,
};
use tokio::time::Instant;

use crate::{
    error::{unavailable, unavailable_after},
    jetstream::{
        api,
        inboxes::Inboxes,
        layout::{Kind, rank},
        letter::{self, Envelope},
        read::Next,
        ttl,
    },
};

/// How many dead letters one call lists at most.
const MOST: usize = 1_000;
/// How many bytes of them are read at once.
const MOST_BYTES: usize = 32 << 20;
/// How many are put back at a time.
const AT_ONCE: usize = 64;

impl Inboxes {
    /// Lists dead letters, the oldest first.
    pub(crate) async fn dead_letters(&self, query: DeadQuery, deadline: Instant) -> Result<DeadPage> {
        let (stream, _) = self.jetstream.stream(Kind::Dead, deadline).await?;
        let layout = &self.jetstream.layout;
        let next = Next {
            seq: query.after.map_or(1, |DeadId(after)| after.saturating_add(1)),
            subject: match &query.identity {
                Some(identity) => layout.named(Kind::Dead, identity.as_str()),
                None => layout.all(Kind::Dead),
            },
            batch: query.limit.clamp(1, MOST),
            max_bytes: MOST_BYTES,
        };
        let (found, beyond) = self.jetstream.next(stream, &next, deadline).await?;
        let letters = found.into_iter().map(|found| letter::exhume(layout, found));
        Ok(DeadPage {
            letters: letters.collect::<Result<_>>()?,
            more: beyond > 0,
        })
    }

    /// Puts dead letters back into inboxes.
    pub(crate) async fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        deadline: Instant,
    ) -> Result<Vec<Redriven>> {
        let (stream, _) = self.jetstream.stream(Kind::Dead, deadline).await?;
        let sequences: Vec<u64> = letters.iter().map(|(id, _)| id.0).collect();
        let found = self.jetstream.by_sequence(stream, &sequences, deadline).await?;
        let mut found = found
            .into_iter()
            .flatten()
            .map(|found| letter::exhume(&self.jetstream.layout, found))
            .map(|letter| letter.map(|letter| (letter.id, letter)))
            .collect::<Result<HashMap<DeadId, DeadLetter>>>()?;
        let letters = letters.into_iter().map(|(id, to)| {
            let letter = found.remove(&id).filter(|letter| letter.identity == to.identity);
            (to, letter)
        });
        let redriving = letters.map(|(to, letter)| async move {
            match letter {
                Some(letter) => self.redrive_one(letter, &to, terms, deadline).await,
                None => Ok(Redriven::Gone),
            }
        });
        stream::iter(redriving).buffered(AT_ONCE).try_collect().await
    }

    async fn redrive_one(
        &self,
        letter: DeadLetter,
        to: &Address,
        terms: Terms,
        deadline: Instant,
    ) -> Result<Redriven> {
        let (dead, generation) = self.jetstream.stream(Kind::Dead, deadline).await?;
        let (messages, _) = self.jetstream.stream(Kind::Messages, deadline).await?;
        let envelope = Envelope::new(&letter.message, ttl(terms.ttl)).map_err(unavailable)?;
        let headers = envelope.redriven(to, generation, letter.id);
        let subject = self.jetstream.layout.messages(&to.identity, rank(terms.priority));
        let message = api::message(subject, headers, letter.message.payload.clone());
        let stored = self.put(messages, std::iter::once(message), deadline).await;
        match stored.into_iter().next() {
            // A duplicate came back by an attempt whose end is not known.
            Some(Enqueued::Stored { .. } | Enqueued::Duplicate) => {}
            Some(Enqueued::Full) => return Ok(Redriven::Full),
            Some(Enqueued::NotStored(why)) => return Err(unavailable(why)),
            Some(Enqueued::Unknown(why)) => return Err(not_known(why)),
            None => return Err(unavailable("nothing was sent")),
        }
        let deleted = self.jetstream.delete(dead, &[letter.id.0], deadline).await;
        match deleted.into_iter().next() {
            Some(Ok(_)) => Ok(Redriven::Back),
            Some(Err(failure)) => Err(not_known(Error::from(failure).to_string())),
            None => Err(not_known("nothing was sent".to_owned())),
        }
    }
}

fn not_known(why: String) -> Error {
    unavailable_after(why, prism_slot::Applied::Unknown)
}
