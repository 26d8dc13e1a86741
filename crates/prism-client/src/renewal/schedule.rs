//! What is due when, and what an answer means for it.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use prism_core::backoff::{Backoff, Policy};
use tokio::{sync::watch, time::Instant};

use super::fate::Fate;
use crate::{Error, Lease, RegisterRequest, Registration, Renewed};

/// How often to look after a registration that has no lease: nothing expires it, but it can be lost
/// with the history of its namespace.
const LOOK_AFTER: Duration = Duration::from_secs(30);

/// No registration is renewed more often, whatever the service says.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// The most leases in one call.
const BATCH: usize = 500;

/// Renewals are usually spread over ±20 % of a third of the lease. A renewal that is due pulls forward
/// those which are due within this share of their own interval, which is the width of that spread: so the
/// leases of equal length stay together in one call.
const PULL: f64 = 0.4;

/// No renewal is pulled forward by more.
const LONGEST_PULL: Duration = Duration::from_secs(60);

/// What is known of a registration that is kept.
#[derive(Debug, Clone)]
pub enum State {
    /// It was confirmed the last time that it was due.
    Live,
    /// The service could not be asked, or could not answer. It is asked again until it does: whether the
    /// lease has ended meanwhile is for the service alone to say.
    Failing {
        /// What the last attempt failed with.
        error: Error,
        /// How many attempts have failed.
        attempts: u32,
    },
    /// It is gone, and is not tried again: somebody else holds the identity now, or the service refuses
    /// to register it again.
    Lost {
        /// Why.
        error: Error,
    },
}

/// A registration that is kept, as its handle sees it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) registration: Registration,
    pub(super) state: State,
    /// How often the service has confirmed it.
    pub(super) confirmations: u64,
}

/// Names an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

/// A call to make.
#[derive(Debug)]
pub(super) enum Work {
    /// One renewal of many leases. None of them waits longer than the timeout for its answer.
    Renew {
        leases: Vec<(Key, Lease)>,
        timeout: Duration,
    },
    /// One registration that was lost.
    Register { key: Key, request: RegisterRequest },
}

/// Every registration that one keeper keeps.
#[derive(Debug)]
pub(super) struct Schedule {
    policy: Policy,
    entries: HashMap<Key, Entry>,
    /// Idle entries, by when they are due.
    queue: BTreeSet<(Instant, Key)>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    request: RegisterRequest,
    interval: Duration,
    task: Task,
    /// `None` while a call is under way.
    due: Option<Instant>,
    /// Somebody wants to know as soon as the call under way is done.
    again: bool,
    /// To be forgotten as soon as the call under way is done.
    closing: bool,
    backoff: Backoff,
    kept: watch::Sender<Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Renew,
    Register,
}

