//! Lines that were refused, for people to look at, and for programs to mend.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
};

use prism_client::{Applied, Error};
use serde_json::{Map, Value, json};

use crate::{
    cli::multicast::Import,
    exit::Exit,
    fault::{Fault, Stop},
    output::{Cell, Output, Shown, Table},
};

/// Why a line was not registered, as far as is known.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) reason: String,
    pub(super) message: String,
    /// Whether it may have been registered all the same.
    pub(super) is_unknown: bool,
    pub(super) exit: Exit,
}

impl Problem {
    pub(super) fn of(error: &Error) -> Self {
        Self {
            reason: error.reason_text().to_owned(),
            message: error.to_string(),
            is_unknown: error.applied() == Applied::Unknown,
            exit: Exit::of(error),
        }
    }

    /// The line itself is wrong, and was not sent.
    pub(super) fn mistake(message: String) -> Self {
        Self {
            reason: "INVALID_LINE".to_owned(),
            message,
            is_unknown: false,
            exit: Exit::Error,
        }
    }

    pub(super) fn interrupted() -> Self {
        Self {
            reason: "INTERRUPTED".to_owned(),
            message: "the import was interrupted before the answer came".to_owned(),
            is_unknown: true,
            exit: Exit::Interrupted,
        }
    }
}

/// Where refused lines are told: in a file of their own, or where answers are.
pub(super) struct Refused(Option<BufWriter<File>>);

impl Refused {
    pub(super) fn open(import: &Import) -> Result<Self, Stop> {
        let Some(path) = &import.errors else {
            return Ok(Self(None));
        };
        let fault = |message: String| Stop::from(Fault::usage("errors", message));
        let same = fs::canonicalize(path)
            .ok()
            .filter(|path| fs::canonicalize(&import.file).is_ok_and(|file| file == *path));
        if same.is_some() {
            return Err(fault(format!("`{}` is what is imported", path.display())));
        }
        let file = File::create(path)
            .map_err(|error| fault(format!("`{}` cannot be written: {error}", path.display())))?;
        Ok(Self(Some(BufWriter::new(file))))
    }

    pub(super) fn is_file(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn note(
        &mut self,
        number: u64,
        text: &str,
        problem: &Problem,
        output: &mut Output,
    ) -> Result<(), Stop> {
        match &mut self.0 {
            Some(file) => writeln!(file, "{}", mendable(number, text, problem)).map_err(unwritten),
            None => output.event(&shown(number, text, problem)),
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        self.0.as_mut().map_or(Ok(()), Write::flush).map_err(unwritten)
    }
}

fn unwritten(error: std::io::Error) -> Stop {
    Fault::internal(format!("cannot write the refused lines: {error}")).into()
}

fn told(number: u64, problem: &Problem) -> Value {
    json!({
        "line": number,
        "reason": problem.reason,
        "message": problem.message,
        "applied": if problem.is_unknown { "unknown" } else { "no" },
    })
}

/// The line as it was, with the reason: mended where it has to be, it can be imported.
fn mendable(number: u64, text: &str, problem: &Problem) -> Value {
    let mut error = told(number, problem);
    let mut line = match serde_json::from_str::<Map<String, Value>>(text) {
        // A line that is wrong may say what no tree can hold, such as a name twice.
        Ok(line) if problem.reason != "INVALID_LINE" => line,
        _ => {
            error["text"] = text.into();
            Map::new()
        }
    };
    line.insert("error".to_owned(), error);
    Value::Object(line)
}

fn shown(number: u64, text: &str, problem: &Problem) -> Shown {
    let identity = serde_json::from_str::<Value>(text)
        .ok()
        .and_then(|line| line.get("identity")?.as_str().map(str::to_owned));
    let mut tree = told(number, problem);
    if let Some(identity) = &identity {
        tree["identity"] = identity.as_str().into();
    }
    let reason = if problem.is_unknown {
        Cell::doubtful(&problem.reason)
    } else {
        Cell::bad(&problem.reason)
    };
    let mut table = Table::default();
    table.row([
        format!("line {number}").into(),
        identity.clone().unwrap_or_default().into(),
        reason,
        problem.message.as_str().into(),
    ]);
    Shown {
        tree,
        table,
        names: identity.into_iter().collect(),
    }
}
