//! The books: what the ledger of a namespace keeps of its multicasts, so that it outlives the runner that makes them.
//!
//! | key | what | until |
//! |---|---|---|
//! | `key/<digest>` | which multicast has an idempotency key | the dedupe window is over |
//! | `cast/<multicast>`, `part/<multicast>/<n>` | a multicast, and what is known of its targets | the receipts window is over |
//! | `cast/<multicast>` | or that it is never begun | whoever was about to begin it has given up |
//! | `load/<multicast>`, `open/<runner>/<multicast>` | its message, and that somebody works on it | it is sent |
//! | `runner/<runner>` | the post of a runner that is alive | it has not said so for a while |
//!
//! A ledger with a bound of its own gives up what is said to be dispensable, and that is receipts alone: a part once its
//! multicast is sent, and the multicast once its idempotency key is over as well.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prism_slot::{
    Applied, DynLedger, Error, Expect, LedgerCapability, MulticastId, Result, Timestamp, Write, Wrote,
};
use tokio::time::Instant;

use super::{
    Runner,
    cast::Phase,
    note::Receipt,
    records::{CastEntry, Load, Part, Unreadable, part_of},
    state::State,
    tracker::Tracker,
};

/// How often a part is written again because somebody else was first.
const ATTEMPTS: usize = 6;
/// For how long a runner is taken to be alive after it said so.
pub(crate) const ALIVE: Duration = Duration::from_secs(10);
/// How much longer than its call a multicast is looked after.
pub(super) const OPEN_GRACE: Duration = Duration::from_secs(60);

/// The ledger, as this runner keeps it.
#[derive(Clone)]
pub(crate) struct Books {
    pub(super) ledger: Arc<dyn DynLedger>,
    pub(crate) runner: Runner,
}

pub(super) fn cast_key(id: MulticastId) -> String {
    format!("cast/{id}")
}

fn part_key(id: MulticastId, part: usize) -> String {
    format!("part/{id}/{part}")
}

pub(super) fn load_key(id: MulticastId) -> String {
    format!("load/{id}")
}

pub(super) fn open_key(runner: Runner, id: MulticastId) -> String {
    format!("open/{:016x}/{id}", runner.0)
}

pub(super) fn runner_key(runner: Runner) -> String {
    format!("runner/{:016x}", runner.0)
}

pub(super) fn left(until: Timestamp) -> Duration {
    let millis = until.0.saturating_sub(Timestamp::now().0);
    Duration::from_millis(u64::try_from(millis).unwrap_or_default()).max(Duration::from_secs(1))
}

impl Books {
    pub(crate) fn new(ledger: Arc<dyn DynLedger>, runner: Runner) -> Self {
        Self { ledger, runner }
    }

    pub(crate) fn capability(&self) -> &LedgerCapability {
        self.ledger.capability()
    }

    pub(crate) fn into_ledger(self) -> Arc<dyn DynLedger> {
        self.ledger
    }

    pub(crate) async fn close(&self) {
        self.ledger.close().await;
    }

    pub(super) fn unreadable(&self, error: &Unreadable) -> Error {
        Error::Unreadable {
            backend: self.capability().backend,
            message: error.to_string(),
        }
    }

    fn contended(&self) -> Error {
        Error::Unavailable {
            backend: self.capability().backend,
            message: "too many runners write the same receipts".to_owned(),
            applied: Applied::No,
        }
    }

    pub(super) async fn read_one(&self, key: String, deadline: Instant) -> Result<Option<(u64, Bytes)>> {
        let read = self.ledger.read(vec![key], deadline).await?;
        Ok(read
            .into_iter()
            .next()
            .flatten()
            .map(|entry| (entry.version, entry.body)))
    }

    pub(super) async fn write_one(&self, write: Write, deadline: Instant) -> Result<Wrote> {
        let backend = self.capability().backend;
        let unsaid = || Error::Unavailable {
            backend,
            message: "the ledger said nothing of a write".to_owned(),
            applied: Applied::Unknown,
        };
        let written = self.ledger.write(vec![write], deadline).await;
        written.into_iter().next().unwrap_or_else(|| Err(unsaid()))
    }

