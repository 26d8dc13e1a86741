//! What waits to be taken, and how much more may come.

use std::collections::VecDeque;

use prism_proto::pattern::{SubscribeResponse, subscribe_response::Message};

use crate::{Credits, wire::CONNECTION_LOST};

/// How much news beside messages may wait.
const NEWS: u64 = 64;

/// Answers in their order, and the credits of the session that they come from.
///
/// What waits here and what the session may still send are the allowance together, so that the service can be read
/// at any time without holding more than was allowed.
#[derive(Debug)]
pub(super) struct Shelf {
    waiting: VecDeque<SubscribeResponse>,
    /// How many of them are messages.
    messages: u64,
    allowance: u64,
    /// Whether a message that is taken makes room for another one.
    refills: bool,
    /// How many messages the session may still send.
    outstanding: u64,
}

impl Shelf {
    pub(super) fn new(credits: Credits) -> Self {
        let (allowance, refills) = match credits {
            // A window of nothing would never yield anything.
            Credits::Window(window) => (window.max(1), true),
            Credits::Manual(first) => (first, false),
        };
        Self {
            waiting: VecDeque::new(),
            messages: 0,
            allowance: allowance.into(),
            refills,
            outstanding: 0,
        }
    }

    /// How many messages a session that is opened now may send.
    pub(super) fn opening(&mut self) -> u32 {
        self.outstanding = self.allowance.saturating_sub(self.messages).min(u32::MAX.into());
        self.outstanding as u32
    }

    /// Puts an answer that is no message behind the others.
    pub(super) fn put(&mut self, answer: SubscribeResponse) {
        if let (Some(Message::Gap(gap)), Some(Message::Gap(last))) = (
            &answer.message,
            self.waiting.back_mut().and_then(|last| last.message.as_mut()),
        ) && gap.reason == last.reason
        {
            last.dropped = last.dropped.saturating_add(gap.dropped);
            return;
        }
        self.waiting.push_back(answer);
    }

    /// A session was opened in place of another one. Where the last such news is still to be told, this replaces it.
    pub(super) fn reopened(&mut self, opened: SubscribeResponse, gap: SubscribeResponse) {
        while self.waiting.back().is_some_and(is_of_an_opening) {
            self.waiting.pop_back();
        }
        self.waiting.extend([opened, gap]);
    }

    /// Puts a message behind the others, or in place of itself where it still waits.
    pub(super) fn put_message(&mut self, delivery_id: &str, answer: SubscribeResponse) {
        self.pass();
        let same = |waiting: &&mut SubscribeResponse| match &waiting.message {
            Some(Message::Delivery(delivery)) => delivery.delivery_id == delivery_id,
            _ => false,
        };
        if let Some(waiting) = self.waiting.iter_mut().find(same) {
            *waiting = answer;
            return;
        }
        self.waiting.push_back(answer);
        self.messages += 1;
    }

