//! The suites that every implementation of a slot trait passes.
//!
//! A backend's `tests/conformance.rs` (with `harness = false`) says how to open the slot, and how to set a backend up that
//! one case has for itself and that things can be done to:
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     conformance::registry("redis", RedisRegistry::CAPABILITY, open(address), || async { Stage { .. } })
//! }
//! ```
//!
//! Cases are chosen by the declared capability: one that does not apply, or whose [`Fault`] cannot befall such a backend,
//! is reported ignored, and a run in which none applied fails. What comes by chance is printed as a seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a case ends at the first surprise"
)]

mod cases;
pub mod failures;
mod fault;
mod inbox;
mod ledger;
mod messaging;
mod registry;
mod work;

use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::{
    DynDurableInbox, DynLedger, DynMessaging, DynRegistryStore, InboxCapability, InboxLimits,
    LedgerCapability, MessagingCapability, RegistryCapability, Room,
};
use cases::Suite;
pub use fault::{Backend, Bytes, Fault, Stage, nothing_fails};
use work::Writer;

/// How long one call in a case may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Opens a registry slot. Given the name of a namespace, which is empty the first time it is opened, and the case's
/// wishes.
pub type RegistryOpen = dyn Fn(String, Options) -> BoxFuture<'static, RegistrySubject> + Send + Sync;
/// Opens a messaging slot. Given the name of a namespace and the case's wishes.
pub type MessagingOpen = dyn Fn(String, Options) -> BoxFuture<'static, Arc<dyn DynMessaging>> + Send + Sync;
/// Opens a durability slot. Given the name of a namespace, which has no messages the first time it is opened, and the
/// limits that the case needs.
pub type InboxOpen = dyn Fn(String, InboxLimits) -> BoxFuture<'static, InboxSubject> + Send + Sync;
/// Opens a ledger. Given the name of a namespace, whose ledger is empty the first time it is opened.
pub type LedgerOpen = dyn Fn(String) -> BoxFuture<'static, LedgerSubject> + Send + Sync;

/// Lets time pass for a slot.
pub type Pass = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// How a case wants the slot to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How many changes the feed should keep, if the case cares.
    pub feed_max_changes: Option<usize>,
    /// How much should wait for one listener.
    pub room: Room,
}

macro_rules! subject {
    ($(#[$meta:meta])* $name:ident { $(#[$of:meta])* $field:ident: $slot:ident }) => {
        $(#[$meta])*
        #[derive(Clone)]
        pub struct $name {
            $(#[$of])*
            pub $field: Arc<dyn $slot>,
            /// Lets time pass for it.
            pub pass: Pass,
        }

        impl $name {
            /// One whose clock is the real one.
            pub fn in_real_time($field: impl $slot) -> Self {
                Self {
                    $field: Arc::new($field),
                    pass: Arc::new(|by| Box::pin(tokio::time::sleep(by))),
                }
            }
        }
    };
}

subject! {
    /// An opened registry slot under test.
    RegistrySubject {
        /// The slot.
        store: DynRegistryStore
    }
}
subject! {
    /// An opened durability slot under test.
    InboxSubject {
        /// The slot.
        slot: DynDurableInbox
    }
}
subject! {
    /// An opened ledger under test.
    LedgerSubject {
        /// The ledger.
        ledger: DynLedger
    }
}

/// Runs the registry suite.
pub fn registry<S, F>(
    name: &'static str,
    capability: RegistryCapability,
    open: Arc<RegistryOpen>,
    stage: S,
) -> ExitCode
where
    S: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Stage<RegistryOpen>> + Send + 'static,
{
    if let Some(writer) = Writer::asked_for() {
        return writer.write(
            name,
            |namespace| open(namespace, Options::default()),
            registry::work,
        );
    }
    let suite = Suite {
        name,
        cases: registry::CASES,
        faults: registry::FAULTS,
    };
    let fixture = move |namespace| registry::Fixture {
        open: open.clone(),
        namespace,
    };
    suite.run(&capability, fixture, move || Box::pin(stage()))
}

/// Runs the messaging suite.
pub fn messaging<S, F>(
    name: &'static str,
    capability: MessagingCapability,
    open: Arc<MessagingOpen>,
    stage: S,
) -> ExitCode
where
    S: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Stage<MessagingOpen>> + Send + 'static,
{
    let suite = Suite {
        name,
        cases: messaging::CASES,
        faults: messaging::FAULTS,
    };
    let fixture = move |namespace| messaging::Fixture {
        open: open.clone(),
        namespace,
    };
    suite.run(&capability, fixture, move || Box::pin(stage()))
}

/// Runs the suite of durability slots.
pub fn inbox<S, F>(
    name: &'static str,
    capability: InboxCapability,
    open: Arc<InboxOpen>,
    stage: S,
) -> ExitCode
where
    S: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Stage<InboxOpen>> + Send + 'static,
{
    if let Some(writer) = Writer::asked_for() {
        return writer.write(name, |namespace| open(namespace, inbox::roomy()), inbox::work);
    }
    let suite = Suite {
        name,
        cases: inbox::CASES,
        faults: inbox::FAULTS,
    };
    let fixture = move |namespace| inbox::Fixture {
        open: open.clone(),
        namespace,
    };
    suite.run(&capability, fixture, move || Box::pin(stage()))
}

/// Runs the suite of ledgers.
pub fn ledger<S, F>(
    name: &'static str,
    capability: LedgerCapability,
    open: Arc<LedgerOpen>,
    stage: S,
) -> ExitCode
where
    S: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Stage<LedgerOpen>> + Send + 'static,
{
    if let Some(writer) = Writer::asked_for() {
        return writer.write(name, |namespace| open(namespace), ledger::work);
    }
    let suite = Suite {
        name,
        cases: ledger::CASES,
        faults: ledger::FAULTS,
    };
    let fixture = move |namespace| ledger::Fixture {
        open: open.clone(),
        namespace,
    };
    suite.run(&capability, fixture, move || Box::pin(stage()))
}

fn deadline() -> Instant {
    Instant::now() + CALL_LIMIT
}
