//! Cases, and how they are run.

use std::{collections::BTreeSet, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Result;
use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use serde_json::Value;
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    combination::{Combination, Slots},
    fixture::{Fixture, World},
};

/// How long one case may take.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// One promise, and for which slots it is made.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What its namespace is configured with, beside the slots.
    pub(crate) wishes: fn() -> Value,
    pub(crate) applies: fn(&Slots) -> bool,
    pub(crate) run: fn(Fixture) -> BoxFuture<'static, Result<()>>,
}

/// A list of cases, each the name of a function; after `with`, how its namespace is configured; after `if`, for which
/// slots it is.
macro_rules! cases {
    ($($name:ident $(with $wishes:tt)? $(if $applies:expr)?),* $(,)?) => {
        &[$($crate::suite::Case {
            name: stringify!($name),
            wishes: || $crate::suite::cases!(@wishes $($wishes)?),
            applies: $crate::suite::cases!(@applies $($applies)?),
            run: |fixture| Box::pin($name(fixture)),
        }),*]
    };
    (@wishes) => { ::serde_json::json!({}) };
    (@wishes $wishes:tt) => { ::serde_json::json!($wishes) };
    (@applies) => { |_| true };
    (@applies $applies:expr) => { $applies };
}
pub(crate) use cases;

fn all() -> impl Iterator<Item = &'static Case> {
    let topics = [
        crate::registering::CASES,
        crate::records::CASES,
        crate::leases::CASES,
        crate::telling::CASES,
        crate::finding::CASES,
        crate::messaging::CASES,
        crate::storing::CASES,
        crate::handing::CASES,
        crate::settling::CASES,
        crate::dead::CASES,
        crate::ledger::CASES,
        crate::apart::CASES,
        crate::outliving::CASES,
    ];
    topics.into_iter().flatten()
}

/// Runs the cases that apply to one combination, on a system that is started for the first of them.
pub(crate) fn run(arguments: &Arguments, combination: &'static Combination) -> Result<ExitCode> {
    let runtime = Arc::new(Runtime::new()?);
    let world = Arc::new(World::new(combination, all())?);
    let trials = all().map(|case| trial(combination, case, &world, &runtime));
    let trials = trials.collect();
    let conclusion = libtest_mimic::run(arguments, trials);
    Ok(verdict(arguments, &conclusion))
}

fn trial(
    combination: &Combination,
    case: &'static Case,
    world: &Arc<World>,
    runtime: &Arc<Runtime>,
) -> Trial {
    let ignored = !(case.applies)(world.slots());
    let (world, runtime) = (world.clone(), runtime.clone());
    let body = move || {
        runtime.block_on(async {
            let fixture = world.fixture(case).await?;
            let outcome = timeout(CASE_LIMIT, (case.run)(fixture)).await;
            let outcome = outcome.map_err(|_| Failed::from(format!("still running after {CASE_LIMIT:?}")))?;
            outcome.map_err(|error| Failed::from(format!("{error:?}")))
        })
    };
    Trial::test(format!("{}::{}", combination.name, case.name), body).with_ignored_flag(ignored)
}

/// A run of nothing has proved nothing, unless somebody asked for a part of the suite only.
fn verdict(arguments: &Arguments, conclusion: &Conclusion) -> ExitCode {
    let everything = arguments.filter.is_none() && !arguments.list;
    if everything && conclusion.num_passed + conclusion.num_failed == 0 {
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Every case of the slots' suites is one here, or said not to be observable.
pub(crate) fn check_names(arguments: &Arguments) -> ExitCode {
    let body = || {
        let here: BTreeSet<&str> = all().map(|case| case.name).collect();
        let page = include_str!("main.rs");
        let missing: Vec<&str> = of_the_slots()
            .filter(|name| !here.contains(name) && !page.contains(&format!("`{name}`")))
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Failed::from(format!(
                "neither observed nor said not to be: {missing:?}"
            ))),
        }
    };
    let trial = Trial::test("every_promise_of_a_slot_is_accounted_for", body);
    libtest_mimic::run(arguments, vec![trial]).exit_code()
}

/// The cases of the slots' suites, which are those that the documentation of their traits names.
fn of_the_slots() -> impl Iterator<Item = &'static str> {
    let documents = concat!(
        include_str!("../../../crates/prism-slot/src/registry.rs"),
        include_str!("../../../crates/prism-slot/src/messaging.rs"),
        include_str!("../../../crates/prism-slot/src/inbox.rs"),
        include_str!("../../../crates/prism-slot/src/ledger.rs"),
    );
    let named = documents.split("(`").skip(1);
    named.filter_map(|rest| rest.split("`)").next())
}
