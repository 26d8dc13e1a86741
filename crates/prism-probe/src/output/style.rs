//! Colours, where there is a terminal that wants them.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

/// Whether and how text is coloured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    colour: bool,
}

impl Style {
    pub(crate) fn of_stdout() -> Self {
        Self::of(&io::stdout())
    }

    pub(crate) fn of_stderr() -> Self {
        Self::of(&io::stderr())
    }

    /// No colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colour: false }
    }

    /// Colours, terminal or not.
    #[cfg(test)]
    pub(crate) fn coloured() -> Self {
        Self { colour: true }
    }

    fn of(stream: &impl IsTerminal) -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: stream.is_terminal() && !unwanted && !dumb,
        }
    }

    /// Says something on stderr.
    pub(crate) fn talk(text: &str) {
        // Where nobody listens there is nobody to tell that either.
        let _ = writeln!(io::stderr(), "{text}");
    }

    pub(crate) fn heading(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn doubtful(&self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(crate) fn error(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
