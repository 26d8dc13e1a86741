//! The suites that every slot passes, on a real broker with JetStream.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../../served.rs"]
mod served;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use prism_slot::{
    DynMessaging,
    conformance::{self, InboxOpen, InboxSubject, LedgerOpen, LedgerSubject, MessagingOpen, Stage},
};
use prism_slot_nats::{
    CAPABILITY, Config, INBOX_CAPABILITY, JetStreamConfig, JetStreamInbox, JetStreamLedger,
    LEDGER_CAPABILITY, NatsMessaging,
};
use prism_testkit::NatsServer;
use tokio::runtime::Runtime;

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
        (config.listener_queue, config.listener_queue_bytes) = (options.room.messages, options.room.bytes);
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

async fn stage<O: ?Sized>(open: fn(SocketAddr) -> Arc<O>) -> Stage<O> {
    served::stage(NatsServer::start_with_jetstream().await.unwrap(), open).await
}
