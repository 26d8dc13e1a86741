//! Writing what is registered as lines that can be imported.

mod sink;

use prism_client::{Position, Registry};
use prism_core::shutdown;
use serde_json::json;

use crate::{
    cli::multicast::Export,
    command::pages::Pages,
    exit::Exit,
    fault::{Fault, Stop},
    jsonl,
    output::{Format, Output, Progress, Shown, Style, Table},
};
use sink::Sink;

/// How many registrations are asked for at a time: as many as there may be.
const PAGE: u32 = 1_000;

pub(super) async fn export(registry: &Registry, export: &Export, output: &mut Output) -> Result<Exit, Stop> {
    let mut sink = Sink::open(&export.file)?;
    let mut pages = Pages::new(export.filter.clone(), None, PAGE);
    let bar = Progress::new(sink.shows_bar(output.format()), "registrations");
    let written = if sink.is_stdout() {
        // Whoever interrupts finds out by how it ends; what was written stays.
        all(registry, &mut pages, &mut sink, &bar, output).await?
    } else {
        let interrupted =
            shutdown::signals().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
        tokio::select! {
            written = all(registry, &mut pages, &mut sink, &bar, output) => written?,
            _ = interrupted => {
                bar.end();
                Style::talk("interrupted, the file is as it was");
                return Ok(Exit::Interrupted);
            }
        }
    };
    bar.end();
    output.flush()?;
    let to_stdout = sink.is_stdout();
    sink.complete()?;
    tell(
        &Done {
            written,
            pages,
            export,
        },
        to_stdout,
        output,
    )
}

/// Writes all pages; how many registrations that were.
async fn all(
    registry: &Registry,
    pages: &mut Pages,
    sink: &mut Sink,
    bar: &Progress,
    output: &mut Output,
) -> Result<u64, Stop> {
    let (mut lines, mut written) = (Vec::new(), 0);
    while let Some(page) = pages.next(registry).await? {
        lines.clear();
        for found in page {
            jsonl::write(found, &mut lines)
                .map_err(|error| Fault::internal(format!("cannot write a line: {error}")))?;
            written += 1;
        }
        sink.write(&lines, output)?;
        pages.done();
        bar.at(written, pages.total());
    }
    Ok(written)
}

/// What was exported.
struct Done<'a> {
    written: u64,
    pages: Pages,
    export: &'a Export,
}

/// The summary goes where the lines do not.
fn tell(done: &Done<'_>, to_stdout: bool, output: &mut Output) -> Result<Exit, Stop> {
    let shown = done.shown();
    match output.format() {
        _ if !to_stdout => output.event(&shown)?,
        Format::Json | Format::Yaml => Style::talk(&shown.tree.to_string()),
        Format::Table | Format::Name => Style::talk(&done.text()),
    }
    Ok(Exit::Ok)
}

impl Done<'_> {
    fn positions(&self) -> Option<(Position, Position)> {
        self.pages.positions()
    }

    fn text(&self) -> String {
        let count = self.written;
        match self.positions() {
            Some((first, last)) if first != last => {
                format!("{count} exported, of no single moment: from {first} on, the last of {last}")
            }
            Some((at, _)) => format!("{count} exported, as of {at}"),
            None => format!("{count} exported"),
        }
    }

    fn shown(&self) -> Shown {
        let positions = self.positions();
        let (first, last) = positions.unzip();
        let [first, last] = [first, last].map(|at| at.map(|at| at.to_string()).unwrap_or_default());
        let is_one = first == last;
        let file = self.export.file.display().to_string();
        let summary = json!({
            "exported": self.written,
            "file": file,
            "position": last,
            "first_position": first,
            "one_position": is_one,
        });
        Shown {
            tree: json!({ "summary": summary }),
            table: Table::facts([
                ("EXPORTED", self.written.to_string()),
                ("FILE", file),
                ("AS OF", last),
                ("BEGUN AS OF", if is_one { String::new() } else { first }),
            ]),
            names: Vec::new(),
        }
    }
}
