//! How a namespace behaves, apart from where its data lives.

use std::time::Duration;

use prism_core::config::{
    Error, Path, duration_text, format_duration, optional_duration_seconds, optional_size, size,
};
use prism_slot::Overflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::delivery::Delivery;

use super::{
    index::Index,
    rate::{Rate, RateText},
};

/// No call takes longer, whatever its caller allows: less than the data endpoint gives any call, so that
/// it is this end that says what became of it.
pub const MAX_CALL_TIMEOUT: Duration = Duration::from_secs(100);

/// The longest time for which messages, receipts and idempotency keys are kept.
const MAX_WINDOW: Duration = Duration::from_secs(366 * 86_400);

/// The longest time for which callers save up what they do not use.
const MAX_BURST: Duration = Duration::from_secs(3_600);

/// `behavior`: limits, defaults and retries of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Behavior {
    /// How many identities may be registered at a time.
    pub max_identities: u64,
    /// What the broker's topics begin with; the namespace and the identity follow.
    pub topic_prefix: String,
    /// How often a message that is known not to have been sent is tried again.
    pub retry_attempts: u32,
    /// The pause before the first of these retries, in milliseconds; it doubles each time and is
    /// jittered.
    pub retry_delay_ms: u64,
    /// The lease of a registration that asks for none, in seconds or as `5m`. Absent: no lease.
    #[serde(deserialize_with = "optional_duration_seconds", serialize_with = "as_text")]
    #[schemars(with = "Option<DurationText>")]
    pub ttl_default: Option<Duration>,
    /// The longest lease, in seconds or as `1h`. Where it is set, a registration must have a lease.
    #[serde(deserialize_with = "optional_duration_seconds", serialize_with = "as_text")]
    #[schemars(with = "Option<DurationText>")]
    pub ttl_max: Option<Duration>,
    /// What is done when a lease longer than `ttl_max`, or none, is asked for.
    pub on_long_ttl: LongTtl,
    /// How deeply a filter may nest.
    pub max_filter_depth: usize,
    /// How many clauses a filter may have.
    pub max_clauses: usize,
    /// How long the regular expressions of one filter may be together, in bytes or as `1KiB`. Reading them takes up to
    /// 60 µs a byte.
    #[serde(deserialize_with = "size")]
    #[schemars(with = "SizeText")]
    pub max_regex_bytes: usize,
    /// The largest metadata of one identity, in bytes of JSON or as `64KiB`.
    #[serde(deserialize_with = "size")]
    #[schemars(with = "SizeText")]
    pub max_metadata_bytes: usize,
    /// The largest payload of a multicast, in bytes or as `1MiB`. Absent: what the messaging slot takes.
    #[serde(deserialize_with = "optional_size")]
    #[schemars(with = "Option<SizeText>")]
    pub max_payload_bytes: Option<usize>,
    /// How many watches may be open in one runner.
    pub max_watchers: usize,
    /// How many filters may be watched in one runner that ask for no certain value of a field, so that every
    /// change is compared with each of them.
    pub max_watch_filters: usize,
    /// Whether this runner keeps an indexed view of all registrations, or asks the registry slot each time.
    pub view: ViewKind,
    /// How fresh reads are when the call does not say.
    pub consistency: ReadConsistency,
    /// What a consistent read does when the registry slot does not answer.
    pub on_store_loss: StoreLoss,
    /// How long past versions stay readable, so that the pages of one enumeration agree; in seconds or
    /// as `60s`.
    #[serde(
        deserialize_with = "prism_core::config::duration_seconds",
        serialize_with = "duration_text"
    )]
    #[schemars(with = "DurationText")]
    pub history_age: Duration,
    /// How many bytes of past versions are kept at most.
    #[serde(deserialize_with = "size")]
    #[schemars(with = "SizeText")]
    pub history_bytes: usize,
    /// How long a call may take that states no deadline, in seconds or as `5s`.
    #[serde(
        deserialize_with = "prism_core::config::duration_seconds",
        serialize_with = "duration_text"
    )]
    #[schemars(with = "DurationText")]
    pub call_timeout: Duration,
    /// What a new `identity_schema` does about registrations that violate it.
    pub on_schema_change: SchemaChange,
    /// How often one caller may register, renew, update, unregister and open sessions: calls as `100/s`, `30/m`,
    /// `5/h` or a number a second. Absent: as often as it likes.
    #[schemars(with = "Option<RateText>")]
    pub caller_writes: Option<Rate>,
    /// How often one caller may read, in calls like `caller_writes`.
    #[schemars(with = "Option<RateText>")]
    pub caller_reads: Option<Rate>,
    /// How often one caller may multicast, in calls like `caller_writes`.
    #[schemars(with = "Option<RateText>")]
    pub caller_multicasts: Option<Rate>,
    /// To how many targets one caller may multicast, all its multicasts together, like `1000/s`.
    #[schemars(with = "Option<RateText>")]
    pub caller_targets: Option<Rate>,
    /// For how long what a caller does not use of these is saved up, to be used at once later; in seconds or as
    /// `10s`. One multicast has at most as many targets as can be saved up.
    #[serde(
        deserialize_with = "prism_core::config::duration_seconds",
        serialize_with = "duration_text"
    )]
    #[schemars(with = "DurationText")]
    pub caller_burst: Duration,
    /// How sure delivery is when the call does not say. All but `at-most-once` need a durability slot.
    pub delivery: Semantics,
    /// How long a message waits in an inbox unless the call says less, in seconds or as `24h`; an inbox outlives the
    /// lease of its identity by no more.
    #[serde(
        deserialize_with = "prism_core::config::duration_seconds",
        serialize_with = "duration_text"
    )]
    #[schemars(with = "DurationText")]
    pub message_ttl: Duration,
    /// How many messages wait in the inbox of one identity.
    pub inbox_max_messages: u32,
    /// What happens to one more: it is refused (`reject`), or the oldest makes room (`drop_oldest`).
    pub inbox_overflow: Overflow,
    /// After how long a message that was handed out and not acknowledged is handed out again, in seconds or as `30s`.
    #[serde(
        deserialize_with = "prism_core::config::duration_seconds",
        serialize_with = "duration_text"
    )]
    #[schemars(with = "DurationText")]
    pub ack_timeout: Duration,
    /// How often a message is handed out before it becomes a dead letter.
    pub max_deliver: u32,
    /// How many messages are out with one session, unacknowledged, before it gets more.
    pub max_unacked: usize,
    /// How many dead letters are kept; the oldest make room.
    pub max_dead_letters: usize,
    /// For how long repetitions are noticed, in seconds or as `2m`: of a call with an idempotency key, and of a message
    /// to an identity.
    #[serde(
        deserialize_with = "prism_core::config::duration_seconds",
        serialize_with = "duration_text"
    )]
    #[schemars(with = "DurationText")]
    pub dedupe_window: Duration,
    /// For how long receipts can be read, in seconds or as `1h`; no less than `dedupe_window`.
    #[serde(
        deserialize_with = "prism_core::config::duration_seconds",
        serialize_with = "duration_text"
    )]
    #[schemars(with = "DurationText")]
    pub receipts_window: Duration,
    /// Which multicasts have their receipts in the ledger, where other runners find them and where they outlive this
    /// one: those that are stored or have an idempotency key (`stored`), or `all`. Those of the others are in memory.
    pub keep_receipts: KeepReceipts,
    /// How much memory the receipts of one runner take, in bytes or as `64MiB`; the oldest make room.
    #[serde(deserialize_with = "size")]
    #[schemars(with = "SizeText")]
    pub receipts_memory: usize,
    /// How many targets, of all multicasts of one runner, wait to be sent to before further multicasts are refused: those
    /// of multicasts that are stored, and again those of all others.
    pub max_targets_in_flight: usize,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            max_identities: 10_000,
            topic_prefix: "prism.multicast".to_owned(),
            retry_attempts: 3,
            retry_delay_ms: 100,
            ttl_default: None,
            ttl_max: None,
            on_long_ttl: LongTtl::Refuse,
            max_filter_depth: 5,
            max_clauses: 20,
            max_regex_bytes: 256,
            max_metadata_bytes: 64 << 10,
            max_payload_bytes: None,
            max_watchers: 20_000,
            max_watch_filters: 1_000,
            view: ViewKind::Index,
            consistency: ReadConsistency::Consistent,
            on_store_loss: StoreLoss::Fail,
            history_age: Duration::from_secs(60),
            history_bytes: 64 << 20,
            call_timeout: Duration::from_secs(5),
            on_schema_change: SchemaChange::Lazy,
            caller_writes: None,
            caller_reads: None,
            caller_multicasts: None,
            caller_targets: None,
            caller_burst: Duration::from_secs(1),
            delivery: Semantics::AtMostOnce,
            message_ttl: Duration::from_secs(86_400),
            inbox_max_messages: 1_000,
            inbox_overflow: Overflow::Reject,
            ack_timeout: Duration::from_secs(30),
            max_deliver: 10,
            max_unacked: 256,
            max_dead_letters: 10_000,
            dedupe_window: Duration::from_secs(120),
            receipts_window: Duration::from_secs(3_600),
            keep_receipts: KeepReceipts::Stored,
            receipts_memory: 64 << 20,
            max_targets_in_flight: 1_000_000,
        }
    }
}

