//! Calling functions over a few connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::{
    interfaces::{ClientLike, Resp3Frame},
    types::{CustomCommand, Value, config::Options},
};
use prism_core::backoff::{Backoff, Policy};
use prism_slot::{Applied, Call, Epoch, Result, Revision};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::{
    codec::{Common, Reply},
    config::{Config, Target},
    connect::{Connection, LastError, connect},
    error::{Effect, Fault, failed_in_client, not_loaded, plain, refused_by_server},
    keys::Keys,
    library::{Function, LIBRARY},
};

/// Between two attempts of one call.
const RETRY: Policy = Policy {
    base: Duration::from_millis(20),
    cap: Duration::from_millis(500),
};
/// How often to look for a connection while there is none. The client tells of a new one before it
/// takes commands, so there is no event to wait for.
const LOOK: Duration = Duration::from_millis(10);
/// After how much silence other connections are preferred. A reply takes a fraction of this.
const SUSPICIOUS: Duration = Duration::from_millis(200);
/// Zero would block for ever.
const SHORTEST_BLOCK: Duration = Duration::from_millis(1);
/// How often in one call the functions are loaded with success, should somebody keep removing them.
const LOADS: u32 = 3;

/// The connections to Redis on behalf of one namespace.
#[derive(Debug)]
pub(crate) struct Link {
    connections: Vec<Arc<Connection>>,
    /// Blocks in [`Self::changed`] and does nothing else.
    waiting: Arc<Connection>,
    next: AtomicUsize,
    keys: Keys,
    target: Target,
    common: Common,
    read_timeout: Duration,
    pool_timeout: Duration,
    max_retries: u32,
    trouble: Arc<LastError>,
    closed: AtomicBool,
    /// How often the functions were loaded. Who finds them missing loads them, unless somebody has
    /// since the call was made.
    loads: AtomicU64,
    loading: Mutex<()>,
    /// Connections that are being given up.
    leaving: TaskTracker,
}

