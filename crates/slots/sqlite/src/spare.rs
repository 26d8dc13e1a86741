//! Room on the disk that is kept for when there is none.
//!
//! What was committed lies in the log and is brought into the file later, which has to grow for it. On a full disk it
//! cannot, so the log never begins anew, and not even what makes room can be committed. So `<path>-spare` holds as much
//! of the disk as the file lacks for what is in its log, and some for the log itself. It is cut to nothing where a
//! call that makes room finds none, and nothing that stores more is committed before it is whole again.
//!
//! All processes that have the file open share it. It is seen to before a commit that stores more, while nobody else
//! commits.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use crate::seat::beside;

/// How much there has to be for the log, what it has already included.
const FOR_LOG: u64 = 4 << 20;
/// How much more is kept where there is room: opening the file takes some of it.
const FOR_OPENING: u64 = 1 << 20;
/// In what steps it grows, and how much too much of it is not given back.
const STEP: u64 = 1 << 20;
const SLACK: u64 = 4 << 20;
/// In what steps it grows where there is not enough, at least.
const CRUMB: u64 = 4 << 10;

/// The room beside one file.
#[derive(Debug)]
pub(crate) struct Spare {
    path: PathBuf,
}

impl Spare {
    pub(crate) fn of(path: &Path) -> Self {
        Self {
            path: beside(path, "-spare"),
        }
    }

    /// Keeps enough for a file that lacks `lacking` bytes and has a log of `log` bytes, and where it `may_shrink` not much
    /// more.
    ///
    /// # Errors
    /// There is less room; as much of it as possible is kept. Or the file system does not do it.
    pub(crate) fn hold(&self, lacking: u64, log: u64, may_shrink: bool) -> io::Result<()> {
        let needed = lacking + FOR_LOG.saturating_sub(log);
        let wanted = needed + FOR_OPENING;
        let length = self.length();
        if length >= wanted && !(may_shrink && length > wanted + SLACK) {
            return Ok(());
        }
        let wanted = wanted.next_multiple_of(STEP);
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)?;
        if length > wanted {
            return file.set_len(wanted);
        }
        match grow(&file, length, wanted) {
            Err(_) if self.length() >= needed => Ok(()),
            grown => grown,
        }
    }

    /// Gives the room back to the disk. Whether there was any.
    pub(crate) fn give_up(&self) -> bool {
        let cut = || fs::File::options().write(true).open(&self.path)?.set_len(0);
        self.length() > 0 && cut().is_ok()
    }

    fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |spare| spare.len())
    }
}

/// Whether this says that the disk has no room, or none for this process.
pub(crate) fn is_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// All of it, or as much as there is.
fn grow(file: &fs::File, from: u64, to: u64) -> io::Result<()> {
    let (mut length, mut step) = (from, to - from);
    while length < to {
        step = step.min(to - length);
        match allocate(file, length, step) {
            Ok(()) => length += step,
            Err(error) => {
                // What is there of it is not counted on.
                file.set_len(length)?;
                if step < CRUMB {
                    return Err(error);
                }
                step /= 2;
            }
        }
    }
    Ok(())
}

fn allocate(file: &fs::File, from: u64, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), from, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write(file, from, bytes),
        done => Ok(done?),
    }
}

/// Takes the room where it cannot be asked for: by something that no file system makes smaller.
fn write(file: &fs::File, from: u64, bytes: u64) -> io::Result<()> {
    let (mut at, end) = (from, from + bytes);
    while at < end {
        let some: [u64; 512] = std::array::from_fn(|_| rand::random());
        let some = some.map(u64::to_ne_bytes);
        let some = some.as_flattened();
        let length = some.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        file.write_all_at(&some[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_is_as_large_as_what_the_file_and_its_log_lack() {
        let directory = tempfile::tempdir().unwrap();
        let spare = Spare::of(&directory.path().join("x.db"));
        let (path, mebi) = (directory.path().join("x.db-spare"), |bytes: u64| bytes << 20);
        assert!(!spare.give_up(), "there was none");
        for (lacking, log, expected) in [
            (0, 0, mebi(5)),
            (mebi(3) - 5, mebi(3), mebi(5)),
            (mebi(5) - 5, mebi(9), mebi(6)),
            (mebi(2), mebi(9), mebi(6)),
            (0, mebi(9), mebi(1)),
            (mebi(20), 0, mebi(25)),
            (1, mebi(9), mebi(2)),
        ] {
            spare.hold(lacking, log, true).unwrap();
            let held = fs::metadata(&path).unwrap();
            assert_eq!(held.len(), expected, "{lacking} {log}");
            assert!(
                held.blocks() * 512 >= expected,
                "it is there and not only said to be"
            );
        }
        spare.hold(mebi(20), 0, false).unwrap();
        spare.hold(0, mebi(9), false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), mebi(25));
        assert!(spare.give_up());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn what_is_written_takes_room_too() {
        let file = tempfile::tempfile().unwrap();
        write(&file, 10_000, 10_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 20_000);
    }
}
