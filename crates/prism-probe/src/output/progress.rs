//! How far something is, for people who watch.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Format;

/// A bar on stderr, where that is a terminal and answers are shown to people. Elsewhere it is nothing.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar of a length that is not known yet.
    pub(crate) fn new(format: Format, what: &'static str) -> Self {
        Self::with(format, what, "{prefix} [{bar:30}] {pos}/{len} {msg}")
    }

    /// The same for something that is read, of which it may never be known how long it is.
    pub(crate) fn of_bytes(format: Format, what: &'static str, size: Option<u64>) -> Self {
        let bar = match size {
            Some(_) => Self::with(format, what, "{prefix} [{bar:30}] {bytes}/{total_bytes} {msg}"),
            None => Self::with(format, what, "{prefix} {bytes} {msg}"),
        };
        bar.at(0, size.unwrap_or_default());
        bar
    }

    fn with(format: Format, what: &'static str, template: &str) -> Self {
        let target = match format {
            Format::Table | Format::Name => ProgressDrawTarget::stderr(),
            Format::Json | Format::Yaml => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = ProgressStyle::with_template(template);
        bar.set_style(
            style
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        bar.set_prefix(what);
        Self(bar)
    }

    /// So much of so much is done.
    pub(crate) fn at(&self, done: u64, total: u64) {
        self.0.set_length(total.max(done));
        self.0.set_position(done);
    }

    /// Says something beside the bar.
    pub(crate) fn say(&self, text: String) {
        self.0.set_message(text);
    }

    /// Writes something while the bar is out of the way.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
