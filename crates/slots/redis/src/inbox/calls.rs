//! Calling the functions of the inboxes.

use bytes::{BufMut, Bytes};
use fred::{interfaces::Resp3Frame, types::Value};
use parking_lot::RwLock;
use prism_slot::{Applied, Error, InboxLimits, Overflow, Result};
use tokio::time::Instant;

use super::library::{Function, LIBRARY};
use crate::{
    codec::{LARGEST, Malformed},
    config::InboxConfig,
    error::{Effect, misconfigured, of_backend, unavailable, unreadable},
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
        unreadable(format!("an answer cannot be used, {malformed}")).into()
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
        let slot = fred::util::redis_keyslot(&head);
        Ok(Self {
            link: Link::open(&config.connection(), config.pool_size, slot, &LIBRARY).await?,
            head,
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
    ) -> Result<Reply, Refused> {
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
        Reply::read(frame.map_err(|fault| fault.into_error(applied))?)
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
    let mut bytes = Vec::with_capacity(25 + namespace.len());
    bytes.put_u64(limits.max_messages.into());
    bytes.put_u8(u8::from(limits.overflow == Overflow::DropOldest));
    bytes.put_u64(millis(limits.dedupe));
    bytes.put_u64((limits.max_dead_letters as u64).min(LARGEST));
    bytes.put_slice(namespace.as_bytes());
    bytes.into()
}

/// In whole milliseconds, none of which are shorter than what was asked for.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).map_or(LARGEST, |millis| millis.min(LARGEST))
}

/// The answer to a call, behind the letter that says that it was done.
#[derive(Debug)]
pub(super) struct Reply(std::vec::IntoIter<Resp3Frame>);

impl Reply {
    fn read(frame: Resp3Frame) -> Result<Self, Refused> {
        let Resp3Frame::Array { data, .. } = frame else {
            return Err(nonsense().into());
        };
        let mut reply = Self(data.into_iter());
        let kind = reply.text()?;
        let mut said = || Ok::<_, Refused>(String::from_utf8_lossy(&reply.text()?).into_owned());
        Err(match &kind[..] {
            b"K" => return Ok(reply),
            b"N" => Refused::Fenced,
            b"B" => Refused::NeedsBody,
            b"V" => unreadable(format!("a later version wrote {}; upgrade this runner", said()?)).into(),
            b"O" => misconfigured(format!(
                "its keys belong to the namespace `{}`; choose another `prefix`",
                said()?
            ))
            .into(),
            b"D" => misconfigured(format!(
                "the user may not use `{}`; see `username` in the configuration for all that is needed",
                said()?.to_lowercase()
            ))
            .into(),
            b"F" => unavailable(format!("a function failed: {}", said()?), Applied::Unknown).into(),
            _ => nonsense().into(),
        })
    }

    pub(super) fn text(&mut self) -> Result<Bytes, Refused> {
        let next = self.optional_text()?;
        next.ok_or_else(|| nonsense().into())
    }

    /// The next part; `None` after the last one.
    pub(super) fn optional_text(&mut self) -> Result<Option<Bytes>, Refused> {
        match self.0.next() {
            Some(Resp3Frame::BlobString { data, .. }) => Ok(Some(data)),
            None => Ok(None),
            _ => Err(nonsense().into()),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, Refused> {
        match self.0.next() {
            Some(Resp3Frame::Number { data, .. }) => u64::try_from(data).map_err(|_| nonsense().into()),
            _ => Err(nonsense().into()),
        }
    }

    /// One letter for each of so many things that were asked about.
    pub(super) fn letters(&mut self, count: usize) -> Result<Bytes, Refused> {
        let letters = self.text()?;
        if letters.len() == count {
            return Ok(letters);
        }
        Err(nonsense().into())
    }
}

pub(super) fn nonsense() -> Error {
    unreadable("an answer cannot be used, it is not of this program's functions")
}
