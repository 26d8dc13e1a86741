//! The first argument of every function.

use bytes::{BufMut, Bytes};
use prism_slot::Epoch;

use super::LARGEST;
use crate::config::Config;

/// What is the same in every call of one slot: the limits of the feed, and the namespace.
#[derive(Debug)]
pub(crate) struct Common(Bytes);

impl Common {
    pub(crate) fn new(namespace: &str, config: &Config) -> Self {
        let mut bytes = Vec::with_capacity(24 + namespace.len());
        bytes.put_u64(config.feed_max_changes);
        bytes.put_u64(config.feed_max_bytes as u64);
        bytes.put_u64(u64::try_from(config.feed_max_age.as_millis()).unwrap_or(LARGEST));
        bytes.put_slice(namespace.as_bytes());
        Self(bytes.into())
    }

    /// For one call: with the epoch that it expects, and what a new one is made of, should the call
    /// find that history was lost. Redis has no randomness of its own to offer.
    pub(crate) fn bytes(&self, expected: Option<Epoch>) -> Bytes {
        let mut bytes = Vec::with_capacity(32 + self.0.len());
        bytes.put_u64(expected.map_or(0, |epoch| epoch.0));
        bytes.put_u64(Epoch::random().0);
        bytes.put_slice(&rand::random::<[u8; 16]>());
        bytes.put_slice(&self.0);
        bytes.into()
    }
}
