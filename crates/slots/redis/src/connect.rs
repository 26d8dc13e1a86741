//! Connections to Redis, set up so that nothing is sent twice and nothing waits for ever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::Client,
    error::ErrorKind,
    interfaces::{ClientLike, EventInterface, FredResult},
    types::config::{
        Config as Protocol, ConnectionConfig as Transport, PerformanceConfig, ReconnectPolicy, ServerConfig,
        TcpConfig, TlsConfig, UnresponsiveConfig,
    },
};
use parking_lot::Mutex;
use prism_slot::{Applied, Error, Result};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::{
    config::{ConnectionConfig, Target},
    error::{Fault, misconfigured, plain, refused_by_server, unavailable},
    server::check_servers,
    silence::Silence,
    tls::tls,
};

/// Pauses between attempts to connect again, in milliseconds.
const RECONNECT_MIN: u32 = 50;
const RECONNECT_MAX: u32 = 1_000;
/// Added to every pause but the longest, so that runners that lost one server at one moment have come
/// apart by then.
const RECONNECT_JITTER: u32 = 200;
/// How many commands one connection holds that it has not sent. Writes are bounded before they get
/// here; this bounds everything else.
const COMMAND_BUFFER: usize = 4_096;

/// A connection and the task that drives it. Reconnects by itself until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    silence: Silence,
    /// Whether it is being given up at the moment.
    leaving: AtomicBool,
    _driver: AbortOnDropHandle<FredResult<()>>,
    _watcher: AbortOnDropHandle<()>,
}

impl Connection {
    /// Whether it takes commands.
    pub(crate) fn is_up(&self) -> bool {
        self.client.is_connected() && !self.leaving.load(Ordering::Acquire)
    }

    /// Notes that a command is about to be sent.
    pub(crate) fn ask(&self) {
        self.silence.begin();
    }

    /// Notes that a reply arrived, or that none will.
    pub(crate) fn hear(&self) {
        self.silence.end();
    }

    /// For how long it has owed a reply and given none.
    pub(crate) fn silent_for(&self) -> Duration {
        self.silence.length()
    }

    /// Takes it out of use. True for the one who is to make it [`leave`](Self::leave).
    pub(crate) fn begin_leaving(&self) -> bool {
        !self.leaving.swap(true, Ordering::AcqRel)
    }

    /// Connects anew, within `limit`, and puts it back into use.
    pub(crate) async fn leave(&self, limit: Duration) {
        let reconnected = tokio::time::timeout(limit, self.client.force_reconnection()).await;
        debug!(?reconnected, "gave up a connection to redis");
        self.hear();
        self.leaving.store(false, Ordering::Release);
    }
}

/// What went wrong last, for the message of a call that finds no connection.
#[derive(Debug, Default)]
pub(crate) struct LastError(Mutex<Option<String>>);

impl LastError {
    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// Says whether the trouble is new.
    fn set(&self, message: String) -> bool {
        self.0.lock().replace(message).is_none()
    }

    /// Says whether there was trouble.
    fn clear(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

/// Opens so many connections and checks that the server can be used. Bounded by `dial_timeout` and
/// `read_timeout`.
pub(crate) async fn connect(
    config: &ConnectionConfig,
    target: &Target,
    count: usize,
    trouble: &Arc<LastError>,
) -> Result<Vec<Connection>> {
    let tls = if target.tls {
        Some(tls(config.ca_file.as_deref())?)
    } else {
        None
    };
    let limit = config.dial_timeout + config.read_timeout;
    let opening = (0..count).map(|_| open(config, target, tls.clone(), trouble.clone()));
    let opening = futures::future::try_join_all(opening);
    let connections = tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
        Err(unavailable(
            format!("`{target}` does not answer within {limit:?}"),
            Applied::No,
        ))
    })?;
    check_servers(&connections[0].client, target).await?;
    Ok(connections)
}