    /// Writes a multicast down before anything of it is sent; false where it was ruled out. With a message, another
    /// runner goes on with it should this one end before `until`.
    pub(crate) async fn begin(
        &self,
        tracker: &Tracker,
        load: Option<&Load>,
        until: Instant,
        deadline: Instant,
    ) -> Result<bool> {
        let id = tracker.cast.id;
        let ttl = left(tracker.cast.kept_until);
        let write = |key, body, ttl| Write {
            key,
            expect: Expect::Anything,
            body: Some(body),
            ttl,
        };
        let parts = 0..tracker.parts.len();
        let mut writes: Vec<Write> = parts
            .map(|part| write(part_key(id, part), self.part(tracker, part).encode(), ttl))
            .collect();
        let body = self.entry(tracker).encode();
        let cast = Write {
            expect: Expect::Absent,
            ..write(cast_key(id), body.clone(), ttl)
        };
        let Some(load) = load else {
            writes.push(cast);
            let wrote = self.write_all(tracker, writes, deadline).await?;
            return Ok(is_there(wrote, &body));
        };
        let open = until.saturating_duration_since(Instant::now()) + OPEN_GRACE;
        writes.push(write(load_key(id), load.encode(), open));
        writes.push(write(open_key(self.runner, id), Bytes::new(), open));
        self.write_all(tracker, writes, deadline).await?;
        // Last: whoever is told of it may rely on somebody going on with it.
        let wrote = self.write_one(cast, deadline).await?;
        Ok(is_there(Some(wrote), &body))
    }

    /// Writes the parts and what comes with them; what became of the last.
    async fn write_all(
        &self,
        tracker: &Tracker,
        writes: Vec<Write>,
        deadline: Instant,
    ) -> Result<Option<Wrote>> {
        let written = self.ledger.write(writes, deadline).await;
        let written: Vec<Wrote> = written.into_iter().collect::<Result<_>>()?;
        for (part, wrote) in written.iter().enumerate().take(tracker.parts.len()) {
            if let Wrote::Done(version) = wrote {
                tracker.set_version(part, *version);
            }
        }
        Ok(written.into_iter().last())
    }

    fn entry(&self, tracker: &Tracker) -> CastEntry {
        CastEntry {
            cast: tracker.cast.clone(),
            runner: self.runner,
            target_count: tracker.targets.len(),
            part_count: tracker.parts.len(),
            phase: tracker.phase(),
        }
    }

    fn part(&self, tracker: &Tracker, part: usize) -> Part {
        let range = tracker.parts[part].clone();
        let holders = tracker.holders.as_ref().map(|all| all[range.clone()].to_vec());
        Part {
            identities: tracker.targets[range.clone()].to_vec(),
            states: tracker.states(range),
            holders,
        }
    }

