//! Lists of cases, chosen by capability, and how they are run.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    process::ExitCode,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::StdRng};

use super::fault::{Fault, Scene, Stage};
use crate::{InboxCapability, LedgerCapability, MessagingCapability, RegistryCapability, Scope};

/// How long one case may take.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// Set for a run of this program that is one case of another run.
const ALONE: &str = "PRISM_CONFORMANCE_ALONE";
/// Names the seed of a run that is to be had again.
const SEED: &str = "PRISM_TEST_SEED";

/// One promise of a trait, and for which slots it is made.
pub(super) struct Case<C, F> {
    pub(super) name: &'static str,
    pub(super) applies: fn(&C) -> bool,
    pub(super) run: fn(F) -> BoxFuture<'static, ()>,
}

/// A promise about what holds under a fault, for every backend that the fault can befall.
pub(super) struct FaultCase<C, F> {
    pub(super) case: Case<C, F>,
    pub(super) fault: Fault,
    /// The promise, for people.
    pub(super) holds: &'static str,
}

impl<C: Reach, F> FaultCase<C, F> {
    pub(super) fn applies(&self, capability: &C) -> bool {
        self.fault.befalls(capability.scope()) && (self.case.applies)(capability)
    }
}

/// A list of cases, each the name of a function; after `if`, for which capabilities it is.
macro_rules! cases {
    ($($name:ident $(if $applies:expr)?),* $(,)?) => {
        &[$($crate::conformance::cases::case!($name $(, $applies)?)),*]
    };
}
pub(super) use cases;

/// A list of cases with faults: each a fault, the name of a function, and what that proves.
macro_rules! fault_cases {
    ($($fault:ident: $name:ident $(if $applies:expr)? => $holds:literal),* $(,)?) => {
        &[$($crate::conformance::cases::FaultCase {
            case: $crate::conformance::cases::case!($name $(, $applies)?),
            fault: $crate::conformance::Fault::$fault,
            holds: $holds,
        }),*]
    };
}
pub(super) use fault_cases;

macro_rules! case {
    ($name:ident) => {
        $crate::conformance::cases::case!($name, |_| true)
    };
    ($name:ident, $applies:expr) => {
        $crate::conformance::cases::Case {
            name: stringify!($name),
            applies: $applies,
            run: |fixture| Box::pin($name(fixture)),
        }
    };
}
pub(super) use case;

/// A capability that says how far its data reaches.
pub(super) trait Reach {
    fn scope(&self) -> Scope;
}

macro_rules! reach {
    ($($capability:ty),*) => {
        $(impl Reach for $capability {
            fn scope(&self) -> Scope {
                self.scope
            }
        })*
    };
}
reach!(
    RegistryCapability,
    MessagingCapability,
    InboxCapability,
    LedgerCapability
);

/// One suite for one slot.
pub(super) struct Suite<C: 'static, F: 'static, O: ?Sized + 'static> {
    pub(super) name: &'static str,
    pub(super) cases: &'static [Case<C, F>],
    pub(super) faults: &'static [FaultCase<C, Scene<O>>],
}

impl<C: Reach, F, O: ?Sized + Send + Sync> Suite<C, F, O> {
    /// Runs what applies. `fixture` is given the name of a namespace, `stage` sets a backend up that one case has
    /// for itself.
    pub(super) fn run(
        &self,
        capability: &C,
        fixture: impl Fn(String) -> F + Send + Clone + 'static,
        stage: impl Fn() -> BoxFuture<'static, Stage<O>> + Send + Sync + 'static,
    ) -> ExitCode {
        let arguments = Arguments::from_args();
        let cases = self
            .cases
            .iter()
            .map(|case| self.trial(case, capability, fixture.clone()));
        let stage = Arc::new(stage);
        let faults = self
            .faults
            .iter()
            .map(|case| self.fault_trial(case, capability, stage.clone()));
        // One after the other: what keeps to real time does not wait for disks that are kept busy by faults.
        let parts = [cases.collect(), faults.collect()];
        verdict(
            &arguments,
            &parts.map(|trials| libtest_mimic::run(&arguments, trials)),
        )
    }

    fn trial(
        &self,
        case: &'static Case<C, F>,
        capability: &C,
        fixture: impl Fn(String) -> F + Send + 'static,
    ) -> Trial {
        let (run, namespace) = (case.run, namespace());
        let body = move || in_time(async move { run(fixture(namespace)).await });
        Trial::test(self.title(case.name), body).with_ignored_flag(!(case.applies)(capability))
    }

    fn fault_trial(
        &self,
        case: &'static FaultCase<C, Scene<O>>,
        capability: &C,
        stage: Arc<impl Fn() -> BoxFuture<'static, Stage<O>> + Send + Sync + 'static>,
    ) -> Trial {
        let (title, suite, namespace) = (self.title(case.case.name), self.name, namespace());
        let (run, fault) = (case.case.run, case.fault);
        let scene = {
            let random = Mutex::new(random(&title));
            move |stage| Scene {
                stage,
                suite,
                namespace,
                random,
            }
        };
        let name = title.clone();
        let body = move || match fault.befalls_the_process() && std::env::var_os(ALONE).is_none() {
            true => in_own_process(&name),
            false => in_time(async move { run(scene(stage().await)).await }),
        };
        Trial::test(title, body).with_ignored_flag(!case.applies(capability))
    }

    fn title(&self, case: &str) -> String {
        format!("{}::{case}", self.name)
    }
}

