//! Dead letters: what could not be delivered, and putting it back.

use std::{collections::HashSet, sync::Arc};

use prism_slot::{
    Address, DeadId, DeadPage, DeadQuery, DynDurableInbox, Identity, MulticastId, Priority, Redriven, Terms,
};
use tokio::time::Instant;

use super::{Coordinator, Error, planning::holder_of};

/// How many letters one call puts back at most.
const MAX_REDRIVEN: usize = 10_000;
/// How many letters are looked at and put back at a time.
const PAGE: usize = 256;

/// Which dead letters to put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redrive {
    /// These.
    Letters(Vec<DeadId>),
    /// Those of these messages.
    Messages(Vec<(MulticastId, Identity)>),
    /// All of an identity.
    OfIdentity(Identity),
    /// All.
    All,
}

/// What putting letters back came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RedriveReport {
    /// How many wait in their inboxes again.
    pub back: usize,
    /// How many found their inboxes full.
    pub full: usize,
    /// How many are no dead letters any more, or for identities that are not registered.
    pub gone: usize,
}

impl Coordinator {
    fn durable(&self) -> Result<Arc<dyn DynDurableInbox>, Error> {
        self.open_for_calls()?;
        self.inbox().ok_or_else(|| {
            let message = "dead letters need a durability slot, which this namespace has not";
            Error::Unsupported(message.to_owned())
        })
    }

    /// Lists dead letters, the oldest first.
    ///
    /// # Errors
    /// A namespace without a durability slot; unavailability.
    pub async fn dead_letters(&self, query: DeadQuery, deadline: Instant) -> Result<DeadPage, Error> {
        Ok(self.durable()?.dead_letters(query, deadline).await?)
    }

    /// Puts dead letters back into the inboxes of those who hold the identities now.
    ///
    /// # Errors
    /// As [`Self::dead_letters`]; some may have been put back.
    pub async fn redrive(&self, which: Redrive, deadline: Instant) -> Result<RedriveReport, Error> {
        let inbox = self.durable()?;
        let mut report = RedriveReport::default();
        let mut after = None;
        let identity = match &which {
            Redrive::OfIdentity(identity) => Some(identity.clone()),
            _ => None,
        };
        let mut unseen: HashSet<&(MulticastId, Identity)> = match &which {
            Redrive::Messages(messages) => messages.iter().collect(),
            _ => HashSet::new(),
        };
        loop {
            let done = report.back + report.full + report.gone;
            let query = DeadQuery {
                after,
                identity: identity.clone(),
                limit: PAGE.min(MAX_REDRIVEN - done),
            };
            let page = inbox.dead_letters(query, deadline).await?;
            after = page.letters.last().map(|letter| letter.id);
            let asked = |letter: &&prism_slot::DeadLetter| match &which {
                Redrive::Letters(ids) => ids.contains(&letter.id),
                Redrive::Messages(messages) => messages.iter().any(|message| {
                    let is_it = (letter.message.multicast, &letter.identity) == (message.0, &message.1);
                    if is_it {
                        unseen.remove(message);
                    }
                    is_it
                }),
                Redrive::OfIdentity(_) | Redrive::All => true,
            };
            let letters = page.letters.iter().filter(asked);
            let letters = letters
                .map(|letter| (letter.id, letter.identity.clone()))
                .collect();
            self.put_back(&*inbox, letters, &mut report, deadline).await?;
            if !page.more || report.back + report.full + report.gone >= MAX_REDRIVEN {
                break;
            }
        }
        if let Redrive::Letters(ids) = &which {
            report.gone = ids.len().saturating_sub(report.back + report.full);
        }
        report.gone += unseen.len();
        Ok(report)
    }

    async fn put_back(
        &self,
        inbox: &dyn DynDurableInbox,
        letters: Vec<(DeadId, Identity)>,
        report: &mut RedriveReport,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut addressed = Vec::with_capacity(letters.len());
        for (id, identity) in letters {
            match self.get(identity.clone(), deadline).await?.record {
                None => report.gone += 1,
                Some(record) => {
                    let holder = holder_of(&record.owner.principal);
                    addressed.push((id, Address { identity, holder }));
                }
            }
        }
        let identities: Vec<Identity> = addressed
            .iter()
            .map(|(_, address)| address.identity.clone())
            .collect();
        let terms = Terms {
            priority: Priority::Normal,
            ttl: self.config().behavior.message_ttl,
        };
        let redriven = inbox.redrive(addressed, terms, deadline).await?;
        for outcome in redriven {
            match outcome {
                Redriven::Back => report.back += 1,
                Redriven::Full => report.full += 1,
                Redriven::Gone => report.gone += 1,
            }
        }
        self.ring(identities);
        Ok(())
    }
}
