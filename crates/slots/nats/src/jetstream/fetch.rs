//! Handing out what is due.

use std::collections::HashMap;

use futures::future::try_join_all;
use prism_slot::{Consumer, Fetch, Fetched, Identity, Result, Timestamp};
use tokio::time::Instant;

use crate::jetstream::{
    api::Failure,
    inboxes::{Attempts, Inboxes, Step},
    layout::{Kind, PRIORITIES},
    letter,
    plan::{Plan, Read},
    read::Next,
    state::{Entry, State},
    streams::Stream,
};

/// The most messages that one call hands out.
const MOST: usize = 1_000;
/// How much a message may have in headers, about, for the server counts them in.
const HEADERS: usize = 1 << 10;
/// The most that is asked of a server at once.
const MOST_BYTES: usize = 32 << 20;

impl Inboxes {
    /// Hands out what is due, once the record says so.
    pub(crate) async fn fetch(
        &self,
        consumer: &Consumer,
        fetch: Fetch,
        deadline: Instant,
    ) -> Result<Fetched> {
        let identity = &consumer.address.identity;
        let mut attempts = Attempts::new(deadline);
        loop {
            let mut draft = self.draft(identity, deadline).await?;
            let checked = Self::check_consumer(&draft.state, consumer);
            let (step, known) = match checked {
                Err(fenced) => (Step::Refuse(fenced), Default::default()),
                Ok(()) => {
                    let read = self
                        .read_inbox(identity, &draft.state, fetch, Timestamp::now(), deadline)
                        .await?;
                    let now = Timestamp::now();
                    let before = draft.state.clone();
                    let mut plan = Plan::new(&mut draft.state, consumer.address.holder, fetch, now);
                    plan.hand_out(read);
                    let (fetched, dying) = (plan.fetched, plan.dying);
                    let changed = draft.state != before;
                    let step = if changed {
                        Step::Write(fetched)
                    } else {
                        Step::Heard(fetched)
                    };
                    (step, dying)
                }
            };
            if let Some((fetched, _)) = self.end(identity, draft, step, &known, deadline).await? {
                return Ok(fetched);
            }
            attempts.pause().await?;
        }
    }

    /// As much of an inbox as may be handed out, by priority. Each is asked for by itself: one question with a wildcard
    /// takes a server longer than three without.
    async fn read_inbox(
        &self,
        identity: &Identity,
        state: &State,
        fetch: Fetch,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Vec<Read>> {
        let (stream, _) = self.jetstream.stream(Kind::Messages, deadline).await?;
        let wanted = fetch.max_messages.clamp(1, MOST);
        let reading = (0..PRIORITIES.len()).map(|rank| async move {
            let mut due = state.due(rank, now);
            let is_all = due.len() <= wanted;
            due.truncate(wanted);
            // One at least, to know whether there is one.
            let room = if is_all { (wanted - due.len()).max(1) } else { 0 };
            let fresh = self.read_fresh(stream, identity, state, rank, room, fetch.max_bytes, deadline);
            let due = self.read_due(stream, identity, rank, due, fetch.max_bytes, deadline);
            let (due, (fresh, beyond)) = tokio::try_join!(due, fresh)?;
            let more = !is_all || beyond;
            Ok::<_, Failure>(Read { due, fresh, more })
        });
        Ok(try_join_all(reading).await?)
    }

    /// What is due again is mostly what comes one after the other, so that is asked for first, and what is not among it by
    /// itself.
    async fn read_due(
        &self,
        stream: &Stream,
        identity: &Identity,
        rank: usize,
        sequences: Vec<u64>,
        max_bytes: usize,
        deadline: Instant,
    ) -> Result<Vec<(u64, Option<letter::Found>)>, Failure> {
        let mut found = HashMap::with_capacity(sequences.len());
        if let [first, _, ..] = sequences[..] {
            let next = self.next(identity, rank, first, sequences.len(), max_bytes);
            let (messages, _) = self.jetstream.next(stream, &next, deadline).await?;
            for message in messages {
                let letter = letter::read(message)?;
                found.insert(letter.sequence, letter);
            }
        }
        let others = sequences.iter().filter(|sequence| !found.contains_key(sequence));
        let others: Vec<u64> = others.copied().collect();
        let alone = self.jetstream.by_sequence(stream, &others, deadline).await?;
        for (sequence, message) in others.into_iter().zip(alone) {
            if let Some(message) = message {
                found.insert(sequence, letter::read(message)?);
            }
        }
        let read = |sequence| (sequence, found.remove(&sequence));
        Ok(sequences.into_iter().map(read).collect())
    }

    fn next(&self, identity: &Identity, rank: usize, seq: u64, batch: usize, max_bytes: usize) -> Next {
        Next {
            seq,
            subject: self.jetstream.layout.messages(identity, rank),
            batch,
            max_bytes: max_bytes.saturating_add(batch * HEADERS).min(MOST_BYTES),
        }
    }

    /// What comes after what was seen, and whether there is more behind it.
    #[allow(clippy::too_many_arguments, reason = "each is one bound of the same read")]
    async fn read_fresh(
        &self,
        stream: &Stream,
        identity: &Identity,
        state: &State,
        rank: usize,
        room: usize,
        max_bytes: usize,
        deadline: Instant,
    ) -> Result<(Option<Vec<letter::Found>>, bool), Failure> {
        let room = room.min(self.room().entries().saturating_sub(state.entries.len()));
        if room == 0 {
            // Where the record is full, asking again brings nothing before something was settled.
            return Ok((None, false));
        }
        let next = self.next(identity, rank, state.seen[rank] + 1, room, max_bytes);
        let (messages, beyond) = self.jetstream.next(stream, &next, deadline).await?;
        let fresh = messages.into_iter().map(letter::read).collect::<Result<_, _>>()?;
        Ok((Some(fresh), beyond > 0))
    }
}

impl State {
    /// What of a priority is due again.
    fn due(&self, rank: usize, now: Timestamp) -> Vec<u64> {
        let is_due = |entry: &Entry| entry.rank == rank && entry.due().is_some_and(|due| due <= now);
        let due = self.entries.iter().filter(|(_, entry)| is_due(entry));
        due.map(|(sequence, _)| *sequence).collect()
    }
}
