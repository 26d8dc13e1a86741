//! Who has an idempotency key, and how it comes to somebody else.
//!
//! A multicast has its key from before anything else of it is written until the dedupe window is over. Whoever claimed
//! it may have ended in between, or not know whether it did, and then nothing is ever sent. So a later call takes the key
//! over where nobody is at work on the multicast that has it. What it is told of that may be wrong, so it first rules the
//! multicast out: it writes that it is never begun where it would be written that it is. Both expect to find nothing there,
//! so one of them is done, and a claimer that lost its key finds out before it sends.

use std::time::Duration;

use prism_slot::{Applied, Error, Expect, MulticastId, Result, Write, Wrote};
use tokio::time::Instant;

use super::{
    Books,
    books::{cast_key, load_key, open_key},
    records::{self, CastEntry, KeyEntry},
    tracker::Tracker,
};

/// How long a multicast may take from the claim of its key until it is begun. Longer than that it is not kept that it
/// was ruled out.
pub(crate) const BEGINNING: Duration = Duration::from_secs(60);
/// How long it is kept.
const NEVER: Duration = Duration::from_secs(120);

/// What the claim of a key came to.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The key is had, by an entry of this version.
    Taken(u64),
    /// Another multicast has it, by an entry of this version.
    Held(KeyEntry, u64),
}

fn key_key(digest: &str) -> String {
    format!("key/{digest}")
}

impl Books {
    /// Takes an idempotency key for a multicast, from the entry of this version or from nobody.
    pub(crate) async fn claim_key(
        &self,
        digest: &str,
        entry: &KeyEntry,
        from: Option<u64>,
        window: Duration,
        deadline: Instant,
    ) -> Result<Claim> {
        let claim = Write {
            key: key_key(digest),
            expect: from.map_or(Expect::Absent, Expect::Version),
            body: Some(entry.encode()),
            ttl: window,
        };
        match self.write_one(claim, deadline).await? {
            Wrote::Done(version) => Ok(Claim::Taken(version)),
            Wrote::Conflict(None) => {
                Err(self.refused("an idempotency key has just changed hands; try again"))
            }
            Wrote::Conflict(Some(held)) => {
                let known = KeyEntry::decode(held.body).map_err(|error| self.unreadable(&error))?;
                // The first attempt at it may have been applied, and its answer lost.
                Ok(match known == *entry {
                    true => Claim::Taken(held.version),
                    false => Claim::Held(known, held.version),
                })
            }
        }
    }

    /// Gives a key up for which nothing was sent, unless somebody else has it by now.
    pub(crate) async fn release_key(&self, digest: &str, version: u64, deadline: Instant) -> Result<()> {
        let release = Write {
            key: key_key(digest),
            expect: Expect::Version(version),
            body: None,
            ttl: Duration::ZERO,
        };
        self.write_one(release, deadline).await.map(drop)
    }

    /// Sees to it that a multicast is never begun, unless it is; whether it never is.
    pub(crate) async fn rule_out(&self, id: MulticastId, deadline: Instant) -> Result<bool> {
        let begun = self.put_void(id, Expect::Absent, deadline).await?;
        Ok(begun.is_none())
    }

    /// Takes back what was written down of a multicast that is not begun after all. Where that fails, it may be: what
    /// is left of it is an orphan.
    pub(crate) async fn withdraw(&self, tracker: &Tracker, deadline: Instant) -> Result<()> {
        let id = tracker.cast.id;
        // Where there was no room for all of it, there is for this.
        self.let_go_of_parts(tracker);
        // First what makes it known, so that nobody is told of one that nobody goes on with.
        let mut begun = self.put_void(id, Expect::Absent, deadline).await?;
        if let Some((version, entry)) = &begun
            && entry.runner == self.runner
        {
            begun = self.put_void(id, Expect::Version(*version), deadline).await?;
        }
        if begun.is_some() {
            return Err(self.refused("another runner has taken the multicast over"));
        }
        for key in [open_key(self.runner, id), load_key(id)] {
            let gone = Write {
                key,
                expect: Expect::Anything,
                body: None,
                ttl: Duration::ZERO,
            };
            self.write_one(gone, deadline).await?;
        }
        Ok(())
    }

    /// Writes that a multicast is never begun; the entry that says otherwise, where there is one.
    async fn put_void(
        &self,
        id: MulticastId,
        expect: Expect,
        deadline: Instant,
    ) -> Result<Option<(u64, CastEntry)>> {
        let never = Write {
            key: cast_key(id),
            expect,
            body: Some(records::void()),
            ttl: NEVER,
        };
        match self.write_one(never, deadline).await? {
            Wrote::Done(_) => Ok(None),
            Wrote::Conflict(None) => {
                Err(self.refused("what is written of a multicast has just changed; try again"))
            }
            Wrote::Conflict(Some(known)) => {
                let entry = CastEntry::decode(id, known.body).map_err(|error| self.unreadable(&error))?;
                Ok(entry.map(|entry| (known.version, entry)))
            }
        }
    }

    /// For what was not done because somebody else was first.
    pub(crate) fn refused(&self, why: &str) -> Error {
        Error::Unavailable {
            backend: self.capability().backend,
            message: why.to_owned(),
            applied: Applied::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prism_slot::{Entry, Ledger, LedgerCapability, Listed, memory::MemoryLedger};

    use super::*;
    use crate::{delivery::Runner, testing::soon};

    /// A ledger that knows that something is there, and cannot say what.
    struct Tongueless;

    impl Ledger for Tongueless {
        fn capability(&self) -> &LedgerCapability {
            &MemoryLedger::CAPABILITY
        }

        async fn read(&self, keys: Vec<String>, _: Instant) -> Result<Vec<Option<Entry>>> {
            Ok(vec![None; keys.len()])
        }

        async fn write(&self, writes: Vec<Write>, _: Instant) -> Vec<Result<Wrote>> {
            vec![Ok(Wrote::Conflict(None)); writes.len()]
        }

        async fn list(&self, _: String, _: Option<String>, _: usize, _: Instant) -> Result<Listed> {
            Ok(Listed::default())
        }

        async fn close(&self) {}
    }

    /// Somebody has it, so this call has not.
    #[tokio::test]
    async fn a_key_that_cannot_be_read_is_not_had() {
        let books = Books::new(Arc::new(Tongueless), Runner(1));
        let entry = KeyEntry {
            multicast: MulticastId(5),
            digest: [9; 32],
            runner: Runner(1),
            yields: true,
        };
        let window = Duration::from_secs(1);
        let claim = books.claim_key("k", &entry, None, window, soon()).await;
        assert!(
            matches!(&claim, Err(error) if error.applied() == Applied::No),
            "{claim:?}"
        );
    }
}
