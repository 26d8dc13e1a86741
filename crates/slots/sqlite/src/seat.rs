//! Which file is at a path, and whether what lies beside it belongs to it.
//!
//! SQLite takes whatever log it finds beside a file for the file's own, and would bring the last words of one file into
//! another one that was put in its place.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use prism_slot::{Applied, Result};
use tracing::warn;

use crate::{
    error::{misconfigured, unavailable},
    mark::Mark,
};

/// What tells a file from another one at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    device: u64,
    pub(crate) inode: u64,
}

impl Seat {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Of the log beside a file, if there is one.
    pub(crate) fn of_log(path: &Path) -> Option<Self> {
        Self::of(&beside(path, "-wal")).ok()
    }
}

/// A file that is kept beside another one.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Says what SQLite would only call "unable to open", and what it would not notice.
pub(crate) fn check_place(path: &Path, make: bool) -> Result<()> {
    let at = path.display();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(misconfigured(format!(
            "`{at}` is a directory; `path` must name a file in it"
        ))),
        Ok(found) => check_log(path, found.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && make => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(gone(path, &error)),
        Err(error) => Err(misconfigured(format!(
            "`{at}` cannot be looked at ({error}); check its permissions"
        ))),
    }
}

pub(crate) fn gone(path: &Path, error: &io::Error) -> prism_slot::Error {
    let message = format!(
        "`{}` is gone ({error}); put it back, or restart to begin anew",
        path.display()
    );
    unavailable(message, Applied::No)
}

/// A log that was written for another file must not be taken for this one's.
fn check_log(path: &Path, inode: u64) -> Result<()> {
    let log = fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    let is_foreign = Mark::read(path).is_some_and(|mark| mark.inode != inode);
    if log == 0 || !is_foreign {
        return Ok(());
    }
    let at = path.display();
    Err(misconfigured(format!(
        "`{at}` is not the file that `{at}-wal` was written for: if it was put in the place of another one, remove \
         `{at}-wal` and `{at}-shm`; if it was moved together with them, remove `{at}-mark`"
    )))
}

/// Removes a log that was left behind by a file that is not there any more.
pub(crate) fn remove_log(path: &Path, seat: Seat) {
    if Seat::of_log(path) != Some(seat) {
        return;
    }
    for suffix in ["-wal", "-shm"] {
        let left = beside(path, suffix);
        match fs::remove_file(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %left.display(), %error, "cannot remove what the file before has left");
            }
            _ => {}
        }
    }
}
