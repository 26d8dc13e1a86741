//! What SQLite and the file system say, and what is known from it about the effect of a call.

use std::path::Path;

use prism_slot::{Applied, Error};
use rusqlite::{ErrorCode, ffi};

/// The backend's name.
pub(crate) const BACKEND: &str = "sqlite";

/// Why a call ended without the outcome that it was to have.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The slot's answer is a refusal. What the call found on its way, such as that a lease had ended, stands.
    Refused(Error),
    /// SQLite could not do it. Nothing of the call may stay.
    Failed(rusqlite::Error),
    /// What is stored cannot be what was written. Nothing of the call may stay.
    Damaged(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

pub(crate) fn unavailable(message: impl Into<String>, applied: Applied) -> Error {
    Error::Unavailable {
        backend: BACKEND,
        message: message.into(),
        applied,
    }
}

pub(crate) fn timeout(applied: Applied) -> Error {
    Error::Timeout {
        backend: BACKEND,
        applied,
    }
}

pub(crate) fn misconfigured(message: impl Into<String>) -> Error {
    Error::Misconfigured {
        backend: BACKEND,
        message: message.into(),
    }
}

pub(crate) fn unreadable(message: impl Into<String>) -> Error {
    Error::Unreadable {
        backend: BACKEND,
        message: message.into(),
    }
}

pub(crate) fn closed() -> Error {
    unavailable("the slot is closed", Applied::No)
}

/// What a call is told whose work SQLite could not do.
pub(crate) fn explain(path: &Path, error: &rusqlite::Error, applied: Applied) -> Error {
    let at = path.display();
    let said = plain(error);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => unavailable(
            format!("`{at}` cannot grow ({said}); free space on its disk, or raise `max_size`"),
            applied,
        ),
        Some(ErrorCode::DatabaseCorrupt) => unreadable(format!(
            "`{at}` is damaged ({said}); stop what uses it and put a backup in its place, or move it away to begin anew"
        )),
        Some(ErrorCode::NotADatabase) => misconfigured(format!(
            "`{at}` is no SQLite database ({said}); set another `path`, or move it away to begin anew"
        )),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => misconfigured(format!(
            "`{at}` cannot be written ({said}); give this process write permission to it and to its directory"
        )),
        Some(ErrorCode::CannotOpen) => misconfigured(format!(
            "`{at}` cannot be opened ({said}); check `path` and the permissions of its directory"
        )),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            unavailable(format!("another process keeps `{at}` locked ({said})"), applied)
        }
        Some(ErrorCode::SystemIoFailure) => unavailable(
            format!("`{at}` cannot be read or written ({said}); check its disk"),
            applied,
        ),
        _ => unavailable(format!("`{at}`: {said}"), applied),
    }
}

/// What is known of a group of calls whose commit failed with this.
///
/// A commit is valid once its last page is in the log. One that could not be written there never becomes valid; one
/// that was written, and could not be brought to the disk, may.
pub(crate) fn effect_of_failed_commit(error: &rusqlite::Error) -> Applied {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::OutOfMemory) => Applied::No,
        _ if is_full(error) => Applied::No,
        _ => Applied::Unknown,
    }
}

/// Whether the connection may be at fault, so that another one may do better.
pub(crate) fn wants_another_connection(error: &rusqlite::Error) -> bool {
    let may_be_at_fault = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
        )
    );
    may_be_at_fault && !is_full(error)
}

/// Whether somebody else has the lock, who will give it back.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Whether there was no room. Nothing was applied. A quota looks like any other failure to write.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_WRITE)
}

/// What SQLite says where it finds no room itself.
pub(crate) fn no_room(error: &std::io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), Some(error.to_string()))
}

fn plain(error: &rusqlite::Error) -> String {
    let said = error.to_string();
    match error.sqlite_extended_error_code() {
        Some(code) => format!("{}, code {code}", said.trim_end_matches('.')),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn a_commit_that_may_have_reached_the_disk_is_not_called_failed() {
        for (code, expected) in [
            (ffi::SQLITE_FULL, Applied::No),
            (ffi::SQLITE_IOERR_WRITE, Applied::No),
            (ffi::SQLITE_BUSY, Applied::No),
            (ffi::SQLITE_IOERR_FSYNC, Applied::Unknown),
            (ffi::SQLITE_IOERR, Applied::Unknown),
            (ffi::SQLITE_CORRUPT, Applied::Unknown),
        ] {
            assert_eq!(effect_of_failed_commit(&failure(code)), expected, "{code}");
        }
    }

    #[test]
    fn failures_name_the_file_and_what_to_do() {
        for (code, advice) in [
            (ffi::SQLITE_FULL, "free space"),
            (ffi::SQLITE_CORRUPT, "backup"),
            (ffi::SQLITE_NOTADB, "another `path`"),
            (ffi::SQLITE_READONLY, "write permission"),
            (ffi::SQLITE_CANTOPEN, "check `path`"),
            (ffi::SQLITE_IOERR_FSYNC, "check its disk"),
        ] {
            let told = explain(Path::new("/var/x.db"), &failure(code), Applied::No).to_string();
            assert!(told.contains("`/var/x.db`") && told.contains(advice), "{told}");
        }
    }
}
