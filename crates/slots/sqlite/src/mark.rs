//! The mark beside the file: how far its history has come.
//!
//! A file that was put back from a backup looks like any other one, and yet has lost what was acknowledged since. So
//! the number of the last commit is also written down outside of it, in `<path>-mark`: a file that is behind its mark,
//! or that the mark does not know, has lost history, and its namespaces begin new epochs.
//!
//! The mark is written after every commit and not synced: it may be behind the file, and never ahead of it.

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// What tells one state of a file from an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    /// Drawn when the file was made, and when it was found to be behind its mark.
    pub(crate) history: u64,
    /// How many commits it has seen since it was made.
    pub(crate) commits: u64,
}

const SIZE: usize = 24;
/// How often to read again what is being written meanwhile.
const TRIES: usize = 10;

impl Point {
    fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&self.history.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.commits.to_be_bytes());
        bytes[16..].copy_from_slice(&self.check().to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; SIZE]) -> Option<Self> {
        let word = |at: usize| {
            bytes[at..at + 8]
                .iter()
                .fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
        };
        let point = Self {
            history: word(0),
            commits: word(8),
        };
        (point.check() == word(16)).then_some(point)
    }

    /// Notices that one half was read before it was written and the other half after.
    fn check(self) -> u64 {
        (self.history ^ self.commits.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ 0x7072_6973_6d6d_6b31
    }

    /// Whether a file at this point has everything that it had at the other one.
    pub(crate) fn includes(self, other: Self) -> bool {
        self.history == other.history && self.commits >= other.commits
    }
}

/// The mark of one file, open for writing.
#[derive(Debug)]
pub(crate) struct Mark(fs::File);

impl Mark {
    fn path(of: &Path) -> PathBuf {
        let mut name = of.as_os_str().to_owned();
        name.push("-mark");
        name.into()
    }

    /// Where the file was, as far as its mark can be read.
    pub(crate) fn read(of: &Path) -> Option<Point> {
        let read = || {
            let mut bytes = [0; SIZE];
            fs::File::open(Self::path(of)).ok()?.read_exact(&mut bytes).ok()?;
            Point::from_bytes(bytes)
        };
        (0..TRIES).find_map(|_| read())
    }

    /// Opens the mark of a file that is at `point`, and sees to it that there is one after a crash.
    pub(crate) fn open(of: &Path, point: Point) -> std::io::Result<Self> {
        let path = Self::path(of);
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        let mut mark = Self(file);
        mark.write(point)?;
        mark.0.sync_all()?;
        if let Some(directory) = path.parent() {
            fs::File::open(directory)?.sync_all()?;
        }
        Ok(mark)
    }

    pub(crate) fn write(&mut self, point: Point) -> std::io::Result<()> {
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(&point.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_written_and_a_torn_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.db");
        assert_eq!(Mark::read(&file), None);
        let mut point = Point {
            history: 7,
            commits: 1,
        };
        let mut mark = Mark::open(&file, point).unwrap();
        for commits in [2, u64::from(u32::MAX) + 9] {
            point.commits = commits;
            mark.write(point).unwrap();
            assert_eq!(Mark::read(&file), Some(point));
        }
        let mut torn = point.to_bytes();
        torn[15] ^= 1;
        assert_eq!(Point::from_bytes(torn), None);
    }

    #[test]
    fn what_is_behind_or_foreign_has_lost_something() {
        let at = |history, commits| Point { history, commits };
        assert!(at(1, 5).includes(at(1, 5)) && at(1, 6).includes(at(1, 5)));
        assert!(!at(1, 4).includes(at(1, 5)) && !at(2, 6).includes(at(1, 5)));
    }
}
