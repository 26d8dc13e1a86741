//! Registering what a file holds.

mod refused;
mod report;
mod send;

use futures::{FutureExt, future::BoxFuture, future::Shared};
use prism_client::{RegisterRequest, Registry, SessionId};
use prism_core::shutdown;
use tokio::select;

use crate::{
    cli::multicast::Import,
    exit::Exit,
    fault::{Fault, Stop},
    jsonl::{Batch, Batches, Entry},
    output::{Output, Progress},
};
use refused::{Problem, Refused};
use report::Report;

pub(super) async fn import(registry: Registry, import: &Import, output: &mut Output) -> Result<Exit, Stop> {
    let mut batches = Batches::open(&import.file, import.skip).map_err(|error| unreadable(import, &error))?;
    let interrupted =
        shutdown::signals().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
    let interrupted = interrupted.map(drop).boxed().shared();
    let session = import.session.unwrap_or_else(SessionId::random);
    let mut work = Work {
        registry,
        import,
        session,
        refused: Refused::open(import)?,
        report: Report::new(import, session),
        bar: Progress::of_bytes(output.format(), "import", batches.size),
        interrupted: interrupted.clone(),
    };
    let ended = loop {
        let batch = select! {
            biased;
            () = interrupted.clone() => match batches.next().now_or_never() {
                // There is nothing left to keep from being done.
                Some(None) => None,
                _ => break Ok(Exit::Interrupted),
            },
            batch = batches.next() => batch,
        };
        let batch = match batch {
            None => {
                work.report.is_whole = true;
                break Ok(Exit::Ok);
            }
            Some(Err(error)) => break Err(unreadable(import, &error)),
            Some(Ok(batch)) => batch,
        };
        let bytes = batch.bytes;
        match work.batch(batch, output).await {
            Ok(Exit::Ok) if !work.is_to_stop() => {}
            ended => break ended,
        }
        work.bar.at(bytes, batches.size.unwrap_or_default());
        work.bar.say(work.report.short());
    };
    work.bar.end();
    if work.is_to_stop() {
        work.report.stopped();
    }
    let written = work.refused.flush();
    work.report
        .conclude(ended.and_then(|exit| written.map(|()| exit)), output)
}

/// An import under way.
struct Work<'a> {
    registry: Registry,
    import: &'a Import,
    session: SessionId,
    refused: Refused,
    report: Report,
    bar: Progress,
    interrupted: Shared<BoxFuture<'static, ()>>,
}

/// A line that asks for a registration.
struct Line {
    number: u64,
    text: String,
    request: RegisterRequest,
}

impl Work<'_> {
    /// Does what a portion asks for, as far as it can.
    async fn batch(&mut self, batch: Batch, output: &mut Output) -> Result<Exit, Stop> {
        let (lines, mistakes) = self.parted(batch.entries);
        if self.import.dry_run {
            self.report.valid += lines.len() as u64;
        } else {
            let exit = self.send(lines, output).await?;
            if exit != Exit::Ok || self.is_to_stop() {
                return Ok(exit);
            }
        }
        for mistake in &mistakes {
            self.refuse(mistake.number, &mistake.text, &mistake.problem, output)?;
        }
        self.report.through = batch.through;
        Ok(Exit::Ok)
    }

    /// What can be sent, and what is a mistake. Where a mistake ends the import, there is nothing after it.
    fn parted(&self, entries: Vec<Entry>) -> (Vec<Line>, Vec<Mistake>) {
        let (mut lines, mut mistakes) = (Vec::with_capacity(entries.len()), Vec::new());
        for Entry {
            number,
            text,
            request,
        } in entries
        {
            match request {
                Ok(request) => {
                    let request = self.completed(request);
                    lines.push(Line {
                        number,
                        text,
                        request,
                    });
                }
                Err(mistake) => {
                    let problem = Problem::mistake(mistake);
                    mistakes.push(Mistake {
                        number,
                        text,
                        problem,
                    });
                    if !self.goes_on() {
                        break;
                    }
                }
            }
        }
        (lines, mistakes)
    }

    fn completed(&self, mut request: RegisterRequest) -> RegisterRequest {
        if let Some(ttl) = self.import.ttl {
            (request.ttl, request.ttl_ms) = (Some(ttl.unsigned_abs()), None);
        }
        request.replace = self.import.replace;
        request.session = Some(self.session);
        request
    }

    fn refuse(
        &mut self,
        number: u64,
        text: &str,
        problem: &Problem,
        output: &mut Output,
    ) -> Result<(), Stop> {
        self.report.refuse(number, problem);
        let refused = &mut self.refused;
        self.bar.aside(|| refused.note(number, text, problem, output))
    }

    /// Whether a line that is refused keeps those after it from being sent.
    fn goes_on(&self) -> bool {
        self.import.continue_on_error || self.import.errors.is_some() || self.import.dry_run
    }

    fn is_to_stop(&self) -> bool {
        self.report.is_bad() && !self.goes_on()
    }
}

/// A line that asks for nothing that could be sent.
struct Mistake {
    number: u64,
    text: String,
    problem: Problem,
}

fn unreadable(import: &Import, error: &std::io::Error) -> Stop {
    let file = import.file.display();
    Fault::usage("file", format!("`{file}` cannot be read: {error}")).into()
}
