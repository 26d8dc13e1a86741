//! How much there is.

use prism_slot::{Depth, Identity};

use super::desk::Desk;
use crate::error::Fault;

impl Desk<'_, '_> {
    /// Of one inbox.
    pub(super) fn depth(&mut self, identity: &Identity) -> Result<Depth, Fault> {
        let mailbox = self.mailbox(identity)?.unwrap_or_default();
        let (mut out, now) = (0, self.now);
        self.each_waiting(identity, |_, waiting| {
            out += u64::from(waiting.is_with_consumer(now));
            Ok(true)
        })?;
        let count = "SELECT count(*) FROM dead WHERE ns = ?1 AND identity = ?2";
        let mut count = self.step.conn.prepare_cached(count)?;
        let dead: i64 = count.query_row((self.ns, identity.as_str()), |row| row.get(0))?;
        Ok(Depth {
            messages: mailbox.messages,
            out: Some(out),
            dead: dead.cast_unsigned(),
        })
    }

    /// Of all inboxes, by what is kept of it.
    pub(super) fn total_depth(&mut self) -> Result<Depth, Fault> {
        let totals = self.step.totals(self.ns)?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Depth {
            messages: count(totals.messages),
            out: None,
            dead: count(totals.dead),
        })
    }
}
