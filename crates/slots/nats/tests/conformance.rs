//! The suite that every messaging slot passes, on a real broker.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{process::ExitCode, sync::Arc};

use prism_slot::{DynMessaging, conformance};
use prism_slot_nats::{CAPABILITY, Config, NatsMessaging};
use prism_testkit::NatsServer;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(NatsServer::start()).unwrap();
    let url = server.url();
    conformance::messaging("nats", CAPABILITY, move |namespace, options| {
        let mut config = Config {
            servers: vec![url.clone()],
            ..Config::default()
        };
        config.listener_queue = options.listener_queue.unwrap_or(config.listener_queue);
        async move {
            let slot = NatsMessaging::open(&namespace, "test", config).await;
            Arc::new(slot.unwrap()) as Arc<dyn DynMessaging>
        }
    })
}
