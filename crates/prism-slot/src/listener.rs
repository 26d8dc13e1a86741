//! The queue between a messaging slot and one listening session: bounded, ordered, and honest about
//! what it had to drop.

use std::{collections::VecDeque, fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Message, MulticastId};

/// Of how many dropped messages it is remembered that they are counted.
const REMEMBERED: usize = 1_024;

/// What a listener is handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A message for the identity.
    Message(Arc<Message>),
    /// Messages are, or may be, missing at this point.
    Gap {
        /// How many are known to be missing; after a reconnection there may be more.
        dropped: u64,
        /// Why.
        reason: GapReason,
    },
}

/// Why messages are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The listener did not keep up and its queue was full.
    SlowConsumer,
    /// The connection to the broker was lost for a while.
    Reconnected,
}

impl GapReason {
    /// As it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlowConsumer => "SLOW_CONSUMER",
            Self::Reconnected => "RECONNECTED",
        }
    }
}

/// How much waits for one listener at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// How many messages.
    pub messages: usize,
    /// How many [bytes](Message::size) of them. A larger message still waits alone.
    pub bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            messages: 1_024,
            bytes: 4 << 20,
        }
    }
}

/// A connected pair: what a backend fills and what a session reads.
///
/// What finds no `room` is dropped. `guard` is whatever the backend must undo when the listener goes; it is dropped
/// with the listener.
pub fn listener(room: Room, guard: impl Send + std::marker::Sync + 'static) -> (ListenerSink, Listener) {
    let queue = Arc::new(Queue {
        state: Mutex::new(State::default()),
        filled: Notify::new(),
        room,
    });
    (
        ListenerSink { queue: queue.clone() },
        Listener {
            queue,
            _guard: Box::new(guard),
        },
    )
}

/// The filling end of a [`listener`]. Clones fill the same queue.
#[derive(Clone)]
pub struct ListenerSink {
    queue: Arc<Queue>,
}

impl ListenerSink {
    /// Queues a message. False when there was no room: it is dropped, and counted in a gap that stands
    /// in the queue where the message would have been. One that its sender tries again is counted once.
    pub fn push(&self, message: Arc<Message>) -> bool {
        let mut state = self.queue.state.lock();
        if state.closed {
            return false;
        }
        let bytes = state.bytes.saturating_add(message.size());
        let room = self.queue.room;
        let fits = state.waiting.len() < room.messages && (bytes <= room.bytes || state.bytes == 0);
        if fits {
            state.bytes = bytes;
            state.waiting.push_back(Received::Message(message));
        } else if state.is_new(message.multicast) {
            state.gap(1, GapReason::SlowConsumer);
        }
        drop(state);
        self.queue.filled.notify_one();
        fits
    }

    /// Says that messages are, or may be, missing from here on.
    pub fn gap(&self, dropped: u64, reason: GapReason) {
        self.queue.state.lock().gap(dropped, reason);
        self.queue.filled.notify_one();
    }

    /// Ends the listener once it has read what waits.
    pub fn close(&self) {
        self.queue.state.lock().closed = true;
        self.queue.filled.notify_one();
    }
}

impl fmt::Debug for ListenerSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerSink")
            .field("waiting", &self.queue.state.lock().waiting.len())
            .finish()
    }
}

/// The messages of one identity, from the moment `listen` returned until this is dropped.
pub struct Listener {
    queue: Arc<Queue>,
    _guard: Box<dyn Send + std::marker::Sync>,
}

impl Listener {
    /// The next thing received; `None` once the slot has closed it. Cancel safe.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            {
                let mut state = self.queue.state.lock();
                if let Some(received) = state.pop() {
                    return Some(received);
                }
                if state.closed {
                    return None;
                }
            }
            self.queue.filled.notified().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.closed = true;
        (state.waiting, state.bytes) = (VecDeque::new(), 0);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("waiting", &self.queue.state.lock().waiting.len())
            .finish()
    }
}

struct Queue {
    state: Mutex<State>,
    filled: Notify,
    room: Room,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Received>,
    /// How many bytes of messages wait.
    bytes: usize,
    /// The last messages that were dropped.
    dropped: VecDeque<MulticastId>,
    closed: bool,
}

impl State {
    fn pop(&mut self) -> Option<Received> {
        let received = self.waiting.pop_front()?;
        if let Received::Message(message) = &received {
            self.bytes -= message.size();
        }
        Some(received)
    }

