//! What became of a scenario, as programs that run tests read it.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{
    expect::Problem,
    play::{Outcome, Played},
};
use crate::load::reason;

/// One suite for the scenario, one case for each step. What was not as expected is a failure; what could not be tried,
/// or was broken off, is an error.
///
/// # Errors
/// When it cannot be written as XML.
pub(crate) fn junit(played: &Played) -> Result<String, quick_junit::SerializeError> {
    let mut suite = TestSuite::new(played.name.as_str());
    for (index, step) in played.steps.iter().enumerate() {
        let status = match &step.outcome {
            Outcome::Passed => TestCaseStatus::success(),
            Outcome::Skipped => TestCaseStatus::skipped(),
            Outcome::Failed(problem) => match problem {
                Problem::Unexpected(message) => {
                    failed(NonSuccessKind::Failure, "EXPECTATION_FAILED", message)
                }
                Problem::Broken(error) => failed(NonSuccessKind::Error, &reason(error), &problem.to_string()),
            },
            Outcome::Interrupted => failed(NonSuccessKind::Error, "INTERRUPTED", "it was interrupted"),
        };
        // Numbered, as two steps may well have one name.
        let mut case = TestCase::new(format!("{} {}", index + 1, step.name), status);
        case.set_classname(played.name.as_str()).set_time(step.took);
        suite.add_test_case(case);
    }
    suite.set_time(played.steps.iter().map(|step| step.took).sum());
    let mut report = Report::new("prism-probe scenario");
    report.add_test_suite(suite);
    report.to_string()
}

fn failed(kind: NonSuccessKind, cause: &str, message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(message).set_type(cause);
    status
}
