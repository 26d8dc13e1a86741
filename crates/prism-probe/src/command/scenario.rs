//! `prism-probe scenario …`

use std::{fs::File, io::Write, path::Path};

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
    scenario::{Outcome, Played, Player, Scenario, junit},
};

pub(super) async fn run(command: &Command, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    let Command::Run(asked) = command;
    let scenario = Scenario::load(&asked.file).map_err(|error| Fault::usage("file", error.to_string()))?;
    let report = asked.junit.as_deref().map(create).transpose()?;
    let interrupted =
        shutdown::signals().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
    let mut player = Player::new(client(global)?.registry);
    let bar = Progress::new(output.format(), "steps");
    let all = scenario.steps.len() as u64;
    let played = tokio::select! {
        played = player.play(&scenario, |index, step| {
            bar.at(index as u64, all);
            bar.say(step.name.clone());
        }) => Some(played),
        _ = interrupted => None,
    };
    if !asked.keep {
        player.tidy().await;
    }
    bar.end();
    let Some(played) = played else {
        return Ok(Exit::Interrupted);
    };
    if let Some(report) = report {
        write(report, asked, &played)?;
    }
    let written = output.answer(&shown(&played)).and_then(|()| output.flush());
    match failure(asked, &played) {
        Some(fault) => Err(fault.into()),
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
    Some(Fault::partial(Exit::Error, "EXPECTATION_FAILED", message))
}

fn shown(played: &Played) -> Shown {
    let mut table = Table::new(["STEP", "RESULT", "TOOK", "WHAT", "PROBLEM"]);
    let mut steps = Vec::new();
    for (index, step) in played.steps.iter().enumerate() {
        let (result, problem) = match &step.outcome {
            Outcome::Passed => (Cell::good("passed"), None),
            Outcome::Failed(problem) => (Cell::bad("failed"), Some(problem.as_str())),
            Outcome::Skipped => (Cell::doubtful("skipped"), None),
        };
        let outcome = match step.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed(_) => "failed",
            Outcome::Skipped => "skipped",
        };
        table.row([
            (index + 1).to_string().into(),
            result,
            format!("{:.0} ms", step.took.as_secs_f64() * 1e3).into(),
            step.name.as_str().into(),
            problem.unwrap_or_default().into(),
        ]);
        steps.push(json!({
            "name": step.name,
            "line": step.line,
            "result": outcome,
            "seconds": step.took.as_secs_f64(),
            "problem": problem,
        }));
    }
    let passed = played.failure().is_none();
    Shown {
        tree: json!({ "scenario": played.name, "passed": passed, "passed_steps": played.passed(), "steps": steps }),
        table,
        names: Vec::new(),
    }
}
