//! Calling the registry's functions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    interfaces::{ClientLike, Resp3Frame},
    types::{CustomCommand, Value},
};
use prism_slot::{Applied, Call, Epoch, Result, Revision};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    codec::{Common, Reply},
    config::Config,
    connect::Connection,
    error::{Effect, Fault, unavailable},
    keys::Keys,
    library::{Function, LIBRARY},
    link::Link,
};

/// Zero would block for ever.
const SHORTEST_BLOCK: Duration = Duration::from_millis(1);

/// The registry of one namespace, as functions.
#[derive(Debug)]
pub(crate) struct Calls {
    link: Link,
    /// Blocks in [`Self::changed`] and does nothing else.
    waiting: Arc<Connection>,
    keys: Keys,
    common: Common,
}

impl Calls {
    /// Connects and checks the server. Bounded by the configured timeouts.
    pub(crate) async fn open(namespace: &str, config: &Config) -> Result<Self> {
        let keys = Keys::new(&config.prefix, namespace);
        let all = config.pool_size + 1;
        let mut link = Link::open(&config.connection(), all, keys.slot, &LIBRARY).await?;
        let waiting = link.set_aside();
        Ok(Self {
            waiting: waiting.ok_or_else(|| unavailable("there is no connection", Applied::No))?,
            link,
            keys,
            common: Common::new(namespace, config),
        })
    }

    /// Calls a function for something that has no lasting effect of its own.
    pub(crate) async fn read(&self, function: Function, call: Call, arguments: &[Bytes]) -> Result<Reply> {
        let frame = self.invoke(function, call, arguments, Effect::Read).await;
        Reply::read(frame.map_err(|fault| fault.into_error(Applied::No))?)
    }

    /// Calls a function, again where that is safe. Nothing is sent after the deadline.
    pub(crate) async fn invoke(
        &self,
        function: Function,
        call: Call,
        arguments: &[Bytes],
        effect: Effect,
    ) -> Result<Resp3Frame, Fault> {
        let all = || self.arguments(function, call.epoch, arguments);
        self.link.invoke(all, call.deadline, effect).await
    }

    /// Waits until the feed has something after a revision, or until the deadline. One caller at a time: the
    /// server answers the next one when it has answered this one.
    pub(crate) async fn changed(&self, from: Revision, deadline: Instant) -> Result<()> {
        let id = format!("{}-0", from.0);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left < SHORTEST_BLOCK {
                sleep_until(deadline).await;
                return Ok(());
            }
            // Well before the reply would count as missing.
            let block = left.min(self.link.read_timeout() / 2).max(SHORTEST_BLOCK);
            let arguments: Vec<Value> = vec![
                "COUNT".into(),
                1.into(),
                "BLOCK".into(),
                (block.as_millis() as i64).into(),
                "STREAMS".into(),
                Value::Bytes(self.keys.feed().clone()),
                id.as_str().into(),
            ];
            let command = CustomCommand::new_static("XREAD", self.keys.slot, true);
            let patience = Instant::now() + self.link.read_timeout();
            let answered = self.link.send(&self.waiting, command, arguments, patience).await;
            if !matches!(
                answered.map_err(|fault| fault.into_error(Applied::No))?,
                Resp3Frame::Null
            ) {
                return Ok(());
            }
        }
    }

    /// Whether the server answers at all.
    pub(crate) async fn ping(&self, deadline: Instant) -> Result<()> {
        self.link.ping(deadline).await
    }

    /// Lets go of the connections. Later calls fail.
    pub(crate) async fn close(&self) {
        let quit = timeout(self.link.read_timeout(), self.waiting.client.quit());
        let _ = tokio::join!(self.link.close(), quit);
    }

    /// Everything that follows `FCALL`.
    fn arguments(&self, function: Function, epoch: Option<Epoch>, arguments: &[Bytes]) -> Vec<Value> {
        let mut all = Vec::with_capacity(3 + self.keys.names.len() + arguments.len());
        all.push(Value::String(function.name()));
        all.push(Value::Integer(self.keys.names.len() as i64));
        all.extend(self.keys.names.iter().cloned().map(Value::Bytes));
        all.push(Value::Bytes(self.common.bytes(epoch)));
        all.extend(arguments.iter().cloned().map(Value::Bytes));
        all
    }
}
