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
    reply::Reply,
    state::News,
};
use crate::metrics::NamespaceMetrics;

/// How long word waits for company.
const LINGER: Duration = Duration::from_millis(2);
/// How many receipts wait at most, to be sent or to be written down, and how many bytes of them. Beyond that they are
/// dropped, which leaves lower stages.
const MAX_WAITING: Weight = Weight {
    count: 262_144,
    bytes: 64 << 20,
};
/// Up to how many bytes there is room for answers, too; beyond that they are left out, so that receipts find some.
const ROOM_FOR_ANSWERS: usize = 48 << 20;
/// How long a note may be under way.
const NOTE_LIMIT: Duration = Duration::from_secs(2);

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
        self.courier.waiting.lock().release(&self.receipts);
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

/// Receipts that are being sent, the next ones at the back. What is not, also where that is given up, is kept for the
/// ledger.
struct Notes<'a> {
    courier: &'a Courier,
    unsent: Vec<Vec<(MulticastId, Vec<Receipt>)>>,
}

impl Drop for Notes<'_> {
    fn drop(&mut self) {
        for (multicast, receipts) in self.unsent.drain(..).flatten() {
            self.courier.waiting.lock().release(&receipts);
            self.courier.stray(multicast, receipts);
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
    weight: Weight,
}

/// How many receipts there are, and how many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Weight {
    count: usize,
    bytes: usize,
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
            // Whoever sent it had no post then, or it is not known here; it may be at hand, and the ledger may know it.
            None => self.take(ticket.multicast, [receipt]),
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

    fn send(&self, to: &Arc<str>, multicast: MulticastId, mut receipt: Receipt) {
        let mut waiting = self.waiting.lock();
        if !waiting.has_room(std::slice::from_ref(&receipt)) {
            // How far a message came is worth more than what was answered to it, and takes less.
            let was_answered = receipt.reply.take().is_some();
            if !was_answered || !waiting.has_room(std::slice::from_ref(&receipt)) {
                drop(waiting);
                return self.metrics.receipts_dropped(1);
            }
        }
        let batch = waiting.outgoing.entry(to.clone()).or_default();
        batch.entry(multicast).or_default().push(receipt);
        drop(waiting);
        self.filled.notify_one();
    }

    /// Keeps receipts for the ledger, as far as there is room; the ledger keeps no answers.
    fn stray(&self, multicast: MulticastId, mut receipts: Vec<Receipt>) {
        receipts.iter_mut().for_each(|receipt| receipt.reply = None);
        let mut waiting = self.waiting.lock();
        if !waiting.has_room(&receipts) {
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
        let mut notes = Notes {
            courier: self,
            unsent: split(batch, max_bytes),
        };
        while let Some(part) = notes.unsent.last() {
            let deadline = Instant::now() + NOTE_LIMIT;
            let note = Note::Receipts(part.clone()).encode();
            if messaging.send(to, note, deadline).await != Outcome::Accepted {
                return;
            }
            let mut waiting = self.waiting.lock();
            let sent = notes.unsent.pop().unwrap_or_default();
            sent.iter().for_each(|(_, receipts)| waiting.release(receipts));
        }
    }
}

impl Waiting {
    fn has_room(&mut self, receipts: &[Receipt]) -> bool {
        let more = Weight::of(receipts);
        let weight = Weight {
            count: self.weight.count + more.count,
            bytes: self.weight.bytes + more.bytes,
        };
        let max_bytes = match receipts.iter().any(|receipt| receipt.reply.is_some()) {
            true => ROOM_FOR_ANSWERS,
            false => MAX_WAITING.bytes,
        };
        let fits = weight.count <= MAX_WAITING.count && weight.bytes <= max_bytes;
        if fits {
            self.weight = weight;
        }
        fits
    }

    fn release(&mut self, receipts: &[Receipt]) {
        let less = Weight::of(receipts);
        self.weight.count -= less.count;
        self.weight.bytes -= less.bytes;
    }
}

impl Weight {
    fn of(receipts: &[Receipt]) -> Self {
        Self {
            count: receipts.len(),
            bytes: receipts.iter().map(Receipt::size).sum(),
        }
    }
}

/// Into notes that are not too large.
fn split(batch: Batch, max_bytes: usize) -> Vec<Vec<(MulticastId, Vec<Receipt>)>> {
    let (mut notes, mut note, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (multicast, receipts) in batch {
        let mut group = Vec::new();
        for receipt in receipts {
            let size = receipt.size();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delivery::{End, Stage},
        testing::{Broker, Fate, Op, id},
    };

    fn courier() -> Courier {
        Courier::new(Arc::new(Desk::new(0)), NamespaceMetrics::unregistered())
    }

    fn ticket(receipts: Option<&str>) -> Ticket {
        Ticket {
            multicast: MulticastId(1),
            receipts: receipts.map(Into::into),
        }
    }

    /// As large as a client may make it.
    fn answer(name: &str, payload: usize) -> Reply {
        Reply {
            identity: id(name),
            payload: vec![0; payload].into(),
            content_type: "text/plain".into(),
            headers: vec![("h".into(), "v".repeat(8_000))],
        }
    }

    fn acked() -> News {
        News::Reached(Stage::Acked)
    }

    /// A broker takes each of them, whatever receipts are made of.
    #[test]
    fn no_note_is_too_large() {
        let long = "i".repeat(256);
        let refused = News::Ended(End::Terminated, Some("w".repeat(256).into()));
        let receipt = |news: &News, reply| Receipt {
            identity: id(&long),
            news: Some(news.clone()),
            reply,
        };
        let all = [
            vec![receipt(&acked(), Some(answer(&long, 0))); 200],
            vec![receipt(&refused, None); 2_000],
            vec![receipt(&acked(), Some(answer(&long, 128 << 10))); 5],
        ];
        let count: usize = all.iter().map(Vec::len).sum();
        let batch: Batch = (0..).map(MulticastId).zip(all).collect();
        let notes = split(batch, MAX_BYTES);
        let receipts = notes.iter().flatten().map(|(_, receipts)| receipts.len());
        assert_eq!(receipts.sum::<usize>(), count);
        for note in notes {
            let length = Note::Receipts(note).encode().len();
            assert!(length <= MAX_BYTES, "{length}");
        }
    }

    /// Answers that nobody takes are left behind before they fill the memory, and no receipt with them.
    #[test]
    fn answers_that_wait_are_bounded() {
        const RECEIPT: usize = 64;
        let (courier, count) = (courier(), 10_000);
        for _ in 0..count {
            let there = ticket(Some("there"));
            courier.say(&there, &id("a"), acked(), Some(answer("a", 8_000)));
        }
        let taken = courier.take_outgoing(&HashSet::new());
        let receipts: Vec<&Receipt> = taken
            .iter()
            .flat_map(|(_, batch)| batch.values().flatten())
            .collect();
        let bytes: usize = receipts.iter().map(|receipt| receipt.size()).sum();
        assert_eq!(receipts.len(), count);
        assert!(bytes <= ROOM_FOR_ANSWERS + count * RECEIPT, "{bytes}");
        assert!(receipts[0].reply.is_some(), "there was room for some");
    }

    /// Nobody reads an answer in the ledger.
    #[test]
    fn what_strays_leaves_its_answer_behind() {
        let courier = courier();
        courier.say(&ticket(None), &id("a"), acked(), Some(answer("a", 1)));
        let strays = courier.take_strays();
        let receipt = Receipt {
            identity: id("a"),
            news: Some(acked()),
            reply: None,
        };
        assert_eq!(strays[0].receipts, [receipt]);
    }

    /// What is given up while it is sent was not said to anybody.
    #[tokio::test]
    async fn what_is_not_sent_to_its_end_is_kept_for_the_ledger() {
        let (courier, broker) = (courier(), Broker::new());
        broker.script.always(Op::Send, Fate::Hang);
        courier.say(&ticket(Some("there")), &id("a"), acked(), None);
        let sent = tokio::time::timeout(Duration::from_millis(10), courier.deliver(&*broker));
        assert!(sent.await.is_err());
        let strays = courier.take_strays();
        assert_eq!(strays[0].receipts[0].identity, id("a"));
        strays.into_iter().for_each(Strays::done);
        assert_eq!(courier.waiting.lock().weight, Weight::default());
    }

    /// What was taken and not written down is there again, and what was makes room.
    #[test]
    fn strays_wait_until_they_are_written_down() {
        let courier = courier();
        courier.say(&ticket(None), &id("a"), acked(), None);
        for _ in 0..2 {
            assert_eq!(courier.take_strays().len(), 1);
        }
        assert_ne!(courier.waiting.lock().weight, Weight::default());
        courier.take_strays().into_iter().for_each(Strays::done);
        assert!(courier.take_strays().is_empty());
        assert_eq!(courier.waiting.lock().weight, Weight::default());
    }
}
