//! The memory slots pass the suites.

use std::{process::ExitCode, sync::Arc};

use futures::future::BoxFuture;
use prism_slot::{
    DynMessaging, Timestamp,
    conformance::{self, InboxSubject, LedgerSubject, Pass, RegistrySubject, nothing_fails},
    memory::{
        InboxConfig, ManualClock, MemoryInbox, MemoryLedger, MemoryMessaging, MemoryRegistry,
        MessagingConfig, RegistryConfig,
    },
};

fn main() -> ExitCode {
    let all = [registry(), messaging(), inbox(), ledger()];
    let failed = all.into_iter().find(|suite| *suite != ExitCode::SUCCESS);
    failed.unwrap_or(ExitCode::SUCCESS)
}

/// A clock, and how to let it go on.
fn clock() -> (Arc<ManualClock>, Pass) {
    let clock = Arc::new(ManualClock::new(Timestamp::now()));
    let passing = clock.clone();
    let pass = move |by| -> BoxFuture<'static, ()> {
        passing.advance(by);
        Box::pin(std::future::ready(()))
    };
    (clock, Arc::new(pass))
}

fn registry() -> ExitCode {
    let open = Arc::new(
        |_, options: conformance::Options| -> BoxFuture<'static, RegistrySubject> {
            let mut config = RegistryConfig::default();
            config.feed_max_changes = options.feed_max_changes.unwrap_or(config.feed_max_changes);
            let (clock, pass) = clock();
            let store = Arc::new(MemoryRegistry::with_clock(config, clock));
            Box::pin(std::future::ready(RegistrySubject { store, pass }))
        },
    );
    conformance::registry("memory", MemoryRegistry::CAPABILITY, open, nothing_fails)
}

fn messaging() -> ExitCode {
    let open = Arc::new(
        |_, options: conformance::Options| -> BoxFuture<'static, Arc<dyn DynMessaging>> {
            let mut config = MessagingConfig::default();
            (config.listener_queue, config.listener_queue_bytes) =
                (options.room.messages, options.room.bytes);
            let slot: Arc<dyn DynMessaging> = Arc::new(MemoryMessaging::new(config));
            Box::pin(std::future::ready(slot))
        },
    );
    conformance::messaging("memory", MemoryMessaging::CAPABILITY, open, nothing_fails)
}

fn inbox() -> ExitCode {
    let open = Arc::new(|_, limits| -> BoxFuture<'static, InboxSubject> {
        let (clock, pass) = clock();
        let slot = Arc::new(MemoryInbox::with_clock(InboxConfig::default(), limits, clock));
        Box::pin(std::future::ready(InboxSubject { slot, pass }))
    });
    conformance::inbox("memory", MemoryInbox::CAPABILITY, open, nothing_fails)
}

fn ledger() -> ExitCode {
    let open = Arc::new(|_| -> BoxFuture<'static, LedgerSubject> {
        let (clock, pass) = clock();
        let ledger = Arc::new(MemoryLedger::with_clock(64 << 20, clock));
        Box::pin(std::future::ready(LedgerSubject { ledger, pass }))
    });
    conformance::ledger("memory", MemoryLedger::CAPABILITY, open, nothing_fails)
}
