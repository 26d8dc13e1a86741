//! What callers were told, what consumers logged, and what the broker had.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Instant,
};

use prism_client::{DeliverySemantics, DeliveryStatus, Stage, Status};

/// A message of one multicast to one identity.
pub(super) type Place = (String, String);

/// One multicast as its caller made it, and everything that was said of it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// What its payload says, and that of no other one.
    pub(super) number: u64,
    pub(super) delivery: DeliverySemantics,
    /// Whether calls with the same number had the same idempotency key, so that they are one multicast.
    pub(super) keyed: bool,
    pub(super) answers: Vec<Answer>,
}

/// What was said of a multicast at one time: the answer of the call, or its receipts later.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) multicast: String,
    pub(super) heard: Instant,
    /// As the answer counts them; receipts that are read page by page count themselves.
    pub(super) totals: Option<Totals>,
    pub(super) told: Vec<DeliveryStatus>,
}

/// How an answer counts its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) targets: u64,
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) pending: u64,
    pub(super) timeout: u64,
}

impl Totals {
    pub(super) fn of(told: &[DeliveryStatus]) -> Self {
        let mut totals = Self::default();
        for target in told {
            totals.targets += 1;
            *match target.status {
                Status::Delivered => &mut totals.delivered,
                Status::Failed => &mut totals.failed,
                Status::Pending => &mut totals.pending,
                Status::Timeout => &mut totals.timeout,
            } += 1;
        }
        totals
    }
}

/// How a consumer deals with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It acknowledges at once, behind a client that suppresses what it has acknowledged.
    Prompt,
    /// It acknowledges at once, and the client hands out everything that comes.
    Raw,
    /// It sees everything too, and forgets or refuses some messages at first.
    Careless,
}

/// What one consumer got, in order.
#[derive(Debug, Clone)]
pub(super) struct Diary {
    pub(super) manner: Manner,
    pub(super) entries: Vec<Entry>,
    /// How many messages its client kept back.
    pub(super) suppressed: u64,
    /// When it was told that messages may be missing, because its session was lost.
    pub(super) gaps: Vec<Instant>,
}

/// One message as it came to a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) multicast: String,
    pub(super) attempt: u32,
    /// When the consumer was about to acknowledge it, if it was.
    pub(super) acked: Option<Instant>,
}

/// What the broker had, by its own account.
#[derive(Debug, Clone, Default)]
pub(super) struct Tap {
    /// What it was given.
    pub(super) seen: HashSet<Place>,
    /// What it handed to somebody who listened, or stored.
    pub(super) taken: HashSet<Place>,
    /// What it stored a second time, as something new.
    pub(super) stored_twice: HashSet<Place>,
}

/// Everything about a run.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) calls: Vec<Call>,
    pub(super) diaries: BTreeMap<String, Diary>,
    pub(super) tap: Tap,
}

/// Everything that consumers logged, by identity and multicast.
pub(super) struct Log<'a>(HashMap<&'a str, HashMap<&'a str, Vec<&'a Entry>>>);

impl<'a> Log<'a> {
    pub(super) fn of(diaries: &'a BTreeMap<String, Diary>) -> Self {
        let mut log: HashMap<_, HashMap<_, Vec<_>>> = HashMap::new();
        for (identity, diary) in diaries {
            let came = log.entry(identity.as_str()).or_default();
            for entry in &diary.entries {
                came.entry(entry.multicast.as_str()).or_default().push(entry);
            }
        }
        Self(log)
    }

    /// What came of one multicast to one identity, in order.
    pub(super) fn entries(&self, multicast: &str, identity: &str) -> &[&'a Entry] {
        let came = self.0.get(identity).and_then(|came| came.get(multicast));
        came.map_or(&[], Vec::as_slice)
    }

    /// Whether somebody who was told this has to expect more: the message is still to come, or to be acknowledged.
    fn owes(&self, call: &Call, multicast: &str, told: &DeliveryStatus) -> bool {
        let entries = self.entries(multicast, &told.identity);
        let is_kept = call.delivery != DeliverySemantics::AtMostOnce
            && matches!(told.status, Status::Pending | Status::Delivered);
        match is_kept {
            true => entries.iter().all(|entry| entry.acked.is_none()),
            false => told.stage >= Stage::Handed && entries.is_empty(),
        }
    }
}

/// Which calls have messages that are still to come to their consumers, by what was told last.
pub(super) fn outstanding(calls: &[Call], diaries: &BTreeMap<String, Diary>) -> HashSet<u64> {
    let log = Log::of(diaries);
    let owed = |call: &&Call| {
        let last = call.answers.last();
        last.is_some_and(|answer| {
            let mut told = answer.told.iter();
            told.any(|told| log.owes(call, &answer.multicast, told))
        })
    };
    calls.iter().filter(owed).map(|call| call.number).collect()
}
