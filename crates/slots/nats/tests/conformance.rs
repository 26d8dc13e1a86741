//! The suites that every slot passes, on a real broker with JetStream.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{process::ExitCode, sync::Arc};

use prism_slot::{
    DynMessaging,
    conformance::{self, InboxSubject, LedgerSubject},
};
use prism_slot_nats::{
    CAPABILITY, Config, INBOX_CAPABILITY, JetStreamConfig, JetStreamInbox, JetStreamLedger,
    LEDGER_CAPABILITY, NatsMessaging,
};
use prism_testkit::NatsServer;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(NatsServer::start_with_jetstream()).unwrap();
    let suites = [messaging(server.url()), inbox(server.url()), ledger(server.url())];
    let failed = suites.into_iter().find(|suite| *suite != ExitCode::SUCCESS);
    failed.unwrap_or(ExitCode::SUCCESS)
}

fn messaging(url: String) -> ExitCode {
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

fn jetstream(url: &str) -> JetStreamConfig {
    JetStreamConfig {
        servers: vec![url.to_owned()],
        ..JetStreamConfig::default()
    }
}

fn inbox(url: String) -> ExitCode {
    conformance::inbox("nats-inbox", INBOX_CAPABILITY, move |namespace, limits| {
        let config = jetstream(&url);
        async move { InboxSubject::in_real_time(JetStreamInbox::open(&namespace, config, limits).await.unwrap()) }
    })
}

fn ledger(url: String) -> ExitCode {
    conformance::ledger("nats-ledger", LEDGER_CAPABILITY, move |namespace| {
        let config = jetstream(&url);
        async move { LedgerSubject::in_real_time(JetStreamLedger::open(&namespace, config).await.unwrap()) }
    })
}
