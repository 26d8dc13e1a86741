//! Whether what came of a step is what was to come of it.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
};

use prism_client::{
    DeadLetters, DeliveryStatus, Error, Found as FoundIdentity, Multicast, Page, Reason, Redriven as PutBack,
    Registration, Renewal, Result as Answer, Unregistered,
};
use serde_json::{Map, Value};

use super::step::{Dead, Found, Listed, Opened, Published, Redriven, Registered, Removed, Renewed};
use crate::{exit::Exit, load::reason};

/// Why a step did not pass.
#[derive(Debug, Clone)]
pub(crate) enum Problem {
    /// Something came of it that was not to come of it.
    Unexpected(String),
    /// What it tells of could not even be tried.
    Broken(Box<Error>),
}

impl Problem {
    /// Of a call that failed and was not to fail so.
    pub(super) fn of(error: &Error) -> Self {
        if is_broken(error) {
            return Self::Broken(Box::new(error.clone()));
        }
        Self::Unexpected(failed(error))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected(message) => f.write_str(message),
            Self::Broken(error) => f.write_str(&failed(error)),
        }
    }
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self::Unexpected(message)
    }
}

fn failed(error: &Error) -> String {
    format!("it failed: {error}, reason `{}`", reason(error))
}

/// Whether a failure says nothing about the service that is tested: it is not there or does not answer in time, it
/// lets nobody in, or has no such namespace.
pub(super) fn is_broken(error: &Error) -> bool {
    matches!(Exit::of(error), Exit::Unavailable | Exit::Denied)
        || error.reason() == Some(Reason::UnknownNamespace)
}

/// What can be held against an answer.
pub(crate) trait Expect<T> {
    /// The reason of the failure that is expected, if one is.
    fn error(&self) -> Option<&str>;

    /// What is wrong with an answer.
    fn holds(&self, answer: &T) -> Result<(), Problem>;

    /// The same for a call that may have failed.
    fn check(&self, answer: &Answer<T>) -> Result<(), Problem> {
        match (answer, self.error()) {
            (Ok(answer), None) => self.holds(answer),
            (Ok(_), Some(expected)) => {
                Err(format!("expected the error `{expected}`, and it succeeded").into())
            }
            (Err(error), Some(expected)) if reason(error) == expected => Ok(()),
            (Err(error), Some(expected)) if !is_broken(error) => {
                same("the error", reason(error).as_str(), expected)
            }
            (Err(error), _) => Err(Problem::of(error)),
        }
    }
}

macro_rules! expects_error {
    () => {
        fn error(&self) -> Option<&str> {
            self.error.as_deref()
        }
    };
}

impl Expect<Registration> for Registered {
    expects_error!();

    fn holds(&self, answer: &Registration) -> Result<(), Problem> {
        let outcome = format!("{:?}", answer.outcome).to_uppercase();
        if_some("the outcome", &outcome, self.outcome.as_ref())
    }
}

impl Expect<FoundIdentity> for Found {
    expects_error!();

    fn holds(&self, answer: &FoundIdentity) -> Result<(), Problem> {
        contains("metadata", &answer.identity.metadata, &self.metadata)
    }
}

impl Expect<Vec<Renewal>> for Renewed {
    expects_error!();

    fn holds(&self, answer: &Vec<Renewal>) -> Result<(), Problem> {
        let refused = answer.iter().filter_map(|renewal| {
            let error = renewal.result.as_ref().err()?;
            Some((renewal.identity.clone(), reason(error)))
        });
        let refused: BTreeMap<_, _> = refused.collect();
        let renewed = (answer.len() - refused.len()) as u64;
        if_some("the number of renewed leases", &renewed, self.renewed.as_ref())?;
        same("what was not renewed", &refused, &self.reasons)
    }
}

impl Expect<Unregistered> for Removed {
    expects_error!();

    fn holds(&self, answer: &Unregistered) -> Result<(), Problem> {
        if_some("`existed`", &answer.existed, self.existed.as_ref())
    }
}

/// An enumeration, and whether its order counts.
pub(crate) struct Ordered<'a> {
    pub(crate) expected: &'a Listed,
    pub(crate) is_sorted: bool,
}

impl Expect<Page> for Ordered<'_> {
    fn error(&self) -> Option<&str> {
        self.expected.error.as_deref()
    }

    fn holds(&self, answer: &Page) -> Result<(), Problem> {
        if_some(
            "the number of matches",
            &answer.total_count,
            self.expected.count.as_ref(),
        )?;
        let found = answer.into_iter().map(|found| found.identity.clone()).collect();
        match &self.expected.identities {
            None => Ok(()),
            Some(expected) if self.is_sorted => same("the identities", &found, expected),
            Some(expected) => same_set("the identities", found, expected.clone()),
        }
    }
}

