//! The suites against a real Redis.

#![allow(clippy::unwrap_used, reason = "a case that cannot open its slot has failed")]

#[path = "../../served.rs"]
mod served;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use prism_slot::conformance::{
    self, InboxOpen, InboxSubject, LedgerOpen, LedgerSubject, RegistryOpen, RegistrySubject, Stage,
};
use prism_slot_redis::{Config, ConnectionConfig, InboxConfig, RedisInbox, RedisLedger, RedisRegistry};
use prism_testkit::RedisServer;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::runtime::Runtime;

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

/// On a server that writes to its disk before it answers.
async fn stage<O: ?Sized>(open: fn(SocketAddr) -> Arc<O>) -> Stage<O> {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    served::stage(RedisServer::start_with(&options).await.unwrap(), open).await
}
