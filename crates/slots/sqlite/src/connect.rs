//! Opens a file, and sees to it that it can keep what the slots promise.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use prism_slot::{Applied, Error, Result};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tracing::warn;

use crate::{
    error::{Fault, explain, is_busy, misconfigured, no_room, unreadable},
    history,
    mark::{Mark, Marked, Point},
    schema::{self, Content},
    seat::{Seat, beside, check_place, gone, remove_log},
    spare::{Spare, is_room},
    step::{self, Tuning},
};

/// How many statements are kept prepared; there are fewer.
const STATEMENTS: usize = 128;
/// What the log is cut to when it was longer for once.
const LONGEST_LOG: i64 = 64 << 20;
/// How long to leave a lock to whoever has it before it is asked for again.
const PAUSE: Duration = Duration::from_millis(1);

/// A connection to a file that is as it should be.
pub(crate) struct Connected {
    pub(crate) conn: Connection,
    mark: Mark,
    /// Which file it is, whatever is at its path by now.
    seat: Seat,
    /// And its log.
    log_seat: Option<Seat>,
    /// The room that is kept beside it.
    spare: Spare,
    /// How large a page is.
    page: u64,
    /// How many pages are in the log.
    log: Arc<AtomicI32>,
}

impl Connected {
    /// Opens the file; makes it where there is none and `make` says so. Another process may have it to itself until
    /// `give_up`.
    pub(crate) fn open(path: &Path, make: bool, tuning: Tuning, give_up: Instant) -> Result<Self> {
        let mut opened = Self::connect(path, make, tuning, give_up);
        // Nobody was in the way, or it would be later. Perhaps there was no room for what SQLite puts beside the file.
        let may_be_full = matches!(opened, Err(Error::Unavailable { .. })) && Instant::now() < give_up;
        // What has no mark is not ours.
        if may_be_full && Mark::read(path).is_some() && Spare::of(path).give_up() {
            opened = Self::connect(path, make, tuning, give_up);
        }
        let opened = opened?;
        if let Err(error) = opened.hold_room(path) {
            warn!(path = %path.display(), %error, "there is no room to keep some beside the file; nothing more is stored until there is");
        }
        Ok(opened)
    }

    fn connect(path: &Path, make: bool, tuning: Tuning, give_up: Instant) -> Result<Self> {
        check_place(path, make)?;
        let told = |error: rusqlite::Error| explain(path, &error, Applied::No);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let make = if make {
            OpenFlags::SQLITE_OPEN_CREATE
        } else {
            OpenFlags::empty()
        };
        let mut conn = Connection::open_with_flags(path, flags | make).map_err(told)?;
        // Whoever waits here does so by itself, as long as there is a call that has time.
        conn.busy_timeout(Duration::ZERO).map_err(told)?;
        check_content(path, &conn, give_up)?;
        patiently(give_up, || settle(&conn)).map_err(told)?;
        check_modes(path, &conn)?;
        let log = Arc::new(AtomicI32::new(0));
        let pages = log.clone();
        let hook = move |_: &mut rusqlite::hooks::Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        };
        conn.wal_hook(Some(hook)).map_err(told)?;
        let (mark, seat) = take_seat(path, &conn, give_up)?;
        step::apply(&conn, tuning).map_err(told)?;
        let page: u32 = conn
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(told)?;
        Ok(Self {
            conn,
            mark,
            seat,
            log_seat: Seat::of_log(path),
            spare: Spare::of(path),
            page: page.into(),
            log,
        })
    }

    /// Whether the file at the path is still this one.
    ///
    /// # Errors
    /// There is none, or it cannot be told.
    pub(crate) fn is_in_place(&self, path: &Path) -> Result<bool> {
        let found = Seat::of(path).map_err(|error| gone(path, &error))?;
        Ok(found == self.seat)
    }

    /// Closes a file that is not at its path any more.
    pub(crate) fn leave(self, path: &Path) {
        let log = self.log_seat;
        drop(self);
        if let Some(log) = log {
            remove_log(path, log);
        }
    }

    /// Notes how far the file has come.
    pub(crate) fn note(&mut self, path: &Path, point: Point) {
        if let Err(error) = self.mark.write(point) {
            warn!(path = %path.display(), %error, "cannot write the mark beside the file; a backup that is put back may go unnoticed");
        }
    }

    /// Keeps room for bringing what was committed into the file, and what the open transaction is about to. Only within
    /// one is it made smaller: elsewhere another process may be about to need it.
    ///
    /// # Errors
    /// There is not enough, as SQLite would say it.
    pub(crate) fn hold_room(&self, path: &Path) -> rusqlite::Result<()> {
        let mut count = self.conn.prepare_cached("PRAGMA page_count")?;
        let pages: i64 = count.query_row((), |row| row.get(0))?;
        let length = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let lacking = (pages.cast_unsigned() * self.page).saturating_sub(length(path));
        let is_alone = !self.conn.is_autocommit();
        match self.spare.hold(lacking, length(&beside(path, "-wal")), is_alone) {
            Err(error) if is_room(&error) => Err(no_room(&error)),
            // Where it cannot be kept for another reason, there is none.
            _ => Ok(()),
        }
    }

    /// Gives up the room that was kept. Whether there was any.
    pub(crate) fn give_room(&self) -> bool {
        self.spare.give_up()
    }

    /// How many pages are in the log.
    pub(crate) fn log(&self) -> i32 {
        self.log.load(Ordering::Relaxed)
    }

    /// Brings what is in the log into the file, as far as nobody reads it.
    pub(crate) fn checkpoint(&self) -> rusqlite::Result<()> {
        let done = self
            .conn
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
        self.log.store(0, Ordering::Relaxed);
        done
    }
}

