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
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::time::Instant;

use crate::{DynMessaging, DynRegistryStore, MessagingCapability, RegistryCapability};

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
    let trials = registry::CASES.iter().map(|case| {
        let open = open.clone();
        trial(suite, case.name, (case.applies)(&capability), move |namespace| {
            (case.run)(open, namespace)
        })
    });
    conclude(trials.collect())
}

/// Runs the messaging suite. `open` is given the name of a namespace and the case's wishes.
pub fn messaging<O, F>(suite: &'static str, capability: MessagingCapability, open: O) -> ExitCode
where
    O: Fn(String, Options) -> F + Send + Sync + 'static,
    F: Future<Output = Arc<dyn DynMessaging>> + Send + 'static,
{
    let open: Arc<messaging::Open> = Arc::new(move |namespace, options| Box::pin(open(namespace, options)));
    let trials = messaging::CASES.iter().map(|case| {
        let open = open.clone();
        trial(suite, case.name, (case.applies)(&capability), move |namespace| {
            (case.run)(open, namespace)
        })
    });
    conclude(trials.collect())
}

/// The names of all cases, which the documentation of the traits refers to.
pub fn case_names() -> Vec<&'static str> {
    let registry = registry::CASES.iter().map(|case| case.name);
    registry
        .chain(messaging::CASES.iter().map(|case| case.name))
        .collect()
}

fn trial<F>(
    suite: &str,
    name: &'static str,
    applies: bool,
    run: impl FnOnce(String) -> F + Send + 'static,
) -> Trial
where
    F: Future<Output = ()>,
{
    static NAMESPACES: AtomicU64 = AtomicU64::new(0);
    let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
    let namespace = format!("conformance-{}-{number}", std::process::id());
    let body = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let outcome = runtime.block_on(async { tokio::time::timeout(CASE_LIMIT, run(namespace)).await });
        outcome.map_err(|_| Failed::from(format!("still running after {CASE_LIMIT:?}")))
    };
    Trial::test(format!("{suite}::{name}"), body).with_ignored_flag(!applies)
}

fn conclude(trials: Vec<Trial>) -> ExitCode {
    let arguments = Arguments::from_args();
    let filtered = arguments.filter.is_some() || arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.num_passed + conclusion.num_failed == 0 && !filtered {
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn deadline() -> Instant {
    Instant::now() + CALL_LIMIT
}

#[cfg(test)]
mod tests {
    use super::case_names;

    /// Every case that a trait's documentation names exists, and every case is named.
    #[test]
    fn the_traits_and_the_suite_name_the_same_cases() {
        let documents = concat!(include_str!("../registry.rs"), include_str!("../messaging.rs"));
        let named = documents
            .split("(`")
            .skip(1)
            .filter_map(|rest| rest.split("`)").next());
        let mut named: Vec<&str> = named.collect();
        let mut existing = case_names();
        named.sort_unstable();
        named.dedup();
        existing.sort_unstable();
        assert_eq!(named, existing);
    }
}