    /// Brings the ledger to what this runner knows, and this runner to what the ledger knows.
    pub(crate) async fn flush(&self, tracker: &Tracker, deadline: Instant) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let dirty = Dirty {
                tracker,
                parts: tracker.take_dirty(),
            };
            if dirty.parts.is_empty() {
                drop(dirty);
                match tracker.written(deadline).await {
                    // What somebody else was writing is still to be written where that failed.
                    true if tracker.is_dirty() => continue,
                    true => return Ok(()),
                    false => {
                        return Err(Error::Timeout {
                            backend: self.capability().backend,
                            applied: Applied::Unknown,
                        });
                    }
                }
            }
            self.write_parts(tracker, &dirty.parts, deadline).await?;
            dirty.written();
        }
        Err(self.contended())
    }

    async fn write_parts(&self, tracker: &Tracker, parts: &[usize], deadline: Instant) -> Result<()> {
        let (id, ttl) = (tracker.cast.id, left(tracker.cast.kept_until));
        let write = |&part: &usize| Write {
            key: part_key(id, part),
            expect: match tracker.version(part) {
                0 => Expect::Absent,
                version => Expect::Version(version),
            },
            body: Some(self.part(tracker, part).encode()),
            ttl,
        };
        let written = self
            .ledger
            .write(parts.iter().map(write).collect(), deadline)
            .await;
        if tracker.is_finished() {
            self.let_go(tracker);
        }
        for (&part, outcome) in parts.iter().zip(written) {
            match outcome? {
                Wrote::Done(version) => tracker.set_version(part, version),
                Wrote::Conflict(None) => {
                    tracker.set_version(part, 0);
                    tracker.mark_dirty(part);
                }
                Wrote::Conflict(Some(entry)) => {
                    let other = Part::decode(entry.body).map_err(|error| self.unreadable(&error))?;
                    tracker.restore(part, entry.version, other.states);
                    tracker.mark_dirty(part);
                }
            }
        }
        Ok(())
    }

    /// Writes down that a multicast is sent, and everything known of it.
    pub(crate) async fn finish(&self, tracker: &Tracker, deadline: Instant) -> Result<()> {
        self.flush(tracker, deadline).await?;
        let id = tracker.cast.id;
        let gone = |key| Write {
            key,
            expect: Expect::Anything,
            body: None,
            ttl: Duration::ZERO,
        };
        let sent = Write {
            body: Some(self.entry(tracker).encode()),
            ttl: left(tracker.cast.kept_until),
            ..gone(cast_key(id))
        };
        let mut writes = vec![sent];
        if tracker.holders.is_some() {
            writes.extend([gone(load_key(id)), gone(open_key(self.runner, id))]);
        }
        let written = self.ledger.write(writes, deadline).await;
        written.into_iter().try_for_each(|outcome| outcome.map(drop))?;
        tracker.set_finished();
        self.let_go(tracker);
        Ok(())
    }

    /// Writes down that a multicast is cancelled which a runner has not sent, so that nobody goes on with it. The entry
    /// afterwards: of one that somebody has taken over since, as it is.
    pub(crate) async fn cancel(
        &self,
        id: MulticastId,
        runner: Runner,
        deadline: Instant,
    ) -> Result<Option<CastEntry>> {
        for _ in 0..ATTEMPTS {
            let Some((version, body)) = self.read_one(cast_key(id), deadline).await? else {
                return Ok(None);
            };
            let entry = CastEntry::decode(id, body).map_err(|error| self.unreadable(&error))?;
            let is_left = |entry: &CastEntry| entry.runner == runner && entry.phase == Phase::Running;
            let mut entry = match entry {
                Some(entry) if is_left(&entry) => entry,
                other => return Ok(other),
            };
            entry.phase = Phase::Cancelled;
            let cancelled = Write {
                key: cast_key(id),
                expect: Expect::Version(version),
                body: Some(entry.encode()),
                ttl: left(entry.cast.kept_until),
            };
            if let Wrote::Done(_) = self.write_one(cancelled, deadline).await? {
                return Ok(Some(entry));
            }
        }
        Err(self.contended())
    }

    /// Whether what a multicast sends is still kept.
    pub(crate) async fn has_load(&self, id: MulticastId, deadline: Instant) -> Result<bool> {
        Ok(self.read_one(load_key(id), deadline).await?.is_some())
    }

    /// What is sent may be forgotten where there is no room for all, but not that it was while its key can be repeated.
    fn let_go(&self, tracker: &Tracker) {
        let (cast, window) = (&tracker.cast, tracker.cast.key_window);
        // Before its parts: rather nothing is known of it than that it had no targets.
        self.ledger
            .let_go(vec![cast_key(cast.id)], window.unwrap_or_default());
        self.let_go_of_parts(tracker);
    }

    pub(super) fn let_go_of_parts(&self, tracker: &Tracker) {
        let parts = 0..tracker.parts.len();
        let keys = parts.map(|part| part_key(tracker.cast.id, part)).collect();
        self.ledger.let_go(keys, Duration::ZERO);
    }

    /// What is known of a multicast as a whole; `None` also for one that is never begun.
    pub(crate) async fn cast(&self, id: MulticastId, deadline: Instant) -> Result<Option<CastEntry>> {
        let Some((_, body)) = self.read_one(cast_key(id), deadline).await? else {
            return Ok(None);
        };
        CastEntry::decode(id, body).map_err(|error| self.unreadable(&error))
    }

    /// All targets of a multicast, part by part; with the versions. Parts that are gone are empty.
    pub(crate) async fn parts(&self, entry: &CastEntry, deadline: Instant) -> Result<Vec<(u64, Part)>> {
        let keys = (0..entry.part_count).map(|part| part_key(entry.cast.id, part));
        let read = self.ledger.read(keys.collect(), deadline).await?;
        let part = |read: Option<prism_slot::Entry>| match read {
            None => Ok((0, Part::default())),
            Some(entry) => Part::decode(entry.body).map(|part| (entry.version, part)),
        };
        let parts: std::result::Result<Vec<_>, _> = read.into_iter().map(part).collect();
        parts.map_err(|error| self.unreadable(&error))
    }

    /// Puts receipts of a multicast that no runner has in memory into the ledger.
    pub(crate) async fn apply(&self, id: MulticastId, receipts: &[Receipt], deadline: Instant) -> Result<()> {
        let Some(entry) = self.cast(id, deadline).await? else {
            return Ok(());
        };
        let part_of = |receipt: &&Receipt| part_of(receipt.identity.as_str(), entry.part_count);
        let mut parts: Vec<usize> = receipts.iter().map(|receipt| part_of(&receipt)).collect();
        parts.sort_unstable();
        parts.dedup();
        for _ in 0..ATTEMPTS {
            if parts.is_empty() {
                return Ok(());
            }
            let of_part = |part| receipts.iter().filter(move |receipt| part_of(receipt) == part);
            parts = self.apply_to_parts(&entry, &parts, of_part, deadline).await?;
        }
        Err(self.contended())
    }

    /// The parts at which somebody else was first.
    async fn apply_to_parts<'a, R: Iterator<Item = &'a Receipt>>(
        &self,
        entry: &CastEntry,
        parts: &[usize],
        of_part: impl Fn(usize) -> R,
        deadline: Instant,
    ) -> Result<Vec<usize>> {
        let key = |part: &usize| part_key(entry.cast.id, *part);
        let read = self
            .ledger
            .read(parts.iter().map(key).collect(), deadline)
            .await?;
        let (mut changed, mut writes) = (Vec::new(), Vec::new());
        for (&part, kept) in parts.iter().zip(read) {
            let Some(kept) = kept else { continue };
            let mut record = Part::decode(kept.body).map_err(|error| self.unreadable(&error))?;
            if learn(&mut record, of_part(part)) {
                changed.push(part);
                writes.push(Write {
                    key: key(&part),
                    expect: Expect::Version(kept.version),
                    body: Some(record.encode()),
                    ttl: left(entry.cast.kept_until),
                });
            }
        }
        let mut open = Vec::new();
        if writes.is_empty() {
            return Ok(open);
        }
        let written = self.ledger.write(writes, deadline).await;
        for (part, wrote) in changed.into_iter().zip(written) {
            if let Wrote::Conflict(_) = wrote? {
                open.push(part);
            }
        }
        Ok(open)
    }

    /// Says where this runner is reached, and that it is alive.
    pub(crate) async fn sign_in(&self, post: &str, deadline: Instant) -> Result<()> {
        let here = Write {
            key: runner_key(self.runner),
            expect: Expect::Anything,
            body: Some(Bytes::copy_from_slice(post.as_bytes())),
            ttl: ALIVE,
        };
        self.write_one(here, deadline).await.map(drop)
    }

    /// Says that this runner ends.
    pub(crate) async fn sign_out(&self, deadline: Instant) -> Result<()> {
        let gone = Write {
            key: runner_key(self.runner),
            expect: Expect::Anything,
            body: None,
            ttl: Duration::ZERO,
        };
        self.write_one(gone, deadline).await.map(drop)
    }

    /// Where a runner is reached, empty where it is not; `None` for one that is not alive.
    pub(crate) async fn post_of(&self, runner: Runner, deadline: Instant) -> Result<Option<Arc<str>>> {
        let entry = self.read_one(runner_key(runner), deadline).await?;
        Ok(entry.and_then(|(_, body)| std::str::from_utf8(&body).ok().map(Into::into)))
    }
}

