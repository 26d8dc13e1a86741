//! Group commit: the thread that owns a connection, and executes what waits in one transaction after the other.
//!
//! Bringing a commit to the disk costs as much as thousands of rows. So everything that waits is executed in one
//! transaction, and answered when its commit has returned. Nobody waits for company: a call that finds the thread
//! idle is executed at once, and what comes meanwhile joins it or gathers for the next transaction.

mod short;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use prism_slot::{Applied, Error, Result};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    call::Job,
    connect::Connected,
    error::{
        Fault, effect_of_failed_commit, explain, is_busy, is_full, unreadable, wants_another_connection,
    },
    queue::{Found, Queue},
    signals::Signals,
    step::{Cached, Step, Thrift, Tuning},
};

/// How many calls share a transaction, how many bytes they bring and how long executing them takes, at most.
const GROUP_CALLS: usize = 1_024;
const GROUP_BYTES: usize = 8 << 20;
const GROUP_TIME: Duration = Duration::from_millis(50);
/// After how many pages the log is brought into the file.
const LOG_PAGES: i32 = 8_192;
/// How soon a change that another process made is noticed, while anybody waits for it.
const POLL: Duration = Duration::from_millis(25);
/// How long an idle thread sleeps.
const SLEEP: Duration = Duration::from_secs(60);
/// How long opening a file waits for another process.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(2);
/// How long to leave the lock to another process before it is asked for again, and how long after a commit where
/// there is one. Longer than the former, so that the other one finds the lock free.
const LOCK_PAUSE: Duration = Duration::from_micros(200);
const COURTESY: Duration = Duration::from_micros(500);
/// For how long the lease clock is not written down after there was no room for it.
const SHORT: Duration = Duration::from_secs(1);

/// The thread's state.
pub(crate) struct Worker {
    path: PathBuf,
    queue: Arc<Queue>,
    signals: Arc<Signals>,
    connected: Option<Connected>,
    cached: Cached,
    /// Changes with every commit of another connection.
    version: i64,
    /// When there was no room for the last time.
    short: Option<Instant>,
}

impl Worker {
    /// Opens the file, and makes it where there is none.
    pub(crate) fn open(
        path: PathBuf,
        tuning: Tuning,
        queue: Arc<Queue>,
        signals: Arc<Signals>,
    ) -> Result<Self> {
        let give_up = std::time::Instant::now() + OPEN_LIMIT;
        let connected = Connected::open(&path, true, tuning, give_up)?;
        Ok(Self {
            path,
            queue,
            signals,
            connected: Some(connected),
            cached: Cached::new(tuning),
            version: 0,
            short: None,
        })
    }

