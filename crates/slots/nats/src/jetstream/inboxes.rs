//! The records of all inboxes of a namespace, and how they change.

use std::{collections::HashMap, time::Duration};

use parking_lot::{Mutex, RwLock};
use prism_core::backoff::{Backoff, Policy};
use prism_slot::{Consumer, Error, Identity, InboxLimits, Result, Timestamp};
use tokio::time::{Instant, sleep_until};

use crate::{
    error::timeout,
    jetstream::{
        api,
        client::JetStream,
        intents::Removed,
        layout::Kind,
        letter::Letter,
        state::{NEVER, Room, State, since},
        ttl,
    },
};

/// Between two attempts to write a record that somebody else has written first.
const CONFLICT: Policy = Policy {
    base: Duration::from_millis(2),
    cap: Duration::from_millis(100),
};
/// How many records are remembered, so that they need not be read before each change.
const REMEMBERED: usize = 4_096;
/// What all calls about inboxes share.
#[derive(Debug)]
pub(crate) struct Inboxes {
    pub(crate) jetstream: JetStream,
    pub(crate) limits: RwLock<InboxLimits>,
    remembered: Mutex<HashMap<Identity, (u64, State)>>,
}

/// A record that was read, to be changed.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) state: State,
    /// The sequence of what was read; 0 where there is none.
    version: u64,
    /// Whether it is from memory, so that it may have been changed by somebody else.
    is_remembered: bool,
    /// Whether something of what it says is to be done could not be done now, and may have been done in part.
    pub(crate) is_left: bool,
}

/// What is to become of a draft.
pub(crate) enum Step<T> {
    /// It is written.
    Write(T),
    /// Nothing has changed.
    Keep(T),
    /// Nothing has changed, but the consumer was heard of.
    Heard(T),
    /// The call fails.
    Refuse(Error),
}

impl Inboxes {
    pub(crate) fn new(jetstream: JetStream, limits: InboxLimits) -> Self {
        Self {
            jetstream,
            limits: RwLock::new(limits),
            remembered: Mutex::default(),
        }
    }

    /// How much a record may hold.
    pub(crate) fn room(&self) -> Room {
        Room::new(self.jetstream.max_payload())
    }

    /// Changes a record in one step, whoever else is at it; and carries out what it then says is to be done.
    pub(crate) async fn change<T>(
        &self,
        identity: &Identity,
        deadline: Instant,
        mut step: impl FnMut(&mut State, Timestamp) -> Step<T>,
    ) -> Result<(T, Removed)> {
        let mut attempts = Attempts::new(deadline);
        loop {
            let mut draft = self.draft(identity, deadline).await?;
            let step = step(&mut draft.state, Timestamp::now());
            if let Some(outcome) = self.end(identity, draft, step, &HashMap::new(), deadline).await? {
                return Ok(outcome);
            }
            attempts.pause().await?;
        }
    }

    /// Ends one attempt to change a record; `None` where it has to be tried anew.
    pub(crate) async fn end<T>(
        &self,
        identity: &Identity,
        draft: Draft,
        step: Step<T>,
        known: &HashMap<u64, Letter>,
        deadline: Instant,
    ) -> Result<Option<(T, Removed)>> {
        let idle = self.limits.read().idle;
        let step = match step {
            Step::Heard(outcome) if draft.state.is_ending(idle, Timestamp::now()) => Step::Write(outcome),
            Step::Heard(outcome) => Step::Keep(outcome),
            step => step,
        };
        match step {
            Step::Write(outcome) => {
                let removed = self.write(identity, draft, known, deadline).await?;
                Ok(removed.map(|removed| (outcome, removed)))
            }
            Step::Keep(outcome) if !draft.is_remembered => Ok(Some((outcome, Removed::new()))),
            Step::Keep(outcome) | Step::Heard(outcome) => {
                let is_current = self.is_current(identity, &draft, deadline).await?;
                Ok(is_current.then(|| (outcome, Removed::new())))
            }
            Step::Refuse(error) if !draft.is_remembered => Err(error),
            Step::Refuse(_) => {
                // It may be the memory that is wrong.
                self.forget(identity);
                Ok(None)
            }
        }
    }