impl Expect<Multicast> for Published {
    expects_error!();

    fn holds(&self, answer: &Multicast) -> Result<(), Problem> {
        for (what, found, expected) in [
            ("the number of targets", answer.target_count, self.targets),
            ("the number delivered", answer.delivered_count, self.delivered),
            ("the number failed", answer.failed_count, self.failed),
            ("the number pending", answer.pending_count, self.pending),
            (
                "the number of unknown outcome",
                answer.timeout_count,
                self.timeout,
            ),
        ] {
            if_some(what, &found, expected.as_ref())?;
        }
        if let Some(expected) = &self.identities {
            let targets = answer.statuses.iter().map(|status| status.identity.clone());
            same_set("the targets", targets.collect(), expected.clone())?;
        }
        let status = |target: &DeliveryStatus| format!("{:?}", target.status).to_uppercase();
        each("the status", answer, &self.statuses, status)?;
        each("the reason", answer, &self.reasons, |target| {
            target.reason.clone().unwrap_or_default()
        })?;
        let reasons = answer.statuses.iter().filter_map(|target| target.reason.clone());
        if_some("the reasons", &counted(reasons), self.reason_counts.as_ref())?;
        let state = format!("{:?}", answer.state).to_uppercase();
        if_some("the state", &state, self.state.as_ref())?;
        if_some("`replayed`", &answer.replayed, self.replayed.as_ref())
    }
}

impl Expect<DeadLetters> for Dead {
    expects_error!();

    fn holds(&self, answer: &DeadLetters) -> Result<(), Problem> {
        let letters = &answer.letters;
        let count = letters.len() as u64;
        if_some("the number of dead letters", &count, self.count.as_ref())?;
        if let Some(expected) = &self.payloads {
            let payloads = letters
                .iter()
                .map(|letter| String::from_utf8_lossy(&letter.payload).into_owned());
            same_set("the payloads", payloads.collect(), expected.clone())?;
        }
        let reasons = letters.iter().map(|letter| letter.reason.clone());
        if_some("the reasons", &counted(reasons), self.reason_counts.as_ref())
    }
}

impl Expect<PutBack> for Redriven {
    expects_error!();

    fn holds(&self, answer: &PutBack) -> Result<(), Problem> {
        for (what, found, expected) in [
            ("the number put back", answer.redriven_count, self.redriven),
            ("the number without room", answer.full_count, self.full),
            ("the number gone", answer.gone_count, self.gone),
        ] {
            if_some(what, &found, expected.as_ref())?;
        }
        Ok(())
    }
}

impl Expect<()> for Opened {
    expects_error!();

    fn holds(&self, (): &()) -> Result<(), Problem> {
        Ok(())
    }
}

fn each(
    what: &str,
    answer: &Multicast,
    expected: &BTreeMap<String, String>,
    of: impl Fn(&DeliveryStatus) -> String,
) -> Result<(), Problem> {
    for (identity, expected) in expected {
        let target = answer.statuses.iter().find(|status| status.identity == *identity);
        let target = target.ok_or_else(|| format!("`{identity}` is no target"))?;
        same(&format!("{what} of `{identity}`"), &of(target), expected)?;
    }
    Ok(())
}

/// How often each is there.
fn counted(reasons: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    counts
}

/// Whether all that is expected is there; objects may have more.
fn contains(at: &str, found: &Map<String, Value>, expected: &Map<String, Value>) -> Result<(), Problem> {
    for (name, expected) in expected {
        let at = format!("{at}.{name}");
        match (found.get(name), expected) {
            (Some(Value::Object(found)), Value::Object(expected)) => contains(&at, found, expected)?,
            (Some(found), expected) if equal(found, expected) => {}
            (found, _) => {
                let found = found.map_or("nothing".to_owned(), |found| format!("`{found}`"));
                return Err(format!("`{at}` is {found}, expected `{expected}`").into());
            }
        }
    }
    Ok(())
}

/// Numbers are doubles, however they are written.
fn equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn if_some<T: PartialEq + Debug>(what: &str, found: &T, expected: Option<&T>) -> Result<(), Problem> {
    expected.map_or(Ok(()), |expected| same(what, found, expected))
}

fn same<T: PartialEq + Debug + ?Sized>(what: &str, found: &T, expected: &T) -> Result<(), Problem> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}").into())
}

fn same_set(what: &str, mut found: Vec<String>, mut expected: Vec<String>) -> Result<(), Problem> {
    found.sort_unstable();
    expected.sort_unstable();
    same(what, &found, &expected)
}