    /// Executes calls until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        loop {
            let watched = self.signals.is_watched();
            match self.queue.wait(if watched { POLL } else { SLEEP }) {
                Found::Calls => self.group(),
                Found::Nothing => {}
                Found::Closed => return self.end(),
            }
            if let Some(connected) = self.connected.take_if(|_| watched) {
                self.look_around(&connected);
                self.connected = Some(connected);
            }
        }
    }

    /// What was only kept in memory is stored, so that the next one goes on where this one ended.
    fn end(&mut self) {
        let clocks = self.cached.unstored_clocks();
        let Some(mut connected) = self.connected.take().filter(|_| !clocks.is_empty()) else {
            return;
        };
        if !connected.is_in_place(&self.path).unwrap_or(false)
            || connected.conn.execute_batch("BEGIN IMMEDIATE").is_err()
        {
            return;
        }
        self.cached.begin();
        let mut step = Step::new(&connected.conn, &mut self.cached);
        let kept = clocks.into_iter().try_for_each(|(ns, seen)| {
            step.head(ns, seen)?;
            step.change_head(ns).map(drop)
        });
        if kept.is_ok() {
            // Where it fails, leases last a little longer.
            let _ = self.commit(&mut connected, 0, false);
        }
    }

    /// One transaction, and a second one where there was no room for all of the first.
    fn group(&mut self) {
        let Some(mut connected) = self.connection() else {
            return;
        };
        match self.begin(&connected) {
            Ok(true) => {}
            Ok(false) => {
                self.connected = Some(connected);
                return;
            }
            Err(error) => {
                self.refuse(&explain(&self.path, &error, Applied::No));
                self.connected = Some(connected).filter(|_| !wants_another_connection(&error));
                return;
            }
        }
        let (jobs, outcome) = self.execute(&mut connected);
        let is_lost = match outcome {
            Err(failure) if failure.of_room => self.make_room(&mut connected, jobs, failure),
            outcome => answer(jobs, outcome),
        };
        if !is_lost {
            self.tidy(&connected);
            self.connected = Some(connected);
        }
    }

    /// The connection, or another one where it has come to be useless. Without one the calls that wait fail.
    fn connection(&mut self) -> Option<Connected> {
        let current = self.connected.take();
        let in_place = current.map(|current| Ok((current.is_in_place(&self.path)?, current)));
        let opened = match in_place.transpose() {
            Ok(Some((true, current))) => return Some(current),
            Ok(Some((false, current))) => {
                current.leave(&self.path);
                self.open_again()
            }
            Ok(None) => self.open_again(),
            Err(error) => Err(error),
        };
        match opened {
            Ok(connected) => Some(connected),
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    fn open_again(&mut self) -> Result<Connected> {
        self.cached.forget_all();
        let give_up = std::time::Instant::now() + OPEN_LIMIT;
        let connected = Connected::open(&self.path, false, self.cached.tuning, give_up)?;
        info!(path = %self.path.display(), "opened the file again");
        Ok(connected)
    }

    /// Fails everything that waits by now. What comes later may find that it was put right.
    fn refuse(&self, error: &Error) {
        warn!(path = %self.path.display(), %error, "cannot work on the file");
        let now = Instant::now();
        for mut job in self.queue.take_all() {
            if job.take(now) {
                job.fail(error.clone());
            }
            job.answer();
        }
    }

    /// Begins a transaction that has the file for itself. False where nobody waits any more for one.
    fn begin(&mut self, connected: &Connected) -> rusqlite::Result<bool> {
        loop {
            match connected.conn.prepare_cached("BEGIN IMMEDIATE")?.execute(()) {
                Ok(_) => return Ok(true),
                Err(error) if is_busy(&error) => {
                    thread::sleep(LOCK_PAUSE);
                    if !self.queue.tidy() {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Executes what waits, as much as fits, and commits it. The calls, and what is wrong with all of them.
    fn execute(&mut self, connected: &mut Connected) -> (Vec<Box<dyn Job>>, Result<(), Failure>) {
        self.cached.begin();
        let is_short = self.short.is_some_and(|since| since.elapsed() < SHORT);
        self.cached.thrift = if is_short { Thrift::Clock } else { Thrift::None };
        let before = connected.conn.total_changes();
        let (mut executed, mut bytes) = (Vec::new(), 0);
        let started = Instant::now();
        while executed.len() < GROUP_CALLS && bytes < GROUP_BYTES && started.elapsed() < GROUP_TIME {
            let Some(mut job) = self.queue.pop() else { break };
            if !job.take(Instant::now()) {
                job.answer();
                continue;
            }
            bytes += job.size();
            let done = self.one(connected, job.as_mut());
            executed.push(job);
            if let Err(failure) = done {
                return (executed, Err(failure));
            }
        }
        let grows = executed.iter().any(|job| job.grows());
        let outcome = self.commit(connected, before, grows);
        (executed, outcome)
    }

    /// One call, of which nothing stays where it fails. `Err` where the whole transaction has come to nothing.
    fn one(&mut self, connected: &Connected, job: &mut dyn Job) -> Result<(), Failure> {
        let conn = &connected.conn;
        let run = |sql| conn.prepare_cached(sql).and_then(|mut run| run.execute(()));
        self.cached.save();
        let failed = match run("SAVEPOINT call") {
            Ok(_) => job.run(&mut Step::new(conn, &mut self.cached)).err(),
            Err(error) => Some(Fault::Failed(error)),
        };
        let Some(fault) = failed else {
            return run("RELEASE call")
                .map(drop)
                .map_err(|error| self.broken(conn, &error));
        };
        self.cached.restore();
        let is_full = matches!(&fault, Fault::Failed(error) if is_full(error));
        let undone = if conn.is_autocommit() {
            // SQLite has given up the transaction.
            Err(self.failure(&fault, Applied::No))
        } else if is_full && !job.grows() {
            // It has not, and this call is not to be refused for lack of room yet.
            let _ = conn.execute_batch("ROLLBACK");
            Err(self.failure(&fault, Applied::No))
        } else {
            let undone = run("ROLLBACK TO call").and_then(|_| run("RELEASE call"));
            undone.map(drop).map_err(|error| self.broken(conn, &error))
        };
        job.fail(self.failure(&fault, Applied::No).error);
        undone
    }

    /// Commits what was changed since there had been `before` changes. What makes the file hold more needs room that
    /// is left when it is written.
    fn commit(&mut self, connected: &mut Connected, before: u64, grows: bool) -> Result<(), Failure> {
        let conn = &connected.conn;
        let written = self.cached.write(conn, conn.total_changes() != before);
        let point = written.map_err(|fault| {
            let _ = conn.execute_batch("ROLLBACK");
            self.cached.forget();
            self.failure(&fault, Applied::No)
        })?;
        if grows && point.is_some() {
            let held = connected.hold_room(&self.path);
            held.map_err(|error| self.broken(conn, &error))?;
        }
        let committed = conn
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.execute(()));
        committed.map_err(|error| self.broken(conn, &error))?;
        self.cached.end();
        if let Some(point) = point {
            connected.note(&self.path, point);
            self.signals
                .tell(|name| self.cached.head_of(name).map(|head| head.position()));
        }
        Ok(())
    }

    /// The transaction cannot be brought to its end.
    fn broken(&mut self, conn: &rusqlite::Connection, error: &rusqlite::Error) -> Failure {
        if !conn.is_autocommit() {
            let _ = conn.execute_batch("ROLLBACK");
        }
        self.cached.forget();
        let applied = effect_of_failed_commit(error);
        warn!(path = %self.path.display(), %error, ?applied, "a commit failed");
        Failure::of(&self.path, error, applied)
    }

    fn failure(&self, fault: &Fault, applied: Applied) -> Failure {
        match fault {
            Fault::Refused(error) => Failure::told(error.clone()),
            Fault::Failed(error) => Failure::of(&self.path, error, applied),
            Fault::Damaged(what) => Failure::told(unreadable(format!("`{}`: {what}", self.path.display()))),
        }
    }

    /// After the answers, so that nobody waits for it.
    fn tidy(&mut self, connected: &Connected) {
        if connected.log() >= LOG_PAGES
            && let Err(error) = connected.checkpoint()
            && !is_busy(&error)
        {
            warn!(path = %self.path.display(), %error, "cannot bring the log into the file");
        }
        if self.look_around(connected) {
            thread::sleep(COURTESY);
        }
    }

    /// Whether another process has written since this was last asked. Those who wait for changes are told of them.
    fn look_around(&mut self, connected: &Connected) -> bool {
        let conn = &connected.conn;
        let ask = conn.prepare_cached("PRAGMA data_version");
        let version = ask.and_then(|mut ask| ask.query_row((), |row| row.get::<_, i64>(0)));
        let version = version.unwrap_or(self.version);
        let has_others = std::mem::replace(&mut self.version, version) != version;
        if has_others {
            self.signals.tell(|name| Signals::look(conn, name));
        }
        has_others
    }
}

/// Tells callers what became of their calls; where the transaction came to nothing, that it did. Whether another
/// connection is needed.
fn answer(jobs: Vec<Box<dyn Job>>, outcome: Result<(), Failure>) -> bool {
    let failure = outcome.err();
    for mut job in jobs {
        if let Some(failure) = &failure {
            job.fail(failure.error.clone());
        }
        job.answer();
    }
    failure.is_some_and(|failure| failure.of_connection)
}

/// Why a transaction came to nothing.
struct Failure {
    error: Error,
    /// Whether another connection may do better.
    of_connection: bool,
    /// Whether calls that store nothing may do better.
    of_room: bool,
}

impl Failure {
    fn told(error: Error) -> Self {
        Self {
            error,
            of_connection: false,
            of_room: false,
        }
    }

    fn of(path: &Path, error: &rusqlite::Error, applied: Applied) -> Self {
        Self {
            error: explain(path, error, applied),
            of_connection: wants_another_connection(error),
            of_room: is_full(error),
        }
    }
}