    /// The record as it is remembered, or else as it is. What was left to be done is done.
    pub(crate) async fn draft(&self, identity: &Identity, deadline: Instant) -> Result<Draft> {
        let (_, generation) = self.jetstream.stream(Kind::Messages, deadline).await?;
        let remembered = self.remembered.lock().get(identity).cloned();
        // With the stream of messages that of the records may have been lost, and its sequences begun anew.
        let remembered = remembered.filter(|(_, state)| state.generation == generation);
        let mut draft = match remembered {
            Some((version, state)) => Draft {
                state,
                version,
                is_remembered: true,
                is_left: false,
            },
            None => self.read(identity, generation, deadline).await?,
        };
        self.follow(&mut draft.state, deadline).await?;
        if !draft.state.intents().is_empty() {
            let carried_out = self
                .carry_out(identity, &draft.state, &HashMap::new(), true, deadline)
                .await;
            // If not, somebody does it later.
            draft.is_left = carried_out.is_err();
            if !draft.is_left {
                draft.state.drop_intents();
                self.remember(identity, draft.version, draft.state.clone());
            }
        }
        Ok(draft)
    }

    async fn read(&self, identity: &Identity, generation: u64, deadline: Instant) -> Result<Draft> {
        let (stream, _) = self.jetstream.stream(Kind::Sessions, deadline).await?;
        let subject = self.jetstream.layout.named(Kind::Sessions, identity.as_str());
        let mut found = self
            .jetstream
            .last(stream, std::iter::once(subject), deadline)
            .await;
        let (version, state) = match found.pop().unwrap_or(Ok(None))? {
            Some(kept) => {
                let mut state = State::decode(kept.body)?;
                state.until = kept.expires_at;
                (kept.sequence, state)
            }
            None => (0, State::blank(generation)),
        };
        Ok(Draft {
            state,
            version,
            is_remembered: false,
            is_left: false,
        })
    }

    /// A record as it is.
    pub(crate) async fn current(&self, identity: &Identity, deadline: Instant) -> Result<State> {
        let (_, generation) = self.jetstream.stream(Kind::Messages, deadline).await?;
        let mut state = self.read(identity, generation, deadline).await?.state;
        self.follow(&mut state, deadline).await?;
        Ok(state)
    }

    /// Makes a record one of the stream of messages as it is. Where it is of another one, somebody else may have noticed first
    /// that the stream was made anew: so that is asked before anything is forgotten.
    async fn follow(&self, state: &mut State, deadline: Instant) -> Result<()> {
        let (stream, mut generation) = self.jetstream.stream(Kind::Messages, deadline).await?;
        if state.generation != generation {
            stream.is_doubtful();
            (_, generation) = self.jetstream.stream(Kind::Messages, deadline).await?;
        }
        state.follow(generation);
        Ok(())
    }

    /// Whether a record from memory is still the one that is stored.
    async fn is_current(&self, identity: &Identity, draft: &Draft, deadline: Instant) -> Result<bool> {
        let stored = self.read(identity, 0, deadline).await?;
        let is_current = stored.version == draft.version;
        if !is_current {
            self.forget(identity);
        }
        Ok(is_current)
    }

