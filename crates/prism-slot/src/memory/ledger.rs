//! The ledger in memory.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{Clock, WallClock, mailbox::later};
use crate::{
    Applied, Entry, Error, Expect, Ledger, LedgerCapability, Listed, Result, Scope, Timestamp, Write, Wrote,
    capability::Survives,
};

const BACKEND: &str = "memory";
/// How much more than its bound is taken of what is still needed: the largest entry always finds room.
const RESERVE: usize = MemoryLedger::CAPABILITY.max_body;
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
    /// From when on entries may make room, in that order.
    let_go: BTreeMap<(Timestamp, u64), String>,
    /// Counts what was let go.
    gone: u64,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    ends_at: Timestamp,
    let_go: Option<(Timestamp, u64)>,
}

impl MemoryLedger {
    /// The capability of every memory ledger.
    pub const CAPABILITY: LedgerCapability = LedgerCapability {
        backend: BACKEND,
        scope: Scope::Process,
        survives: Survives::Nothing,
        max_body: 128 << 20,
    };

    /// An empty one of about so many bytes. Beyond that, what was let go makes room, the first first; nothing else does,
    /// and is refused where it comes to a largest entry more.
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
            Ok((mut state, now)) => writes.into_iter().map(|write| state.write(write, now)).collect(),
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

