//! Sessions, and what they are handed.

use prism_slot::{Consumer, DeadReason, Delivery, Error, Fetch, Fetched, Identity};

use super::{
    desk::{Desk, Leave, later, until},
    parts::{Mailbox, Place, Session, Waiting},
};
use crate::error::Fault;

/// What a fetch does to the messages that it comes upon.
#[derive(Default)]
struct Found {
    fetched: Fetched,
    bytes: usize,
    out: Vec<(Place, Waiting)>,
    gone: Vec<(Place, Waiting, Leave)>,
}

impl Desk<'_, '_> {
    pub(super) fn open(&mut self, consumer: &Consumer) -> Result<(), Fault> {
        let identity = &consumer.address.identity;
        let mut mailbox = self.mailbox(identity)?.unwrap_or_default();
        let session = Session::of(consumer);
        if mailbox
            .session
            .is_some_and(|current| current.is_later_than(&session))
        {
            return Err(Error::Fenced(identity.clone()).into());
        }
        (mailbox.session, mailbox.heard_at) = (Some(session), Some(self.now));
        for (place, mut waiting) in self.all_waiting(identity)? {
            if waiting.holder != session.holder {
                let leave = Leave::Dead(DeadReason::OtherHolder);
                self.take(identity, &mut mailbox, (place, waiting), leave)?;
            } else if waiting.is_out {
                waiting.put_back(Waiting::AT_ONCE);
                self.write_waiting(identity, place, &waiting)?;
            }
        }
        self.write_mailbox(identity, &mailbox)
    }

    /// The mailbox of whoever is its consumer.
    pub(super) fn of_consumer(&self, consumer: &Consumer) -> Result<Mailbox, Fault> {
        let identity = &consumer.address.identity;
        let mailbox = self.mailbox(identity)?;
        let mailbox = mailbox.filter(|mailbox| mailbox.session == Some(Session::of(consumer)));
        Ok(mailbox.ok_or_else(|| Error::Fenced(identity.clone()))?)
    }

    pub(super) fn fetch(&mut self, consumer: &Consumer, fetch: Fetch) -> Result<Fetched, Fault> {
        let identity = &consumer.address.identity;
        let mut mailbox = self.of_consumer(consumer)?;
        let before = mailbox;
        mailbox.hear(self.limits.idle, self.now);
        let mut found = Found::default();
        self.look_through(identity, fetch, &mut found)?;
        // Before it is answered: a message that comes again has a higher attempt.
        for (place, waiting) in &found.out {
            self.write_waiting(identity, *place, waiting)?;
        }
        for (place, waiting, leave) in found.gone {
            self.take(identity, &mut mailbox, (place, waiting), leave)?;
        }
        if mailbox != before {
            self.write_mailbox(identity, &mailbox)?;
        }
        Ok(found.fetched)
    }

    /// Goes through an inbox until there is as much as was asked for.
    fn look_through(&mut self, identity: &Identity, fetch: Fetch, found: &mut Found) -> Result<(), Fault> {
        let mut after = None;
        // Some at a time, and more where most of them are out.
        loop {
            let (mut some, mut last) = (Vec::with_capacity(PORTION), None);
            self.each_waiting_after(identity, after, PORTION, |place, waiting| {
                last = Some(place);
                some.push((place, waiting));
            })?;
            let is_last = some.len() < PORTION;
            for (place, waiting) in some {
                if !self.look_at(place, waiting, fetch, found)? {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
            after = last;
        }
    }

    /// False where there is as much as was asked for.
    fn look_at(
        &mut self,
        place: Place,
        mut waiting: Waiting,
        fetch: Fetch,
        found: &mut Found,
    ) -> Result<bool, Fault> {
        let now = self.now;
        let sending = self.sending(place.sending)?;
        let (expires_at, stored_at, id) = (sending.expires_at, sending.stored_at, sending.message);
        if expires_at <= now {
            found.fetched.expired.push(self.ticket(place)?);
            found.gone.push((place, waiting, Leave::Settled));
            return Ok(true);
        }
        if !waiting.is_due(now) {
            found.due_in(until(waiting.due_at, now));
            return Ok(true);
        }
        if waiting.attempt >= fetch.max_deliver {
            let why = DeadReason::MaxDeliver;
            found.fetched.dead.push((self.ticket(place)?, why.clone()));
            found.gone.push((place, waiting, Leave::Dead(why)));
            return Ok(true);
        }
        if found.fetched.deliveries.len() >= fetch.max_messages {
            found.fetched.more = true;
            return Ok(false);
        }
        let message = self.message(id)?;
        let bytes = found.bytes.saturating_add(message.payload.len());
        if !found.fetched.deliveries.is_empty() && bytes > fetch.max_bytes {
            found.fetched.more = true;
            return Ok(false);
        }
        found.bytes = bytes;
        waiting.attempt += 1;
        (waiting.is_out, waiting.due_at) = (true, later(now, fetch.ack_timeout));
        found.due_in(fetch.ack_timeout);
        found.fetched.deliveries.push(Delivery {
            message,
            attempt: waiting.attempt,
            stored_at,
        });
        found.out.push((place, waiting));
        Ok(true)
    }
}

/// How many messages are looked at before any is handed out.
const PORTION: usize = 128;

impl Found {
    fn due_in(&mut self, time: std::time::Duration) {
        let next = self.fetched.next_due;
        self.fetched.next_due = Some(next.map_or(time, |next| next.min(time)));
    }
}