fn namespace() -> String {
    static NAMESPACES: AtomicU64 = AtomicU64::new(0);
    let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
    format!("conformance-{}-{number}", std::process::id())
}

/// What comes by chance in a case: the same again under the same seed, which is printed.
fn random(title: &str) -> StdRng {
    static RUN: LazyLock<u64> = LazyLock::new(seed);
    let mut hasher = DefaultHasher::new();
    (*RUN, title).hash(&mut hasher);
    StdRng::seed_from_u64(hasher.finish())
}

#[allow(clippy::print_stdout, reason = "beside what the harness prints")]
fn seed() -> u64 {
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("to have what comes by chance again: {SEED}={seed}");
    seed
}

fn in_time(case: impl Future<Output = ()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(CASE_LIMIT, case).await });
    outcome.map_err(|_| Failed::from(format!("still running after {CASE_LIMIT:?}")))
}

/// Runs this program once more for nothing but this case.
fn in_own_process(title: &str) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let run = std::process::Command::new(program)
        .args(["--exact", title])
        .env(ALONE, "")
        .output()?;
    let printed = [run.stdout, run.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    if run.status.success() && printed.contains("1 passed") {
        return Ok(());
    }
    Err(Failed::from(printed.into_owned()))
}

/// A run of nothing has proved nothing, unless somebody asked for a part of the suite only.
fn verdict(arguments: &Arguments, parts: &[Conclusion]) -> ExitCode {
    let everything = arguments.filter.is_none() && !arguments.list;
    let is_empty = |part: &Conclusion| part.num_passed + part.num_failed == 0;
    if everything && parts.iter().all(is_empty) || parts.iter().any(Conclusion::has_failed) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::{
        super::{inbox, ledger, messaging, registry},
        *,
    };

    /// Whether it is able, and where it lives.
    struct Able(bool, Scope);

    impl Reach for Able {
        fn scope(&self) -> Scope {
            self.1
        }
    }

    async fn case(_: String) {}
    async fn fault_case(_: Scene<()>) {}

    const SUITE: Suite<Able, String, ()> = Suite {
        name: "test",
        cases: cases![case, case if |able: &Able| able.0],
        faults: fault_cases![
            Frozen: fault_case => "it holds",
            Killed: fault_case if |able: &Able| able.0 => "it holds",
        ],
    };

    fn ignored(capability: &Able) -> Vec<bool> {
        let cases = SUITE
            .cases
            .iter()
            .map(|case| SUITE.trial(case, capability, |name| name));
        let stage = Arc::new(|| -> BoxFuture<'static, Stage<()>> { unreachable!() });
        let faults = SUITE
            .faults
            .iter()
            .map(|case| SUITE.fault_trial(case, capability, stage.clone()));
        cases
            .chain(faults)
            .map(|trial| trial.has_ignored_flag())
            .collect()
    }

    #[test]
    fn a_case_that_does_not_apply_is_ignored_and_not_passed() {
        assert_eq!(ignored(&Able(false, Scope::Shared)), [false, true, false, true]);
        assert_eq!(ignored(&Able(true, Scope::Shared)), [false, false, false, false]);
        assert_eq!(ignored(&Able(true, Scope::Host)), [false, false, true, false]);
        assert_eq!(ignored(&Able(true, Scope::Process)), [false, false, true, true]);
    }

    #[test]
    fn a_run_of_nothing_fails() {
        let verdict = |arguments: &[&str], num_passed, num_failed| {
            let arguments = Arguments::from_iter([&["suite"], arguments].concat());
            let nothing = Conclusion {
                num_filtered_out: 0,
                num_passed: 0,
                num_failed: 0,
                num_ignored: 7,
                num_measured: 0,
            };
            let conclusion = Conclusion {
                num_passed,
                num_failed,
                ..nothing.clone()
            };
            verdict(&arguments, &[nothing.clone(), conclusion]) == ExitCode::SUCCESS
        };
        assert!(!verdict(&[], 0, 0));
        assert!(verdict(&[], 1, 0));
        assert!(!verdict(&[], 1, 1));
        assert!(verdict(&["--list"], 0, 0), "nothing was to be run");
        assert!(verdict(&["another_case"], 0, 0), "nor here");
    }

    fn names<C, F, O: ?Sized>(cases: &[Case<C, F>], faults: &[FaultCase<C, Scene<O>>]) -> Vec<&'static str> {
        let faults = faults.iter().map(|fault| fault.case.name);
        cases.iter().map(|case| case.name).chain(faults).collect()
    }

    /// Every case that a trait's documentation names exists, and every case is named.
    #[test]
    fn the_traits_and_the_suite_name_the_same_cases() {
        for (document, mut existing) in [
            (
                include_str!("../registry.rs"),
                names(registry::CASES, registry::FAULTS),
            ),
            (
                include_str!("../messaging.rs"),
                names(messaging::CASES, messaging::FAULTS),
            ),
            (include_str!("../inbox.rs"), names(inbox::CASES, inbox::FAULTS)),
            (include_str!("../ledger.rs"), names(ledger::CASES, ledger::FAULTS)),
        ] {
            let parts = document.split("(`").skip(1);
            let mut named: Vec<&str> = parts.filter_map(|rest| rest.split("`)").next()).collect();
            named.sort_unstable();
            named.dedup();
            existing.sort_unstable();
            assert_eq!(named, existing);
        }
    }
}
