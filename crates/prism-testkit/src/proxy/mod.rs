//! A TCP proxy with faults to switch on and off.

mod pump;

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{free_port, proxy::pump::Pump};

/// How many ports are tried when somebody else takes them first.
const PORTS: usize = 5;

/// Which way bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToServer,
    /// Replies.
    ToClient,
}

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They arrive.
    #[default]
    Pass,
    /// They arrive this much later, in order and at full throughput.
    Delay(Duration),
    /// They wait, and arrive when the flow changes: what TCP makes of a network that loses every
    /// packet for a while. The sender notices nothing until its buffers are full.
    Hold,
    /// They vanish. Connections that lost bytes so are of no use later: [`cut`](FaultProxy::cut) them.
    Discard,
    /// This many more arrive, counted over all connections; then every connection is cut and the
    /// direction passes again.
    CutAfter(u64),
}

/// A TCP proxy on a free loopback port, in front of one server.
///
/// A client that connects while the server is down is accepted and then closed. Everything ends when
/// this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    links: Arc<Links>,
    listening: watch::Sender<bool>,
    reports: watch::Receiver<bool>,
    _serve: AbortOnDropHandle<()>,
}

impl FaultProxy {
    /// Starts to forward connections to `upstream`, without faults.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = listen().await.context("cannot listen on loopback")?;
        let addr = listener.local_addr()?;
        let links = Arc::new(Links::new(upstream));
        let (listening, commands) = watch::channel(true);
        let (report, reports) = watch::channel(true);
        let serve = tokio::spawn(serve(listener, addr, links.clone(), commands, report));
        Ok(Self {
            addr,
            links,
            listening,
            reports,
            _serve: AbortOnDropHandle::new(serve),
        })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sets what happens to the bytes of one direction, on connections that are open and those to come.
    pub fn set(&self, direction: Direction, flow: Flow) {
        self.links.flow(direction).send_replace(flow);
    }

    /// Lets both directions pass again.
    pub fn heal(&self) {
        self.set(Direction::ToServer, Flow::Pass);
        self.set(Direction::ToClient, Flow::Pass);
    }

    /// Holds both directions: connections stay open, new ones are accepted, and nothing arrives.
    pub fn black_hole(&self) {
        self.set(Direction::ToServer, Flow::Hold);
        self.set(Direction::ToClient, Flow::Hold);
    }

    /// Lets requests pass and swallows the replies.
    pub fn drop_replies(&self) {
        self.set(Direction::ToClient, Flow::Discard);
    }

    /// Closes every open connection now, losing what is under way. New ones are welcome.
    pub fn cut(&self) {
        self.links.cut();
    }

    /// Refuses new connections from when this returns. Open ones stay.
    pub async fn refuse(&self) {
        self.listen(false).await;
    }

    /// Accepts new connections again.
    ///
    /// # Errors
    /// When somebody else has taken the port meanwhile.
    pub async fn accept(&self) -> anyhow::Result<()> {
        ensure!(
            self.listen(true).await,
            "port {} has been taken meanwhile",
            self.addr.port()
        );
        Ok(())
    }

    /// How many connections have been accepted so far.
    pub fn accepted(&self) -> u64 {
        self.links.accepted.load(Ordering::Relaxed)
    }

    /// How many bytes have been forwarded in one direction so far.
    pub fn forwarded(&self, direction: Direction) -> u64 {
        self.links.forwarded(direction).load(Ordering::Relaxed)
    }

    /// Commands and waits for the report; whether it listens now.
    async fn listen(&self, wanted: bool) -> bool {
        let mut reports = self.reports.clone();
        reports.mark_unchanged();
        self.listening.send_replace(wanted);
        // An error means that the task is gone, and the listener with it.
        reports.changed().await.is_ok() && *reports.borrow()
    }
}

async fn listen() -> io::Result<TcpListener> {
    for _ in 1..PORTS {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).await {
            return Ok(listener);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).await
}

/// What all connections of a proxy share.
#[derive(Debug)]
struct Links {
    upstream: SocketAddr,
    flows: [watch::Sender<Flow>; 2],
    forwarded: [AtomicU64; 2],
    accepted: AtomicU64,
    // Cancelled to cut the connections of the day; replaced for those of tomorrow.
    open: Mutex<CancellationToken>,
}

impl Links {
    fn new(upstream: SocketAddr) -> Self {
        Self {
            upstream,
            flows: [watch::Sender::default(), watch::Sender::default()],
            forwarded: Default::default(),
            accepted: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    fn flow(&self, direction: Direction) -> &watch::Sender<Flow> {
        &self.flows[direction as usize]
    }

    fn forwarded(&self, direction: Direction) -> &AtomicU64 {
        &self.forwarded[direction as usize]
    }

    fn cut(&self) {
        std::mem::take(&mut *self.open.lock()).cancel();
    }
}

/// Accepts connections while it is told to; owns the tasks that relay them.
async fn serve(
    listener: TcpListener,
    addr: SocketAddr,
    links: Arc<Links>,
    mut commands: watch::Receiver<bool>,
    report: watch::Sender<bool>,
) {
    let mut listener = Some(listener);
    let mut relays = JoinSet::new();
    loop {
        tokio::select! {
            client = accept(listener.as_ref()) => {
                links.accepted.fetch_add(1, Ordering::Relaxed);
                let cut = links.open.lock().clone();
                relays.spawn(relay(client, links.clone(), cut));
            }
            Some(_) = relays.join_next() => {}
            changed = commands.changed() => {
                if changed.is_err() {
                    return;
                }
                if !*commands.borrow_and_update() {
                    listener.take().inspect(close);
                } else if listener.is_none() {
                    listener = TcpListener::bind(addr).await.ok();
                }
                report.send_replace(listener.is_some());
            }
        }
    }
}

/// Ends the listening itself, not only our hold of it: a process that is being forked at this moment
/// has a copy of the socket.
fn close(listener: &TcpListener) {
    // Fails only for a socket that does not listen.
    let _ = SockRef::from(listener).shutdown(Shutdown::Both);
}

/// The next client; none ever without a listener.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        // What fails here is a client that has gone already.
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
    }
}

/// Forwards one connection until both directions have ended or it is cut.
async fn relay(client: TcpStream, links: Arc<Links>, cut: CancellationToken) {
    let forward = async {
        let server = TcpStream::connect(links.upstream).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let requests = Pump::new(&links, Direction::ToServer, &cut).run(from_client, to_server);
        let replies = Pump::new(&links, Direction::ToClient, &cut).run(from_server, to_client);
        tokio::try_join!(requests, replies)
    };
    // An error closes both sides, as it would without a proxy between them.
    let _: Option<io::Result<_>> = cut.run_until_cancelled(forward).await;
}
