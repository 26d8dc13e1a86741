//! The tables, and which versions of them can be read.

use rusqlite::Connection;

/// Stands in the header of every file of ours: `PrMR`.
pub(crate) const APPLICATION: i32 = 0x5072_4d52;
/// The version that is written. A file of the version before is read, one of a later version is refused.
pub(crate) const VERSION: i32 = 1;
/// The first byte of everything that is stored as bytes.
pub(crate) const FORMAT: u8 = 1;

/// One row about the file; the names of namespaces; and what the three slots keep, all of it by namespace.
///
/// Rows are clustered by what is asked for together: all that belongs to one inbox lies side by side, so that storing
/// a message for an identity dirties one page and not one for each index.
const TABLES: &str = "
CREATE TABLE file (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    history INTEGER NOT NULL,
    commits INTEGER NOT NULL,
    next INTEGER NOT NULL
);
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE registries (
    ns INTEGER PRIMARY KEY,
    head BLOB NOT NULL
);
CREATE TABLE records (
    ns INTEGER NOT NULL,
    identity TEXT NOT NULL,
    deadline INTEGER,
    queued_at INTEGER,
    body BLOB NOT NULL,
    PRIMARY KEY (ns, identity)
) WITHOUT ROWID;
CREATE INDEX records_by_end ON records (ns, queued_at) WHERE queued_at IS NOT NULL;
CREATE TABLE feed (
    ns INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    at INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (ns, revision)
) WITHOUT ROWID;

CREATE TABLE inbox_totals (
    ns INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    dead INTEGER NOT NULL
);
CREATE TABLE inboxes (
    ns INTEGER NOT NULL,
    identity TEXT NOT NULL,
    part BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (ns, identity, part)
) WITHOUT ROWID;
CREATE TABLE sendings (
    number INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    multicast BLOB NOT NULL,
    stored_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    known_until INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    parts INTEGER NOT NULL
);
CREATE TABLE targets (
    sending INTEGER NOT NULL,
    part INTEGER NOT NULL,
    ns INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    identities BLOB NOT NULL,
    PRIMARY KEY (sending, part)
) WITHOUT ROWID;
CREATE INDEX targets_by_due ON targets (ns, due_at);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    ns INTEGER NOT NULL,
    multicast BLOB NOT NULL,
    uses INTEGER NOT NULL,
    receipts TEXT
);
CREATE INDEX messages_by_multicast ON messages (ns, multicast);
CREATE TABLE bodies (
    message INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);
CREATE TABLE dead (
    ns INTEGER NOT NULL,
    id INTEGER NOT NULL,
    identity TEXT NOT NULL,
    message INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (ns, id)
) WITHOUT ROWID;
CREATE INDEX dead_by_identity ON dead (ns, identity);
CREATE TABLE losses (
    id INTEGER PRIMARY KEY,
    ns INTEGER NOT NULL,
    identity TEXT NOT NULL,
    multicast BLOB NOT NULL,
    receipts TEXT
);
CREATE INDEX losses_by_namespace ON losses (ns, id);

CREATE TABLE ledgers (
    ns INTEGER NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (ns, key)
) WITHOUT ROWID;
CREATE INDEX ledgers_by_end ON ledgers (ns, ends_at);
";

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing yet.
    Nothing,
    /// What this version of the slots reads.
    Ours,
    /// What a later version has written.
    Later(i32),
    /// The tables of somebody else.
    Foreign,
}

/// Looks at what a file holds.
pub(crate) fn content(conn: &Connection) -> rusqlite::Result<Content> {
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    Ok(match (application, version) {
        (APPLICATION, later) if later > VERSION => Content::Later(later),
        (APPLICATION, version) if version >= VERSION.saturating_sub(1).max(1) => Content::Ours,
        (0, 0) if tables == 0 => Content::Nothing,
        _ => Content::Foreign,
    })
}

/// Makes the tables of a file that counts from `first` on. Part of a transaction.
pub(crate) fn create(conn: &Connection, history: u64, first: i64) -> rusqlite::Result<()> {
    conn.execute_batch(TABLES)?;
    conn.execute(
        "INSERT INTO file (id, history, commits, next) VALUES (1, ?1, 0, ?2)",
        [history.cast_signed(), first],
    )?;
    conn.pragma_update(None, "application_id", APPLICATION)?;
    conn.pragma_update(None, "user_version", VERSION)
}