    /// Writes a record if it is still the one that was read, and carries out what it says. `None` if it is not.
    async fn write(
        &self,
        identity: &Identity,
        draft: Draft,
        known: &HashMap<u64, Letter>,
        deadline: Instant,
    ) -> Result<Option<Removed>> {
        let Draft {
            mut state,
            version,
            is_left,
            ..
        } = draft;
        // Until it is known what is stored.
        self.forget(identity);
        state.until = state.ends(self.limits.read().idle, Timestamp::now());
        let Some(version) = self.store(identity, version, &state, deadline).await? else {
            return Ok(None);
        };
        let carried_out = self.carry_out(identity, &state, known, is_left, deadline).await;
        let removed = match carried_out {
            Ok(removed) => {
                state.drop_intents();
                removed
            }
            // The record says what is to be done, so it will be.
            Err(failure) => {
                tracing::debug!(%identity, ?failure, "left to be done later");
                Removed::new()
            }
        };
        self.tidy(identity, version, state, deadline).await;
        Ok(Some(removed))
    }

    /// The new version; `None` where somebody else was first.
    async fn store(
        &self,
        identity: &Identity,
        version: u64,
        state: &State,
        deadline: Instant,
    ) -> Result<Option<u64>> {
        let (stream, _) = self.jetstream.stream(Kind::Sessions, deadline).await?;
        let subject = self.jetstream.layout.named(Kind::Sessions, identity.as_str());
        let mut headers = api::expecting(version);
        if state.until < NEVER {
            headers.insert(api::TTL, ttl(since(state.until, Timestamp::now())));
        }
        let message = api::message(subject, headers, state.encode());
        let stored = self
            .jetstream
            .store(stream, std::iter::once(message), deadline)
            .await;
        match stored.into_iter().next() {
            Some(Ok(stored)) => Ok(Some(stored.seq)),
            Some(Err(failure)) if failure.is_conflict() => Ok(None),
            Some(Err(failure)) => Err(failure.into()),
            None => Err(timeout()),
        }
    }

    /// Remembers a record, or removes it if it says nothing.
    async fn tidy(&self, identity: &Identity, version: u64, state: State, deadline: Instant) {
        if !state.is_blank() {
            self.remember(identity, version, state);
        } else if let Ok((stream, _)) = self.jetstream.stream(Kind::Sessions, deadline).await {
            // By its sequence, so nobody else's. If it stays, it does no harm.
            self.jetstream.delete(stream, &[version], deadline).await;
        }
    }

    /// Forgets who works on an inbox and what is out. False where somebody else was first.
    pub(crate) async fn drop_record(
        &self,
        identity: &Identity,
        draft: Draft,
        deadline: Instant,
    ) -> Result<bool> {
        self.forget(identity);
        if draft.version == 0 {
            return Ok(true);
        }
        let (stream, _) = self.jetstream.stream(Kind::Sessions, deadline).await?;
        let deleted = self.jetstream.delete(stream, &[draft.version], deadline).await;
        Ok(deleted.into_iter().next().unwrap_or(Ok(false))?)
    }

    fn remember(&self, identity: &Identity, version: u64, state: State) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED && !remembered.contains_key(identity) {
            // Whichever: it costs a read.
            let other = remembered.keys().next().cloned();
            other.and_then(|other| remembered.remove(&other));
        }
        remembered.insert(identity.clone(), (version, state));
    }

    pub(crate) fn forget(&self, identity: &Identity) {
        self.remembered.lock().remove(identity);
    }

    /// # Errors
    /// For any session but the consumer.
    pub(crate) fn check_consumer(state: &State, consumer: &Consumer) -> Result<()> {
        if state.is_consumer(consumer) {
            return Ok(());
        }
        Err(Error::Fenced(consumer.address.identity.clone()))
    }
}

/// Attempts of one call.
pub(crate) struct Attempts {
    backoff: Backoff,
    deadline: Instant,
}

impl Attempts {
    pub(crate) fn new(deadline: Instant) -> Self {
        Self {
            backoff: Backoff::new(CONFLICT),
            deadline,
        }
    }

    /// Waits a moment before the next one.
    ///
    /// # Errors
    /// When there is no time left.
    pub(crate) async fn pause(&mut self) -> Result<()> {
        let next = Instant::now() + self.backoff.pause();
        if next >= self.deadline {
            return Err(timeout());
        }
        sleep_until(next).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
