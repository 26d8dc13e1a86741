//! Messages, each stored once however many inboxes it waits in.

use std::sync::Arc;

use bytes::Bytes;
use prism_slot::{Message, MulticastId};
use rusqlite::OptionalExtension;

use super::{
    desk::{Desk, blob},
    sendings::read_multicast,
};
use crate::{codec, error::Fault};

impl Desk<'_, '_> {
    /// The number of a message, which is stored if it is not there yet; used once more from now on.
    pub(super) fn use_message(&mut self, message: &Message, body: &[u8]) -> Result<i64, Fault> {
        if let Some(id) = self.find_message(message, body)? {
            self.use_again(id)?;
            return Ok(id);
        }
        let id = self.step.next()?;
        let conn = self.step.conn;
        let write = "INSERT INTO messages (id, ns, multicast, uses, receipts) VALUES (?1, ?2, ?3, 1, ?4)";
        let multicast = message.multicast.0.to_be_bytes();
        conn.prepare_cached(write)?
            .execute((id, self.ns, multicast, message.receipts.as_deref()))?;
        conn.prepare_cached("INSERT INTO bodies (message, body) VALUES (?1, ?2)")?
            .execute((id, body))?;
        Ok(id)
    }

    /// A message of the same multicast that is the same in everything.
    fn find_message(&self, message: &Message, body: &[u8]) -> Result<Option<i64>, Fault> {
        let find = "SELECT id, receipts, body FROM messages JOIN bodies ON bodies.message = id
            WHERE ns = ?1 AND multicast = ?2";
        let mut find = self.step.conn.prepare_cached(find)?;
        let mut rows = find.query((self.ns, message.multicast.0.to_be_bytes()))?;
        while let Some(row) = rows.next()? {
            let receipts = row.get_ref(1)?.as_str_or_null().map_err(rusqlite::Error::from)?;
            if receipts == message.receipts.as_deref() && blob(row, 2)? == body {
                return Ok(Some(row.get(0)?));
            }
        }
        Ok(None)
    }

    /// The message is needed once more.
    pub(super) fn use_again(&self, id: i64) -> Result<(), Fault> {
        let write = "UPDATE messages SET uses = uses + 1 WHERE id = ?1";
        self.step.conn.prepare_cached(write)?.execute([id])?;
        Ok(())
    }

    /// The message is needed once less, and goes with its last use.
    pub(super) fn release(&mut self, id: i64) -> Result<(), Fault> {
        let conn = self.step.conn;
        let write = "UPDATE messages SET uses = uses - 1 WHERE id = ?1 RETURNING uses";
        let uses: i64 = conn.prepare_cached(write)?.query_row([id], |row| row.get(0))?;
        if uses <= 0 {
            conn.prepare_cached("DELETE FROM messages WHERE id = ?1")?
                .execute([id])?;
            conn.prepare_cached("DELETE FROM bodies WHERE message = ?1")?
                .execute([id])?;
            self.step.messages().remove(&id);
        }
        Ok(())
    }

    /// Reads a message, once for all calls of a transaction.
    pub(super) fn message(&mut self, id: i64) -> Result<Arc<Message>, Fault> {
        if let Some(message) = self.step.messages().get(&id) {
            return Ok(message.clone());
        }
        let find =
            "SELECT multicast, receipts, body FROM messages JOIN bodies ON bodies.message = id WHERE id = ?1";
        let mut find = self.step.conn.prepare_cached(find)?;
        let found = find.query_row([id], |row| {
            let (multicast, receipts): (Vec<u8>, Option<String>) = (row.get(0)?, row.get(1)?);
            Ok((multicast, receipts, row.get::<_, Vec<u8>>(2)?))
        });
        let missing = || Fault::Damaged(format!("the message {id} is missing"));
        let (multicast, receipts, body) = found.optional()?.ok_or_else(missing)?;
        let multicast: MulticastId = read_multicast(&multicast)?;
        let message = codec::read_message(multicast, receipts.map(Arc::from), Bytes::from(body));
        let message = Arc::new(message.map_err(|bad| bad.fault(format_args!("the message {id}")))?);
        self.step.messages().insert(id, message.clone());
        Ok(message)
    }
}
