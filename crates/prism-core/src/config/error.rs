//! What is wrong with a configuration, and where.

use std::fmt;

use super::Path;

/// What is wrong with a configuration, and where.
///
/// Displayed on one line: `proxy.yaml:12:7: namespaces[0].slots: unknown key `registy`, did you mean
/// `registry`?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The file, or whatever else the text came from.
    pub source_name: Option<String>,
    /// The node at fault.
    pub path: Path,
    /// Counted from one; `None` when the tree did not come from a text.
    pub line: Option<u32>,
    /// In characters, counted from one.
    pub column: Option<u32>,
    /// Lowercase, no full stop, without the position.
    pub message: String,
    /// The valid key or value that is nearest to the one found.
    pub suggestion: Option<String>,
}

impl Error {
    /// An error at a node, not yet placed in a text.
    pub fn new(path: Path, message: impl Into<String>) -> Self {
        Self {
            source_name: None,
            path,
            line: None,
            column: None,
            message: message.into(),
            suggestion: None,
        }
    }

    /// Adds what was probably meant.
    #[must_use]
    pub fn suggest(mut self, suggestion: Option<&str>) -> Self {
        self.suggestion = suggestion.map(str::to_owned);
        self
    }

    /// The same error seen from higher up: `prefix` is where the decoded subtree stands.
    #[must_use]
    pub fn within(mut self, prefix: &Path) -> Self {
        self.path = prefix.clone().join(&self.path);
        self
    }

    /// The message with the suggestion, without path and position.
    pub fn explanation(&self) -> String {
        match &self.suggestion {
            Some(suggestion) => format!("{}, did you mean `{suggestion}`?", self.message),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.source_name {
            write!(f, "{name}:")?;
        }
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, "{line}:{column}: ")?,
            _ if self.source_name.is_some() => f.write_str(" ")?,
            _ => {}
        }
        if !self.path.is_root() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.explanation())
    }
}

impl std::error::Error for Error {}
