//! The way to one runner: its connections, and how many calls are on them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderValue;
use parking_lot::Mutex;
use prism_core::{
    backoff::{Backoff, Policy},
    corked::Corked,
    id::InstanceId,
    overload::Throttle,
};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::account::{Admission, Place};
use crate::route::Target;

/// After a failed dial, callers are refused for a pause instead of dialling again one after another.
const REDIAL: Policy = Policy {
    base: Duration::from_millis(20),
    cap: Duration::from_secs(1),
};

/// How connections to runners are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a dial may take.
    pub connect_timeout: Duration,
    /// How many connections to keep to each runner.
    pub connections: usize,
    /// How many to make at most, where those are full: a runner says how many streams it takes on each.
    pub most_connections: usize,
    /// How many bytes of a response the runner may send ahead, for each call.
    pub stream_window: u32,
    /// The same for all calls of a connection together. As much as many calls may have: what clients
    /// that do not read leave lying here must not hold up all others.
    pub connection_window: u32,
    /// When bytes stay unacknowledged for this long, the connection counts as dead.
    pub unacknowledged: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            connections: 1,
            most_connections: 16,
            stream_window: 64 << 10,
            connection_window: 1 << 30,
            unacknowledged: Duration::from_secs(15),
        }
    }
}

/// All lanes of a proxy, one for each runner, and the owner of their connections.
#[derive(Debug, Default)]
pub struct Lanes {
    settings: Settings,
    known: Mutex<HashMap<(InstanceId, String), Weak<Lane>>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Lanes {
    /// No lane yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// The lane to a target: the one that is there, unless what the target declares has changed.
    pub fn get(&self, target: Target) -> Arc<Lane> {
        let mut known = self.known.lock();
        let key = (target.instance_id.clone(), target.endpoint.clone());
        if let Some(lane) = known
            .get(&key)
            .and_then(Weak::upgrade)
            .filter(|lane| lane.target == target)
        {
            return lane;
        }
        let lane = Arc::new(Lane::new(target, self));
        known.insert(key, Arc::downgrade(&lane));
        lane
    }

    /// Forgets lanes that nobody uses any more.
    pub(crate) fn sweep(&self) {
        self.known.lock().retain(|_, lane| lane.strong_count() > 0);
    }

    /// Breaks all connections to a runner.
    pub(crate) fn disconnect(&self, instance: &InstanceId) {
        for (_, lane) in self.known.lock().iter().filter(|((id, _), _)| id == instance) {
            if let Some(lane) = lane.upgrade() {
                lane.broken.lock().cancel();
            }
        }
    }

    /// Closes all connections and waits for the tasks that drive them. Calls under way are lost.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The way to one runner.
#[derive(Debug)]
pub struct Lane {
    target: Target,
    /// Of the target, as a header.
    proof: Option<HeaderValue>,
    settings: Settings,
    in_flight: AtomicUsize,
    /// Holds calls back while the runner refuses many.
    throttle: Throttle,
    slots: Box<[Slot]>,
    turn: AtomicUsize,
    tasks: TaskTracker,
    closing: CancellationToken,
    /// Cancelled to break the connections that are there now, then replaced.
    broken: Mutex<CancellationToken>,
}

/// Why nothing was sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unsent {
    /// The runner cannot be reached.
    #[error("`{endpoint}` cannot be reached: {message}")]
    Unreachable {
        /// The runner's data endpoint.
        endpoint: String,
        /// What happened.
        message: String,
    },
    /// As many streams are open as the runner takes.
    #[error("`{endpoint}` takes no more streams on any of `{connections}` connections")]
    Full {
        /// The runner's data endpoint.
        endpoint: String,
        /// How many there are.
        connections: usize,
    },
}

/// A connection, for one call.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) send: h2::client::SendRequest<Bytes>,
    streams: Arc<Admission>,
    ended: CancellationToken,
}

impl Connection {
    /// A place for one more stream. Without one, a stream would wait within the library, without a bound
    /// and behind all others, and nobody could say that it was never sent.
    fn enter(&self) -> Option<Place> {
        self.streams.enter(self.send.current_max_send_streams())
    }

    /// The runner does not take new calls on it: the next one dials.
    pub(crate) fn retire(&self) {
        self.ended.cancel();
    }
}

#[derive(Default)]
struct Slot {
    current: ArcSwapOption<Connection>,
    dial: tokio::sync::Mutex<Redial>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("connected", &self.usable().is_some())
            .finish()
    }
}

impl Slot {
    fn usable(&self) -> Option<Connection> {
        let current = self.current.load();
        current
            .as_deref()
            .filter(|connection| !connection.ended.is_cancelled())
            .cloned()
    }
}

/// What is known from earlier dials.
#[derive(Default)]
struct Redial {
    backoff: Option<Backoff>,
    refused: Option<(Instant, String)>,
}