    /// A message came that is not to be taken.
    pub(super) fn pass(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    pub(super) fn take(&mut self) -> Option<SubscribeResponse> {
        let answer = self.waiting.pop_front()?;
        if matches!(answer.message, Some(Message::Delivery(_))) {
            self.messages -= 1;
            if !self.refills {
                self.allowance = self.allowance.saturating_sub(1);
            }
        }
        Some(answer)
    }

    pub(super) fn grant(&mut self, messages: u32) {
        self.allowance = self.allowance.saturating_add(messages.into());
    }

    /// Whether more waits than the service may send, or than it should have to tell, so that it is not to be read
    /// until some of that is taken.
    pub(super) fn is_full(&self) -> bool {
        let news = self.waiting.len() as u64 - self.messages;
        (self.messages > self.allowance && self.messages > 1) || news > self.messages + NEWS
    }

    /// Whether what was taken last made it possible to read on.
    pub(super) fn has_just_room(&self) -> bool {
        !self.is_full()
            && (self.messages >= self.allowance || self.waiting.len() as u64 >= self.messages + NEWS)
    }

    /// Whether the session is to be told that it may send more. Not for every single message.
    pub(super) fn is_due(&self) -> bool {
        let missing = self.missing();
        missing > 0 && (self.outstanding == 0 || missing >= self.allowance.div_ceil(2))
    }

    /// How many more messages the session may send, which it is to be told now.
    pub(super) fn credit(&mut self) -> Option<u32> {
        if !self.is_due() {
            return None;
        }
        let credit = u32::try_from(self.missing()).unwrap_or(u32::MAX);
        self.outstanding += u64::from(credit);
        Some(credit)
    }

    fn missing(&self) -> u64 {
        self.allowance.saturating_sub(self.messages + self.outstanding)
    }
}

fn is_of_an_opening(answer: &SubscribeResponse) -> bool {
    match &answer.message {
        Some(Message::Opened(_)) => true,
        Some(Message::Gap(gap)) => gap.reason == CONNECTION_LOST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::answers;

    fn put(shelf: &mut Shelf, text: &str) {
        let message = answers::message(text);
        shelf.put_message(&format!("m-1/{text}"), message);
    }

    #[test]
    fn what_waits_and_what_may_come_are_the_window_together() {
        let mut shelf = Shelf::new(Credits::Window(4));
        assert_eq!((shelf.opening(), shelf.credit()), (4, None));
        for text in ["a", "b", "c", "d"] {
            put(&mut shelf, text);
        }
        assert!(!shelf.is_full() && shelf.credit().is_none());
        put(&mut shelf, "more than it may");
        assert!(shelf.is_full());
        shelf.take();
        shelf.take();
        assert_eq!(shelf.credit(), Some(1), "nothing is on its way");
        shelf.take();
        assert_eq!(shelf.credit(), None, "something is");
        shelf.take();
        assert_eq!(shelf.credit(), Some(2));
        assert_eq!(shelf.opening(), 3, "another session may not send what waits here");
    }

    #[test]
    fn manual_credits_are_used_up() {
        let mut shelf = Shelf::new(Credits::Manual(1));
        assert_eq!(shelf.opening(), 1);
        put(&mut shelf, "a");
        assert!(shelf.take().is_some());
        assert_eq!((shelf.credit(), shelf.opening()), (None, 0));
        shelf.grant(3);
        assert_eq!(shelf.credit(), Some(3));
        put(&mut shelf, "b");
        shelf.pass();
        assert_eq!(
            (shelf.credit(), shelf.opening()),
            (None, 2),
            "one that was not handed out counts for another"
        );
    }

    #[test]
    fn a_redelivery_of_what_still_waits_takes_its_place() {
        let mut shelf = Shelf::new(Credits::Window(8));
        shelf.opening();
        put(&mut shelf, "a");
        put(&mut shelf, "b");
        let mut again = answers::message("a");
        if let Some(Message::Delivery(delivery)) = &mut again.message {
            delivery.attempt = 2;
        }
        shelf.put_message("m-1/a", again.clone());
        assert_eq!(shelf.take(), Some(again));
        assert_eq!(shelf.take(), Some(answers::message("b")));
        assert_eq!(shelf.take(), None);
    }

    #[test]
    fn news_that_nobody_takes_does_not_pile_up() {
        let mut shelf = Shelf::new(Credits::Window(8));
        let lost = || answers::gap(0, CONNECTION_LOST);
        for number in 0..200 {
            shelf.reopened(answers::opened(number), lost());
        }
        shelf.put(answers::gap(2, "SLOW_CONSUMER"));
        shelf.put(answers::gap(3, "SLOW_CONSUMER"));
        let told = [answers::opened(199), lost(), answers::gap(5, "SLOW_CONSUMER")];
        assert_eq!(shelf.waiting, told);
        for number in 0..NEWS {
            assert!(!shelf.is_full() || number > 20, "{number}");
            shelf.reopened(answers::opened(number), lost());
            shelf.put(answers::gap(1, "SLOW_CONSUMER"));
        }
        assert!(shelf.is_full());
    }
}
