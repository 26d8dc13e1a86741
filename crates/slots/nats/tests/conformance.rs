//! The suites that every slot passes, on a real broker with JetStream.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use futures::future::BoxFuture;
use prism_slot::{
    DynMessaging,
    conformance::{
        self, Backend, Bytes, Fault, InboxOpen, InboxSubject, LedgerOpen, LedgerSubject, MessagingOpen, Stage,
    },
};
use prism_slot_nats::{
    CAPABILITY, Config, INBOX_CAPABILITY, JetStreamConfig, JetStreamInbox, JetStreamLedger,
    LEDGER_CAPABILITY, NatsMessaging,
};
use prism_testkit::{Direction, FaultProxy, Flow, NatsServer};
use tokio::{runtime::Runtime, sync::Mutex};

fn main() -> ExitCode {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(NatsServer::start_with_jetstream()).unwrap();
    let at = server.addr();
    let all = [
        conformance::messaging("nats", CAPABILITY, messaging(at), || stage(messaging)),
        conformance::inbox("nats-inbox", INBOX_CAPABILITY, inbox(at), || stage(inbox)),
        conformance::ledger("nats-ledger", LEDGER_CAPABILITY, ledger(at), || stage(ledger)),
    ];
    let failed = all.into_iter().find(|suite| *suite != ExitCode::SUCCESS);
    failed.unwrap_or(ExitCode::SUCCESS)
}

fn messaging(at: SocketAddr) -> Arc<MessagingOpen> {
    Arc::new(move |namespace, options| {
        let mut config = Config {
            servers: vec![format!("nats://{at}")],
            ..Config::default()
        };
        config.listener_queue = options.listener_queue.unwrap_or(config.listener_queue);
        Box::pin(async move {
            let slot = NatsMessaging::open(&namespace, "test", config).await;
            Arc::new(slot.unwrap()) as Arc<dyn DynMessaging>
        })
    })
}

fn jetstream(at: SocketAddr) -> JetStreamConfig {
    JetStreamConfig {
        servers: vec![format!("nats://{at}")],
        ..JetStreamConfig::default()
    }
}

fn inbox(at: SocketAddr) -> Arc<InboxOpen> {
    Arc::new(move |namespace, limits| {
        Box::pin(async move {
            let slot = JetStreamInbox::open(&namespace, jetstream(at), limits).await;
            InboxSubject::in_real_time(slot.unwrap())
        })
    })
}

fn ledger(at: SocketAddr) -> Arc<LedgerOpen> {
    Arc::new(move |namespace| {
        Box::pin(async move {
            let ledger = JetStreamLedger::open(&namespace, jetstream(at)).await;
            LedgerSubject::in_real_time(ledger.unwrap())
        })
    })
}

/// A server of a case's own, and the way to it.
async fn stage<O: ?Sized>(open: fn(SocketAddr) -> Arc<O>) -> Stage<O> {
    let server = NatsServer::start_with_jetstream().await.unwrap();
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

struct Served {
    server: Mutex<NatsServer>,
    proxy: FaultProxy,
}

impl Backend for Served {
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

    fn cut_within(&self, bytes: Bytes, after: u64) {
        let direction = match bytes {
            Bytes::Asked => Direction::ToServer,
            Bytes::Answered => Direction::ToClient,
        };
        self.proxy.set(direction, Flow::CutAfter(after));
    }
}