/// Whether an entry says this now that nothing was to say before. The answer to a first attempt may have been lost.
fn is_there(wrote: Option<Wrote>, body: &Bytes) -> bool {
    match wrote {
        Some(Wrote::Done(_)) => true,
        Some(Wrote::Conflict(Some(entry))) => entry.body == body,
        Some(Wrote::Conflict(None)) | None => false,
    }
}

/// Parts that are being written. Where that does not come to an end, they are to be written still.
struct Dirty<'a> {
    tracker: &'a Tracker,
    parts: Vec<usize>,
}

impl Dirty<'_> {
    fn written(mut self) {
        self.parts.clear();
    }
}

impl Drop for Dirty<'_> {
    fn drop(&mut self) {
        self.parts.iter().for_each(|part| self.tracker.mark_dirty(*part));
        self.tracker.end_writing();
    }
}

fn learn<'a>(part: &mut Part, receipts: impl Iterator<Item = &'a Receipt>) -> bool {
    let mut changed = false;
    for receipt in receipts {
        let place = part
            .identities
            .iter()
            .position(|identity| *identity == receipt.identity);
        let state: Option<&mut State> = place.and_then(|place| part.states.get_mut(place));
        if let (Some(state), Some(news)) = (state, &receipt.news) {
            changed |= state.learn(news.clone());
        }
    }
    changed
}

#[cfg(test)]
mod tests;