impl Link {
    /// Connects and checks the server. Bounded by the configured timeouts.
    pub(crate) async fn open(namespace: &str, config: &Config) -> Result<Self> {
        let target = config.target()?;
        let trouble = Arc::new(LastError::default());
        let (connections, waiting) = connect(config, &target, &trouble).await?;
        Ok(Self {
            connections: connections.into_iter().map(Arc::new).collect(),
            waiting: Arc::new(waiting),
            next: AtomicUsize::new(0),
            keys: Keys::new(&config.prefix, namespace),
            target,
            common: Common::new(namespace, config),
            read_timeout: config.read_timeout,
            pool_timeout: config.pool_timeout,
            max_retries: config.max_retries,
            trouble,
            closed: AtomicBool::new(false),
            loads: AtomicU64::new(0),
            loading: Mutex::new(()),
            leaving: TaskTracker::new(),
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
        let mut retries = Retries::new(self.max_retries, call.deadline);
        let mut loads = 0;
        loop {
            let seen = self.loads.load(Ordering::Acquire);
            let connection = self.connection(call.deadline).await?;
            let all = self.arguments(function, call.epoch, arguments);
            let mut fault = match self.attempt(connection, all, call.deadline).await {
                Ok(frame) => return Ok(frame),
                Err(fault) => fault,
            };
            if fault == Fault::NotLoaded && loads < LOADS {
                match self.load(connection, seen, call.deadline).await {
                    Ok(()) => {
                        loads += 1;
                        continue;
                    }
                    // What keeps them from being loaded is what its caller has to know.
                    Err(other) => fault = other,
                }
            }
            retries.pause(fault, effect).await?;
        }
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
            let block = left.min(self.read_timeout / 2).max(SHORTEST_BLOCK);
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
            let patience = Instant::now() + self.read_timeout;
            let answered = self.send(&self.waiting, command, arguments, patience).await;
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
        let pinged = async {
            let connection = self.connection(deadline).await?;
            self.send(
                connection,
                CustomCommand::new_static("PING", self.keys.slot, false),
                Vec::new(),
                deadline,
            )
            .await
        };
        pinged.await.map_err(|fault| fault.into_error(Applied::No))?;
        Ok(())
    }

    /// Lets go of the connections. Later calls fail.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.leaving.close();
        let all = self.connections.iter().chain([&self.waiting]);
        let quits = all.map(|connection| connection.client.quit());
        let goodbye = futures::future::join(self.leaving.wait(), futures::future::join_all(quits));
        // What does not end in time ends when the connections are dropped.
        let _ = tokio::time::timeout(self.read_timeout, goodbye).await;
    }

    /// The next connection that is up, as soon as there is one.
    async fn connection(&self, deadline: Instant) -> Result<&Arc<Connection>, Fault> {
        let patience = deadline.min(Instant::now() + self.pool_timeout);
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Err(Fault::NoConnection("the slot is closed".to_owned()));
            }
            if let Some(connection) = self.next_up() {
                return Ok(connection);
            }
            let now = Instant::now();
            if now >= patience {
                return Err(Fault::NoConnection(self.no_connection()));
            }
            sleep_until(patience.min(now + LOOK)).await;
        }
    }

    /// In turn, and rather one that has not fallen silent.
    fn next_up(&self) -> Option<&Arc<Connection>> {
        let (count, start) = (self.connections.len(), self.next.fetch_add(1, Ordering::Relaxed));
        let in_turn = || (0..count).map(move |step| &self.connections[start.wrapping_add(step) % count]);
        let mut up = in_turn().filter(|connection| connection.is_up());
        up.find(|connection| connection.silent_for() < SUSPICIOUS)
            .or_else(|| in_turn().find(|connection| connection.is_up()))
    }

    fn no_connection(&self) -> String {
        match self.trouble.get() {
            Some(trouble) => format!("there is no connection to `{}` ({trouble})", self.target),
            None => format!("there is no connection to `{}`", self.target),
        }
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

    async fn attempt(
        &self,
        connection: &Arc<Connection>,
        arguments: Vec<Value>,
        deadline: Instant,
    ) -> Result<Resp3Frame, Fault> {
        let command = CustomCommand::new_static("FCALL", self.keys.slot, false);
        self.send(connection, command, arguments, deadline).await
    }

    async fn send(
        &self,
        connection: &Arc<Connection>,
        command: CustomCommand,
        arguments: Vec<Value>,
        deadline: Instant,
    ) -> Result<Resp3Frame, Fault> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::TooLate);
        }
        let options = Options {
            // The client drops a command that is still queued when this ends.
            timeout: Some(left.min(self.read_timeout)),
            fail_fast: true,
            ..Options::default()
        };
        connection.ask();
        let answered = connection
            .client
            .with_options(&options)
            .custom_raw(command, arguments)
            .await;
        let fault = match answered {
            Ok(frame) => {
                connection.hear();
                match error_of(&frame) {
                    None => return Ok(frame),
                    Some(text) => refused_by_server(text),
                }
            }
            Err(error) => failed_in_client(&error),
        };
        self.judge(connection, &fault);
        Err(fault)
    }

    /// Gives up a connection that is of no use. The client does so by itself when one stays silent, but
    /// it measures from the last command sent: under steady traffic it would never notice.
    fn judge(&self, connection: &Arc<Connection>, fault: &Fault) {
        let useless = match fault {
            Fault::NoReply => connection.silent_for() >= self.read_timeout,
            Fault::WrongServer(_) => true,
            // It is lost already.
            Fault::Unknown(_) => {
                connection.hear();
                false
            }
            _ => false,
        };
        if useless && connection.begin_leaving() {
            warn!(target = %self.target, ?fault, "giving up a connection to redis");
            let (connection, limit) = (connection.clone(), self.read_timeout);
            self.leaving.spawn(async move { connection.leave(limit).await });
        }
    }

    /// Loads the functions where the keys are. Whatever goes wrong, the call that needs them was not executed.
    async fn load(&self, connection: &Connection, seen: u64, deadline: Instant) -> Result<(), Fault> {
        let _alone = timeout_at(deadline, self.loading.lock())
            .await
            .map_err(|_| Fault::TooLate)?;
        if self.loads.load(Ordering::Acquire) != seen {
            return Ok(());
        }
        let options = Options {
            timeout: Some(self.read_timeout),
            fail_fast: true,
            ..Options::default()
        };
        let command = CustomCommand::new_static("FUNCTION", self.keys.slot, false);
        let arguments: Vec<Value> = vec!["LOAD".into(), LIBRARY.text.as_str().into()];
        let client = connection.client.with_options(&options);
        let loaded: Result<Resp3Frame, _> = client.custom_raw(command, arguments).await;
        match loaded {
            Ok(frame) => error_of(&frame).map_or(Ok(()), not_loaded)?,
            Err(error) => {
                let message = format!("cannot load its functions ({})", plain(&error));
                return Err(Fault::NotExecuted(message));
            }
        }
        self.loads.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// What one call may still try.
struct Retries {
    left: u32,
    deadline: Instant,
    backoff: Option<Backoff>,
}

impl Retries {
    fn new(left: u32, deadline: Instant) -> Self {
        Self {
            left,
            deadline,
            backoff: None,
        }
    }

    /// Returns when it is time to try again, or the fault when it is not to be.
    async fn pause(&mut self, fault: Fault, effect: Effect) -> Result<(), Fault> {
        if self.left == 0 || !fault.allows_retry(effect) {
            return Err(fault);
        }
        self.left -= 1;
        let pause = self.backoff.get_or_insert_with(|| Backoff::new(RETRY)).pause();
        let until = Instant::now() + pause;
        if until >= self.deadline {
            return Err(fault);
        }
        sleep_until(until).await;
        Ok(())
    }
}

fn error_of(frame: &Resp3Frame) -> Option<&str> {
    match frame {
        Resp3Frame::SimpleError { data, .. } => Some(data),
        Resp3Frame::BlobError { data, .. } => {
            Some(std::str::from_utf8(data).unwrap_or("an error that is no text"))
        }
        _ => None,
    }
}
