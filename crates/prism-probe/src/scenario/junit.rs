//! What became of a scenario, as programs that run tests read it.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::play::{Outcome, Played};

/// One suite for the scenario, one case for each step.
///
/// # Errors
/// When it cannot be written as XML.
pub(crate) fn junit(played: &Played) -> Result<String, quick_junit::SerializeError> {
    let mut suite = TestSuite::new(played.name.as_str());
    for (index, step) in played.steps.iter().enumerate() {
        let status = match &step.outcome {
            Outcome::Passed => TestCaseStatus::success(),
            Outcome::Skipped => TestCaseStatus::skipped(),
            Outcome::Failed(problem) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status
                    .set_message(problem.as_str())
                    .set_type("EXPECTATION_FAILED");
                status
            }
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
