//! What is written down before anything is sent. Of all calls with one idempotency key, one sends, and the others get its
//! outcome.

use prism_slot::{Applied, MulticastId};
use tokio::time::Instant;

use super::{Config, Coordinator, Error, planning::Key};
use crate::delivery::{BEGINNING, Claim, Delivery, KeyEntry, Load, Report, Tracker};

/// What came of a claim.
pub(super) enum Claimed {
    /// The key is this call's.
    Ours(Taken),
    /// Another call had it, and this came of it.
    Before(Box<Report>),
}

/// A key that a call has.
pub(super) struct Taken {
    name: String,
    version: u64,
    /// Until when its multicast must be begun.
    until: Instant,
}

impl Coordinator {
    /// Takes an idempotency key, also from a call that claimed it and began nothing.
    pub(super) async fn claim(
        &self,
        key: &Key,
        multicast: MulticastId,
        config: &Config,
        deadline: Instant,
    ) -> Result<Claimed, Error> {
        let entry = KeyEntry {
            multicast,
            digest: key.request,
            runner: self.shared.runner,
            yields: true,
        };
        let (books, window) = (self.books(), config.behavior.dedupe_window);
        let mut from = None;
        loop {
            let until = Instant::now() + BEGINNING;
            let claim = books.claim_key(&key.name, &entry, from, window, deadline).await?;
            let (known, held) = match claim {
                Claim::Held(known, held) => (known, held),
                Claim::Taken(version) => {
                    let name = key.name.clone();
                    return Ok(Claimed::Ours(Taken { name, version, until }));
                }
            };
            if known.digest != key.request {
                let multicast = known.multicast;
                return Err(Error::IdempotencyMismatch { multicast });
            }
            if let Some(report) = self.outcome_of(&known, deadline).await? {
                return Ok(Claimed::Before(Box::new(Report {
                    replayed: true,
                    ..report
                })));
            }
            // Nobody is at work on it as far as is known, and from here on nobody will be.
            let never_begun = books.rule_out(known.multicast, deadline).await?;
            from = never_begun.then_some(held);
        }
    }

    /// Writes a multicast down before anything is sent, where it must outlive this runner.
    pub(super) async fn write_down(
        &self,
        taken: Option<Taken>,
        tracker: &Tracker,
        load: &Load,
        until: Instant,
        deadline: Instant,
    ) -> Result<(), Error> {
        let stored = tracker.cast.delivery != Delivery::AtMostOnce;
        if !stored && taken.is_none() {
            return Ok(());
        }
        let books = self.books();
        let deadline = taken.as_ref().map_or(deadline, |taken| deadline.min(taken.until));
        // At most once is never sent again, so nobody else needs the message.
        let load = stored.then_some(load);
        let until = self.found_until(until);
        let error = match self.be_known(deadline).await {
            Ok(()) => match books.begin(tracker, load, until, deadline).await {
                Ok(true) => return Ok(()),
                begun => {
                    let withdrawn = books.withdraw(tracker, deadline).await;
                    match (begun, withdrawn) {
                        // Somebody else has the key.
                        (Ok(_), _) => {
                            let why = "another call with its idempotency key went ahead; try again";
                            return Err(books.refused(why).into());
                        }
                        (Err(error), Ok(())) => error.into(),
                        // It may be found, and gone on with: nobody may make it anew under the same key.
                        (Err(_), Err(error)) => return Err(may_be_begun(error).into()),
                    }
                }
            },
            Err(error) => error,
        };
        if let Some(Taken { name, version, .. }) = taken {
            // Best effort: where it fails, the next call takes the key over.
            let _ = books.release_key(&name, version, deadline).await;
        }
        Err(error)
    }
}

/// Whatever went wrong, it leaves open whether the multicast is made.
fn may_be_begun(mut error: prism_slot::Error) -> prism_slot::Error {
    if let prism_slot::Error::Unavailable { applied, .. } | prism_slot::Error::Timeout { applied, .. } =
        &mut error
    {
        *applied = Applied::Unknown;
    }
    error
}
