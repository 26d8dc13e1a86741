//! What a call works on: the open transaction, and what of it is kept in memory until the commit.

mod kept;

use std::{collections::HashMap, sync::Arc};

use prism_slot::{Message, Timestamp, lease::LeaseClock};
use rusqlite::{Connection, OptionalExtension};

use crate::{codec, error::Fault, inbox::Totals, mark::Point, registry::Head};
use kept::Kept;

/// How far the lease clock may run ahead of what is stored of it while nothing else is written.
const CLOCK_SLACK: u64 = 500;

/// What holds for a whole file, as it is set for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tuning {
    pub(crate) cache_size: usize,
    pub(crate) max_size: Option<usize>,
}

/// What is not written down because there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Thrift {
    /// Everything is.
    #[default]
    None,
    /// How far the lease clock has come, where nothing else is written.
    Clock,
    /// Also what a call finds on its way, such as that a lease has ended.
    Findings,
}

/// The row about the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Book {
    point: Point,
    /// The next number that was given to nothing yet.
    next: i64,
}

/// Rows that many calls of one transaction change, written once before the commit.
#[derive(Default)]
pub(crate) struct Cached {
    book: Option<Book>,
    saved_book: Option<Book>,
    pub(crate) names: HashMap<Arc<str>, i64>,
    heads: Kept<Head>,
    totals: Kept<Totals>,
    messages: HashMap<i64, Arc<Message>>,
    /// The lease clocks of the heads, as they are stored.
    stored_clocks: HashMap<i64, LeaseClock>,
    /// The lease clocks as they were stored and as they were by then, after the last transaction that asked for them.
    /// It would cost a commit to store every call that only looks.
    clocks: HashMap<i64, (LeaseClock, LeaseClock)>,
    pub(crate) tuning: Tuning,
    pub(crate) thrift: Thrift,
}

impl Cached {
    pub(crate) fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            ..Self::default()
        }
    }

    /// Forgets what a transaction left here. What others have written since is read anew.
    pub(crate) fn begin(&mut self) {
        (self.book, self.saved_book) = (None, None);
        self.heads.clear();
        self.totals.clear();
        self.messages.clear();
        self.stored_clocks.clear();
    }

    /// A call begins.
    pub(crate) fn save(&mut self) {
        self.saved_book = self.book;
        self.heads.save();
        self.totals.save();
    }

    /// What the call that began last has changed is undone.
    pub(crate) fn restore(&mut self) {
        self.book = self.saved_book;
        self.heads.restore();
        self.totals.restore();
        // Named or numbered by the call, perhaps.
        self.names.clear();
        self.messages.clear();
    }

    /// The transaction failed. How far the lease clocks had come before it stands: on a full disk nothing else tells.
    pub(crate) fn forget(&mut self) {
        self.begin();
        self.names.clear();
    }

    /// The file is another one.
    pub(crate) fn forget_all(&mut self) {
        self.forget();
        self.clocks.clear();
    }

    /// The transaction was committed.
    pub(crate) fn end(&mut self) {
        for (ns, head, is_written) in self.heads.all() {
            let stored = self.stored_clocks.get(&ns).filter(|_| !is_written);
            let stored = stored.copied().unwrap_or(head.clock);
            self.clocks.insert(ns, (stored, head.clock));
        }
    }

    /// The namespaces whose clock has gone on since it was stored, and until when.
    pub(crate) fn unstored_clocks(&self) -> Vec<(i64, Timestamp)> {
        let clocks = self.clocks.iter().filter(|(_, (stored, now))| stored != now);
        clocks.map(|(ns, (_, now))| (*ns, now.last_seen)).collect()
    }

    /// The head of a namespace, if a call of this transaction asked for it.
    pub(crate) fn head_of(&self, name: &str) -> Option<&Head> {
        self.heads.get(*self.names.get(name)?)
    }

    /// Writes what was changed, and counts the commit where anything was. Where the file is then.
    pub(crate) fn write(&mut self, conn: &Connection, changed: bool) -> Result<Option<Point>, Fault> {
        let mut changed = changed;
        for (ns, head) in self.heads.changed() {
            let write = "INSERT INTO registries (ns, head) VALUES (?1, ?2)
                ON CONFLICT (ns) DO UPDATE SET head = excluded.head";
            conn.prepare_cached(write)?
                .execute((ns, codec::write_head(head)))?;
            changed = true;
        }
        for (ns, totals) in self.totals.changed() {
            let write = "INSERT INTO inbox_totals (ns, messages, dead) VALUES (?1, ?2, ?3)
                ON CONFLICT (ns) DO UPDATE SET messages = excluded.messages, dead = excluded.dead";
            conn.prepare_cached(write)?
                .execute((ns, totals.messages, totals.dead))?;
            changed = true;
        }
        if !changed {
            return Ok(None);
        }
        let mut book = self.book(conn)?;
        book.point.commits += 1;
        let write = "UPDATE file SET history = ?1, commits = ?2, next = ?3 WHERE id = 1";
        let (history, commits) = (book.point.history.cast_signed(), book.point.commits.cast_signed());
        conn.prepare_cached(write)?
            .execute((history, commits, book.next))?;
        Ok(Some(book.point))
    }

    fn book(&mut self, conn: &Connection) -> Result<Book, Fault> {
        if let Some(book) = self.book {
            return Ok(book);
        }
        let book = read_book(conn)?;
        self.book = Some(book);
        Ok(book)
    }
}

