//! The lines of a file, with their numbers, in bounded memory.

use std::io::{self, BufRead, Read};

/// A line that is longer is no registration that the service would take.
const LONGEST: u64 = 16 << 20;

/// The lines of something that is read, as they come.
pub(super) struct Lines<R> {
    reader: R,
    longest: u64,
    /// How many lines were read, and how many bytes.
    pub(super) number: u64,
    pub(super) bytes: u64,
}

/// What a line holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing but blanks.
    Blank,
    Text(String),
    /// No text, and why.
    Bad(String),
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self::with_longest(reader, LONGEST)
    }

    pub(super) fn with_longest(reader: R, longest: u64) -> Self {
        Self {
            reader,
            longest,
            number: 0,
            bytes: 0,
        }
    }

    /// The next line; `None` after the last.
    pub(super) fn next(&mut self) -> io::Result<Option<Content>> {
        let mut line = Vec::new();
        // The line itself, and what ends it.
        let mut part = self.reader.by_ref().take(self.longest + 1);
        let read = part.read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += read;
        if read > self.longest && line.last() != Some(&b'\n') {
            self.pass()?;
            let problem = format!("the line is longer than {} bytes", self.longest);
            return Ok(Some(Content::Bad(problem)));
        }
        Ok(Some(match String::from_utf8(line) {
            Ok(text) if text.trim().is_empty() => Content::Blank,
            Ok(text) => Content::Text(text.trim_end().to_owned()),
            Err(error) => Content::Bad(format!(
                "the line is not UTF-8, from byte {} on",
                error.utf8_error().valid_up_to() + 1
            )),
        }))
    }

    /// Passes over the rest of a line, without keeping it.
    fn pass(&mut self) -> io::Result<()> {
        loop {
            let part = match self.reader.fill_buf() {
                Ok(part) => part,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = part.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(part.len(), |end| end + 1);
            self.reader.consume(used);
            self.bytes += used as u64;
            if end.is_some() || used == 0 {
                return Ok(());
            }
        }
    }
}
