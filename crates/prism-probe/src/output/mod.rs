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

/// The text with characters made visible that nobody sees: what comes over the wire must neither drive a terminal
/// nor look like something else.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() || is_format(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Whether it turns text around, or takes no room.
fn is_format(letter: char) -> bool {
    matches!(
        letter,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(printable("é\u{1b}[2J\n\u{9b}x"), "é\\u{1b}[2J\\n\\u{9b}x");
    }

    /// What turns text around, or hides in it, makes one identity look like another.
    #[test]
    fn characters_that_nobody_sees_are_shown() {
        for letter in [
            '\u{200b}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2060}', '\u{2066}', '\u{2069}', '\u{feff}',
        ] {
            let shown = format!("a\\u{{{:x}}}b", u32::from(letter));
            assert_eq!(printable(&format!("a{letter}b")), shown);
        }
        assert_eq!(printable("日本 – “ö”"), "日本 – “ö”");
    }
}