    fn let_go(&self, keys: Vec<String>, after: Duration) {
        if let Ok((mut state, now)) = self.open_state() {
            keys.iter().for_each(|key| state.let_go(key, later(now, after)));
        }
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

    fn write(&mut self, write: Write, now: Timestamp) -> Result<Wrote> {
        self.tidy(now);
        let current = self.live(&write.key, now);
        let holds = match write.expect {
            Expect::Anything => true,
            Expect::Absent => current.is_none(),
            Expect::Version(version) => current.is_some_and(|entry| entry.version == version),
        };
        if !holds {
            return Ok(Wrote::Conflict(current.cloned()));
        }
        let Some(body) = write.body else {
            self.remove(&write.key);
            return Ok(Wrote::Done(0));
        };
        self.make_room(&write.key, &body, now)?;
        let replaced = self.remove(&write.key);
        let let_go = replaced.and_then(|kept| kept.let_go.filter(|_| kept.ends_at > now));
        self.version += 1;
        let (version, ends_at) = (self.version, later(now, write.ttl));
        self.bytes += size(&write.key, &body);
        self.ends.insert((ends_at, version), write.key.clone());
        if let Some(place) = let_go {
            self.let_go.insert(place, write.key.clone());
        }
        let kept = Kept {
            entry: Entry { version, body },
            ends_at,
            let_go,
        };
        self.entries.insert(write.key, kept);
        Ok(Wrote::Done(version))
    }

    fn remove(&mut self, key: &str) -> Option<Kept> {
        let (key, kept) = self.entries.remove_entry(key)?;
        self.bytes -= size(&key, &kept.entry.body);
        self.ends.remove(&(kept.ends_at, kept.entry.version));
        if let Some(place) = kept.let_go {
            self.let_go.remove(&place);
        }
        Some(kept)
    }

    /// Once it was let go, it stays so.
    fn let_go(&mut self, key: &str, from: Timestamp) {
        let Some(kept) = self.entries.get_mut(key).filter(|kept| kept.let_go.is_none()) else {
            return;
        };
        self.gone += 1;
        kept.let_go = Some((from, self.gone));
        self.let_go.insert((from, self.gone), key.to_owned());
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

    /// Makes room for what is to be written, where that is needed: of what is over, then of what was let go.
    fn make_room(&mut self, key: &str, body: &[u8], now: Timestamp) -> Result<()> {
        let replaced = self.entries.get(key);
        let replaced = replaced.map_or(0, |kept| size(key, &kept.entry.body));
        let needed = self.bytes - replaced + size(key, body);
        let mut excess = needed.saturating_sub(self.max_bytes);
        if excess == 0 {
            return Ok(());
        }
        let until = ..=(now, u64::MAX);
        let live = |key: &&String| self.live(key, now).is_some();
        let over = self.ends.range(until).map(|(_, over)| over);
        let let_go = self.let_go.range(until).map(|(_, gone)| gone).filter(live);
        let mut gone = Vec::new();
        for other in over.chain(let_go).filter(|other| *other != key) {
            if excess == 0 {
                break;
            }
            let kept = &self.entries[other];
            excess = excess.saturating_sub(size(other, &kept.entry.body));
            gone.push(other.clone());
        }
        if excess > RESERVE {
            return Err(self.full());
        }
        gone.iter().for_each(|key| drop(self.remove(key)));
        Ok(())
    }

    fn full(&self) -> Error {
        let most = self.max_bytes + RESERVE;
        Error::Unavailable {
            backend: BACKEND,
            message: format!(
                "entries that are still needed take all `{most}` bytes of the ledger; try again"
            ),
            applied: Applied::No,
        }
    }
}

fn size(key: &str, body: &[u8]) -> usize {
    key.len() + body.len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::{super::ManualClock, *};

    /// A key and a body of a hundred bytes.
    fn write(key: &str, seconds: u64) -> Write {
        Write {
            key: key.to_owned(),
            expect: Expect::Anything,
            body: Some(vec![0; 100 - key.len()].into()),
            ttl: Duration::from_secs(seconds),
        }
    }

    async fn put(ledger: &MemoryLedger, writes: Vec<Write>) {
        let written = ledger.write(writes, Instant::now()).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    }

    async fn keys(ledger: &MemoryLedger) -> Vec<String> {
        let listed = ledger.list(String::new(), None, 100, Instant::now()).await;
        listed.unwrap().keys
    }

    fn let_go(ledger: &MemoryLedger, keys: &[&str], seconds: u64) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        ledger.let_go(keys, Duration::from_secs(seconds));
    }

    #[tokio::test]
    async fn what_was_let_go_makes_room_the_first_first() {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        let ledger = MemoryLedger::with_clock(500, clock.clone());
        let writes = vec![
            write("a", 3_600),
            write("b", 3_600),
            write("c", 5),
            write("d", 3_600),
        ];
        put(&ledger, writes).await;
        let_go(&ledger, &["d", "a", "absent"], 0);
        let_go(&ledger, &["b"], 60);
        let_go(&ledger, &["a"], 3_600);
        assert_eq!(keys(&ledger).await, ["a", "b", "c", "d"], "there is room");
        // What is written again stays in its place.
        put(&ledger, vec![write("e", 10), write("d", 7_200), write("f", 10)]).await;
        assert_eq!(keys(&ledger).await, ["a", "b", "c", "e", "f"]);
        put(&ledger, vec![write("g", 10)]).await;
        assert_eq!(keys(&ledger).await, ["b", "c", "e", "f", "g"]);
        // Not before its time, and what is over comes first.
        put(&ledger, vec![write("h", 3_600)]).await;
        assert_eq!(keys(&ledger).await, ["b", "c", "e", "f", "g", "h"]);
        clock.advance(Duration::from_secs(60));
        put(&ledger, vec![write("i", 10)]).await;
        assert_eq!(keys(&ledger).await, ["b", "h", "i"]);
        let writes = ["j", "k", "l"].map(|key| write(key, 10));
        put(&ledger, writes.to_vec()).await;
        assert_eq!(keys(&ledger).await, ["h", "i", "j", "k", "l"]);
        // What comes after it under its key was not let go.
        let gone = Write {
            body: None,
            ..write("i", 0)
        };
        let_go(&ledger, &["i"], 0);
        put(&ledger, vec![gone, write("i", 10), write("m", 10)]).await;
        assert_eq!(keys(&ledger).await, ["h", "i", "j", "k", "l", "m"]);
    }

    #[tokio::test]
    async fn without_room_what_is_needed_is_refused_and_nothing_else_goes() {
        let ledger = MemoryLedger::new(500);
        let large = Bytes::from(vec![0; RESERVE / 4]);
        let large = |key: &str| Write {
            body: Some(large.clone()),
            ..write(key, 60)
        };
        let writes = vec![write("a", 60), write("b", 5), large("c"), large("d"), large("e")];
        put(&ledger, writes).await;
        let_go(&ledger, &["a"], 0);
        let written = ledger
            .write(vec![large("f"), large("g"), write("b", 5)], Instant::now())
            .await;
        let [taken, refused, again] = <[_; 3]>::try_from(written).unwrap();
        assert!(taken.is_ok() && again.is_ok(), "{taken:?} {again:?}");
        let error = refused.unwrap_err();
        assert_eq!(error.applied(), Applied::No);
        assert!(error.to_string().contains("still needed"), "{error}");
        assert_eq!(keys(&ledger).await, ["b", "c", "d", "e", "f"]);
    }
}