impl Lane {
    fn new(target: Target, lanes: &Lanes) -> Self {
        let proof = target.proof.as_ref();
        Self {
            proof: proof.and_then(|proof| HeaderValue::from_str(proof.as_str()).ok()),
            target,
            settings: lanes.settings.clone(),
            in_flight: AtomicUsize::new(0),
            throttle: Throttle::default(),
            slots: (0..lanes.settings.most_connections.max(few(&lanes.settings)))
                .map(|_| Slot::default())
                .collect(),
            turn: AtomicUsize::new(0),
            tasks: lanes.tasks.clone(),
            closing: lanes.closing.clone(),
            broken: Mutex::new(lanes.closing.child_token()),
        }
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What shows its runner that this proxy forwards a call.
    pub(crate) fn proof(&self) -> Option<&HeaderValue> {
        self.proof.as_ref()
    }

    /// Holds calls back while the runner refuses many.
    pub(crate) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// How many calls are on it.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a call for as long as the value lives.
    pub(crate) fn enter(self: &Arc<Self>) -> OnLane {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        OnLane(self.clone())
    }

    /// A usable connection with a place on it, dialled if there is none. Cancellation safe: a dial that is
    /// given up is begun anew by the next caller.
    pub(crate) async fn connection(&self) -> Result<(Connection, Place), Unsent> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % few(&self.settings);
        // The others only where there is no place on that one.
        let others = (0..self.slots.len()).filter(|other| *other != turn);
        for slot in std::iter::once(turn).chain(others) {
            let connection = self.connected(&self.slots[slot]).await?;
            if let Some(place) = connection.enter() {
                return Ok((connection, place));
            }
        }
        Err(Unsent::Full {
            endpoint: self.target.endpoint.clone(),
            connections: self.slots.len(),
        })
    }

    async fn connected(&self, slot: &Slot) -> Result<Connection, Unsent> {
        if let Some(connection) = slot.usable() {
            return Ok(connection);
        }
        // One caller dials, the others wait for what comes of it.
        let mut redial = slot.dial.lock().await;
        if let Some(connection) = slot.usable() {
            return Ok(connection);
        }
        if let Some((until, message)) = &redial.refused
            && Instant::now() < *until
        {
            return Err(self.unreachable(message.clone()));
        }
        match self.dial().await {
            Ok(connection) => {
                *redial = Redial::default();
                slot.current.store(Some(Arc::new(connection.clone())));
                Ok(connection)
            }
            Err(message) => {
                let pause = redial.backoff.get_or_insert_with(|| Backoff::new(REDIAL)).pause();
                redial.refused = Some((Instant::now() + pause, message.clone()));
                Err(self.unreachable(message))
            }
        }
    }

    fn unreachable(&self, message: String) -> Unsent {
        Unsent::Unreachable {
            endpoint: self.target.endpoint.clone(),
            message,
        }
    }

    async fn dial(&self) -> Result<Connection, String> {
        if self.closing.is_cancelled() {
            return Err("the proxy is about to end".to_owned());
        }
        match tokio::time::timeout(self.settings.connect_timeout, self.handshake()).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err(format!(
                "no connection within {:?}",
                self.settings.connect_timeout
            )),
        }
    }

    async fn handshake(&self) -> Result<Connection, Broken> {
        let stream = TcpStream::connect(&self.target.endpoint).await?;
        prism_core::socket::tune(&stream, self.settings.unacknowledged)?;
        let (send, mut driver) = h2::client::Builder::new()
            .initial_window_size(self.settings.stream_window)
            .initial_connection_window_size(self.settings.connection_window)
            .enable_push(false)
            // Two guards of a server against a hostile client. Here they would break the connection of
            // all clients: once enough answers had crossed with calls given up, or enough small messages
            // waited for clients that do not read. The windows bound both.
            .max_local_error_reset_streams(None)
            .data_frame_budget(usize::MAX)
            .handshake::<_, Bytes>(Corked::new(stream))
            .await?;
        introduction(&mut driver).await?;
        let ended = CancellationToken::new();
        let broken = self.replace_if_cancelled();
        let over = ended.clone().drop_guard();
        self.tasks.spawn(async move {
            // Ends by itself when the last call and the last handle are gone.
            tokio::select! {
                outcome = driver => {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "a connection to a runner broke");
                    }
                }
                () = broken.cancelled() => {}
            }
            drop(over);
        });
        Ok(Connection {
            send,
            streams: Arc::default(),
            ended,
        })
    }

    fn replace_if_cancelled(&self) -> CancellationToken {
        let mut broken = self.broken.lock();
        if broken.is_cancelled() {
            *broken = self.closing.child_token();
        }
        broken.clone()
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Waits until the runner has said how many streams it takes: it does so before it answers anything.
async fn introduction(driver: &mut h2::client::Connection<Corked<TcpStream>, Bytes>) -> Result<(), Broken> {
    let mut pings = driver.ping_pong().ok_or("the connection knows no pings")?;
    tokio::select! {
        ended = driver => {
            ended?;
            Err("the runner closed the connection at once".into())
        }
        answered = pings.ping(h2::Ping::opaque()) => Ok(answered.map(drop)?),
    }
}

/// How many connections take turns.
fn few(settings: &Settings) -> usize {
    settings.connections.max(1)
}

/// A call that is on a lane.
#[derive(Debug)]
pub(crate) struct OnLane(Arc<Lane>);

impl Drop for OnLane {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