    /// Whether this message has not been dropped before, as far as is remembered. From now on it has.
    fn is_new(&mut self, multicast: MulticastId) -> bool {
        if self.dropped.contains(&multicast) {
            return false;
        }
        if self.dropped.len() == REMEMBERED {
            self.dropped.pop_front();
        }
        self.dropped.push_back(multicast);
        true
    }

    /// Gaps that follow one another are one, which names the latest reason; so they add at most one
    /// entry to a full queue.
    fn gap(&mut self, dropped: u64, reason: GapReason) {
        if let Some(Received::Gap {
            dropped: before,
            reason: why,
        }) = self.waiting.back_mut()
        {
            *before += dropped;
            *why = reason;
        } else {
            self.waiting.push_back(Received::Gap { dropped, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MulticastId, Timestamp};

    fn room(messages: usize) -> Room {
        Room {
            messages,
            ..Room::default()
        }
    }

    fn message(number: u128) -> Arc<Message> {
        Arc::new(Message {
            published_at: Timestamp(0),
            ..Message::new(MulticastId(number), "")
        })
    }

    #[tokio::test]
    async fn overflow_is_counted_where_it_happened() {
        let (sink, mut listener) = listener(room(2), ());
        let kept: Vec<bool> = (0..5).map(|number| sink.push(message(number))).collect();
        assert_eq!(kept, [true, true, false, false, false]);
        assert_eq!(listener.next().await, Some(Received::Message(message(0))));
        assert_eq!(listener.next().await, Some(Received::Message(message(1))));
        assert!(
            sink.push(message(5)),
            "the gap leaves room for one of two messages"
        );
        sink.close();
        let gap = Received::Gap {
            dropped: 3,
            reason: GapReason::SlowConsumer,
        };
        assert_eq!(listener.next().await, Some(gap));
        assert_eq!(listener.next().await, Some(Received::Message(message(5))));
        assert_eq!(listener.next().await, None);
    }

    #[tokio::test]
    async fn large_messages_fill_it_sooner_and_one_always_fits() {
        let large = |number| {
            Arc::new(Message {
                published_at: Timestamp(0),
                ..Message::new(MulticastId(number), vec![0; 1_000])
            })
        };
        let room = Room {
            messages: 100,
            bytes: 2 * large(0).size() + message(0).size(),
        };
        let (sink, mut listener) = listener(room, ());
        let kept: Vec<bool> = (0..4).map(|number| sink.push(large(number))).collect();
        assert_eq!(kept, [true, true, false, false]);
        assert!(!sink.push(large(5)), "what has been taken out alone makes room");
        assert_eq!(listener.next().await, Some(Received::Message(large(0))));
        assert!(sink.push(large(6)));
        assert!(sink.push(message(7)), "a small one fits beside them");
        for _ in 0..4 {
            listener.next().await.unwrap();
        }
        let larger = Arc::new(Message::new(MulticastId(8), vec![0; 10_000]));
        assert!(sink.push(larger), "nothing else waits");
        assert!(!sink.push(message(9)));
    }

    #[tokio::test]
    async fn what_is_tried_again_is_counted_once() {
        let (sink, mut listener) = listener(room(1), ());
        assert!(sink.push(message(0)));
        for number in [1, 2, 1, 2, 2] {
            assert!(!sink.push(message(number)));
        }
        assert_eq!(listener.next().await, Some(Received::Message(message(0))));
        let gap = Received::Gap {
            dropped: 2,
            reason: GapReason::SlowConsumer,
        };
        assert_eq!(listener.next().await, Some(gap));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let (sink, mut listener) = listener(room(2), ());
        let reader = tokio::spawn(async move { listener.next().await });
        tokio::task::yield_now().await;
        sink.push(message(7));
        assert_eq!(reader.await.unwrap(), Some(Received::Message(message(7))));
    }

    #[tokio::test]
    async fn dropping_the_listener_drops_its_guard() {
        let guard = Arc::new(());
        let (sink, listener) = listener(room(2), guard.clone());
        assert_eq!(Arc::strong_count(&guard), 2);
        drop(listener);
        assert_eq!(Arc::strong_count(&guard), 1);
        assert!(!sink.push(message(0)));
    }
}
