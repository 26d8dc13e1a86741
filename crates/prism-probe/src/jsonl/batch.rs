//! Lines in portions that are sent together.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    thread,
};

use prism_client::RegisterRequest;
use tokio::sync::mpsc;

use super::{
    line,
    lines::{Content, Lines},
};

/// How many lines are sent together, and about how many bytes.
const LINES: usize = 1_000;
const BYTES: usize = 4 << 20;

/// How many portions are read ahead.
const AHEAD: usize = 1;

/// Lines that are sent together. No two of them are of the same identity: of those it would not be known which
/// comes first.
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    /// The number of the last line that is in it.
    pub(crate) through: u64,
    /// How much was read so far.
    pub(crate) bytes: u64,
}

/// A line.
pub(crate) struct Entry {
    /// Counted from 1.
    pub(crate) number: u64,
    /// As it was read; empty where it is no text.
    pub(crate) text: String,
    /// What it asks for, or what is wrong with it.
    pub(crate) request: Result<RegisterRequest, String>,
}

/// The portions of a file, read ahead of those who take them, but not far.
pub(crate) struct Batches {
    portions: mpsc::Receiver<io::Result<Batch>>,
    /// How large the file is, where that is known.
    pub(crate) size: Option<u64>,
}

impl Batches {
    /// Those of a file, or of stdin for `-`, after so many lines.
    pub(crate) fn open(path: &Path, skip: u64) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Self::of(BufReader::new(io::stdin()), skip, None);
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let size = metadata.is_file().then_some(metadata.len());
        Self::of(BufReader::with_capacity(1 << 18, file), skip, size)
    }

    /// Reads on a thread of its own: whoever waits for stdin can do nothing else. It ends with what it reads, or
    /// with whom it reads for, and at the latest with the process.
    pub(super) fn of(
        reader: impl BufRead + Send + 'static,
        skip: u64,
        size: Option<u64>,
    ) -> io::Result<Self> {
        let (sender, portions) = mpsc::channel(AHEAD);
        thread::Builder::new().name("lines".to_owned()).spawn(move || {
            for batch in Cut::new(Lines::new(reader), skip) {
                if sender.blocking_send(batch).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { portions, size })
    }

    /// Whether no more is read ahead before somebody takes a portion.
    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.portions.capacity() == 0
    }

    /// The next portion; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Batch>> {
        self.portions.recv().await
    }
}

/// Cuts lines into portions.
pub(super) struct Cut<R> {
    lines: Lines<R>,
    skip: u64,
    /// The first line of the next portion, if it was read already.
    next: Option<Entry>,
    is_over: bool,
}

impl<R: BufRead> Cut<R> {
    pub(super) fn new(lines: Lines<R>, skip: u64) -> Self {
        Self {
            lines,
            skip,
            next: None,
            is_over: false,
        }
    }

    fn entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let content = self.lines.next()?;
            let number = self.lines.number;
            let entry = |text, request| Entry {
                number,
                text,
                request,
            };
            match content {
                None => return Ok(None),
                Some(_) if number <= self.skip => {}
                Some(Content::Blank) => {}
                Some(Content::Bad(problem)) => return Ok(Some(entry(String::new(), Err(problem)))),
                Some(Content::Text(text)) => {
                    let request = line::read(&text);
                    return Ok(Some(entry(text, request)));
                }
            }
        }
    }

    fn batch(&mut self) -> io::Result<Batch> {
        let (mut entries, mut names, mut size) = (Vec::new(), HashSet::new(), 0);
        while entries.len() < LINES && size < BYTES {
            let Some(entry) = self
                .next
                .take()
                .map_or_else(|| self.entry(), |entry| Ok(Some(entry)))?
            else {
                self.is_over = true;
                break;
            };
            if let Ok(request) = &entry.request
                && !names.insert(request.identity.clone())
            {
                self.next = Some(entry);
                break;
            }
            size += entry.text.len();
            entries.push(entry);
        }
        let held = self.next.as_ref().map(|next| next.number - 1);
        Ok(Batch {
            entries,
            through: held.unwrap_or(self.lines.number),
            bytes: self.lines.bytes,
        })
    }
}

impl<R: BufRead> Iterator for Cut<R> {
    type Item = io::Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let batch = self.batch();
        self.is_over |= batch.is_err();
        // The last one may have nothing but blank lines.
        match batch {
            Ok(batch) if batch.entries.is_empty() => None,
            batch => Some(batch),
        }
    }
}
