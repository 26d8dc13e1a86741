//! What is shown, and how.

mod json;
mod progress;
mod style;
mod table;

use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use serde_json::Value;

pub(crate) use json::{error_object, metadata_text, scalar_text, tidy, tree};
pub(crate) use progress::Progress;
pub(crate) use style::Style;
pub(crate) use table::{Cell, Table};

use crate::fault::{Fault, Stop};

/// How to show answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// The answer in proto JSON with the proto's own field names; one object a line for streams
    Json,
    /// The same as YAML; one document each for streams
    Yaml,
    /// Only the identities that the answer is about, one a line
    Name,
}

/// An answer, ready to be shown in any format.
pub(crate) struct Shown {
    /// For `json` and `yaml`.
    pub(crate) tree: Value,
    /// For `table`.
    pub(crate) table: Table,
    /// For `name`.
    pub(crate) names: Vec<String>,
}

/// Where answers go.
pub(crate) struct Output {
    format: Format,
    style: Style,
    out: Box<dyn Write>,
}

impl Output {
    pub(crate) fn to_stdout(format: Format) -> Self {
        Self {
            format,
            style: Style::of_stdout(),
            out: Box::new(BufWriter::new(io::stdout())),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Shows the one answer of a call.
    pub(crate) fn answer(&mut self, shown: &Shown) -> Result<(), Stop> {
        match self.format {
            Format::Json => writeln!(self.out, "{:#}", shown.tree)?,
            Format::Yaml => write!(self.out, "{}", yaml(&shown.tree)?)?,
            Format::Table => write!(self.out, "{}", shown.table.render(&self.style))?,
            Format::Name => self.names(&shown.names)?,
        }
        Ok(())
    }

    /// Shows one answer of a stream, at once.
    pub(crate) fn event(&mut self, shown: &Shown) -> Result<(), Stop> {
        match self.format {
            Format::Json => writeln!(self.out, "{}", shown.tree)?,
            Format::Yaml => write!(self.out, "---\n{}", yaml(&shown.tree)?)?,
            Format::Table => write!(self.out, "{}", shown.table.render(&self.style))?,
            Format::Name => self.names(&shown.names)?,
        }
        self.flush()
    }

    /// Writes something that has only one form.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        Ok(self.out.write_all(bytes)?)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        Ok(self.out.flush()?)
    }

    fn names(&mut self, names: &[String]) -> io::Result<()> {
        names.iter().try_for_each(|name| writeln!(self.out, "{name}"))
    }
}

fn yaml(tree: &Value) -> Result<String, Stop> {
    serde_saphyr::to_string(tree)
        .map_err(|error| Fault::internal(format!("cannot write YAML: {error}")).into())
}

/// The text with control characters made visible: what comes over the wire must not drive a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(printable("é\u{1b}[2J\n\u{9b}x"), "é\\u{1b}[2J\\n\\u{9b}x");
    }
}