impl Schedule {
    /// `policy` bounds the pauses after failures.
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            entries: HashMap::new(),
            queue: BTreeSet::new(),
            next: 0,
        }
    }

    /// Keeps a registration from now on.
    pub(super) fn insert(
        &mut self,
        mut request: RegisterRequest,
        registration: Registration,
        now: Instant,
    ) -> (Key, watch::Receiver<Kept>) {
        // Taking the identity over was for the first time: whoever takes it from us later is to keep it.
        request.replace = false;
        let key = Key(self.next);
        self.next += 1;
        let interval = interval(&registration);
        let (kept, watcher) = watch::channel(Kept {
            registration,
            state: State::Live,
            confirmations: 1,
        });
        let entry = Entry {
            request,
            interval,
            task: Task::Renew,
            due: None,
            again: false,
            closing: false,
            backoff: Backoff::new(self.policy),
            kept,
        };
        self.entries.insert(key, entry);
        self.put_off(key, now + interval);
        (key, watcher)
    }

    /// Keeps it no longer. False while a call for it is under way: ask again when that is settled.
    pub(super) fn remove(&mut self, key: Key) -> bool {
        match self.entries.get_mut(&key) {
            Some(entry) if entry.is_busy() => {
                entry.closing = true;
                false
            }
            _ => {
                self.forget(key);
                true
            }
        }
    }

    /// Keeps it no longer, whatever is under way.
    pub(super) fn forget(&mut self, key: Key) {
        if let Some(due) = self.entries.remove(&key).and_then(|entry| entry.due) {
            self.queue.remove(&(due, key));
        }
    }

    /// Looks after it now. True when that changes what is due next.
    pub(super) fn hurry(&mut self, key: Key, now: Instant) -> bool {
        match self.entries.get_mut(&key) {
            Some(entry) if entry.is_busy() => {
                entry.again = true;
                false
            }
            Some(entry) if !entry.is_lost() => {
                self.put_off(key, now);
                true
            }
            _ => false,
        }
    }

    /// Registers it with this metadata should it be lost.
    pub(super) fn set_metadata(&mut self, key: Key, metadata: serde_json::Value) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.request.metadata = metadata;
        }
    }

    /// When the next call is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// The next call to make, if one is due. Its entries are busy until it is settled.
    pub(super) fn take(&mut self, now: Instant) -> Option<Work> {
        let (due, first) = *self.queue.first()?;
        if due > now {
            return None;
        }
        let entry = self.entries.get_mut(&first)?;
        if entry.task == Task::Register {
            entry.due = None;
            self.queue.remove(&(due, first));
            let request = entry.request.clone();
            return Some(Work::Register { key: first, request });
        }
        Some(self.take_batch(now))
    }

    fn take_batch(&mut self, now: Instant) -> Work {
        let within = self
            .queue
            .iter()
            .take_while(|(due, _)| *due <= now + LONGEST_PULL);
        let due = within.filter(|(due, key)| {
            let entry = self.entries.get(key);
            entry.is_some_and(|entry| entry.task == Task::Renew && *due <= now + entry.pull())
        });
        let taken: Vec<_> = due.take(BATCH).copied().collect();
        let mut timeout = Duration::MAX;
        let mut leases = Vec::with_capacity(taken.len());
        for (due, key) in taken {
            self.queue.remove(&(due, key));
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.due = None;
                timeout = timeout.min(entry.interval);
                leases.push((key, entry.lease()));
            }
        }
        Work::Renew { leases, timeout }
    }

    /// Takes the answer to a renewal.
    pub(super) fn renewed(&mut self, key: Key, result: Result<Renewed, Error>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        match result {
            Ok(renewed) => {
                entry.kept.send_modify(|kept| {
                    kept.registration.expires_at = renewed.expires_at;
                    kept.registration.renew_after = renewed.renew_after;
                });
                self.confirmed(key, now);
            }
            Err(error) => match Fate::of_renewal(&error) {
                Fate::Gone => {
                    tracing::warn!(identity = %entry.request.identity, %error, "registration lost, registering again");
                    entry.task = Task::Register;
                    self.put_off(key, now);
                }
                fate => self.failed(key, fate, error, now),
            },
        }
    }

    /// Takes the failure of a whole call: it says nothing about one registration among many, unless that
    /// all of them are gone.
    pub(super) fn not_renewed(&mut self, key: Key, error: Error, now: Instant) {
        if Fate::of_renewal(&error) == Fate::Gone {
            return self.renewed(key, Err(error), now);
        }
        self.failed(key, Fate::Unknown, error, now);
    }

    /// Takes the answer to a registration.
    pub(super) fn registered(&mut self, key: Key, result: Result<Registration, Error>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        match result {
            Ok(registration) => {
                tracing::info!(identity = %entry.request.identity, generation = %registration.generation, "registered again");
                entry.task = Task::Renew;
                entry.kept.send_modify(|kept| kept.registration = registration);
                self.confirmed(key, now);
            }
            Err(error) => self.failed(key, Fate::of_registration(&error), error, now),
        }
    }

    fn confirmed(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.backoff.reset();
        entry.kept.send_modify(|kept| {
            kept.state = State::Live;
            kept.confirmations += 1;
        });
        entry.interval = interval(&entry.kept.borrow().registration);
        let pause = if std::mem::take(&mut entry.again) {
            Duration::ZERO
        } else {
            entry.interval
        };
        self.put_off(key, now + pause);
    }

    fn failed(&mut self, key: Key, fate: Fate, error: Error, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let identity = &entry.request.identity;
        entry.again = false;
        if fate != Fate::Unknown {
            tracing::error!(%identity, %error, "registration lost for good");
            entry.due = None;
            entry.kept.send_modify(|kept| kept.state = State::Lost { error });
            return;
        }
        let pause = entry.backoff.pause().max(error.retry_after().unwrap_or_default());
        tracing::warn!(%identity, %error, ?pause, "registration could not be confirmed, trying again");
        let attempts = entry.backoff.failures();
        entry
            .kept
            .send_modify(|kept| kept.state = State::Failing { error, attempts });
        self.put_off(key, now + pause);
    }

    /// Makes the entry idle until `due`.
    fn put_off(&mut self, key: Key, due: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if entry.closing {
            return self.forget(key);
        }
        if let Some(before) = entry.due.replace(due) {
            self.queue.remove(&(before, key));
        }
        self.queue.insert((due, key));
    }
}

fn interval(registration: &Registration) -> Duration {
    let asked = registration.renew_after.unwrap_or(LOOK_AFTER);
    asked.max(SHORTEST_INTERVAL)
}

impl Entry {
    fn is_lost(&self) -> bool {
        matches!(self.kept.borrow().state, State::Lost { .. })
    }

    fn is_busy(&self) -> bool {
        self.due.is_none() && !self.is_lost()
    }

    fn pull(&self) -> Duration {
        self.interval.mul_f64(PULL).min(LONGEST_PULL)
    }

    fn lease(&self) -> Lease {
        Lease::from(&self.kept.borrow().registration)
    }
}

#[cfg(test)]
mod tests;
