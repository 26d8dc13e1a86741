//! Carrying out what a record says is to be done: burying messages, and removing them.
//!
//! Each part of it may have been done before, by a runner that is gone since. Doing it again changes nothing: what is removed
//! already stays so, and a message is buried once, by its sequence. That of some time ago the server does not know any more, so
//! before what was left undone is done it is looked for among the dead letters. None of them leaves before that: what goes
//! back has done first what was left undone.

use std::collections::{HashMap, HashSet};

use prism_slot::{Error, Identity};
use tokio::time::Instant;

use crate::jetstream::{
    api::{self, Failure},
    inboxes::Inboxes,
    layout::Kind,
    letter::{self, Letter},
    read::{Next, number},
    state::{Entry, State, Status},
    streams::Stream,
};

/// From how many messages on it is worth having all of them removed at once.
const MANY: usize = 8;

/// How many dead letters are looked at at once, and how many bytes of them.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 8 << 20;

/// Whether messages that were to be removed were there, by sequence.
pub(crate) type Removed = HashMap<u64, bool>;

impl Inboxes {
    /// Buries and removes what a record says is to go; `is_left` where that may have been tried before.
    pub(crate) async fn carry_out(
        &self,
        identity: &Identity,
        state: &State,
        known: &HashMap<u64, Letter>,
        is_left: bool,
        deadline: Instant,
    ) -> Result<Removed, Failure> {
        let intents = state.intents();
        if intents.is_empty() {
            return Ok(Removed::new());
        }
        let gone = |error: Error| {
            tracing::debug!(%error, "a stream is missing");
            Failure::Nobody
        };
        let (stream, _) = self
            .jetstream
            .stream(Kind::Messages, deadline)
            .await
            .map_err(gone)?;
        let dying: Vec<&(u64, Entry)> = intents
            .iter()
            .filter(|(_, entry)| matches!(entry.status, Status::Dying(_)))
            .collect();
        if !dying.is_empty() && self.limits.read().max_dead_letters > 0 {
            let mut letters = self.letters(stream, &dying, known, deadline).await?;
            let (dead, _) = self.jetstream.stream(Kind::Dead, deadline).await.map_err(gone)?;
            if is_left && !letters.is_empty() {
                let buried = self.buried(dead, identity, deadline).await?;
                let name = |sequence| letter::grave(state.generation, sequence);
                letters.retain(|((sequence, _), _)| !buried.contains(&name(*sequence)));
            }
            self.bury(dead, identity, state.generation, letters, deadline)
                .await?;
        }
        self.remove(stream, identity, state, &intents, deadline).await
    }

    /// The messages that are to be buried, as far as they are still there.
    pub(crate) async fn letters<'a>(
        &self,
        stream: &Stream,
        dying: &[&'a (u64, Entry)],
        known: &HashMap<u64, Letter>,
        deadline: Instant,
    ) -> Result<Vec<(&'a (u64, Entry), Letter)>, Failure> {
        let unknown: Vec<u64> = dying
            .iter()
            .map(|(sequence, _)| *sequence)
            .filter(|sequence| !known.contains_key(sequence))
            .collect();
        let found = self.jetstream.by_sequence(stream, &unknown, deadline).await?;
        let found = found.into_iter().flatten().map(letter::read);
        let found = found.collect::<Result<Vec<_>, _>>()?.into_iter();
        let mut read: HashMap<u64, Letter> = found
            .filter_map(|found| Some((found.sequence, found.letter?)))
            .collect();
        let letter = |intent: &&'a (u64, Entry)| {
            let letter = known.get(&intent.0).cloned().or_else(|| read.remove(&intent.0));
            Some((*intent, letter?))
        };
        Ok(dying.iter().filter_map(letter).collect())
    }

    /// Under which names the dead letters of an identity were buried.
    async fn buried(
        &self,
        dead: &Stream,
        identity: &Identity,
        deadline: Instant,
    ) -> Result<HashSet<String>, Failure> {
        let mut names = HashSet::new();
        let mut next = Next {
            seq: 1,
            subject: self.jetstream.layout.named(Kind::Dead, identity.as_str()),
            batch: PAGE,
            max_bytes: PAGE_BYTES,
        };
        loop {
            let (page, beyond) = self.jetstream.next(dead, &next, deadline).await?;
            names.extend(page.iter().filter_map(letter::name).map(str::to_owned));
            let last = page.last().and_then(|last| number(last, "Nats-Sequence"));
            match last.filter(|_| beyond > 0) {
                Some(last) => next.seq = last + 1,
                None => return Ok(names),
            }
        }
    }

    async fn bury(
        &self,
        stream: &Stream,
        identity: &Identity,
        generation: u64,
        letters: Vec<(&(u64, Entry), Letter)>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let subject = self.jetstream.layout.named(Kind::Dead, identity.as_str());
        let burial = |((sequence, entry), letter): (&(u64, Entry), Letter)| {
            let Status::Dying(reason) = &entry.status else {
                return None;
            };
            let headers = letter::bury(&letter.message, reason, entry.attempt, generation, *sequence)?;
            Some(api::message(
                subject.clone(),
                headers,
                letter.message.payload.clone(),
            ))
        };
        let messages: Vec<_> = letters.into_iter().filter_map(burial).collect();
        let stored = self.jetstream.store(stream, messages.into_iter(), deadline).await;
        stored.into_iter().try_for_each(|stored| stored.map(drop))
    }

    async fn remove(
        &self,
        stream: &Stream,
        identity: &Identity,
        state: &State,
        intents: &[(u64, Entry)],
        deadline: Instant,
    ) -> Result<Removed, Failure> {
        let mut removed = Removed::new();
        let mut single = Vec::new();
        for rank in 0..state.seen.len() {
            let of_rank = intents.iter().filter(|(_, entry)| entry.rank == rank);
            let sequences: Vec<u64> = of_rank.map(|(sequence, _)| *sequence).collect();
            match state.removable_before(rank, &sequences) {
                Some(before) => {
                    let subject = self.jetstream.layout.messages(identity, rank);
                    self.jetstream
                        .purge(stream, &subject, Some(before), deadline)
                        .await?;
                    removed.extend(sequences.into_iter().map(|sequence| (sequence, true)));
                }
                None => single.extend(sequences),
            }
        }
        let deleted = self.jetstream.delete(stream, &single, deadline).await;
        for (sequence, deleted) in single.into_iter().zip(deleted) {
            removed.insert(sequence, deleted?);
        }
        Ok(removed)
    }
}

impl State {
    /// Before which sequence everything of a priority can be removed at once, if that is worth it: all that was seen
    /// there is to go.
    fn removable_before(&self, rank: usize, sequences: &[u64]) -> Option<u64> {
        let last = sequences.last().copied().filter(|_| sequences.len() >= MANY)?;
        let stays = |(_, entry): (&u64, &Entry)| entry.rank == rank && entry.due().is_some();
        let all_go = last <= self.seen[rank] && !self.entries.range(..=last).any(stays);
        all_go.then_some(last + 1)
    }
}
