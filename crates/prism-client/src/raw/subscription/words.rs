//! What the consumer says about messages, until the service has confirmed it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use prism_proto::pattern::{
    subscribe_request::{Ack, Answer, Message, Nack, Term},
    subscribe_response,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{Error, Result, Settled};

/// How many acknowledgements are said at a time.
const TOGETHER: usize = 256;

/// A word about a message.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::raw) enum Word {
    Ack,
    Nack { delay_ms: i64 },
    Term { reason: String },
    Answer(Box<Answer>),
}

impl Word {
    /// Whether the message is not to come again.
    fn is_last(&self) -> bool {
        !matches!(self, Self::Nack { .. })
    }

    /// Whether the message is done with, for the consumer.
    fn is_ack(&self) -> bool {
        matches!(self, Self::Ack | Self::Answer(_))
    }
}

/// A word that is said.
pub(in crate::raw) struct Spoken {
    pub(in crate::raw) delivery_id: Arc<str>,
    pub(in crate::raw) word: Word,
    /// Who waits for its confirmation.
    pub(in crate::raw) confirm: Option<oneshot::Sender<Result<Settled>>>,
    /// Its room among all that is not confirmed; none for what the client says by itself.
    pub(in crate::raw) _room: Option<OwnedSemaphorePermit>,
}

/// What is known of a message that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// The consumer is to have it.
    No,
    /// The consumer has finished with it, and the service is being told.
    Saying,
    /// The consumer has acknowledged it, and the service forgot.
    Acked,
}

/// Words in their order, from when they are said until they are confirmed.
pub(super) struct Words {
    /// Those that are not confirmed, by their number.
    open: BTreeMap<u64, Spoken>,
    /// The numbers of those about a message.
    about: HashMap<Arc<str>, VecDeque<u64>>,
    /// Those that this session has not been told.
    unsaid: VecDeque<u64>,
    next: u64,
    acked: Remembered,
}

impl Words {
    pub(super) fn new(remember: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            about: HashMap::new(),
            unsaid: VecDeque::new(),
            next: 0,
            acked: Remembered {
                most: remember,
                ..Remembered::default()
            },
        }
    }

    pub(super) fn say(&mut self, spoken: Spoken) {
        let number = self.next;
        self.next += 1;
        let delivery_id = spoken.delivery_id.clone();
        if spoken.word.is_ack() {
            self.acked.insert(delivery_id.clone());
        }
        self.about.entry(delivery_id).or_default().push_back(number);
        self.unsaid.push_back(number);
        self.open.insert(number, spoken);
    }

    /// What is known of a message that arrives.
    pub(super) fn know(&self, delivery_id: &str) -> Known {
        let about = self.about.get(delivery_id).into_iter().flatten();
        let mut words = about.filter_map(|number| self.open.get(number));
        if words.any(|spoken| spoken.word.is_last()) {
            return Known::Saying;
        }
        match self.acked.contains(delivery_id) {
            true => Known::Acked,
            false => Known::No,
        }
    }

    /// How many words are not confirmed.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether this session is to be told something.
    pub(super) fn is_due(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// A new session: nothing of what is not confirmed has been said in it.
    pub(super) fn resume(&mut self) {
        self.unsaid = self.open.keys().copied().collect();
    }

    /// What the session is to be told next.
    pub(super) fn request(&mut self) -> Option<Message> {
        let spoken = self.open.get(self.unsaid.front()?)?;
        let delivery_ids = vec![spoken.delivery_id.to_string()];
        let message = match &spoken.word {
            Word::Ack => return Some(self.acks()),
            Word::Nack { delay_ms } => Message::Nack(Nack {
                delivery_ids,
                delay_ms: *delay_ms,
            }),
            Word::Term { reason } => Message::Term(Term {
                delivery_ids,
                reason: reason.clone(),
            }),
            Word::Answer(answer) => Message::Answer((**answer).clone()),
        };
        self.unsaid.pop_front();
        Some(message)
    }

    /// The next words, as far as they are acknowledgements.
    fn acks(&mut self) -> Message {
        let mut delivery_ids = Vec::new();
        while let Some(spoken) = self.unsaid.front().and_then(|number| self.open.get(number))
            && spoken.word == Word::Ack
            && delivery_ids.len() < TOGETHER
        {
            delivery_ids.push(spoken.delivery_id.to_string());
            self.unsaid.pop_front();
        }
        Message::Ack(Ack { delivery_ids })
    }

    /// The service has confirmed words.
    pub(super) fn settled(&mut self, settled: subscribe_response::Settled) {
        let done = settled.delivery_ids.into_iter().map(|id| (id, Settled::Done));
        let gone = settled.gone_ids.into_iter().map(|id| (id, Settled::Gone));
        for (delivery_id, settled) in done.chain(gone) {
            let Some(numbers) = self.about.get_mut(&*delivery_id) else {
                continue;
            };
            // Words about one message are settled in their order.
            let first = numbers.pop_front();
            if numbers.is_empty() {
                self.about.remove(&*delivery_id);
            }
            let spoken = first.and_then(|number| self.open.remove(&number));
            if let Some(confirm) = spoken.and_then(|spoken| spoken.confirm) {
                // Fails where nobody waits.
                let _ = confirm.send(Ok(settled));
            }
        }
    }

    /// Nothing will be confirmed any more.
    pub(super) fn end(&mut self, error: &Error) {
        self.about.clear();
        self.unsaid.clear();
        for spoken in std::mem::take(&mut self.open).into_values() {
            if let Some(confirm) = spoken.confirm {
                let _ = confirm.send(Err(error.clone()));
            }
        }
    }
}