fn read_book(conn: &Connection) -> rusqlite::Result<Book> {
    conn.prepare_cached("SELECT history, commits, next FROM file WHERE id = 1")?
        .query_row((), |row| {
            let point = Point {
                history: row.get::<_, i64>(0)?.cast_unsigned(),
                commits: row.get::<_, i64>(1)?.cast_unsigned(),
            };
            Ok(Book {
                point,
                next: row.get(2)?,
            })
        })
}

/// Where a file is.
pub(crate) fn point(conn: &Connection) -> rusqlite::Result<Point> {
    Ok(read_book(conn)?.point)
}

/// One call at work.
pub(crate) struct Step<'a> {
    /// The connection, in a transaction that has the file for itself.
    pub(crate) conn: &'a Connection,
    cached: &'a mut Cached,
}

impl<'a> Step<'a> {
    pub(crate) fn new(conn: &'a Connection, cached: &'a mut Cached) -> Self {
        Self { conn, cached }
    }

    /// The number of a namespace, which it is given when it is first asked for.
    pub(crate) fn namespace(&mut self, name: &Arc<str>) -> Result<i64, Fault> {
        if let Some(known) = self.cached.names.get(name) {
            return Ok(*known);
        }
        let mut find = self
            .conn
            .prepare_cached("SELECT id FROM namespaces WHERE name = ?1")?;
        let found: Option<i64> = find.query_row([name.as_ref()], |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                self.conn
                    .execute("INSERT INTO namespaces (name) VALUES (?1)", [name.as_ref()])?;
                self.conn.last_insert_rowid()
            }
        };
        self.cached.names.insert(name.clone(), id);
        Ok(id)
    }

    /// Applies settings that hold for the whole file.
    pub(crate) fn tune(&mut self, tuning: Tuning) -> Result<(), Fault> {
        apply(self.conn, tuning)?;
        self.cached.tuning = tuning;
        Ok(())
    }

    /// A number that nothing else in the file has or had.
    pub(crate) fn next(&mut self) -> Result<i64, Fault> {
        let mut book = self.cached.book(self.conn)?;
        let next = book.next;
        book.next += 1;
        self.cached.book = Some(book);
        Ok(next)
    }

    /// The head of a namespace's registry as it is at `now`, which is drawn anew for one that has none.
    pub(crate) fn head(&mut self, ns: i64, now: Timestamp) -> Result<&mut Head, Fault> {
        if self.cached.heads.get(ns).is_none() {
            let found = load_head(self.conn, ns)?;
            let is_new = found.is_none();
            let mut head = found.unwrap_or_else(|| Head::new(now));
            let stored = head.clock;
            let age = now.0.abs_diff(stored.last_seen.0);
            let seen = self.cached.clocks.get(&ns).filter(|(of, _)| *of == stored);
            head.clock = seen.map_or(stored, |(_, now)| *now);
            self.cached.stored_clocks.insert(ns, stored);
            head.clock.tick(now);
            // While nobody has a lease, nothing depends on what is stored of the clock.
            let is_late =
                self.cached.thrift == Thrift::None && age >= CLOCK_SLACK && has_leases(self.conn, ns)?;
            self.cached.heads.insert(ns, head, is_new || is_late);
        }
        let head = self.cached.heads.peek(ns).ok_or_else(missing)?;
        if head.clock.last_seen != now {
            head.clock.tick(now);
        }
        Ok(head)
    }

    /// The head that was asked for before, to be changed.
    pub(crate) fn change_head(&mut self, ns: i64) -> Result<&mut Head, Fault> {
        self.cached.heads.change(ns).ok_or_else(missing)
    }

    /// How much there is in the inboxes of a namespace, to be changed.
    pub(crate) fn change_totals(&mut self, ns: i64) -> Result<&mut Totals, Fault> {
        self.totals(ns)?;
        self.cached.totals.change(ns).ok_or_else(missing)
    }

    /// How much there is in the inboxes of a namespace.
    pub(crate) fn totals(&mut self, ns: i64) -> Result<Totals, Fault> {
        if let Some(totals) = self.cached.totals.get(ns) {
            return Ok(*totals);
        }
        let mut find = self
            .conn
            .prepare_cached("SELECT messages, dead FROM inbox_totals WHERE ns = ?1")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Totals {
                messages: row.get(0)?,
                dead: row.get(1)?,
            })
        };
        let totals = find.query_row([ns], read).optional()?.unwrap_or_default();
        self.cached.totals.insert(ns, totals, false);
        Ok(totals)
    }

    /// Whether to write only what the call is about.
    pub(crate) fn is_short(&self) -> bool {
        self.cached.thrift == Thrift::Findings
    }

    /// Messages that calls of this transaction have read.
    pub(crate) fn messages(&mut self) -> &mut HashMap<i64, Arc<Message>> {
        &mut self.cached.messages
    }
}

