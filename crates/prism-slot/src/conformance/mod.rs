//! The suites that every implementation of a slot trait passes.
//!
//! A backend's `tests/conformance.rs` (with `harness = false`) says how to open the slot and hands
//! over:
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     conformance::registry("memory", MemoryRegistry::CAPABILITY, |namespace, options| async move { .. })
//! }
//! ```
//!
//! Cases are chosen by the declared capability: one that does not apply is reported ignored, and a
//! run in which none applied fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a case ends at the first surprise"
)]

mod inbox;
mod ledger;
mod messaging;
mod registry;

use std::{
    future::Future,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use tokio::time::Instant;

use crate::{
    DynDurableInbox, DynLedger, DynMessaging, DynRegistryStore, InboxCapability, InboxLimits,
    LedgerCapability, MessagingCapability, RegistryCapability,
};

/// How long one case may take.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// How long one call in a case may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// How a case wants the slot to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How many changes the feed should keep, if the case cares.
    pub feed_max_changes: Option<usize>,
    /// How many messages should wait for one listener, if the case cares.
    pub listener_queue: Option<usize>,
}

/// An opened registry slot under test.
#[derive(Clone)]
pub struct RegistrySubject {
    /// The slot.
    pub store: Arc<dyn DynRegistryStore>,
    /// Lets time pass for its leases.
    pub pass: Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl RegistrySubject {
    /// A slot whose clock is the real one.
    pub fn in_real_time(store: impl DynRegistryStore) -> Self {
        Self {
            store: Arc::new(store),
            pass: Arc::new(|by| Box::pin(tokio::time::sleep(by))),
        }
    }
}

/// Runs the registry suite. `open` is given the name of a namespace, which is empty the first time it
/// is opened, and the case's wishes.
pub fn registry<O, F>(suite: &'static str, capability: RegistryCapability, open: O) -> ExitCode
where
    O: Fn(String, Options) -> F + Send + Sync + 'static,
    F: Future<Output = RegistrySubject> + Send + 'static,
{
    let open: Arc<registry::Open> = Arc::new(move |namespace, options| Box::pin(open(namespace, options)));
    run(suite, registry::CASES, &capability, move |namespace| {
        registry::Fixture {
            open: open.clone(),
            namespace,
        }
    })
}

/// Runs the messaging suite. `open` is given the name of a namespace and the case's wishes.
pub fn messaging<O, F>(suite: &'static str, capability: MessagingCapability, open: O) -> ExitCode
where
    O: Fn(String, Options) -> F + Send + Sync + 'static,
    F: Future<Output = Arc<dyn DynMessaging>> + Send + 'static,
{
    let open: Arc<messaging::Open> = Arc::new(move |namespace, options| Box::pin(open(namespace, options)));
    run(suite, messaging::CASES, &capability, move |namespace| {
        messaging::Fixture {
            open: open.clone(),
            namespace,
        }
    })
}

/// An opened durability slot under test.
#[derive(Clone)]
pub struct InboxSubject {
    /// The slot.
    pub slot: Arc<dyn DynDurableInbox>,
    /// Lets time pass for its messages.
    pub pass: Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl InboxSubject {
    /// A slot whose clock is the real one.
    pub fn in_real_time(slot: impl DynDurableInbox) -> Self {
        Self {
            slot: Arc::new(slot),
            pass: Arc::new(|by| Box::pin(tokio::time::sleep(by))),
        }
    }
}

/// Runs the suite of durability slots. `open` is given the name of a namespace, which has no messages the first time it
/// is opened, and the limits that the case needs.
pub fn inbox<O, F>(suite: &'static str, capability: InboxCapability, open: O) -> ExitCode
where
    O: Fn(String, InboxLimits) -> F + Send + Sync + 'static,
    F: Future<Output = InboxSubject> + Send + 'static,
{
    let open: Arc<inbox::Open> = Arc::new(move |namespace, limits| Box::pin(open(namespace, limits)));
    run(suite, inbox::CASES, &capability, move |namespace| {
        inbox::Fixture {
            open: open.clone(),
            namespace,
        }
    })
}

/// An opened ledger under test.
#[derive(Clone)]
pub struct LedgerSubject {
    /// The ledger.
    pub ledger: Arc<dyn DynLedger>,
    /// Lets time pass for its entries.
    pub pass: Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl LedgerSubject {
    /// A ledger whose clock is the real one.
    pub fn in_real_time(ledger: impl DynLedger) -> Self {
        Self {
            ledger: Arc::new(ledger),
            pass: Arc::new(|by| Box::pin(tokio::time::sleep(by))),
        }
    }
}

/// Runs the suite of ledgers. `open` is given the name of a namespace, whose ledger is empty the first time it is
/// opened.
pub fn ledger<O, F>(suite: &'static str, capability: LedgerCapability, open: O) -> ExitCode
where
    O: Fn(String) -> F + Send + Sync + 'static,
    F: Future<Output = LedgerSubject> + Send + 'static,
{
    let open: Arc<ledger::Open> = Arc::new(move |namespace| Box::pin(open(namespace)));
    run(suite, ledger::CASES, &capability, move |namespace| {
        ledger::Fixture {
            open: open.clone(),
            namespace,
        }
    })
}

/// One promise of a trait, and for which slots it is made.
struct Case<C, F> {
    name: &'static str,
    applies: fn(&C) -> bool,
    run: fn(F) -> BoxFuture<'static, ()>,
}

/// A list of cases, each the name of a function; after `if`, for which capabilities it is.
macro_rules! cases {
    ($($name:ident $(if $applies:expr)?),* $(,)?) => {
        &[$($crate::conformance::Case {
            name: stringify!($name),
            applies: $crate::conformance::cases!(@applies $($applies)?),
            run: |fixture| Box::pin($name(fixture)),
        }),*]
    };
    (@applies) => { |_| true };
    (@applies $applies:expr) => { $applies };
}
use cases;

fn run<C, F: 'static>(
    suite: &str,
    cases: &'static [Case<C, F>],
    capability: &C,
    fixture: impl Fn(String) -> F + Send + Clone + 'static,
) -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = cases
        .iter()
        .map(|case| trial(suite, case, capability, fixture.clone()));
    let trials = trials.collect();
    verdict(&arguments, &libtest_mimic::run(&arguments, trials))
}

fn trial<C, F: 'static>(
    suite: &str,
    case: &'static Case<C, F>,
    capability: &C,
    fixture: impl Fn(String) -> F + Send + 'static,
) -> Trial {
    static NAMESPACES: AtomicU64 = AtomicU64::new(0);
    let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
    let namespace = format!("conformance-{}-{number}", std::process::id());
    let run = case.run;
    let body = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let case = run(fixture(namespace));
        let outcome = runtime.block_on(async { tokio::time::timeout(CASE_LIMIT, case).await });
        outcome.map_err(|_| Failed::from(format!("still running after {CASE_LIMIT:?}")))
    };
    let ignored = !(case.applies)(capability);
    Trial::test(format!("{suite}::{}", case.name), body).with_ignored_flag(ignored)
}

/// A run of nothing has proved nothing, unless somebody asked for a part of the suite only.
fn verdict(arguments: &Arguments, conclusion: &Conclusion) -> ExitCode {
    let everything = arguments.filter.is_none() && !arguments.list;
    if everything && conclusion.num_passed + conclusion.num_failed == 0 {
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn deadline() -> Instant {
    Instant::now() + CALL_LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn case(_: String) {}

    #[test]
    fn a_case_that_does_not_apply_is_ignored_and_not_passed() {
        const CASES: &[Case<bool, String>] = cases![case, case if |able: &bool| *able];
        let ignored = |capability: bool| {
            let trials = CASES
                .iter()
                .map(|case| trial("test", case, &capability, |name| name));
            trials.map(|trial| trial.has_ignored_flag()).collect::<Vec<_>>()
        };
        assert_eq!(ignored(false), [false, true]);
        assert_eq!(ignored(true), [false, false]);
    }

    #[test]
    fn a_run_of_nothing_fails() {
        let verdict = |arguments: &[&str], num_passed, num_failed| {
            let arguments = Arguments::from_iter([&["suite"], arguments].concat());
            let conclusion = Conclusion {
                num_filtered_out: 0,
                num_passed,
                num_failed,
                num_ignored: 7,
                num_measured: 0,
            };
            verdict(&arguments, &conclusion) == ExitCode::SUCCESS
        };
        assert!(!verdict(&[], 0, 0));
        assert!(verdict(&[], 1, 0));
        assert!(!verdict(&[], 1, 1));
        assert!(verdict(&["--list"], 0, 0), "nothing was to be run");
        assert!(verdict(&["another_case"], 0, 0), "nor here");
    }

    /// Every case that a trait's documentation names exists, and every case is named.
    #[test]
    fn the_traits_and_the_suite_name_the_same_cases() {
        let documents = concat!(
            include_str!("../registry.rs"),
            include_str!("../messaging.rs"),
            include_str!("../inbox.rs"),
            include_str!("../ledger.rs"),
        );
        let named = documents
            .split("(`")
            .skip(1)
            .filter_map(|rest| rest.split("`)").next());
        let mut named: Vec<&str> = named.collect();
        let registry = registry::CASES.iter().map(|case| case.name);
        let messaging = messaging::CASES.iter().map(|case| case.name);
        let inbox = inbox::CASES.iter().map(|case| case.name);
        let ledger = ledger::CASES.iter().map(|case| case.name);
        let slots = registry.chain(messaging).chain(inbox);
        let mut existing: Vec<&str> = slots.chain(ledger).collect();
        named.sort_unstable();
        named.dedup();
        existing.sort_unstable();
        assert_eq!(named, existing);
    }
}
