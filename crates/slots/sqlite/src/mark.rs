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

const SIZE: usize = 32;
/// How often to read again what is being written meanwhile.
const TRIES: usize = 10;

impl Point {
    /// Whether a file at this point has everything that it had at the other one.
    pub(crate) fn includes(self, other: Self) -> bool {
        self.history == other.history && self.commits >= other.commits
    }
}

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) point: Point,
    /// The number of the file itself. A log belongs to the file that it was written for.
    pub(crate) inode: u64,
}

impl Marked {
    fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let words = [self.point.history, self.point.commits, self.inode, self.check()];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; SIZE]) -> Option<Self> {
        let word = |at: usize| {
            bytes[8 * at..8 * at + 8]
                .iter()
                .fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
        };
        let marked = Self {
            point: Point {
                history: word(0),
                commits: word(1),
            },
            inode: word(2),
        };
        (marked.check() == word(3)).then_some(marked)
    }

    /// Notices that one half was read before it was written and the other half after.
    fn check(self) -> u64 {
        const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
        let words = [self.point.history, self.point.commits, self.inode];
        words.into_iter().fold(1, |mixed: u64, word| {
            (mixed ^ word).wrapping_mul(MIX).rotate_left(29)
        })
    }
}

/// The mark of one file, open for writing.
#[derive(Debug)]
pub(crate) struct Mark {
    mark: fs::File,
    inode: u64,
}

impl Mark {
    fn path(of: &Path) -> PathBuf {
        let mut name = of.as_os_str().to_owned();
        name.push("-mark");
        name.into()
    }

    /// Where the file was, as far as its mark can be read.
    pub(crate) fn read(of: &Path) -> Option<Marked> {
        let read = || {
            let mut bytes = [0; SIZE];
            fs::File::open(Self::path(of)).ok()?.read_exact(&mut bytes).ok()?;
            Marked::from_bytes(&bytes)
        };
        (0..TRIES).find_map(|_| read())
    }

    /// Opens the mark of a file that is at `point`, and sees to it that there is one after a crash.
    pub(crate) fn open(of: &Path, marked: Marked) -> std::io::Result<Self> {
        let path = Self::path(of);
        let mark = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        let inode = marked.inode;
        let mut mark = Self { mark, inode };
        mark.write(marked.point)?;
        mark.mark.sync_all()?;
        if let Some(directory) = path.parent() {
            fs::File::open(directory)?.sync_all()?;
        }
        Ok(mark)
    }

    pub(crate) fn write(&mut self, point: Point) -> std::io::Result<()> {
        let marked = Marked {
            point,
            inode: self.inode,
        };
        self.mark.seek(SeekFrom::Start(0))?;
        self.mark.write_all(&marked.to_bytes())
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
        let marked = |point| Marked { point, inode: 9 };
        let mut mark = Mark::open(&file, marked(point)).unwrap();
        for commits in [2, u64::from(u32::MAX) + 9] {
            point.commits = commits;
            mark.write(point).unwrap();
            assert_eq!(Mark::read(&file), Some(marked(point)));
        }
        let mut torn = marked(point).to_bytes();
        torn[15] ^= 1;
        assert_eq!(Marked::from_bytes(&torn), None);
    }

    #[test]
    fn what_is_behind_or_foreign_has_lost_something() {
        let at = |history, commits| Point { history, commits };
        assert!(at(1, 5).includes(at(1, 5)) && at(1, 6).includes(at(1, 5)));
        assert!(!at(1, 4).includes(at(1, 5)) && !at(2, 6).includes(at(1, 5)));
    }
}
