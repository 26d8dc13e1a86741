//! Dead letters.
//!
//! One that goes back is stored before it is removed, in two streams. The server notices for `dedupe` that it is stored a
//! second time; later than that, it is said of it ([`Message::again`]).

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use prism_slot::{
    Address, DeadId, DeadLetter, DeadPage, DeadQuery, Enqueued, Error, Identity, Message, Redriven, Result,
    Terms,
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
        self.finish_burials(&to.identity, deadline).await?;
        let way = self.jetstream.layout.way_back(generation, letter.id.0);
        let is_again = self.set_out(&way, deadline).await?;
        let back = self
            .put_back(&letter, to, terms, generation, is_again, deadline)
            .await;
        match back {
            // A duplicate came back by an attempt whose end is not known.
            Enqueued::Stored { .. } | Enqueued::Duplicate => {}
            Enqueued::Unknown(why) => return Err(not_known(why)),
            Enqueued::Full | Enqueued::NotStored(_) => {
                if !is_again {
                    self.arrive(&way, deadline).await;
                }
                return match back {
                    Enqueued::NotStored(why) => Err(unavailable(why)),
                    _ => Ok(Redriven::Full),
                };
            }
        }
        let deleted = self.jetstream.delete(dead, &[letter.id.0], deadline).await;
        match deleted.into_iter().next() {
            Some(Ok(_)) => {
                self.arrive(&way, deadline).await;
                Ok(Redriven::Back)
            }
            Some(Err(failure)) => Err(not_known(Error::from(failure).to_string())),
            None => Err(not_known("nothing was sent".to_owned())),
        }
    }

    /// Does what was left undone when messages of an inbox were buried: later it would be found that they are not among the dead
    /// letters, and they would be buried once more.
    async fn finish_burials(&self, identity: &Identity, deadline: Instant) -> Result<()> {
        // What others have left is not in memory.
        self.forget(identity);
        if self.draft(identity, deadline).await?.is_left {
            return Err(unavailable("what was buried could not be removed; try again"));
        }
        Ok(())
    }

    /// Notes that a letter is on its way back, until it is gone from where it was; whether somebody has noted that before,
    /// so that it may have come back already.
    async fn set_out(&self, way: &str, deadline: Instant) -> Result<bool> {
        let (sessions, _) = self.jetstream.stream(Kind::Sessions, deadline).await?;
        let note = api::message(way, api::expecting(0), Bytes::new());
        let noted = self
            .jetstream
            .store(sessions, std::iter::once(note), deadline)
            .await;
        match noted.into_iter().next() {
            Some(Ok(_)) => Ok(false),
            Some(Err(failure)) if failure.is_conflict() => Ok(true),
            Some(Err(failure)) => Err(failure.into()),
            None => Err(unavailable("nothing was sent")),
        }
    }

    /// Removes such a note. One that stays does no harm: its letter is gone, and another one has another name.
    async fn arrive(&self, way: &str, deadline: Instant) {
        if let Ok((sessions, _)) = self.jetstream.stream(Kind::Sessions, deadline).await
            && let Err(failure) = self.jetstream.purge(sessions, way, None, deadline).await
        {
            tracing::debug!(way, ?failure, "a note stays");
        }
    }

    async fn put_back(
        &self,
        letter: &DeadLetter,
        to: &Address,
        terms: Terms,
        generation: u64,
        is_again: bool,
        deadline: Instant,
    ) -> Enqueued {
        let message = Message {
            again: letter.message.again || is_again,
            ..(*letter.message).clone()
        };
        let envelope = match Envelope::new(&message, ttl(terms.ttl)) {
            Ok(envelope) => envelope,
            Err(why) => return Enqueued::NotStored(why),
        };
        let messages = match self.jetstream.stream(Kind::Messages, deadline).await {
            Ok((messages, _)) => messages,
            Err(error) => return Enqueued::NotStored(error.to_string()),
        };
        let headers = envelope.redriven(to, generation, letter.id);
        let subject = self.jetstream.layout.messages(&to.identity, rank(terms.priority));
        let message = api::message(subject, headers, message.payload);
        let stored = self.put(messages, std::iter::once(message), deadline).await;
        let nothing = || Enqueued::NotStored("nothing was sent".to_owned());
        stored.into_iter().next().unwrap_or_else(nothing)
    }
}

fn not_known(why: String) -> Error {
    unavailable_after(why, prism_slot::Applied::Unknown)
}