/// How SQLite counts.
pub(crate) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn missing() -> Fault {
    Fault::Damaged("a namespace was changed before it was read".to_owned())
}

/// Reads the head of a namespace's registry.
pub(crate) fn load_head(conn: &Connection, ns: i64) -> Result<Option<Head>, Fault> {
    let mut find = conn.prepare_cached("SELECT head FROM registries WHERE ns = ?1")?;
    let found: Option<Vec<u8>> = find.query_row([ns], |row| row.get(0)).optional()?;
    let read =
        |bytes: Vec<u8>| codec::read_head(bytes.into()).map_err(|bad| bad.fault("the head of a registry"));
    found.map(read).transpose()
}

fn has_leases(conn: &Connection, ns: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM records WHERE ns = ?1 AND queued_at IS NOT NULL LIMIT 1")?
        .exists([ns])
}

/// Sets what holds for a whole file.
pub(crate) fn apply(conn: &Connection, tuning: Tuning) -> rusqlite::Result<()> {
    let kibibytes = i64::try_from(tuning.cache_size / 1_024).unwrap_or(i64::MAX);
    conn.pragma_update(None, "cache_size", -kibibytes)?;
    let page: usize = conn.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0))? as usize;
    let pages = tuning.max_size.map_or(u32::MAX - 1, |most| {
        u32::try_from(most / page.max(1)).unwrap_or(u32::MAX - 1)
    });
    conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
}
