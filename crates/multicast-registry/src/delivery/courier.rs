//! Word of messages on its way to whoever sent them: batched, bounded, and never waited for.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use prism_slot::{DynMessaging, Identity, MulticastId, Outcome, Ticket};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Desk,
    note::{MAX_BYTES, Note, Receipt},
    state::News,
    tracker::Reply,
};
use crate::metrics::NamespaceMetrics;

/// How long word waits for company.
const LINGER: Duration = Duration::from_millis(2);
/// How many receipts wait at most, to be sent or to be written down. Beyond that they are dropped, which leaves lower
/// stages.
const MAX_WAITING: usize = 262_144;
/// How long a note may be under way.
const NOTE_LIMIT: Duration = Duration::from_secs(2);
/// What a receipt takes in a note beside its identity, at most, without an answer.
const RECEIPT_BYTES: usize = 48;

/// Receipts of several multicasts.
type Batch = HashMap<MulticastId, Vec<Receipt>>;

/// Receipts of one multicast that are being written down. Where that does not come to an end, they are to be written down
/// still.
pub(crate) struct Strays<'a> {
    courier: &'a Courier,
    pub(crate) multicast: MulticastId,
    pub(crate) receipts: Vec<Receipt>,
}

impl Strays<'_> {
    /// Nothing more is to be done about them.
    pub(crate) fn done(mut self) {
        self.courier.waiting.lock().count -= self.receipts.len();
        self.receipts.clear();
    }
}

impl Drop for Strays<'_> {
    fn drop(&mut self) {
        if !self.receipts.is_empty() {
            let mut waiting = self.courier.waiting.lock();
            let strays = waiting.strays.entry(self.multicast).or_default();
            strays.append(&mut self.receipts);
        }
    }
}

/// Carries word of messages to the runners that sent them.
pub(crate) struct Courier {
    desk: Arc<Desk>,
    metrics: NamespaceMetrics,
    /// Where this runner is reached itself.
    own: watch::Sender<Option<Arc<str>>>,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    /// By where they go.
    outgoing: HashMap<Arc<str>, Batch>,
    /// For the ledger: nobody else takes them.
    strays: Batch,
    count: usize,
}

