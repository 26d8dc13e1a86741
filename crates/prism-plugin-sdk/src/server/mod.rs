//! The data endpoint: the pattern's services with health, reflection and the lifecycle beside them, and
//! an orderly end.

mod calls;
mod services;
mod vouched;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prism_core::incoming;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

pub(crate) use self::{
    services::{Services, services},
    vouched::Proofs,
};
use crate::Limits;

/// After the last call ended, how long one that was under way to us already may take to arrive.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// How many bytes of one call's request may wait to be read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all calls of a connection together. A proxy has one connection for all its clients: a
/// request that is not read, or a moment in which thousands speak, must not hold up or end the others.
const CONNECTION_WINDOW: u32 = 1024 * 1024 * 1024;

/// How ready the endpoint says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Readiness {
    NotYet,
    Ready,
    Leaving,
}

/// What steers the data endpoint. Clones steer the same one.
#[derive(Clone)]
pub(crate) struct DataServer {
    shared: Arc<Shared>,
}

struct Shared {
    /// Where others reach it, as far as this process can tell.
    endpoint: String,
    address: SocketAddr,
    readiness: watch::Sender<Readiness>,
    calls: watch::Sender<usize>,
    proofs: Proofs,
    /// A proxy of the older style steers this process through the endpoint itself.
    steered: AtomicBool,
    /// No new connections, and the open ones are told to go away.
    goaway: CancellationToken,
    /// Every connection breaks.
    cut: CancellationToken,
    finished: CancellationToken,
}

impl DataServer {
    pub(crate) fn new(address: SocketAddr, advertise: Option<String>) -> Self {
        let shared = Shared {
            endpoint: advertise.unwrap_or_else(|| address.to_string()),
            address,
            readiness: watch::Sender::new(Readiness::NotYet),
            calls: watch::Sender::new(0),
            proofs: Proofs::default(),
            steered: AtomicBool::new(false),
            goaway: CancellationToken::new(),
            cut: CancellationToken::new(),
            finished: CancellationToken::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Serves until [`refuse_connections`](Self::refuse_connections) and the end of the last
    /// connection. Dropping the future, or its end, breaks the connections that are left.
    pub(crate) async fn run(self, listener: TcpListener, routes: Routes, limits: &Limits) {
        let _cut = self.shared.cut.clone().drop_guard();
        let _finished = self.shared.finished.clone().drop_guard();
        let accepted = incoming::Limits {
            connections: limits.connections,
            handshake_within: limits.handshake_within,
            unacknowledged: limits.unacknowledged,
        };
        let (goaway, cut) = (self.shared.goaway.clone(), self.shared.cut.clone());
        let incoming = incoming::accept(listener, accepted, goaway, cut);
        let served = Server::builder()
            .concurrency_limit_per_connection(limits.calls)
            .load_shed(true)
            .timeout(limits.call_within)
            .max_concurrent_streams(limits.streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            // By a proxy whose clients all lost patience while this process had no time.
            .http2_max_pending_accept_reset_streams(Some(limits.calls))
            .http2_max_header_list_size(limits.header_bytes)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, self.shared.goaway.cancelled())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the data endpoint failed");
        }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// How many calls of the pattern are open, streams included.
    pub(crate) fn calls(&self) -> u64 {
        *self.shared.calls.borrow() as u64
    }

    pub(crate) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.shared.readiness.subscribe()
    }

    /// By what proxies are known.
    pub(crate) fn proofs(&self) -> &Proofs {
        &self.shared.proofs
    }

    /// Says that the pattern serves.
    pub(crate) fn serve(&self) {
        self.advance(Readiness::Ready);
    }

    /// Says that it is about to end, while it still serves.
    pub(crate) fn fail_readiness(&self) {
        self.advance(Readiness::Leaving);
    }

    fn advance(&self, to: Readiness) {
        self.shared.readiness.send_if_modified(|readiness| {
            let forward = *readiness < to;
            if forward {
                *readiness = to;
            }
            forward
        });
    }

    /// Notes that the process is steered through this endpoint, which then has to stay open while it
    /// drains: the command to stop is still to come, the same way.
    pub(crate) fn steered(&self) {
        self.shared.steered.store(true, Ordering::Relaxed);
    }

    /// Takes no new connections and tells the open ones to go away. What they have sent is still
    /// served.
    pub(crate) fn refuse_connections(&self) {
        if !self.shared.steered.load(Ordering::Relaxed) {
            self.shared.goaway.cancel();
        }
    }

    /// Waits until no call is open and none that was on its way can still arrive.
    pub(crate) async fn idle(&self) {
        let mut calls = self.shared.calls.subscribe();
        loop {
            // The sender lives in `self`.
            let _ = calls.wait_for(|calls| *calls == 0).await;
            tokio::select! {
                () = self.shared.finished.cancelled() => return,
                () = tokio::time::sleep(STRAGGLERS) => return,
                _ = calls.changed() => {}
            }
        }
    }

    /// Ends the endpoint, politely for as long as the caller waits.
    pub(crate) async fn close(&self) {
        self.shared.goaway.cancel();
        self.shared.finished.cancelled().await;
    }
}
