//! Handing out what is due.

use futures::future::try_join_all;
use prism_slot::{Consumer, Fetch, Fetched, Identity, Result, Timestamp};
use tokio::time::Instant;

use crate::jetstream::{
    api::Failure,
    inboxes::{Attempts, Inboxes, Step},
    layout::{Kind, PRIORITIES},
    letter::{self, Found},
    plan::{Plan, Read},
    read::Next,
    state::{Entry, State},
    streams::Stream,
};

/// The most messages that one call hands out.
const MOST: usize = 1_000;
/// How many messages are read again rather than asking for each priority by itself.
const MOST_AGAIN: usize = 64;
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
                    let now = Timestamp::now();
                    let read = self.read_inbox(identity, &draft.state, fetch, now, deadline);
                    let (read, all_to) = read.await?;
                    let before = draft.state.clone();
                    let mut plan = Plan::new(&mut draft.state, consumer.address.holder, fetch, now);
                    plan.hand_out(read, all_to);
                    let (fetched, dying) = (plan.fetched, plan.dying);
                    let changed = draft.state != before;
                    let step = if changed {
                        Step::Write(fetched)
                    } else {
                        Step::Keep(fetched)
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

    /// As much of an inbox as may be handed out, by priority; and up to which sequence that is all there is.
    async fn read_inbox(
        &self,
        identity: &Identity,
        state: &State,
        fetch: Fetch,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<(Vec<Read>, u64)> {
        let (stream, _) = self.jetstream.stream(Kind::Messages, deadline).await?;
        let wanted = fetch.max_messages.clamp(1, MOST);
        let first = state.seen.iter().min().map_or(1, |seen| seen + 1);
        // Messages that are out are read again, so that one question does for all priorities. Few of them cost less than
        // asking thrice.
        let again = state.entries.range(first..).count();
        let subject = self.jetstream.layout.inbox(identity);
        let next = self.next(state, first, subject, wanted, again, fetch.max_bytes);
        if again <= MOST_AGAIN && next.batch > again && state.due(now).len() <= wanted {
            let due = self.read_due(stream, state.due(now), deadline);
            let fresh = self.jetstream.next(stream, &next, deadline);
            let (due, (fresh, beyond)) = tokio::try_join!(due, fresh)?;
            if beyond == 0 {
                return Ok(by_rank(state, due, fresh)?);
            }
        }
        let by_rank = self.read_by_rank(stream, identity, state, fetch, now, deadline);
        Ok((by_rank.await?, 0))
    }

    async fn read_by_rank(
        &self,
        stream: &Stream,
        identity: &Identity,
        state: &State,
        fetch: Fetch,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Vec<Read>, Failure> {
        let wanted = fetch.max_messages.clamp(1, MOST);
        let reading = (0..PRIORITIES.len()).map(|rank| async move {
            let mut due = state.due(now);
            due.retain(|(_, of)| *of == rank);
            let is_all = due.len() <= wanted;
            due.truncate(wanted);
            // One at least, to know whether there is one.
            let room = if is_all { (wanted - due.len()).max(1) } else { 0 };
            let subject = self.jetstream.layout.messages(identity, rank);
            let next = self.next(state, state.seen[rank] + 1, subject, room, 0, fetch.max_bytes);
            let fresh = self.read_fresh(stream, &next, deadline);
            let due = self.read_due(stream, due, deadline);
            let (due, (fresh, beyond)) = tokio::try_join!(due, fresh)?;
            let due = due.into_iter().map(|(sequence, _, found)| (sequence, found));
            Ok::<_, Failure>(Read {
                due: due.collect(),
                fresh,
                more: !is_all || beyond,
            })
        });
        try_join_all(reading).await
    }

    /// What to ask for: so many that are new as there is room for, and so many that are known.
    fn next(
        &self,
        state: &State,
        seq: u64,
        subject: String,
        fresh: usize,
        again: usize,
        max_bytes: usize,
    ) -> Next {
        let room = self.room().entries().saturating_sub(state.entries.len());
        let batch = fresh.min(room) + again;
        Next {
            seq,
            subject,
            batch,
            max_bytes: max_bytes.saturating_add(batch * HEADERS).min(MOST_BYTES),
        }
    }

    async fn read_due(
        &self,
        stream: &Stream,
        due: Vec<(u64, usize)>,
        deadline: Instant,
    ) -> Result<Vec<(u64, usize, Option<Found>)>, Failure> {
        let sequences: Vec<u64> = due.iter().map(|(sequence, _)| *sequence).collect();
        let found = self.jetstream.by_sequence(stream, &sequences, deadline).await?;
        let read = |((sequence, rank), found): ((u64, usize), Option<_>)| {
            Ok((sequence, rank, found.map(letter::read).transpose()?))
        };
        due.into_iter().zip(found).map(read).collect()
    }

    /// What comes next, and whether there is more behind it.
    async fn read_fresh(
        &self,
        stream: &Stream,
        next: &Next,
        deadline: Instant,
    ) -> Result<(Vec<Found>, bool), Failure> {
        if next.batch == 0 {
            return Ok((Vec::new(), false));
        }
        let (messages, beyond) = self.jetstream.next(stream, next, deadline).await?;
        let fresh = messages.into_iter().map(letter::read).collect::<Result<_, _>>()?;
        Ok((fresh, beyond > 0))
    }
}

/// Sorts what was read of a whole inbox; and the last sequence of it.
fn by_rank(
    state: &State,
    due: Vec<(u64, usize, Option<Found>)>,
    fresh: Vec<async_nats::Message>,
) -> Result<(Vec<Read>, u64), Failure> {
    let mut read: Vec<Read> = PRIORITIES.iter().map(|_| Read::default()).collect();
    for (sequence, rank, found) in due {
        read[rank].due.push((sequence, found));
    }
    let mut last = 0;
    for found in fresh {
        let found = letter::read(found)?;
        last = found.sequence;
        if found.sequence > state.seen[found.rank] {
            read[found.rank].fresh.push(found);
        }
    }
    Ok((read, last))
}

impl State {
    /// What is due again, by sequence, and its priority.
    fn due(&self, now: Timestamp) -> Vec<(u64, usize)> {
        let is_due = |entry: &Entry| entry.due().is_some_and(|due| due <= now);
        let due = self.entries.iter().filter(|(_, entry)| is_due(entry));
        due.map(|(sequence, entry)| (*sequence, entry.rank)).collect()
    }
}