/// What reads of many registrations are answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ViewKind {
    /// An indexed view in the runner's memory.
    Index,
    /// The registry slot: it selects by the filter where it can, and sends all registrations where it cannot. For
    /// namespaces that are too large for memory.
    None,
}

/// How sure delivery is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Semantics {
    /// Sent once.
    #[default]
    AtMostOnce,
    /// Stored, and handed out again until it is acknowledged.
    AtLeastOnce,
    /// The same under an idempotency key, with duplicates suppressed within `dedupe_window`.
    ExactlyOnce,
}

impl From<Semantics> for Delivery {
    fn from(semantics: Semantics) -> Self {
        match semantics {
            Semantics::AtMostOnce => Self::AtMostOnce,
            Semantics::AtLeastOnce => Self::AtLeastOnce,
            Semantics::ExactlyOnce => Self::ExactlyOnce,
        }
    }
}

/// Which multicasts have their receipts in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeepReceipts {
    /// Those that are stored or have an idempotency key.
    Stored,
    /// All.
    All,
}

/// How fresh a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReadConsistency {
    /// Reflects every write that was acknowledged before the call.
    Consistent,
    /// At once from the view, saying how old that is.
    Stale,
}

/// What a consistent read does when the registry slot does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreLoss {
    /// It fails.
    Fail,
    /// It answers from the view, saying how old that is.
    Stale,
}

