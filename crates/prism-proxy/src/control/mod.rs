//! The control plane: accepts runners, tells them what to serve, watches them, and keeps the routing
//! table true.
//!
//! - `service`: the `ManagePattern` stream, from the wire to events;
//! - `fleet`: what is decided, a pure state machine over all runners and namespaces;
//! - `actor`: the one task that owns the fleet and carries out its decisions;
//! - `snapshot`: what the admin endpoint shows.

mod actor;
mod endpoint;
mod fleet;
mod port;
mod probe;
mod service;
mod settings;
mod snapshot;
mod wire;

use std::{io, sync::Arc};

use prism_core::id::Digest;
use prism_proto::interfaces::proxy_control_plane_server::ProxyControlPlaneServer;
use serde_json::{Map, Value};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::actor::{Actor, Event};
pub use self::{
    service::ControlService,
    settings::Settings,
    snapshot::{NamespaceView, RoleView, RunnerNamespaceView, RunnerView, Snapshot, Standing},
};
use crate::route::Table;

/// How many events may wait. Beyond, the streams that bring them are not read on.
const QUEUE: usize = 1_024;
/// The largest message of a runner: it comes back with word of as many namespaces as one may have.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// A namespace as the operator wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredNamespace {
    /// Its name.
    pub name: String,
    /// The pattern that serves it.
    pub pattern: String,
    /// The version of the pattern that the configuration is written for.
    pub pattern_version: String,
    /// What the runner is given.
    pub config: Map<String, Value>,
    /// Identifies `config`.
    pub digest: Digest,
    /// Orders the configurations of this namespace. It must rise with each change of content, also
    /// across restarts of the proxy: runners refuse what is older than what they have.
    pub version: i64,
    /// Whether a change may move the namespace to other data. Then it is held while all its runners
    /// change over, so that none serves the old data beside another that serves the new.
    pub discard_on_move: bool,
}

/// A handle to the control plane. Clones share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct Control {
    events: mpsc::Sender<Event>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    settings: Settings,
    tasks: TaskTracker,
    closing: CancellationToken,
    _end: Arc<DropGuard>,
}

impl Control {
    /// Begins with no runners and no namespaces. Needs a tokio runtime.
    pub fn new(table: Arc<Table>, settings: Settings) -> Self {
        let (events, queue) = mpsc::channel(QUEUE);
        let (publish, snapshot) = watch::channel(Arc::default());
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let actor = Actor::new(table, settings, queue, publish, closing.clone());
        tasks.spawn(actor.run());
        Self {
            events,
            snapshot,
            settings,
            tasks,
            _end: Arc::new(closing.clone().drop_guard()),
            closing,
        }
    }

    /// Makes these the namespaces that are wanted: the whole set, in any order. Applying the same set
    /// again changes nothing. Returns when the change is on its way, not when runners have taken it.
    pub async fn apply(&self, namespaces: Vec<DesiredNamespace>) {
        // After the end there is nobody left to want anything of.
        let _ = self.events.send(Event::Apply(namespaces)).await;
    }

    /// The gRPC service for the control port. The server around it must not send HTTP/2 pings, which
    /// many runners answer by closing the connection, and must put `TcpConnectInfo` into requests;
    /// [`serve`](Self::serve) is one that does.
    pub fn service(&self) -> ProxyControlPlaneServer<ControlService> {
        let service = ControlService::new(
            self.events.clone(),
            self.settings,
            self.tasks.clone(),
            self.closing.clone(),
        );
        ProxyControlPlaneServer::new(service).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Serves the control port until [`shutdown`](Self::shutdown), with the limits that it needs.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn serve(&self, listener: TcpListener) -> io::Result<std::net::SocketAddr> {
        let address = listener.local_addr()?;
        let server = port::serve(listener, self.service(), self.settings, self.closing.clone());
        self.tasks.spawn(server);
        Ok(address)
    }

    /// Where everything stands now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Changes whenever anything but the time of a heartbeat does.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Ends the control plane by closing every stream. Runners are not stopped: they go on serving and
    /// look for a proxy. The routing table stays as it is.
    ///
    /// Returns by the deadline; dropping the future leaves the end under way.
    pub async fn shutdown(&self, deadline: Instant) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout_at(deadline, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("control streams were still open at the deadline");
        }
    }
}
