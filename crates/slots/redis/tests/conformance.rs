//! The registry suite against a real Redis.

#![allow(clippy::unwrap_used, reason = "a case that cannot open its slot has failed")]

use std::process::ExitCode;

use prism_slot::conformance::{self, RegistrySubject};
use prism_slot_redis::{Config, RedisRegistry};
use prism_testkit::RedisServer;
use tokio::runtime::Runtime;

fn main() -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new()?;
    let server = runtime.block_on(RedisServer::start())?;
    let address = server.addr().to_string();
    Ok(conformance::registry(
        "redis",
        RedisRegistry::CAPABILITY,
        move |namespace, options| {
            let address = address.clone();
            async move {
                let mut config: Config =
                    serde_json::from_value(serde_json::json!({ "address": address })).unwrap();
                config.feed_max_changes = options
                    .feed_max_changes
                    .map_or(config.feed_max_changes, |most| most as u64);
                RegistrySubject::in_real_time(RedisRegistry::open(&namespace, config).await.unwrap())
            }
        },
    ))
}
