//! The place at which notes between runners arrive.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Identity, MulticastId};

/// What arrives at a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A note from another runner; what it says is not the slot's business.
    Note(Bytes),
    /// One to all posts of the namespace. Its sender needed to know no secret.
    NoteToAll(Bytes),
    /// A consumer that listens at the broker itself has answered to a message.
    Answer {
        /// The message.
        multicast: MulticastId,
        /// Whom it was for.
        identity: Identity,
        /// The answer; empty where it only says that the message arrived.
        body: Bytes,
    },
}

/// A connected pair: what a backend fills and what a runner reads, of at most `capacity` arrivals.
///
/// `guard` is whatever the backend must undo when the post goes; it is dropped with the post.
pub fn post(
    address: impl Into<Arc<str>>,
    capacity: usize,
    guard: impl Send + std::marker::Sync + 'static,
) -> (PostSink, Post) {
    let (sender, arrivals) = mpsc::channel(capacity);
    let lost = Arc::new(AtomicU64::new(0));
    let sink = PostSink {
        sender,
        lost: lost.clone(),
    };
    let post = Post {
        address: address.into(),
        arrivals,
        lost,
        _guard: Box::new(guard),
    };
    (sink, post)
}

/// The filling end of a [`post`]. Clones fill the same one.
#[derive(Debug, Clone)]
pub struct PostSink {
    sender: mpsc::Sender<Arrival>,
    lost: Arc<AtomicU64>,
}

impl PostSink {
    /// Hands over what arrived. False when there was no room, which is counted, or nobody reads any more.
    pub fn push(&self, arrival: Arrival) -> bool {
        match self.sender.try_send(arrival) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.lost(1);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Counts what is known not to have arrived.
    pub fn lost(&self, notes: u64) {
        self.lost.fetch_add(notes, Ordering::Relaxed);
    }
}

/// Where notes arrive, until it is dropped.
pub struct Post {
    address: Arc<str>,
    arrivals: mpsc::Receiver<Arrival>,
    lost: Arc<AtomicU64>,
    _guard: Box<dyn Send + std::marker::Sync>,
}

impl Post {
    /// How others reach it.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// What arrives next; `None` once the slot is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// How many notes there was no room for, or that the broker dropped.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address is a secret of the runners.
        f.debug_struct("Post")
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_counted() {
        let (sink, mut post) = post("here", 2, ());
        let note = |text: &'static str| Arrival::Note(Bytes::from_static(text.as_bytes()));
        let kept: Vec<bool> = ["a", "b", "c"].map(|text| sink.push(note(text))).into();
        assert_eq!(kept, [true, true, false]);
        assert_eq!(
            (post.next().await, post.next().await),
            (Some(note("a")), Some(note("b")))
        );
        assert_eq!(post.lost(), 1);
        drop(sink);
        assert_eq!(post.next().await, None);
    }

    #[test]
    fn a_post_takes_what_is_to_be_undone_with_it() {
        let guard = Arc::new(());
        let (sink, post) = post("here", 1, guard.clone());
        drop(post);
        assert_eq!(Arc::strong_count(&guard), 1);
        assert!(!sink.push(Arrival::Note(Bytes::new())));
    }
}
