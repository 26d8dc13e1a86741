//! What of an inbox is handed out next.

use std::collections::HashMap;

use prism_slot::{DeadReason, Delivery, Fetch, Fetched, Holder, Ticket, Timestamp};

use crate::jetstream::{
    letter::{Found, Letter},
    state::{Entry, State, Status, later},
};

/// What was read of the messages of one priority.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// What is due again, by sequence; `None` for what is not there any more.
    pub(crate) due: Vec<(u64, Option<Found>)>,
    /// What comes after what was seen; `None` where there is no room for any of it, so that nobody has looked.
    pub(crate) fresh: Option<Vec<Found>>,
    /// Whether there is more after that.
    pub(crate) more: bool,
}

/// A fetch under way.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) holder: Holder,
    pub(crate) fetch: Fetch,
    pub(crate) now: Timestamp,
    pub(crate) fetched: Fetched,
    /// What is to be buried, so that it need not be read again.
    pub(crate) dying: HashMap<u64, Letter>,
    bytes: usize,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(state: &'a mut State, holder: Holder, fetch: Fetch, now: Timestamp) -> Self {
        Self {
            state,
            holder,
            fetch,
            now,
            fetched: Fetched::default(),
            dying: HashMap::new(),
            bytes: 0,
        }
    }

    /// Hands out what was read, the most urgent first, as far as was asked for.
    pub(crate) fn hand_out(&mut self, read: Vec<Read>) {
        for (rank, read) in read.into_iter().enumerate() {
            if !self.hand_out_rank(rank, read) {
                self.fetched.more = true;
                break;
            }
        }
        self.fetched.next_due = self.state.next_due(self.now);
    }

    /// Whether those of less urgency may follow.
    fn hand_out_rank(&mut self, rank: usize, read: Read) -> bool {
        for (sequence, found) in read.due {
            let taken = match found {
                Some(found) => self.consider(found),
                None => {
                    self.state.entries.remove(&sequence);
                    true
                }
            };
            if !taken {
                return false;
            }
        }
        let Some(fresh) = read.fresh else {
            return !read.more;
        };
        for found in fresh {
            let sequence = found.sequence;
            // What was cancelled has an entry, and is on its way out.
            if !self.state.entries.contains_key(&sequence) && !self.consider(found) {
                return false;
            }
            self.state.seen[rank] = sequence;
        }
        if !read.more {
            self.state.pass_cancelled(rank);
        }
        !read.more
    }

    /// False where it has to wait, because enough is handed out.
    fn consider(&mut self, found: Found) -> bool {
        let expires_at = found.expires_at;
        let is_taken = self.take(found);
        if is_taken {
            self.state.outlives(expires_at);
        }
        is_taken
    }

    fn take(&mut self, found: Found) -> bool {
        let known = self.state.entries.get(&found.sequence);
        let attempt = known.map_or(0, |entry| entry.attempt);
        let Some(letter) = found.letter else {
            let entry = Entry {
                rank: found.rank,
                multicast: prism_slot::MulticastId(0),
                attempt,
                status: Status::Done,
            };
            self.state.entries.insert(found.sequence, entry);
            return true;
        };
        if letter.holder != self.holder {
            self.give_up(
                found.sequence,
                found.rank,
                attempt,
                letter,
                DeadReason::OtherHolder,
            );
        } else if attempt >= self.fetch.max_deliver {
            self.give_up(
                found.sequence,
                found.rank,
                attempt,
                letter,
                DeadReason::MaxDeliver,
            );
        } else {
            return self.deliver(found.sequence, found.rank, attempt, letter);
        }
        true
    }

    fn give_up(&mut self, sequence: u64, rank: usize, attempt: u32, letter: Letter, reason: DeadReason) {
        let entry = Entry {
            rank,
            multicast: letter.message.multicast,
            attempt,
            status: Status::Dying(reason.clone()),
        };
        self.state.entries.insert(sequence, entry);
        self.fetched.dead.push((Ticket::from(&*letter.message), reason));
        self.dying.insert(sequence, letter);
    }

    fn deliver(&mut self, sequence: u64, rank: usize, attempt: u32, letter: Letter) -> bool {
        let bytes = self.bytes.saturating_add(letter.message.payload.len());
        let handed_out = self.fetched.deliveries.len();
        if handed_out >= self.fetch.max_messages || handed_out > 0 && bytes > self.fetch.max_bytes {
            return false;
        }
        self.bytes = bytes;
        let entry = Entry {
            rank,
            multicast: letter.message.multicast,
            attempt: attempt.saturating_add(1),
            status: Status::Out(later(self.now, self.fetch.ack_timeout)),
        };
        self.state.entries.insert(sequence, entry);
        self.fetched.deliveries.push(Delivery {
            message: letter.message,
            attempt: attempt.saturating_add(1),
            stored_at: letter.stored_at,
        });
        true
    }
}

#[cfg(test)]
mod tests;
