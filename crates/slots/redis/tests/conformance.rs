//! The suites against a real Redis.

#![allow(clippy::unwrap_used, reason = "a case that cannot open its slot has failed")]

use std::process::ExitCode;

use prism_slot::conformance::{self, InboxSubject, LedgerSubject, RegistrySubject};
use prism_slot_redis::{Config, ConnectionConfig, InboxConfig, RedisInbox, RedisLedger, RedisRegistry};
use prism_testkit::RedisServer;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::runtime::Runtime;

fn main() -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new()?;
    let server = runtime.block_on(RedisServer::start())?;
    let address = server.addr().to_string();
    let all = [registry(address.clone()), inbox(address.clone()), ledger(address)];
    let failed = all.into_iter().find(|suite| *suite != ExitCode::SUCCESS);
    Ok(failed.unwrap_or(ExitCode::SUCCESS))
}

fn config<C: DeserializeOwned>(address: &str) -> C {
    serde_json::from_value(json!({ "address": address })).unwrap()
}

fn registry(address: String) -> ExitCode {
    conformance::registry("redis", RedisRegistry::CAPABILITY, move |namespace, options| {
        let address = address.clone();
        async move {
            let mut config: Config = config(&address);
            config.feed_max_changes = options
                .feed_max_changes
                .map_or(config.feed_max_changes, |most| most as u64);
            RegistrySubject::in_real_time(RedisRegistry::open(&namespace, config).await.unwrap())
        }
    })
}

fn inbox(address: String) -> ExitCode {
    conformance::inbox(
        "redis-stream",
        RedisInbox::CAPABILITY,
        move |namespace, limits| {
            let config: InboxConfig = config(&address);
            async move { InboxSubject::in_real_time(RedisInbox::open(&namespace, config, limits).await.unwrap()) }
        },
    )
}

fn ledger(address: String) -> ExitCode {
    conformance::ledger("redis-ledger", RedisLedger::CAPABILITY, move |namespace| {
        let config: ConnectionConfig = config(&address);
        async move { LedgerSubject::in_real_time(RedisLedger::open(&namespace, config).await.unwrap()) }
    })
}