/// What is done when a lease that is too long is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LongTtl {
    /// It is refused.
    Refuse,
    /// The longest one that is possible is granted.
    Clamp,
}

/// What a new schema does about registrations that violate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchemaChange {
    /// They stay as they are until they are written again; how many there are is logged and counted.
    Lazy,
    /// The configuration is refused, and the one before goes on.
    Refuse,
}

/// Behaviour that the other dialect writes beside a slot's backend.
#[derive(Debug, Default)]
pub(super) struct FromSlots {
    pub(super) ttl_default: Option<(Path, Duration)>,
    pub(super) topic_prefix: Option<(Path, String)>,
    pub(super) delivery: Option<(Path, Semantics)>,
    pub(super) indexes: Option<(Path, Vec<Index>)>,
}

impl Behavior {
    /// Takes over what was written at the slots. It wins over `behavior`, being more specific.
    pub(super) fn take(&mut self, from_slots: &FromSlots) -> Result<(), Error> {
        if let Some((_, ttl)) = &from_slots.ttl_default {
            self.ttl_default = Some(*ttl);
        }
        if let Some((path, prefix)) = &from_slots.topic_prefix {
            check_prefix(prefix).map_err(|message| Error::new(path.clone(), message))?;
            self.topic_prefix.clone_from(prefix);
        }
        if let Some((_, delivery)) = &from_slots.delivery {
            self.delivery = *delivery;
        }
        Ok(())
    }

    pub(super) fn check(&mut self) -> Result<(), Error> {
        check_prefix(&self.topic_prefix).map_err(|message| fault("topic_prefix", message))?;
        while self.topic_prefix.ends_with('.') {
            self.topic_prefix.pop();
        }
        self.check_view()?;
        self.check_leases()?;
        self.check_times()?;
        self.check_counts()
    }

    /// What would mean nothing without a view is refused.
    fn check_view(&self) -> Result<(), Error> {
        if self.view != ViewKind::None {
            return Ok(());
        }
        if self.on_schema_change == SchemaChange::Refuse {
            let message = "`refuse` checks what is registered in a view, and `view: none` keeps none";
            return Err(fault("on_schema_change", message.to_owned()));
        }
        if self.on_store_loss == StoreLoss::Stale {
            let message = "`stale` answers from a view, and `view: none` keeps none";
            return Err(fault("on_store_loss", message.to_owned()));
        }
        Ok(())
    }

