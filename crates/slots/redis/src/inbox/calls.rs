//! Calling the functions of the inboxes.

use bytes::{BufMut, Bytes};
use fred::types::Value;
use parking_lot::RwLock;
use prism_slot::{Applied, Error, InboxLimits, Overflow, Result};
use tokio::time::Instant;

use super::library::{Function, LIBRARY};
use crate::{
    answer::{Answer, meaningless, nonsense},
    codec::{LARGEST, Malformed},
    config::InboxConfig,
    error::{Effect, of_backend},
    keys,
    link::Link,
};

/// The backend's name.
pub(super) const BACKEND: &str = "redis-stream";

/// What went wrong with a call.
#[derive(Debug)]
pub(super) enum Refused {
    /// The session is not the consumer.
    Fenced,
    /// The body of the message is needed.
    NeedsBody,
    /// Something else.
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(of_backend(BACKEND, error))
    }
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        meaningless(malformed).into()
    }
}

impl Refused {
    /// For calls that have neither a session nor a body.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Error(error) => error,
            Self::Fenced | Self::NeedsBody => of_backend(BACKEND, nonsense()),
        }
    }
}

/// The inboxes of one namespace, as functions.
#[derive(Debug)]
pub(super) struct Calls {
    link: Link,
    head: Bytes,
    namespace: String,
    common: RwLock<Bytes>,
}

impl Calls {
    pub(super) async fn open(namespace: &str, config: &InboxConfig, limits: &InboxLimits) -> Result<Self> {
        let head = keys::key(&config.prefix, namespace, "inbox:head");
        let slot = fred::util::redis_keyslot(head.as_bytes());
        Ok(Self {
            link: Link::open(&config.connection(), config.pool_size, slot, &LIBRARY).await?,
            head: head.into(),
            namespace: namespace.to_owned(),
            common: RwLock::new(common(namespace, limits)),
        })
    }

    /// Holds calls to other limits from now on.
    pub(super) fn configure(&self, limits: &InboxLimits) {
        *self.common.write() = common(&self.namespace, limits);
    }

    /// Calls a function, again where that is safe. Nothing is sent after the deadline.
    pub(super) async fn call(
        &self,
        function: Function,
        arguments: &[Bytes],
        deadline: Instant,
        effect: Effect,
    ) -> Result<Answer, Refused> {
        let all = || {
            let mut all = Vec::with_capacity(4 + arguments.len());
            all.push(Value::String(function.name()));
            all.push(Value::Integer(1));
            all.push(Value::Bytes(self.head.clone()));
            all.push(Value::Bytes(self.common.read().clone()));
            all.extend(arguments.iter().cloned().map(Value::Bytes));
            all
        };
        let frame = self.link.invoke(all, deadline, effect).await;
        let applied = match effect {
            Effect::Read => Applied::No,
            Effect::Write => Applied::Unknown,
        };
        let (letter, answer) = Answer::read(frame.map_err(|fault| fault.into_error(applied))?)?;
        match &letter[..] {
            b"K" => Ok(answer),
            b"N" => Err(Refused::Fenced),
            b"B" => Err(Refused::NeedsBody),
            other => Err(answer.refusal(other).into()),
        }
    }

    pub(super) async fn ping(&self, deadline: Instant) -> Result<()> {
        let pinged = self.link.ping(deadline).await;
        pinged.map_err(|error| of_backend(BACKEND, error))
    }

    pub(super) async fn close(&self) {
        self.link.close().await;
    }
}

/// The first argument of every function.
fn common(namespace: &str, limits: &InboxLimits) -> Bytes {
    let mut bytes = Vec::with_capacity(33 + namespace.len());
    bytes.put_u64(limits.max_messages.into());
    bytes.put_u8(u8::from(limits.overflow == Overflow::DropOldest));
    bytes.put_u64(millis(limits.dedupe));
    bytes.put_u64((limits.max_dead_letters as u64).min(LARGEST));
    bytes.put_u64(millis(limits.idle));
    bytes.put_slice(namespace.as_bytes());
    bytes.into()
}

/// In whole milliseconds, none of which are shorter than what was asked for.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).map_or(LARGEST, |millis| millis.min(LARGEST))
}
