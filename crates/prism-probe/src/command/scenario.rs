//! `prism-probe scenario …`

use std::{fs::File, io::Write, path::Path};

use prism_client::Error;
use prism_core::shutdown;
use serde_json::json;

use super::client;
use crate::{
    cli::{
        Global,
        scenario::{Command, Run},
    },
    exit::Exit,
    fault::{Fault, Stop},
    output::{Cell, Output, Progress, Shown, Table},
    scenario::{Outcome, Played, Player, Problem, Scenario, junit},
};

pub(super) async fn run(command: &Command, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    let Command::Run(asked) = command;
    let scenario = Scenario::load(&asked.file).map_err(|error| Fault::usage("file", error.to_string()))?;
    let interrupted =
        shutdown::signals().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
    let mut player = Player::new(client(global)?.registry);
    let report = asked.junit.as_deref().map(create).transpose()?;
    let bar = Progress::new(output.format(), "steps");
    let all = scenario.steps.len() as u64;
    let played = player.play(&scenario, interrupted, |index, step| {
        bar.at(index as u64, all);
        bar.say(step.name.clone());
    });
    let played = played.await;
    // Tidying up may take long where the service is gone.
    let reported = report.map_or(Ok(()), |report| write(report, asked, &played));
    if !asked.keep {
        player.tidy().await;
    }
    bar.end();
    reported?;
    let written = output.answer(&shown(&played)).and_then(|()| output.flush());
    match failure(asked, &played) {
        Some(fault) => Err(fault.into()),
        None if played.is_interrupted() => written.map(|()| Exit::Interrupted),
        None => written.map(|()| Exit::Ok),
    }
}

/// Before anything is done: a report that cannot be written is not found out afterwards.
fn create(path: &Path) -> Result<File, Stop> {
    File::create(path).map_err(|error| {
        Fault::usage(
            "junit",
            format!("`{}` cannot be written: {error}", path.display()),
        )
        .into()
    })
}

fn write(mut report: File, asked: &Run, played: &Played) -> Result<(), Stop> {
    let text = junit(played).map_err(|error| Fault::internal(format!("cannot write XML: {error}")))?;
    report.write_all(text.as_bytes()).map_err(|error| {
        let path = asked.junit.as_deref().unwrap_or(Path::new(""));
        Fault::internal(format!("cannot write `{}`: {error}", path.display())).into()
    })
}

fn failure(asked: &Run, played: &Played) -> Option<Fault> {
    let (step, problem) = played.failure()?;
    let line = step.line.map(|line| format!(":{line}")).unwrap_or_default();
    let message = format!("{}{line}: {}: {problem}", asked.file.display(), step.name);
    Some(match problem {
        Problem::Unexpected(_) => Fault::partial(Exit::Error, "EXPECTATION_FAILED", message),
        // As every other command tells it.
        Problem::Broken(error) => Fault {
            message,
            ..Fault::from(Error::clone(error))
        },
    })
}

fn shown(played: &Played) -> Shown {
    let mut table = Table::new(["STEP", "RESULT", "TOOK", "WHAT", "PROBLEM"]);
    let mut steps = Vec::new();
    for (index, step) in played.steps.iter().enumerate() {
        let (outcome, result, problem) = told(&step.outcome);
        table.row([
            (index + 1).to_string().into(),
            result(outcome),
            format!("{:.0} ms", step.took.as_secs_f64() * 1e3).into(),
            step.name.as_str().into(),
            problem.as_deref().unwrap_or_default().into(),
        ]);
        steps.push(json!({
            "name": step.name,
            "line": step.line,
            "result": outcome,
            "seconds": step.took.as_secs_f64(),
            "problem": problem,
        }));
    }
    let passed = played.passed() == played.steps.len();
    Shown {
        tree: json!({ "scenario": played.name, "passed": passed, "passed_steps": played.passed(), "steps": steps }),
        table,
        names: Vec::new(),
    }
}

/// An outcome's word, its look, and what was wrong.
fn told(outcome: &Outcome) -> (&'static str, fn(&'static str) -> Cell, Option<String>) {
    match outcome {
        Outcome::Passed => ("passed", Cell::good, None),
        Outcome::Failed(problem @ Problem::Unexpected(_)) => ("failed", Cell::bad, Some(problem.to_string())),
        Outcome::Failed(problem @ Problem::Broken(_)) => ("error", Cell::bad, Some(problem.to_string())),
        Outcome::Interrupted => ("interrupted", Cell::bad, None),
        Outcome::Skipped => ("skipped", Cell::doubtful, None),
    }
}
