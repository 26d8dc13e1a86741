//! Who was to receive what, and who did.
//!
//! A multicast is entered before it is called, since its first receivers are faster than its answer. The answer
//! lists the targets; each of them is a pair with the multicast, and a pair is received when the target's own
//! subscriber has seen the message. What nobody knows the targets of, because there was no answer, is counted
//! apart.

mod bits;
mod entry;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prism_client::{Applied, DeliveryStatus, Error, Multicast, Status};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::stamp::Run;
use bits::Bits;
use entry::{Balance, Entry, Receipt};

/// Of how many multicasts that are through the receivers are remembered, to know a duplicate from a stray.
const REMEMBERED: usize = 1_000;

/// Who was to receive what, and who did.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: Run,
    book: Mutex<Book>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<u32, Entry>,
    /// Those of which nothing is open, oldest first.
    through: VecDeque<u32>,
    /// How many are begun and not through.
    open: usize,
    /// Those that failed and are forgotten: of which it is not known whether they were made, and which were not.
    unanswered: Bits,
    refused: Bits,
    sums: Sums,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Multicasts that were answered.
    pub(crate) multicasts: u64,
    /// Their targets.
    pub(crate) targets: u64,
    /// Of these, the ones that have not received it.
    pub(crate) missing: u64,
    /// Receipts after the first one.
    pub(crate) duplicates: u64,
    /// Receipts of those who were no target.
    pub(crate) unlisted: u64,
    /// Multicasts of which not every target was said to be reached, or still on its way.
    pub(crate) incomplete: u64,
    /// What the service said of the targets.
    pub(crate) claimed: Claims,
    /// Why it said that one was not delivered, and will not be.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Said to be delivered, and never received.
    pub(crate) false_claims: u64,
    /// Said to have failed, and received.
    pub(crate) false_failures: u64,
    /// Multicasts of which it is not known whether they were made.
    pub(crate) unanswered: u64,
    /// Receipts of those.
    pub(crate) unanswered_receipts: u64,
}

/// Targets by what the service said of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) delivered: u64,
    pub(crate) pending: u64,
    pub(crate) failed: u64,
    pub(crate) timeout: u64,
}

impl Sums {
    /// Targets that received it.
    pub(crate) fn received(&self) -> u64 {
        self.targets - self.missing
    }

    /// The share of them; `None` where nobody was to receive anything.
    pub(crate) fn percent(&self) -> Option<f64> {
        (self.targets > 0).then(|| self.received() as f64 * 100.0 / self.targets as f64)
    }
}

impl Ledger {
    pub(crate) fn new(run: Run) -> Self {
        Self {
            run,
            book: Mutex::default(),
            settled: Notify::new(),
        }
    }

    /// A multicast is about to be called. What is returned resolves when the last of its targets has received it.
    pub(crate) fn begin(&self, number: u32) -> oneshot::Receiver<Instant> {
        let (done, through) = oneshot::channel();
        let mut book = self.book.lock();
        book.open += 1;
        book.entries.entry(number).or_default().done = Some(done);
        through
    }

    /// Somebody has received one; whether that is for the first time.
    pub(crate) fn receive(&self, number: u32, who: u32, when: Instant) -> bool {
        let mut book = self.book.lock();
        let Some(entry) = book.entries.get_mut(&number) else {
            return book.late(number);
        };
        let receipt = entry.receive(who, when);
        match receipt {
            Receipt::Again => book.sums.duplicates += 1,
            Receipt::Early => {}
            Receipt::Unlisted => book.sums.unlisted += 1,
            Receipt::Expected { denied } => {
                book.sums.missing -= 1;
                book.sums.false_failures += u64::from(denied);
            }
        }
        self.look(&mut book, number, when);
        receipt != Receipt::Again
    }

    /// What a multicast was answered.
    pub(crate) fn answer(&self, number: u32, answer: &Multicast) {
        let mut book = self.book.lock();
        let balance = book.entries.entry(number).or_default().answer(self.run, answer);
        book.sums.answered(answer);
        book.sums.balance(balance);
        self.look(&mut book, number, Instant::now());
    }