    fn check_leases(&self) -> Result<(), Error> {
        if let (Some(default), Some(max)) = (self.ttl_default, self.ttl_max)
            && default > max
            && self.on_long_ttl == LongTtl::Refuse
        {
            let message = format!("{default:?} is longer than `ttl_max`, which is {max:?}");
            return Err(fault("ttl_default", message));
        }
        for (key, ttl) in [("ttl_default", self.ttl_default), ("ttl_max", self.ttl_max)] {
            if ttl.is_some_and(|ttl| ttl < SHORTEST) {
                let message = "a lease has at least `1ms`; for none, leave the key out";
                return Err(fault(key, message.to_owned()));
            }
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), Error> {
        for (key, given, most) in [
            ("call_timeout", self.call_timeout, MAX_CALL_TIMEOUT),
            ("caller_burst", self.caller_burst, MAX_BURST),
            ("message_ttl", self.message_ttl, MAX_WINDOW),
            ("ack_timeout", self.ack_timeout, MAX_WINDOW),
            ("dedupe_window", self.dedupe_window, MAX_WINDOW),
            ("receipts_window", self.receipts_window, MAX_WINDOW),
        ] {
            if !(SHORTEST..=most).contains(&given) {
                let (given, most) = (format_duration(given), format_duration(most));
                let message = format!("`{given}` is out of range, from `1ms` to `{most}` is possible");
                return Err(fault(key, message));
            }
        }
        if self.receipts_window < self.dedupe_window {
            let window = format_duration(self.dedupe_window);
            let message = format!(
                "a repeated call gets the receipts of the first one, so they are kept for `dedupe_window`, `{window}`, \
                 at least"
            );
            return Err(fault("receipts_window", message));
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), Error> {
        let bounds = [
            ("max_identities", self.max_identities, 1, u64::MAX),
            ("retry_attempts", self.retry_attempts.into(), 0, 100),
            ("retry_delay_ms", self.retry_delay_ms, 0, 60_000),
            ("max_filter_depth", self.max_filter_depth as u64, 1, 64),
            ("max_clauses", self.max_clauses as u64, 1, 10_000),
            ("max_watchers", self.max_watchers as u64, 0, 1_000_000),
            ("max_watch_filters", self.max_watch_filters as u64, 0, 100_000),
            ("max_regex_bytes", self.max_regex_bytes as u64, 1, 4 << 10),
            ("max_metadata_bytes", self.max_metadata_bytes as u64, 2, 16 << 20),
            ("inbox_max_messages", self.inbox_max_messages.into(), 1, 1_000_000),
            ("max_deliver", self.max_deliver.into(), 1, 1_000_000),
            ("max_unacked", self.max_unacked as u64, 1, 100_000),
            ("max_dead_letters", self.max_dead_letters as u64, 1, 10_000_000),
            (
                "max_targets_in_flight",
                self.max_targets_in_flight as u64,
                1,
                100_000_000,
            ),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                let message = format!("`{value}` is out of range, from `{least}` to `{most}` is possible");
                return Err(fault(key, message));
            }
        }
        Ok(())
    }
}

/// The shortest time that a key can name, where none is not possible.
const SHORTEST: Duration = Duration::from_millis(1);

fn fault(key: &str, message: String) -> Error {
    Error::new(Path::root().key(key), message)
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    let bare = prefix.trim_end_matches('.');
    let fine = |token: &str| {
        !token.is_empty()
            && token
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if bare.len() > 128 || !bare.split('.').all(fine) {
        return Err(format!(
            "`{prefix}` is no topic prefix, use words of `a-z A-Z 0-9 - _` joined by single dots"
        ));
    }
    Ok(())
}

/// A duration: `500ms`, `5s`, `1m`, `2h`, `7d`, or a number of the key's unit.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)] // the schema is what it is for
enum DurationText {
    Number(f64),
    Text(String),
}

/// A size: `512`, `64KiB`, `4MiB`, or a number of bytes.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)] // the schema is what it is for
enum SizeText {
    Bytes(u64),
    Text(String),
}

fn as_text<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => duration_text(duration, serializer),
        None => serializer.serialize_none(),
    }
}
