//! Storing messages.

use prism_slot::{Address, Enqueued, Identity, Message, Overflow, Terms, Ticket, Timestamp};

use super::{
    desk::{Desk, Leave, later},
    parts::{Known, MAILBOX, Mailbox, Place, Waiting, known_part},
    sendings::Sending,
};
use crate::{error::Fault, step::count};

/// A message on its way into inboxes.
struct Store<'m> {
    message: &'m Message,
    place: Place,
    expires_at: Timestamp,
}

impl Desk<'_, '_> {
    /// Stores one message in many inboxes; outcomes in the order of the addresses.
    pub(super) fn enqueue(
        &mut self,
        addresses: &[Address],
        message: &Message,
        body: &[u8],
        terms: Terms,
    ) -> Result<Vec<Enqueued>, Fault> {
        let number = self.step.next()?;
        let store = Store {
            message,
            place: Place::new(terms.priority, number),
            expires_at: later(self.now, terms.ttl),
        };
        // In the order of the table: neighbours share pages.
        let mut order: Vec<usize> = (0..addresses.len()).collect();
        order.sort_by(|one, other| addresses[*one].identity.cmp(&addresses[*other].identity));
        let mut outcomes = vec![Enqueued::Duplicate; addresses.len()];
        let mut stored: Vec<&Identity> = Vec::with_capacity(addresses.len());
        for index in order {
            let address = &addresses[index];
            let outcome = self.store(&store, address)?;
            if matches!(outcome, Enqueued::Stored { .. }) {
                stored.push(&address.identity);
            }
            outcomes[index] = outcome;
        }
        if !stored.is_empty() {
            let id = self.use_message(message, body)?;
            self.send(number, id, message, &store, &stored)?;
        }
        Ok(outcomes)
    }

    fn send(
        &mut self,
        number: i64,
        id: i64,
        message: &Message,
        store: &Store<'_>,
        stored: &[&Identity],
    ) -> Result<(), Fault> {
        let sending = Sending {
            message: id,
            multicast: message.multicast,
            stored_at: self.now,
            expires_at: store.expires_at,
            known_until: later(self.now, self.limits.dedupe),
            waiting: count(stored.len()),
            parts: 0,
            receipts: message.receipts.clone(),
            is_changed: false,
            has_message: true,
        };
        self.step.change_totals(self.ns)?.messages += count(stored.len());
        self.write_sending(number, &sending, stored)
    }

    fn store(&mut self, store: &Store<'_>, to: &Address) -> Result<Enqueued, Fault> {
        let identity = &to.identity;
        let mut mailbox = self.mailbox(identity)?.unwrap_or_default();
        let mut displaced = None;
        if mailbox.messages >= u64::from(self.limits.max_messages) {
            // Whether it is there comes before whether there is room.
            let known = self.known(identity, store.message.multicast)?;
            if known.is_some_and(|known| known.counts(self.now)) {
                return Ok(Enqueued::Duplicate);
            }
            let Some(room) = self.make_room(identity, &mut mailbox)? else {
                return Ok(Enqueued::Full);
            };
            displaced = room.displaced;
        }
        if !self.note(store, identity)? {
            return Ok(Enqueued::Duplicate);
        }
        self.put(identity, &mut mailbox, store, Waiting::new(to.holder))?;
        Ok(Enqueued::Stored { displaced })
    }

    /// Notes that the multicast is in the inbox; false where it is, or was until not long ago.
    fn note(&mut self, store: &Store<'_>, identity: &Identity) -> Result<bool, Fault> {
        let (multicast, known) = (store.message.multicast, Known::Waiting(store.place));
        let note =
            "INSERT INTO inboxes (ns, identity, part, body) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        let mut note = self.step.conn.prepare_cached(note)?;
        let part = known_part(multicast);
        if note.execute((self.ns, identity.as_str(), part, known.write()))? == 1 {
            return Ok(true);
        }
        let before = self.known(identity, multicast)?;
        if before.is_some_and(|before| before.counts(self.now)) {
            return Ok(false);
        }
        self.write_known(identity, multicast, known)?;
        Ok(true)
    }

    fn put(
        &self,
        identity: &Identity,
        mailbox: &mut Mailbox,
        store: &Store<'_>,
        waiting: Waiting,
    ) -> Result<(), Fault> {
        let write = "INSERT INTO inboxes (ns, identity, part, body) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (ns, identity, part) DO UPDATE SET body = excluded.body";
        let mut write = self.step.conn.prepare_cached(write)?;
        write.execute((self.ns, identity.as_str(), store.place.part(), waiting.write()))?;
        mailbox.messages += 1;
        mailbox.earliest = mailbox.earliest.min(store.expires_at);
        write.execute((self.ns, identity.as_str(), MAILBOX, mailbox.write()))?;
        Ok(())
    }

    /// Stores a message again that is there already, for one inbox.
    pub(super) fn put_again(
        &mut self,
        to: &Address,
        mut mailbox: Mailbox,
        (id, message): (i64, &Message),
        terms: Terms,
    ) -> Result<(), Fault> {
        let number = self.step.next()?;
        let store = Store {
            message,
            place: Place::new(terms.priority, number),
            expires_at: later(self.now, terms.ttl),
        };
        self.write_known(&to.identity, message.multicast, Known::Waiting(store.place))?;
        self.put(&to.identity, &mut mailbox, &store, Waiting::new(to.holder))?;
        self.use_again(id)?;
        self.send(number, id, message, &store, &[&to.identity])
    }

    /// Sees to it that a full mailbox takes one more. `None` where it does not.
    fn make_room(&mut self, identity: &Identity, mailbox: &mut Mailbox) -> Result<Option<Made>, Fault> {
        if !self.is_full(identity, mailbox)? {
            return Ok(Some(Made { displaced: None }));
        }
        if self.limits.overflow == Overflow::Reject {
            return Ok(None);
        }
        let mut displaced = None;
        if let Some(place) = self.oldest(identity)? {
            displaced = Some(self.ticket(place)?);
            let waiting = self.waiting(identity, place)?;
            self.take(identity, mailbox, (place, waiting), Leave::Settled)?;
        }
        Ok(Some(Made { displaced }))
    }

    /// Whether a mailbox takes no more, what has expired left aside.
    pub(super) fn is_full(&mut self, identity: &Identity, mailbox: &mut Mailbox) -> Result<bool, Fault> {
        let most = u64::from(self.limits.max_messages);
        if mailbox.messages >= most && mailbox.earliest <= self.now {
            self.expire(identity, mailbox)?;
            self.write_mailbox(identity, mailbox)?;
        }
        Ok(mailbox.messages >= most)
    }

    /// Removes what has expired, which a sweep is to tell.
    fn expire(&mut self, identity: &Identity, mailbox: &mut Mailbox) -> Result<(), Fault> {
        let mut earliest = Timestamp(i64::MAX);
        for (place, waiting) in self.all_waiting(identity)? {
            let expires_at = self.sending(place.sending)?.expires_at;
            if expires_at > self.now {
                earliest = earliest.min(expires_at);
                continue;
            }
            let ticket = self.ticket(place)?;
            self.lose(identity, &ticket)?;
            self.take(identity, mailbox, (place, waiting), Leave::Settled)?;
        }
        mailbox.earliest = earliest;
        Ok(())
    }
}

/// Room for one more message.
struct Made {
    displaced: Option<Ticket>,
}
