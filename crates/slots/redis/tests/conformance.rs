//! The suites against a real Redis.

#![allow(clippy::unwrap_used, reason = "a case that cannot open its slot has failed")]

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use futures::future::BoxFuture;
use prism_slot::conformance::{
    self, Backend, Bytes, Fault, InboxOpen, InboxSubject, LedgerOpen, LedgerSubject, RegistryOpen,
    RegistrySubject, Stage,
};
use prism_slot_redis::{Config, ConnectionConfig, InboxConfig, RedisInbox, RedisLedger, RedisRegistry};
use prism_testkit::{Direction, FaultProxy, Flow, RedisServer};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{runtime::Runtime, sync::Mutex};

fn main() -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new()?;
    let server = runtime.block_on(RedisServer::start())?;
    let at = server.addr();
    let all = [
        conformance::registry("redis", RedisRegistry::CAPABILITY, registry(at), || {
            stage(registry)
        }),
        conformance::inbox("redis-stream", RedisInbox::CAPABILITY, inbox(at), || stage(inbox)),
        conformance::ledger("redis-ledger", RedisLedger::CAPABILITY, ledger(at), || {
            stage(ledger)
        }),
    ];
    let failed = all.into_iter().find(|suite| *suite != ExitCode::SUCCESS);
    Ok(failed.unwrap_or(ExitCode::SUCCESS))
}

fn config<C: DeserializeOwned>(at: SocketAddr) -> C {
    serde_json::from_value(json!({ "address": at.to_string() })).unwrap()
}

fn registry(at: SocketAddr) -> Arc<RegistryOpen> {
    Arc::new(move |namespace, options| {
        let mut config: Config = config(at);
        config.feed_max_changes = options
            .feed_max_changes
            .map_or(config.feed_max_changes, |most| most as u64);
        Box::pin(async move {
            RegistrySubject::in_real_time(RedisRegistry::open(&namespace, config).await.unwrap())
        })
    })
}

fn inbox(at: SocketAddr) -> Arc<InboxOpen> {
    Arc::new(move |namespace, limits| {
        let config: InboxConfig = config(at);
        Box::pin(async move {
            InboxSubject::in_real_time(RedisInbox::open(&namespace, config, limits).await.unwrap())
        })
    })
}

fn ledger(at: SocketAddr) -> Arc<LedgerOpen> {
    Arc::new(move |namespace| {
        let config: ConnectionConfig = config(at);
        Box::pin(
            async move { LedgerSubject::in_real_time(RedisLedger::open(&namespace, config).await.unwrap()) },
        )
    })
}

/// A server that writes to its disk before it answers, and the way to it.
async fn stage<O: ?Sized>(open: fn(SocketAddr) -> Arc<O>) -> Stage<O> {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = RedisServer::start_with(&options).await.unwrap();
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
    server: Mutex<RedisServer>,
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
