//! A server that a conformance case has for itself, the way to it, and what befalls both. Shared by the backends that are
//! servers.

use std::{net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use prism_slot::conformance::{Backend, Bytes, Fault, Stage};
use prism_testkit::{Direction, FaultProxy, Flow, Server, flavour::Flavour};
use tokio::sync::Mutex;

/// The stage of slots that `open` opens at an address.
pub(crate) async fn stage<O: ?Sized, F: Flavour>(
    server: Server<F>,
    open: fn(SocketAddr) -> Arc<O>,
) -> Stage<O> {
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    Stage {
        open: open(proxy.addr()),
        beside: open(server.addr()),
        backend: Arc::new(Served {
            server: Mutex::new(server),
            proxy,
        }),
    }
}

struct Served<F: Flavour> {
    server: Mutex<Server<F>>,
    proxy: FaultProxy,
}

impl<F: Flavour> Backend for Served<F> {
    fn begin(&self, fault: Fault) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut server = self.server.lock().await;
            match fault {
                Fault::BlackHole => self.proxy.black_hole(),
                Fault::LostReplies => self.proxy.drop_replies(),
                Fault::Frozen => server.freeze().unwrap(),
                Fault::Restarted => server.terminate().await.unwrap(),
                Fault::Killed | Fault::Emptied => server.stop(),
                Fault::Cut | Fault::DiskFull => unreachable!("{fault} does not begin here"),
            }
        })
    }

    fn end(&self, fault: Fault) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut server = self.server.lock().await;
            match fault {
                Fault::Frozen => server.thaw().unwrap(),
                Fault::Restarted | Fault::Killed => server.restart().await.unwrap(),
                Fault::Emptied => server.restart_empty().await.unwrap(),
                _ => self.proxy.heal(),
            }
            // What has lost bytes is of no use any more.
            if fault == Fault::LostReplies {
                self.proxy.cut();
            }
        })
    }

    fn passed(&self, bytes: Bytes) -> u64 {
        self.proxy.forwarded(direction(bytes))
    }

    fn cut_within(&self, bytes: Bytes, after: u64) {
        self.proxy.set(direction(bytes), Flow::CutAfter(after));
    }
}

fn direction(bytes: Bytes) -> Direction {
    match bytes {
        Bytes::Asked => Direction::ToServer,
        Bytes::Answered => Direction::ToClient,
    }
}
