//! Streams: made where they are missing, and kept as they are wanted.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prism_slot::{Error, InboxLimits, Overflow, Result, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use crate::{
    error::{misconfigured, timeout},
    jetstream::{
        Storage,
        api::{Failure, code},
        client::JetStream,
        layout::{Kind, Layout},
        time,
    },
};

/// How often to look again when somebody else makes the same stream.
const ATTEMPTS: usize = 5;
/// The shortest time for which a server notices what it was given before.
const MIN_DEDUPE_NANOS: u128 = 100_000_000;
/// The number of no connection.
const NEVER: u64 = u64::MAX;
/// How many messages each priority of an inbox has at most.
const MOST: &str = "max_msgs_per_subject";

/// One stream as this slot wants it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    wanted: Mutex<Map<String, Value>>,
    /// When it was made, by which it is told from one that was there before; 0 where it is not there.
    generation: AtomicU64,
    /// Over which connection that was asked.
    asked_over: AtomicU64,
    /// How many messages each subject is to have at most, where that is less than the server was told; 0 for as it was told.
    lower: AtomicU64,
    making: tokio::sync::Mutex<()>,
}

/// What a server says of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct Info {
    config: Map<String, Value>,
    created: String,
    pub(crate) state: State,
    /// How many subjects there are beyond those in this answer's state.
    #[serde(default)]
    pub(crate) total: u64,
}

/// What is in a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    pub(crate) messages: u64,
    #[serde(default)]
    pub(crate) subjects: std::collections::BTreeMap<String, u64>,
}

impl Info {
    /// When the stream was made.
    fn generation(&self) -> u64 {
        time::parse_nanos(&self.created).unwrap_or(1)
    }
}