/// Does something that another process may be in the way of.
fn patiently<T>(give_up: Instant, mut work: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    loop {
        match work() {
            Err(error) if is_busy(&error) && Instant::now() < give_up => thread::sleep(PAUSE),
            done => return done,
        }
    }
}

/// Before anything is written: somebody else's file stays as it is.
fn check_content(path: &Path, conn: &Connection, give_up: Instant) -> Result<()> {
    let at = path.display();
    let content = patiently(give_up, || look(conn));
    match content.map_err(|error| explain(path, &error, Applied::No))? {
        Content::Nothing | Content::Ours => Ok(()),
        Content::Later(version) => Err(unreadable(format!(
            "`{at}` was written by a later version (format {version}, this one reads up to {}); run that version",
            schema::VERSION
        ))),
        Content::Foreign => Err(misconfigured(format!(
            "`{at}` belongs to another program; set another `path`"
        ))),
    }
}

/// What a file holds at one moment: another process may be about to make its tables.
fn look(conn: &Connection) -> rusqlite::Result<Content> {
    let moment = conn.unchecked_transaction()?;
    let content = schema::content(&moment)?;
    moment.commit()?;
    Ok(content)
}

/// What has to hold for every commit.
fn settle(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Statements are not planned anew for each value that is bound to them.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update_and_check(None, "journal_size_limit", LONGEST_LOG, |_| Ok(()))
}

/// SQLite answers that it did not do what was asked by answering with what it did.
fn check_modes(path: &Path, conn: &Connection) -> Result<()> {
    let told = |error: rusqlite::Error| explain(path, &error, Applied::No);
    let at = path.display();
    if conn.is_readonly("main").map_err(told)? {
        return Err(misconfigured(format!(
            "`{at}` cannot be written; give this process write permission to it and to its directory"
        )));
    }
    let journal: String = conn
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .map_err(told)?;
    let synchronous: i64 = conn
        .pragma_query_value(None, "synchronous", |row| row.get(0))
        .map_err(told)?;
    if (journal.as_str(), synchronous) != ("wal", 2) {
        return Err(misconfigured(format!(
            "the file system of `{at}` does not do what durability needs (journal `{journal}`, synchronous \
             {synchronous}); put the file on a local disk"
        )));
    }
    Ok(())
}

/// Makes the tables where there are none, and begins new epochs where history was lost.
fn take_seat(path: &Path, conn: &Connection, give_up: Instant) -> Result<(Mark, Seat)> {
    let told = |error: rusqlite::Error| explain(path, &error, Applied::No);
    patiently(give_up, || conn.execute_batch("BEGIN IMMEDIATE")).map_err(told)?;
    let seat = Seat::of(path).map_err(|error| gone(path, &error))?;
    let seated = (|| {
        let made = schema::content(conn)? == Content::Nothing;
        if made {
            schema::create(conn, rand::random(), history::first_number())?;
        }
        let mut point = step::point(conn)?;
        // Read here, where nobody else can be between a new history and its mark.
        let known = Mark::read(path).is_some_and(|mark| point.includes(mark.point));
        if !made && !known {
            warn!(path = %path.display(), "this file is behind its mark, or has none: it may be a backup that was put back, or moved; its namespaces begin new epochs");
            point = history::begin_anew(conn)?;
        }
        Ok::<_, Fault>(point)
    })();
    let point = seated.map_err(|fault| match fault {
        Fault::Failed(error) => told(error),
        Fault::Refused(error) => error,
        Fault::Damaged(what) => unreadable(format!("`{}`: {what}", path.display())),
    });
    // Dropping the connection ends the transaction.
    let unmarked = |error: io::Error| {
        let message = format!(
            "cannot write `{}-mark` ({error}); check the permissions of its directory",
            path.display()
        );
        misconfigured(message)
    };
    let marked = Marked {
        point: point?,
        inode: seat.inode,
    };
    let mark = Mark::open(path, marked).map_err(unmarked)?;
    conn.execute_batch("COMMIT").map_err(told)?;

    Ok((mark, seat))
}

/// What a failure at opening means for whoever asked.
pub(crate) fn misplaced(path: &Path, error: &io::Error) -> Error {
    let at = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => misconfigured(format!(
            "the directory of `{at}` does not exist; make it, or set another `path`"
        )),
        _ => misconfigured(format!(
            "`{at}` cannot be reached ({error}); check `path` and its permissions"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever opens a file while somebody else makes it does not take it for another program's.
    #[test]
    fn a_file_in_the_making_is_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..50 {
            let path = directory.path().join(number.to_string());
            let open = || Connection::open(&path).unwrap();
            let maker = open();
            let give_up = Instant::now() + Duration::from_secs(60);
            thread::scope(|scope| {
                let seen = scope.spawn(|| {
                    let conn = open();
                    std::iter::repeat_with(|| patiently(give_up, || look(&conn)).unwrap())
                        .find(|content| *content != Content::Nothing)
                });
                patiently(give_up, || maker.execute_batch("BEGIN IMMEDIATE")).unwrap();
                schema::create(&maker, 1, 1).unwrap();
                patiently(give_up, || maker.execute_batch("COMMIT")).unwrap();
                assert_eq!(seen.join().unwrap(), Some(Content::Ours));
            });
        }
    }
}