impl Courier {
    pub(crate) fn new(desk: Arc<Desk>, metrics: NamespaceMetrics) -> Self {
        Self {
            desk,
            metrics,
            own: watch::Sender::new(None),
            waiting: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Where this runner is reached, while it is.
    pub(crate) fn address(&self) -> Option<Arc<str>> {
        self.own.borrow().clone()
    }

    pub(crate) fn set_address(&self, address: Option<Arc<str>>) {
        self.own.send_replace(address);
    }

    /// Waits until it is known where this runner is reached, or the deadline.
    pub(crate) async fn ready(&self, deadline: Instant) {
        let mut own = self.own.subscribe();
        let _ = timeout_at(deadline, own.wait_for(Option::is_some)).await;
    }

    /// Says something of a message.
    pub(crate) fn say(&self, ticket: &Ticket, identity: &Identity, news: News, reply: Option<Reply>) {
        let receipt = Receipt {
            identity: identity.clone(),
            news: Some(news),
            reply,
        };
        match &ticket.receipts {
            // Whoever sent it had no post then; the ledger may know it.
            None => self.stray(ticket.multicast, vec![receipt]),
            Some(to) if self.own.borrow().as_ref() == Some(to) => self.take(ticket.multicast, [receipt]),
            Some(to) => self.send(to, ticket.multicast, receipt),
        }
    }

    /// Takes in what was said of a multicast of this runner.
    pub(crate) fn take(&self, multicast: MulticastId, receipts: impl IntoIterator<Item = Receipt>) {
        let receipts = receipts.into_iter();
        let Some(tracker) = self.desk.get(multicast) else {
            return self.stray(multicast, receipts.collect());
        };
        let mut replies = Vec::new();
        tracker.learn_of(receipts.filter_map(|receipt| {
            replies.extend(receipt.reply);
            Some((receipt.identity, receipt.news?))
        }));
        replies.into_iter().for_each(|reply| tracker.answered(reply));
    }

    fn send(&self, to: &Arc<str>, multicast: MulticastId, receipt: Receipt) {
        let mut waiting = self.waiting.lock();
        if !waiting.has_room(1) {
            drop(waiting);
            return self.metrics.receipts_dropped(1);
        }
        let batch = waiting.outgoing.entry(to.clone()).or_default();
        batch.entry(multicast).or_default().push(receipt);
        drop(waiting);
        self.filled.notify_one();
    }

    /// Keeps receipts for the ledger, as far as there is room.
    fn stray(&self, multicast: MulticastId, receipts: Vec<Receipt>) {
        let mut waiting = self.waiting.lock();
        if !waiting.has_room(receipts.len()) {
            drop(waiting);
            return self.metrics.receipts_dropped(receipts.len() as u64);
        }
        waiting.strays.entry(multicast).or_default().extend(receipts);
    }

    /// What is to be written down, since no runner takes it. It counts as waiting until it is.
    pub(crate) fn take_strays(&self) -> Vec<Strays<'_>> {
        let strays = std::mem::take(&mut self.waiting.lock().strays).into_iter();
        let strays = strays.map(|(multicast, receipts)| Strays {
            courier: self,
            multicast,
            receipts,
        });
        strays.collect()
    }

    /// Sends what waits, until it is closed; what is being sent then is sent to its end. A post that does not answer
    /// holds up nothing that goes to others.
    pub(crate) async fn run(
        &self,
        messaging: impl Fn() -> Arc<dyn DynMessaging>,
        closing: CancellationToken,
    ) {
        let (mut under_way, mut busy) = (FuturesUnordered::new(), HashSet::new());
        loop {
            tokio::select! {
                () = closing.cancelled() => break,
                Some(to) = under_way.next() => drop(busy.remove::<Arc<str>>(&to)),
                () = self.filled.notified() => sleep(LINGER).await,
            }
            for (to, batch) in self.take_outgoing(&busy) {
                busy.insert(to.clone());
                let messaging = messaging();
                under_way.push(async move {
                    self.deliver_to(&*messaging, &to, batch).await;
                    to
                });
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// Sends what waits now. What nobody takes is kept for the ledger.
    pub(crate) async fn deliver(&self, messaging: &dyn DynMessaging) {
        let outgoing = self.take_outgoing(&HashSet::new()).into_iter();
        let sent = outgoing.map(|(to, batch)| async move { self.deliver_to(messaging, &to, batch).await });
        join_all(sent).await;
    }

    /// What waits, but for what goes where something is under way. It counts as waiting until it is delivered.
    fn take_outgoing(&self, busy: &HashSet<Arc<str>>) -> Vec<(Arc<str>, Batch)> {
        let mut waiting = self.waiting.lock();
        let free = waiting.outgoing.extract_if(|to, _| !busy.contains(to));
        free.collect()
    }

    async fn deliver_to(&self, messaging: &dyn DynMessaging, to: &str, batch: Batch) {
        let max_bytes = MAX_BYTES.min(messaging.capability().max_payload);
        let mut is_there = true;
        for part in split(batch, max_bytes) {
            if is_there {
                let deadline = Instant::now() + NOTE_LIMIT;
                let note = Note::Receipts(part.clone()).encode();
                is_there = messaging.send(to, note, deadline).await == Outcome::Accepted;
            }
            self.waiting.lock().count -= part.iter().map(|(_, receipts)| receipts.len()).sum::<usize>();
            if !is_there {
                for (multicast, receipts) in part {
                    self.stray(multicast, receipts);
                }
            }
        }
    }
}

impl Waiting {
    fn has_room(&mut self, count: usize) -> bool {
        let fits = self.count + count <= MAX_WAITING;
        self.count += if fits { count } else { 0 };
        fits
    }
}

/// Into notes that are not too large.
fn split(batch: Batch, max_bytes: usize) -> Vec<Vec<(MulticastId, Vec<Receipt>)>> {
    let (mut notes, mut note, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (multicast, receipts) in batch {
        let mut group = Vec::new();
        for receipt in receipts {
            let reply = receipt
                .reply
                .as_ref()
                .map_or(0, |reply| reply.payload.len() + 512);
            let size = RECEIPT_BYTES + receipt.identity.as_str().len() + reply;
            if bytes + size > max_bytes && bytes > 0 {
                note.push((multicast, std::mem::take(&mut group)));
                notes.push(std::mem::take(&mut note));
                bytes = 0;
            }
            bytes += size;
            group.push(receipt);
        }
        note.push((multicast, group));
    }
    notes.push(note);
    notes
}