/// The last messages that were acknowledged.
#[derive(Debug, Default)]
struct Remembered {
    most: usize,
    ids: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Remembered {
    fn contains(&self, delivery_id: &str) -> bool {
        self.ids.contains(delivery_id)
    }

    fn insert(&mut self, delivery_id: Arc<str>) {
        if self.most == 0 || !self.ids.insert(delivery_id.clone()) {
            return;
        }
        if self.order.len() >= self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(delivery_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(words: &mut Words, id: &str, word: Word) -> oneshot::Receiver<Result<Settled>> {
        let (confirm, confirmed) = oneshot::channel();
        words.say(Spoken {
            delivery_id: id.into(),
            word,
            confirm: Some(confirm),
            _room: None,
        });
        confirmed
    }

    fn settle(words: &mut Words, done: &[&str], gone: &[&str]) {
        let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        words.settled(subscribe_response::Settled {
            delivery_ids: ids(done),
            gone_ids: ids(gone),
        });
    }

    fn told(words: &mut Words) -> Vec<String> {
        let requests = std::iter::from_fn(|| words.request());
        let text = |message| match message {
            Message::Ack(ack) => format!("ack {}", ack.delivery_ids.join(" ")),
            Message::Nack(nack) => format!("nack {} {}", nack.delivery_ids.join(" "), nack.delay_ms),
            Message::Term(term) => format!("term {} {}", term.delivery_ids.join(" "), term.reason),
            Message::Answer(answer) => format!("answer {}", answer.delivery_id),
            other => format!("{other:?}"),
        };
        requests.map(text).collect()
    }

    const NACK: Word = Word::Nack { delay_ms: 5 };

    #[test]
    fn words_keep_their_order_and_acknowledgements_go_together() {
        let mut words = Words::new(10);
        for (id, word) in [("a", Word::Ack), ("b", Word::Ack), ("c", NACK), ("d", Word::Ack)] {
            say(&mut words, id, word);
        }
        assert_eq!(told(&mut words), ["ack a b", "nack c 5", "ack d"]);
        assert!(!words.is_due() && words.len() == 4);
        for number in 0..TOGETHER + 1 {
            say(&mut words, &number.to_string(), Word::Ack);
        }
        assert_eq!(told(&mut words).len(), 2);
    }

    #[test]
    fn what_was_not_confirmed_is_said_again_in_the_next_session() {
        let mut words = Words::new(10);
        let reason = "broken".to_owned();
        for (id, word) in [("a", Word::Ack), ("b", Word::Term { reason }), ("c", Word::Ack)] {
            say(&mut words, id, word);
        }
        told(&mut words);
        settle(&mut words, &["a"], &[]);
        words.resume();
        assert_eq!(told(&mut words), ["term b broken", "ack c"]);
    }

    #[test]
    fn each_word_learns_what_became_of_it() {
        let mut words = Words::new(10);
        let mut first = say(&mut words, "a", NACK);
        let mut second = say(&mut words, "a", Word::Ack);
        settle(&mut words, &["a", "never said"], &[]);
        assert_eq!(first.try_recv().unwrap().unwrap(), Settled::Done);
        assert!(second.try_recv().is_err());
        settle(&mut words, &[], &["a"]);
        assert_eq!(second.try_recv().unwrap().unwrap(), Settled::Gone);
        let mut third = say(&mut words, "a", Word::Ack);
        words.end(&Error::invalid("x", "over"));
        assert_eq!(third.try_recv().unwrap().unwrap_err().field(), Some("x"));
        assert_eq!(words.len(), 0);
    }

    #[test]
    fn only_what_was_acknowledged_is_kept_from_the_consumer() {
        let mut words = Words::new(2);
        say(&mut words, "nacked", NACK);
        assert_eq!(words.know("nacked"), Known::No);
        let reason = String::new();
        say(&mut words, "refused", Word::Term { reason });
        assert_eq!(words.know("refused"), Known::Saying);
        settle(&mut words, &["refused"], &[]);
        assert_eq!(words.know("refused"), Known::No, "a dead letter may be put back");
        for id in ["a", "b", "c"] {
            say(&mut words, id, Word::Ack);
            assert_eq!(words.know(id), Known::Saying);
        }
        settle(&mut words, &["a", "b", "c"], &[]);
        assert_eq!(
            ["a", "b", "c"].map(|id| words.know(id)),
            [Known::No, Known::Acked, Known::Acked]
        );
    }
}