    /// A multicast failed. One that was certainly not made has no targets; of any other one they are not known.
    pub(crate) fn fail(&self, number: u32, error: &Error) {
        let mut book = self.book.lock();
        if error.applied() == Applied::No {
            let balance = book.entries.entry(number).or_default().refuse();
            book.sums.balance(balance);
        } else {
            book.sums.unanswered += 1;
        }
        // It waits for nobody.
        self.through(&mut book, number, None);
    }

    /// Waits until every target of every multicast has received it, and not longer than `patience`.
    pub(crate) async fn settle(&self, patience: Duration) {
        let all = async {
            loop {
                let settled = self.settled.notified();
                if self.book.lock().open == 0 {
                    return;
                }
                settled.await;
            }
        };
        // What is missing then is counted as missing.
        let _ = timeout(patience, all).await;
    }

    /// What was counted so far.
    pub(crate) fn sums(&self) -> Sums {
        let book = self.book.lock();
        let mut sums = book.sums.clone();
        for entry in book.entries.values() {
            sums.false_claims += entry.false_claims();
            if !entry.is_answered() {
                sums.unanswered_receipts += entry.received();
            }
        }
        sums
    }

    /// Targets, and how many of them have received it, as is cheap to know at any time.
    pub(crate) fn at(&self) -> (u64, u64) {
        let book = self.book.lock();
        (book.sums.targets, book.sums.received())
    }

    /// Whether nothing of a multicast is missing any more.
    fn look(&self, book: &mut Book, number: u32, now: Instant) {
        let Some(entry) = book.entries.get_mut(&number) else {
            return;
        };
        if let Some(when) = entry.complete(now) {
            self.through(book, number, Some(when));
        }
    }

    fn through(&self, book: &mut Book, number: u32, when: Option<Instant>) {
        let Some(entry) = book.entries.get_mut(&number) else {
            return;
        };
        // Once: whoever waits is told, and the next receipt finds nobody.
        let Some(done) = entry.done.take() else { return };
        if let Some(when) = when {
            // Whoever does not care has dropped the other end.
            let _ = done.send(when);
        }
        book.open -= 1;
        book.through.push_back(number);
        book.forget();
        if book.open == 0 {
            self.settled.notify_waiters();
        }
    }
}

impl Book {
    /// Lets go of the receivers of the multicast that has been through for longest. Of one that failed it is
    /// remembered how: what still comes of it comes late, and for the first time.
    fn forget(&mut self) {
        if self.through.len() <= REMEMBERED {
            return;
        }
        let Some(oldest) = self.through.pop_front() else {
            return;
        };
        let Some(entry) = self.entries.remove(&oldest) else {
            return;
        };
        if !entry.is_answered() {
            self.unanswered.insert(oldest);
            self.sums.unanswered_receipts += entry.received();
        } else if entry.is_refused() {
            self.refused.insert(oldest);
        }
    }

    /// Somebody has received one that is forgotten; whether that is for the first time, as far as is known.
    fn late(&mut self, number: u32) -> bool {
        let (unanswered, refused) = (self.unanswered.contains(number), self.refused.contains(number));
        *if unanswered {
            &mut self.sums.unanswered_receipts
        } else if refused {
            &mut self.sums.unlisted
        } else {
            &mut self.sums.duplicates
        } += 1;
        unanswered || refused
    }
}

impl Sums {
    fn answered(&mut self, answer: &Multicast) {
        self.multicasts += 1;
        self.targets += answer.target_count;
        self.incomplete += u64::from(answer.failed_count + answer.timeout_count > 0);
        self.claimed.delivered += answer.delivered_count;
        self.claimed.pending += answer.pending_count;
        self.claimed.failed += answer.failed_count;
        self.claimed.timeout += answer.timeout_count;
        let is_told_why =
            |status: &&DeliveryStatus| !matches!(status.status, Status::Delivered | Status::Pending);
        for status in answer.statuses.iter().filter(is_told_why) {
            let reason = status.reason.clone().unwrap_or_else(|| "UNSPECIFIED".to_owned());
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    fn balance(&mut self, balance: Balance) {
        self.missing += balance.missing;
        self.unlisted += balance.unlisted;
        self.false_failures += balance.denied;
    }
}
