//! How messages leave their inboxes by somebody's word.

use prism_slot::{Address, Consumer, DeadReason, Discarded, Identity, MulticastId, Settled, Verdict};

use super::{
    desk::{Desk, Leave, later},
    parts::{Mailbox, Waiting},
};
use crate::error::Fault;

impl Desk<'_, '_> {
    pub(super) fn settle(
        &mut self,
        consumer: &Consumer,
        verdicts: &[(MulticastId, Verdict)],
    ) -> Result<Vec<Settled>, Fault> {
        let identity = &consumer.address.identity;
        let mut mailbox = self.of_consumer(consumer)?;
        let before = mailbox;
        mailbox.hear(self.limits.idle, self.now);
        let mut settled = Vec::with_capacity(verdicts.len());
        for (multicast, verdict) in verdicts {
            settled.push(self.settle_one(identity, &mut mailbox, *multicast, verdict)?);
        }
        if mailbox != before {
            self.write_mailbox(identity, &mailbox)?;
        }
        Ok(settled)
    }

    fn settle_one(
        &mut self,
        identity: &Identity,
        mailbox: &mut Mailbox,
        multicast: MulticastId,
        verdict: &Verdict,
    ) -> Result<Settled, Fault> {
        let found = self.find_waiting(identity, multicast)?;
        let Some((place, mut waiting)) = found.filter(|(_, waiting)| waiting.attempt > 0) else {
            return Ok(Settled::Gone);
        };
        let leave = match verdict {
            Verdict::Ack => Leave::Settled,
            Verdict::Term { reason } => Leave::Dead(DeadReason::Terminated(reason.clone())),
            Verdict::Release => {
                waiting.attempt -= 1;
                waiting.put_back(Waiting::AT_ONCE);
                self.write_waiting(identity, place, &waiting)?;
                return Ok(Settled::Done);
            }
            Verdict::Nack { delay } => {
                let until = if delay.is_zero() {
                    Waiting::AT_ONCE
                } else {
                    later(self.now, *delay)
                };
                waiting.put_back(until);
                self.write_waiting(identity, place, &waiting)?;
                return Ok(Settled::Done);
            }
        };
        self.take(identity, mailbox, (place, waiting), leave)?;
        Ok(Settled::Done)
    }

    pub(super) fn cancel(
        &mut self,
        multicast: MulticastId,
        identities: &[Identity],
    ) -> Result<Vec<bool>, Fault> {
        identities
            .iter()
            .map(|identity| self.cancel_one(multicast, identity))
            .collect()
    }

    fn cancel_one(&mut self, multicast: MulticastId, identity: &Identity) -> Result<bool, Fault> {
        let found = self.find_waiting(identity, multicast)?;
        let Some((place, waiting)) = found.filter(|(_, waiting)| !waiting.is_with_consumer(self.now)) else {
            return Ok(false);
        };
        let mut mailbox = self.mailbox(identity)?.unwrap_or_default();
        self.take(identity, &mut mailbox, (place, waiting), Leave::Settled)?;
        self.write_mailbox(identity, &mailbox)?;
        Ok(true)
    }

    pub(super) fn discard(&mut self, address: &Address) -> Result<Discarded, Fault> {
        let identity = &address.identity;
        let Some(mut mailbox) = self.mailbox(identity)? else {
            return Ok(Discarded::default());
        };
        if mailbox
            .session
            .is_some_and(|session| session.holder == address.holder)
        {
            mailbox.session = None;
        }
        let mut dropped = Vec::new();
        for (place, waiting) in self.all_waiting(identity)? {
            if waiting.holder == address.holder {
                dropped.push(self.ticket(place)?);
                self.take(identity, &mut mailbox, (place, waiting), Leave::Dropped)?;
            }
        }
        self.write_mailbox(identity, &mailbox)?;
        Ok(Discarded { dropped, more: false })
    }
}
