//! What runners leave behind when they end: found, and taken over.

use std::time::Duration;

use bytes::Bytes;
use prism_slot::{Expect, MulticastId, Result, Write, Wrote};
use tokio::time::Instant;

use super::{
    Books, Runner,
    books::{OPEN_GRACE, cast_key, left, load_key, open_key, runner_key},
    cast::Phase,
    records::{CastEntry, Load, Part},
};

/// How many open multicasts one look finds.
const LOOK: usize = 256;

/// Somebody else's multicast that is not sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) multicast: MulticastId,
    pub(crate) runner: Runner,
}

impl Books {
    /// Multicasts that are not sent yet, and whose runners are not alive, or are this one and not at work on them: it
    /// failed to begin them, or to take them over, and may have done so nevertheless. Some of them, however many others
    /// there are.
    pub(crate) async fn orphans(
        &self,
        is_at_work: impl Fn(MulticastId) -> bool,
        deadline: Instant,
    ) -> Result<Vec<Orphan>> {
        let (mut orphans, mut after) = (Vec::new(), None);
        loop {
            let listed = self
                .ledger
                .list("open/".to_owned(), after, LOOK, deadline)
                .await?;
            let open = listed.keys.iter().filter_map(|key| parse_open(key));
            let (own, others): (Vec<Orphan>, Vec<Orphan>) =
                open.partition(|orphan| orphan.runner == self.runner);
            orphans.extend(own.into_iter().filter(|orphan| !is_at_work(orphan.multicast)));
            orphans.extend(self.of_the_dead(others, deadline).await?);
            after = listed.keys.last().cloned();
            if !listed.more || after.is_none() || orphans.len() >= LOOK {
                return Ok(orphans);
            }
        }
    }

    async fn of_the_dead(&self, others: Vec<Orphan>, deadline: Instant) -> Result<Vec<Orphan>> {
        let mut runners: Vec<Runner> = others.iter().map(|orphan| orphan.runner).collect();
        runners.sort_unstable_by_key(|runner| runner.0);
        runners.dedup();
        if runners.is_empty() {
            return Ok(Vec::new());
        }
        let keys = runners.iter().map(|runner| runner_key(*runner)).collect();
        let alive = self.ledger.read(keys, deadline).await?;
        let is_dead = |orphan: &Orphan| {
            let place = runners.iter().position(|runner| *runner == orphan.runner);
            place.is_some_and(|place| matches!(alive.get(place), Some(None)))
        };
        Ok(others.into_iter().filter(is_dead).collect())
    }

    /// Takes over an orphan. `None` where somebody else did, or there is nothing to go on with.
    pub(crate) async fn adopt(
        &self,
        orphan: Orphan,
        until: Instant,
        deadline: Instant,
    ) -> Result<Option<(CastEntry, Load, Vec<(u64, Part)>)>> {
        let id = orphan.multicast;
        let cast = self.read_one(cast_key(id), deadline).await?;
        let load = self.read_one(load_key(id), deadline).await?;
        let gone = |runner| Write {
            key: open_key(runner, id),
            expect: Expect::Anything,
            body: None,
            ttl: Duration::ZERO,
        };
        let (Some((version, cast)), Some((_, load))) = (cast, load) else {
            self.write_one(gone(orphan.runner), deadline).await?;
            return Ok(None);
        };
        let entry = CastEntry::decode(id, cast).map_err(|error| self.unreadable(&error))?;
        let load = Load::decode(id, load).map_err(|error| self.unreadable(&error))?;
        let is_left = |entry: &CastEntry| entry.runner == orphan.runner && entry.phase == Phase::Running;
        let Some(mut entry) = entry.filter(is_left) else {
            self.write_one(gone(orphan.runner), deadline).await?;
            return Ok(None);
        };
        // Whatever can fail comes before it is this runner's: afterwards, nobody would look for it.
        let parts = self.parts(&entry, deadline).await?;
        // Should this runner end as well, the next one finds it.
        let open = Write {
            body: Some(Bytes::new()),
            ttl: until.saturating_duration_since(Instant::now()) + OPEN_GRACE,
            ..gone(self.runner)
        };
        self.write_one(open, deadline).await?;
        entry.runner = self.runner;
        let mine = Write {
            key: cast_key(id),
            expect: Expect::Version(version),
            body: Some(entry.encode()),
            ttl: left(entry.cast.kept_until),
        };
        let taken = matches!(self.write_one(mine, deadline).await?, Wrote::Done(_));
        let obsolete = match (taken, orphan.runner == self.runner) {
            (true, true) => None,
            (true, false) => Some(orphan.runner),
            (false, _) => Some(self.runner),
        };
        if let Some(obsolete) = obsolete {
            // Where it stays, whoever finds it next sees that it is obsolete.
            let _ = self.write_one(gone(obsolete), deadline).await;
        }
        Ok(taken.then_some((entry, load, parts)))
    }
}

fn parse_open(key: &str) -> Option<Orphan> {
    let (runner, id) = key.strip_prefix("open/")?.split_once('/')?;
    Some(Orphan {
        multicast: id.parse().ok()?,
        runner: Runner(u64::from_str_radix(runner, 16).ok()?),
    })
}