impl Stream {
    pub(crate) fn new(layout: &Layout, kind: Kind, wanted: Map<String, Value>) -> Self {
        Self {
            kind,
            name: layout.stream(kind),
            wanted: Mutex::new(wanted),
            generation: AtomicU64::new(0),
            asked_over: AtomicU64::new(NEVER),
            lower: AtomicU64::new(0),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// Says that it is not there any more, so that the next call makes it again.
    pub(crate) fn is_gone(&self) {
        self.generation.store(0, Ordering::Release);
    }

    /// Says that it may be another one than it was, so that the next call asks.
    pub(crate) fn is_doubtful(&self) {
        self.asked_over.store(NEVER, Ordering::Release);
    }

    /// How many messages a subject may have before a store, where the server does not see to that.
    pub(crate) fn lower_limit(&self) -> Option<u64> {
        Some(self.lower.load(Ordering::Acquire)).filter(|most| *most > 0)
    }

    /// When it was made. That is asked once over each connection: those behind it may have lost it, and another runner have
    /// made it again. It is made if it is missing, and changed where it is not as it is wanted, unless it was so before.
    pub(crate) async fn ready(&self, jetstream: &JetStream, deadline: Instant) -> Result<u64> {
        if let Some(known) = self.known(jetstream.connection()) {
            return Ok(known);
        }
        // Whoever makes it may have more time than this call.
        let making = timeout_at(deadline, self.making.lock()).await;
        let _making = making.map_err(|_| timeout())?;
        if let Some(known) = self.known(jetstream.connection()) {
            return Ok(known);
        }
        let is_new = self.generation.load(Ordering::Acquire) == 0;
        self.make(jetstream, is_new, deadline).await
    }

    fn known(&self, connection: u64) -> Option<u64> {
        let is_sure = self.asked_over.load(Ordering::Acquire) == connection;
        Some(self.generation.load(Ordering::Acquire)).filter(|known| is_sure && *known != 0)
    }

    /// Notes what a server says of it.
    pub(crate) fn is_told_of(&self, info: &Info) {
        let known = self.generation.load(Ordering::Acquire);
        if known != 0 && known != info.generation() {
            self.is_doubtful();
        }
    }

    /// Has it as it is wanted from now on.
    pub(crate) async fn configure(
        &self,
        jetstream: &JetStream,
        wanted: Map<String, Value>,
        deadline: Instant,
    ) -> Result<()> {
        *self.wanted.lock() = wanted;
        let _making = self.making.lock().await;
        self.make(jetstream, true, deadline).await.map(drop)
    }

    async fn make(&self, jetstream: &JetStream, adapts: bool, deadline: Instant) -> Result<u64> {
        for _ in 0..ATTEMPTS {
            let connection = jetstream.connection();
            let info = match jetstream.info(self, &json!({}), deadline).await {
                Ok(info) if !adapts => info,
                Ok(info) => self.adapt(jetstream, info, deadline).await?,
                Err(Failure::Refused(refusal)) if refusal.code == code::NO_STREAM => {
                    self.lower.store(0, Ordering::Release);
                    match self.ask(jetstream, "CREATE", &self.at_first(), deadline).await {
                        // Somebody else was first: it is looked at again.
                        Err(Failure::Refused(refusal)) if refusal.code == code::NAME_IN_USE => continue,
                        made => self.explained(made)?,
                    }
                }
                Err(failure) => return self.explained(Err(failure)),
            };
            self.generation.store(info.generation(), Ordering::Release);
            self.asked_over.store(connection, Ordering::Release);
            return Ok(info.generation());
        }
        Err(misconfigured(format!(
            "the stream `{}` is being made and removed again and again",
            self.name
        )))
    }

    /// Changes what is not as it is wanted. What others have set besides stays.
    async fn adapt(&self, jetstream: &JetStream, info: Info, deadline: Instant) -> Result<Info> {
        let mut wanted = self.wanted();
        self.spare(jetstream, &info, &mut wanted, deadline).await;
        let is_set = |(key, value): (&String, &Value)| {
            // What is left out of an answer is off.
            info.config
                .get(key)
                .map_or(*value == json!(false), |found| found == value)
        };
        if wanted.iter().all(is_set) {
            return Ok(info);
        }
        if info.config.get("storage") != wanted.get("storage") {
            return Err(misconfigured(format!(
                "the stream `{}` has another `storage`, which cannot be changed; keep to it, or delete the stream",
                self.name
            )));
        }
        let mut config = info.config;
        config.extend(wanted);
        let changed = self.ask(jetstream, "UPDATE", &config, deadline).await;
        self.explained(changed)
    }

    /// Leaves the limit as it is where the server would remove messages: it does that at once when it is told a lower one.
    async fn spare(
        &self,
        jetstream: &JetStream,
        info: &Info,
        wanted: &mut Map<String, Value>,
        deadline: Instant,
    ) {
        let limit = |config: &Map<String, Value>| {
            let most = config.get(MOST).and_then(Value::as_u64);
            // Less than none is no limit.
            most.unwrap_or(u64::from(u32::MAX))
        };
        let (has, wants) = (limit(&info.config), limit(wanted));
        let keeps = self.kind == Kind::Messages
            && wants < has
            && !self.is_roomy(jetstream, info, wants, deadline).await;
        if keeps {
            wanted.insert(MOST.to_owned(), json!(has));
        }
        self.lower.store(if keeps { wants } else { 0 }, Ordering::Release);
    }

    /// Whether no subject has more than half of what it may have: the other half is for what is stored by others until the
    /// server is told.
    async fn is_roomy(&self, jetstream: &JetStream, info: &Info, most: u64, deadline: Instant) -> bool {
        if info.state.messages <= most / 2 {
            return true;
        }
        let all = json!({ "subjects_filter": jetstream.layout.all(self.kind) });
        let counted = jetstream.info(self, &all, deadline).await;
        counted.is_ok_and(|info| {
            // Those that are too many for one answer are not looked at.
            let is_all = info.total <= info.state.subjects.len() as u64;
            is_all && info.state.subjects.values().all(|count| *count <= most / 2)
        })
    }

    async fn ask(
        &self,
        jetstream: &JetStream,
        what: &str,
        config: &Map<String, Value>,
        deadline: Instant,
    ) -> Result<Info, Failure> {
        let subject = format!("$JS.API.STREAM.{what}.{}", self.name);
        jetstream.call(subject, config, deadline).await
    }

    fn wanted(&self) -> Map<String, Value> {
        self.wanted.lock().clone()
    }

    /// As it is made. A ledger's versions are sequences, and those of one that was lost must not be given again: it
    /// begins with the microsecond, which is later than whatever an earlier one has counted to.
    fn at_first(&self) -> Map<String, Value> {
        let mut config = self.wanted();
        if self.kind == Kind::Ledger {
            let micros = Timestamp::now().0 * 1_000;
            config.insert("first_seq".to_owned(), json!(micros));
        }
        config
    }

    fn explained<T>(&self, answer: Result<T, Failure>) -> Result<T> {
        answer.map_err(|failure| match failure {
            Failure::Refused(refusal) if refusal.code == code::NOT_ENABLED => not_enabled(),
            Failure::Nobody => not_enabled(),
            Failure::Refused(refusal) if !refusal.is_for_now() => misconfigured(format!(
                "JetStream does not make the stream `{}`: {}",
                self.name, refusal.description
            )),
            other => other.into(),
        })
    }
}

fn not_enabled() -> Error {
    misconfigured(
        "JetStream is not enabled; start nats-server with `-js` or `jetstream {}` in its configuration",
    )
}

/// What is asked of every stream.
fn common(layout: &Layout, kind: Kind, storage: Storage, replicas: usize) -> Map<String, Value> {
    let wanted = json!({
        "name": layout.stream(kind),
        "description": "Prism Multicast Registry",
        "subjects": [layout.all(kind)],
        "retention": "limits",
        "storage": storage,
        "num_replicas": replicas,
        "discard": "old",
        "discard_new_per_subject": false,
        // With replicas a direct answer may come from one that lags. Where that is asked for many at once, which only
        // direct questions can, what is missing is asked of the leader.
        "allow_direct": replicas == 1 || matches!(kind, Kind::Messages | Kind::Dead),
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        MOST: -1,
    });
    as_map(wanted)
}

fn as_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The stream of messages under these limits.
pub(crate) fn messages(
    layout: &Layout,
    storage: Storage,
    replicas: usize,
    limits: &InboxLimits,
) -> Map<String, Value> {
    let is_rejecting = limits.overflow == Overflow::Reject;
    let dedupe = limits.dedupe.as_nanos().max(MIN_DEDUPE_NANOS);
    let mut wanted = common(layout, Kind::Messages, storage, replicas);
    wanted.extend(as_map(json!({
        "discard": if is_rejecting { "new" } else { "old" },
        "discard_new_per_subject": is_rejecting,
        MOST: limits.max_messages.max(1),
        "duplicate_window": u64::try_from(dedupe).unwrap_or(u64::MAX).min(i64::MAX as u64),
        "allow_msg_ttl": true,
    })));
    wanted
}

/// The stream of sessions.
pub(crate) fn sessions(layout: &Layout, storage: Storage, replicas: usize) -> Map<String, Value> {
    let mut wanted = common(layout, Kind::Sessions, storage, replicas);
    wanted.extend(as_map(json!({ MOST: 1, "allow_msg_ttl": true })));
    wanted
}

/// The stream of dead letters under these limits.
pub(crate) fn dead(
    layout: &Layout,
    storage: Storage,
    replicas: usize,
    limits: &InboxLimits,
) -> Map<String, Value> {
    let mut wanted = common(layout, Kind::Dead, storage, replicas);
    // 0 would be no limit. Where none are kept, none are written either.
    wanted.insert("max_msgs".into(), json!(limits.max_dead_letters.max(1)));
    wanted
}

/// The stream of the ledger.
pub(crate) fn ledger(layout: &Layout, storage: Storage, replicas: usize) -> Map<String, Value> {
    let mut wanted = common(layout, Kind::Ledger, storage, replicas);
    wanted.extend(as_map(json!({ MOST: 1, "allow_msg_ttl": true })));
    wanted
}
