//! Subscriptions.

use crate::Position;

/// Listens for the messages of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeRequest {
    /// The identity. It must be registered.
    pub identity: String,
    /// Of the registration to listen for. `None`: whichever is there now, and that one only.
    pub generation: Option<Position>,
    /// How many messages may be on their way, or wait here to be taken.
    pub credits: Credits,
    /// Of how many acknowledged messages it is remembered that they were, so that one which comes again
    /// nevertheless is acknowledged again and not handed out: 10,000. With 0 every redelivery is handed out.
    pub remember: usize,
}

impl Default for SubscribeRequest {
    fn default() -> Self {
        Self {
            identity: String::new(),
            generation: None,
            credits: Credits::default(),
            remember: Self::REMEMBER,
        }
    }
}

impl SubscribeRequest {
    /// Of how many acknowledged messages it is remembered that they were.
    pub(crate) const REMEMBER: usize = 10_000;
}

/// How many messages a session may be sent before they are taken. No more are held in memory.
///
/// The service waits for a message to be acknowledged from when it sends it, and sends it again after the
/// namespace's `ack_timeout`: allow no more than are worked on in that time. What is sent once and not stored waits
/// at the service while there is no credit, and is dropped, with a gap, where that becomes too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credits {
    /// This many; as they are taken, more come by themselves.
    Window(u32),
    /// This many, and then as many as [`Subscription::grant`](crate::Subscription::grant) says.
    Manual(u32),
}

impl Default for Credits {
    /// A window of 64.
    fn default() -> Self {
        Self::Window(64)
    }
}
