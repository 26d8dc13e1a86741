//! The memory slots pass the suites.

use std::{process::ExitCode, sync::Arc, time::Duration};

use prism_slot::{
    DynMessaging, Timestamp,
    conformance::{self, InboxSubject, LedgerSubject, RegistrySubject},
    memory::{
        InboxConfig, ManualClock, MemoryInbox, MemoryLedger, MemoryMessaging, MemoryRegistry,
        MessagingConfig, RegistryConfig,
    },
};

fn main() -> ExitCode {
    let registry = conformance::registry("memory", MemoryRegistry::CAPABILITY, |_, options| async move {
        let mut config = RegistryConfig::default();
        config.feed_max_changes = options.feed_max_changes.unwrap_or(config.feed_max_changes);
        let clock = Arc::new(ManualClock::new(Timestamp::now()));
        let pass = {
            let clock = clock.clone();
            move |by: Duration| -> futures::future::BoxFuture<'static, ()> {
                clock.advance(by);
                Box::pin(std::future::ready(()))
            }
        };
        RegistrySubject {
            store: Arc::new(MemoryRegistry::with_clock(config, clock)),
            pass: Arc::new(pass),
        }
    });
    let messaging = conformance::messaging("memory", MemoryMessaging::CAPABILITY, |_, options| async move {
        let mut config = MessagingConfig::default();
        config.listener_queue = options.listener_queue.unwrap_or(config.listener_queue);
        Arc::new(MemoryMessaging::new(config)) as Arc<dyn DynMessaging>
    });
    let inbox = conformance::inbox("memory", MemoryInbox::CAPABILITY, |_, limits| async move {
        let clock = Arc::new(ManualClock::new(Timestamp::now()));
        let passing = clock.clone();
        InboxSubject {
            slot: Arc::new(MemoryInbox::with_clock(InboxConfig::default(), limits, clock)),
            pass: Arc::new(move |by| {
                passing.advance(by);
                Box::pin(std::future::ready(()))
            }),
        }
    });
    let ledger = conformance::ledger("memory", MemoryLedger::CAPABILITY, |_| async move {
        let clock = Arc::new(ManualClock::new(Timestamp::now()));
        let passing = clock.clone();
        LedgerSubject {
            ledger: Arc::new(MemoryLedger::with_clock(64 << 20, clock)),
            pass: Arc::new(move |by| {
                passing.advance(by);
                Box::pin(std::future::ready(()))
            }),
        }
    });
    let all = [registry, messaging, inbox, ledger];
    let failed = all.into_iter().find(|suite| *suite != ExitCode::SUCCESS);
    failed.unwrap_or(ExitCode::SUCCESS)
}
