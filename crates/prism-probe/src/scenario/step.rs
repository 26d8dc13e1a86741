//! What a step can be.

use std::{collections::BTreeMap, time::Duration};

use prism_core::config::{one_or_many, optional_duration_ms, optional_duration_seconds};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::multicast::{Delivery, Stage};

/// Registers an identity.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Register {
    pub(crate) identity: String,
    #[serde(default)]
    pub(crate) metadata: Map<String, Value>,
    /// A bare number counts seconds; 0 is no lease.
    #[serde(default, deserialize_with = "optional_duration_seconds")]
    pub(crate) ttl: Option<Duration>,
    #[serde(default)]
    pub(crate) replace: bool,
}

/// Changes metadata by a merge patch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Update {
    pub(crate) identity: String,
    pub(crate) patch: Map<String, Value>,
}

/// Reads or removes one identity.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct One {
    pub(crate) identity: String,
}

/// Renews leases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Renew {
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) identities: Vec<String>,
}

/// Lists the identities that match.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Enumerate {
    pub(crate) filter: Option<Value>,
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) sort: Vec<String>,
    pub(crate) limit: Option<u32>,
}

/// Multicasts to the identities that match.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    #[serde(default)]
    pub(crate) filter: Option<Value>,
    pub(crate) payload: String,
    #[serde(default)]
    pub(crate) content_type: Option<String>,
    #[serde(default, deserialize_with = "optional_duration_ms")]
    pub(crate) timeout: Option<Duration>,
    /// What the delivery must survive; without it, as the namespace is configured.
    #[serde(default)]
    pub(crate) delivery: Option<Delivery>,
    /// From which stage on a target has got it, which is waited for.
    #[serde(default)]
    pub(crate) require: Option<Stage>,
    #[serde(default)]
    pub(crate) idempotency_key: Option<String>,
    /// After how long it is of no more use.
    #[serde(default, deserialize_with = "optional_duration_ms")]
    pub(crate) expires: Option<Duration>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// What other steps call it.
    #[serde(default, rename = "as")]
    pub(crate) name: Option<String>,
}

/// Reads what became of a multicast, or stops what of it has not been handed over.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    /// The multicast, as the step that published it calls it.
    pub(crate) of: String,
}

/// Lists messages that could not be delivered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadLetters {
    /// To whom; without it, to anybody.
    #[serde(default)]
    pub(crate) identity: Option<String>,
}

/// Puts dead letters back: those to an identity, or all.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redrive {
    #[serde(default)]
    pub(crate) identity: Option<String>,
    #[serde(default)]
    pub(crate) all: bool,
}

/// Opens a session in the background, which goes on until the end or until it is closed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subscribe {
    pub(crate) identity: String,
    /// What other steps call it; without it, by its identity.
    #[serde(default, rename = "as")]
    pub(crate) name: Option<String>,
}

impl Subscribe {
    pub(crate) fn name(&self) -> &str {
        self.name.as_ref().unwrap_or(&self.identity)
    }
}

/// Waits until a session has received messages that no step before has asked for, and says what is to become of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Receive {
    pub(crate) by: String,
    /// These, in this order.
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) payload: Vec<String>,
    /// So many, whatever they are.
    #[serde(default)]
    pub(crate) count: Option<usize>,
    #[serde(default, deserialize_with = "optional_duration_ms")]
    pub(crate) within: Option<Duration>,
    /// Whether they are acknowledged, as they are where nothing else is said.
    #[serde(default)]
    pub(crate) ack: Option<bool>,
    /// They are to come again, after this time.
    #[serde(default, deserialize_with = "optional_duration_ms")]
    pub(crate) nack: Option<Duration>,
    /// They are to become dead letters, with this reason.
    #[serde(default)]
    pub(crate) term: Option<String>,
}

/// What a session says about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word<'a> {
    Ack,
    Nack(Duration),
    Term(&'a str),
}

impl Receive {
    /// What is said about each message, if anything is.
    pub(crate) fn word(&self) -> Option<Word<'_>> {
        match (self.nack, &self.term) {
            (Some(delay), _) => Some(Word::Nack(delay)),
            (None, Some(reason)) => Some(Word::Term(reason)),
            (None, None) => self.ack.unwrap_or(true).then_some(Word::Ack),
        }
    }

    /// Whether more than one thing is to be said about each message.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let said = [self.ack.is_some(), self.nack.is_some(), self.term.is_some()];
        said.into_iter().filter(|said| *said).count() > 1
    }
}

/// A session receives nothing for a while.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Silence {
    pub(crate) by: String,
    #[serde(rename = "for", deserialize_with = "prism_core::config::duration_ms")]
    pub(crate) length: Duration,
}

/// Ends a session.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Close {
    pub(crate) session: String,
}

/// What is to come of a registration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Registered {
    pub(crate) outcome: Option<String>,
    pub(crate) error: Option<String>,
}

/// What is to come of reading or changing one identity.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Found {
    /// These fields, and perhaps others.
    pub(crate) metadata: Map<String, Value>,
    pub(crate) error: Option<String>,
}

/// What is to come of a renewal.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Renewed {
    pub(crate) renewed: Option<u64>,
    /// Why an identity is not renewed.
    pub(crate) reasons: BTreeMap<String, String>,
    pub(crate) error: Option<String>,
}

/// What is to come of a removal.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Removed {
    pub(crate) existed: Option<bool>,
    pub(crate) error: Option<String>,
}

/// What is to come of an enumeration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listed {
    /// On all pages.
    pub(crate) count: Option<u64>,
    /// On this one; in this order where the step sorts.
    pub(crate) identities: Option<Vec<String>>,
    pub(crate) error: Option<String>,
}

/// What is to come of a multicast, at once or later.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Published {
    pub(crate) targets: Option<u64>,
    pub(crate) delivered: Option<u64>,
    pub(crate) failed: Option<u64>,
    pub(crate) pending: Option<u64>,
    pub(crate) timeout: Option<u64>,
    /// The targets.
    pub(crate) identities: Option<Vec<String>>,
    pub(crate) statuses: BTreeMap<String, String>,
    pub(crate) reasons: BTreeMap<String, String>,
    /// How many targets there are of each reason.
    pub(crate) reason_counts: Option<BTreeMap<String, u64>>,
    pub(crate) state: Option<String>,
    /// Whether it is the outcome of an earlier call with the same key.
    pub(crate) replayed: Option<bool>,
    pub(crate) error: Option<String>,
}

/// What is to come of a list of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Dead {
    /// How many there are, of which 1,000 are looked at.
    pub(crate) count: Option<u64>,
    /// Their contents, in no particular order.
    pub(crate) payloads: Option<Vec<String>>,
    /// How many there are of each reason.
    pub(crate) reason_counts: Option<BTreeMap<String, u64>>,
    pub(crate) error: Option<String>,
}

/// What is to come of putting dead letters back.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Redriven {
    pub(crate) redriven: Option<u64>,
    pub(crate) full: Option<u64>,
    pub(crate) gone: Option<u64>,
    pub(crate) error: Option<String>,
}

/// What is to come of opening a session.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Opened {
    pub(crate) error: Option<String>,
}