async fn open(
    config: &ConnectionConfig,
    target: &Target,
    tls: Option<TlsConfig>,
    trouble: Arc<LastError>,
) -> Result<Connection> {
    let client = Client::new(
        protocol(target, tls),
        Some(performance(config)),
        Some(transport(config)),
        Some(reconnects()),
    );
    let driver = client.init().await.map_err(|error| refused(target, &error))?;
    let watcher = tokio::spawn(watch(client.clone(), target.to_string(), trouble));
    Ok(Connection {
        client,
        silence: Silence::new(),
        leaving: AtomicBool::new(false),
        _driver: AbortOnDropHandle::new(driver),
        _watcher: AbortOnDropHandle::new(watcher),
    })
}

/// Logs what happens to a connection and remembers the last trouble.
async fn watch(client: Client, target: String, trouble: Arc<LastError>) {
    let (mut errors, mut reconnects) = (client.error_rx(), client.reconnect_rx());
    loop {
        let event = tokio::select! {
            failed = errors.recv() => failed.map(|(error, _)| Some(plain(&error))),
            back = reconnects.recv() => back.map(|_| None),
        };
        match event {
            Ok(Some(message)) => {
                if trouble.set(message.clone()) {
                    warn!(
                        target,
                        error = message,
                        "lost a connection to redis, connecting again"
                    );
                }
            }
            Ok(None) => {
                if trouble.clear() {
                    info!(target, "connected to redis again");
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn protocol(target: &Target, tls: Option<TlsConfig>) -> Protocol {
    let server = if target.cluster {
        ServerConfig::new_clustered(target.nodes.clone())
    } else {
        let (host, port) = target.nodes[0].clone();
        ServerConfig::new_centralized(host, port)
    };
    Protocol {
        // The first connection fails at once; later ones are tried for ever.
        fail_fast: true,
        username: target.username.clone(),
        password: Some(target.password.expose().to_owned()).filter(|password| !password.is_empty()),
        database: Some(target.db).filter(|db| *db != 0),
        server,
        tls,
        ..Protocol::default()
    }
}

fn performance(config: &ConnectionConfig) -> PerformanceConfig {
    PerformanceConfig {
        // Every call brings its own; this is for those that the client makes by itself.
        default_command_timeout: config.read_timeout,
        ..PerformanceConfig::default()
    }
}

fn transport(config: &ConnectionConfig) -> Transport {
    Transport {
        connection_timeout: config.dial_timeout,
        internal_command_timeout: config.read_timeout,
        // A second attempt would apply a write twice whose reply was lost.
        max_command_attempts: 1,
        // Following a redirection counts as a second attempt, too: the call is made anew instead.
        max_redirections: 0,
        max_command_buffer_len: COMMAND_BUFFER,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(config.read_timeout),
            interval: (config.read_timeout / 4).clamp(Duration::from_millis(5), Duration::from_millis(250)),
        },
        tcp: TcpConfig {
            nodelay: Some(true),
            // A peer that takes nothing any more blocks the writer, which then watches for nothing.
            user_timeout: Some(config.write_timeout),
            ..TcpConfig::default()
        },
        ..Transport::default()
    }
}

fn reconnects() -> ReconnectPolicy {
    let unlimited = 0;
    let mut policy = ReconnectPolicy::new_exponential(unlimited, RECONNECT_MIN, RECONNECT_MAX, 2);
    policy.set_jitter(RECONNECT_JITTER);
    policy
}

pub(crate) fn refused(target: &Target, error: &fred::error::Error) -> Error {
    if let Fault::Refused(message) = refused_by_server(error.details()) {
        return misconfigured(format!("`{target}` refuses: {message}"));
    }
    let message = plain(error);
    match error.kind() {
        ErrorKind::Auth => misconfigured(format!(
            "`{target}` refuses the login ({message}); check `username` and `password`"
        )),
        ErrorKind::Tls => misconfigured(format!(
            "`{target}` cannot be trusted ({message}); check `tls` and `ca_file`"
        )),
        ErrorKind::Config => misconfigured(format!("`{target}` is not what it is taken for: {message}")),
        _ => unavailable(
            format!("cannot connect to `{target}` ({message}); check `address` and that the server runs"),
            Applied::No,
        ),
    }
}
