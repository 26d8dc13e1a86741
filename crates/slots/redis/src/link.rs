//! Calling functions over a few connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fred::{
    interfaces::{ClientLike, Resp3Frame},
    types::{CustomCommand, Value, config::Options},
};
use prism_core::backoff::{Backoff, Policy};
use prism_slot::{Applied, Result};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::{
    config::{ConnectionConfig, Target},
    connect::{Connection, LastError, connect},
    error::{Effect, Fault, failed_in_client, not_loaded, plain, refused_by_server},
    library::Library,
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
/// How often in one call the functions are loaded with success, should somebody keep removing them.
const LOADS: u32 = 3;

/// The connections to Redis on behalf of one namespace, all of whose keys are in one slot of a cluster.
#[derive(Debug)]
pub(crate) struct Link {
    connections: Vec<Arc<Connection>>,
    next: AtomicUsize,
    slot: u16,
    /// The functions that are called.
    library: &'static Library,
    target: Target,
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
    pub(crate) async fn open(
        config: &ConnectionConfig,
        connections: usize,
        slot: u16,
        library: &'static Library,
    ) -> Result<Self> {
        let target = config.target()?;
        let trouble = Arc::new(LastError::default());
        let connections = connect(config, &target, connections, &trouble).await?;
        Ok(Self {
            connections: connections.into_iter().map(Arc::new).collect(),
            next: AtomicUsize::new(0),
            slot,
            library,
            target,
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

    /// Takes a connection out, for a use of its own.
    pub(crate) fn set_aside(&mut self) -> Option<Arc<Connection>> {
        self.connections.pop()
    }

    pub(crate) fn read_timeout(&self) -> Duration {
        self.read_timeout
    }

    /// Calls a function, again where that is safe. Nothing is sent after the deadline. `arguments` are those of
    /// `FCALL`, made anew for each attempt.
    pub(crate) async fn invoke(
        &self,
        arguments: impl Fn() -> Vec<Value>,
        deadline: Instant,
        effect: Effect,
    ) -> Result<Resp3Frame, Fault> {
        let mut retries = Retries::new(self.max_retries, deadline);
        let mut loads = 0;
        loop {
            let seen = self.loads.load(Ordering::Acquire);
            let connection = self.connection(deadline).await?;
            let command = CustomCommand::new_static("FCALL", self.slot, false);
            let mut fault = match self.send(connection, command, arguments(), deadline).await {
                Ok(frame) => return Ok(frame),
                Err(fault) => fault,
            };
            if fault == Fault::NotLoaded && loads < LOADS {
                match self.load(connection, seen, deadline).await {
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

    /// Whether the server answers at all.
    pub(crate) async fn ping(&self, deadline: Instant) -> Result<()> {
        let pinged = async {
            let connection = self.connection(deadline).await?;
            self.send(
                connection,
                CustomCommand::new_static("PING", self.slot, false),
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
        let quits = self.connections.iter().map(|connection| connection.client.quit());
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

    pub(crate) async fn send(
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
        let command = CustomCommand::new_static("FUNCTION", self.slot, false);
        let arguments: Vec<Value> = vec!["LOAD".into(), self.library.text.as_str().into()];
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
