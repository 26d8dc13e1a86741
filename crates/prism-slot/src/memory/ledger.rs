//! The ledger in memory.

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{Clock, WallClock, mailbox::later};
use crate::{
    Applied, Entry, Error, Expect, Ledger, LedgerCapability, Listed, Result, Scope, Timestamp, Write, Wrote,
    capability::Survives,
};

const BACKEND: &str = "memory";
/// How many ends one write looks at, so that what is over goes as fast as it came.
const TIDY: usize = 4;

/// A ledger whose entries are in this value.
pub struct MemoryLedger {
    clock: Box<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// The last version that was given.
    version: u64,
    bytes: usize,
    max_bytes: usize,
    entries: BTreeMap<String, Kept>,
    /// When entries end, in that order.
    ends: BTreeMap<(Timestamp, u64), String>,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    ends_at: Timestamp,
}

impl MemoryLedger {
    /// The capability of every memory ledger.
    pub const CAPABILITY: LedgerCapability = LedgerCapability {
        backend: BACKEND,
        scope: Scope::Process,
        survives: Survives::Nothing,
        max_body: 128 << 20,
    };

    /// An empty one that holds at most so many bytes; beyond that, what would end first makes room.
    pub fn new(max_bytes: usize) -> Self {
        Self::with_clock(max_bytes, WallClock)
    }

    /// One whose time is the clock's.
    pub fn with_clock(max_bytes: usize, clock: impl Clock) -> Self {
        let state = State {
            max_bytes,
            ..State::default()
        };
        Self {
            clock: Box::new(clock),
            state: Mutex::new(state),
        }
    }

    fn open_state(&self) -> Result<(MutexGuard<'_, State>, Timestamp)> {
        let state = self.state.lock();
        if state.closed {
            return Err(Error::Unavailable {
                backend: BACKEND,
                message: "the ledger is closed".to_owned(),
                applied: Applied::No,
            });
        }
        Ok((state, self.clock.now()))
    }
}

impl Ledger for MemoryLedger {
    fn capability(&self) -> &LedgerCapability {
        &Self::CAPABILITY
    }

    async fn read(&self, keys: Vec<String>, _deadline: Instant) -> Result<Vec<Option<Entry>>> {
        let (state, now) = self.open_state()?;
        Ok(keys.iter().map(|key| state.live(key, now).cloned()).collect())
    }

    async fn write(&self, writes: Vec<Write>, _deadline: Instant) -> Vec<Result<Wrote>> {
        match self.open_state() {
            Ok((mut state, now)) => writes
                .into_iter()
                .map(|write| Ok(state.write(write, now)))
                .collect(),
            Err(error) => vec![Err(error); writes.len()],
        }
    }

    async fn list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        _deadline: Instant,
    ) -> Result<Listed> {
        let (state, now) = self.open_state()?;
        let from = after.as_ref().map_or(&prefix, |after| after.max(&prefix)).clone();
        let mut keys = state
            .entries
            .range(from..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter(|(key, kept)| Some(*key) != after.as_ref() && kept.ends_at > now)
            .map(|(key, _)| key.clone());
        Ok(Listed {
            keys: keys.by_ref().take(limit).collect(),
            more: keys.next().is_some(),
        })
    }

    async fn close(&self) {
        let mut state = self.state.lock();
        *state = State {
            closed: true,
            ..State::default()
        };
    }
}

impl State {
    fn live(&self, key: &str, now: Timestamp) -> Option<&Entry> {
        let kept = self.entries.get(key).filter(|kept| kept.ends_at > now)?;
        Some(&kept.entry)
    }

    fn write(&mut self, write: Write, now: Timestamp) -> Wrote {
        self.tidy(now);
        let current = self.live(&write.key, now);
        let holds = match write.expect {
            Expect::Anything => true,
            Expect::Absent => current.is_none(),
            Expect::Version(version) => current.is_some_and(|entry| entry.version == version),
        };
        if !holds {
            return Wrote::Conflict(current.cloned());
        }
        self.remove(&write.key);
        let Some(body) = write.body else {
            return Wrote::Done(0);
        };
        self.version += 1;
        let (version, ends_at) = (self.version, later(now, write.ttl));
        self.bytes += size(&write.key, &body);
        self.ends.insert((ends_at, version), write.key.clone());
        let entry = Entry { version, body };
        self.entries.insert(write.key, Kept { entry, ends_at });
        self.make_room(version);
        Wrote::Done(version)
    }

    fn remove(&mut self, key: &str) {
        if let Some((key, kept)) = self.entries.remove_entry(key) {
            self.bytes -= size(&key, &kept.entry.body);
            self.ends.remove(&(kept.ends_at, kept.entry.version));
        }
    }

    fn tidy(&mut self, now: Timestamp) {
        for _ in 0..TIDY {
            match self.ends.first_key_value() {
                Some((&(at, _), key)) if at <= now => {
                    let key = key.clone();
                    self.remove(&key);
                }
                _ => return,
            }
        }
    }

    /// The entry that was just written stays, whatever its size.
    fn make_room(&mut self, newest: u64) {
        while self.bytes > self.max_bytes {
            let first = self.ends.iter().find(|((_, version), _)| *version != newest);
            let Some(key) = first.map(|(_, key)| key.clone()) else {
                return;
            };
            self.remove(&key);
        }
    }
}

fn size(key: &str, body: &[u8]) -> usize {
    key.len() + body.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_ends_first_makes_room() {
        let ledger = MemoryLedger::new(250);
        let write = |key: &str, seconds| Write {
            key: key.to_owned(),
            expect: Expect::Anything,
            body: Some(vec![0; 99].into()),
            ttl: Duration::from_secs(seconds),
        };
        let writes = vec![write("a", 20), write("b", 10), write("c", 30), write("d", 5)];
        let written = ledger.write(writes, Instant::now()).await;
        assert_eq!(written.iter().filter(|outcome| outcome.is_ok()).count(), 4);
        let listed = ledger
            .list(String::new(), None, 10, Instant::now())
            .await
            .unwrap();
        assert_eq!(listed.keys, ["c", "d"]);
    }
}
