//! What becomes of a file that has lost history.

use std::time::{SystemTime, UNIX_EPOCH};

use prism_slot::Epoch;
use rusqlite::Connection;

use crate::{
    codec,
    error::Fault,
    mark::Point,
    step::{load_head, point},
};

/// Where a file begins to count what it gives numbers to: ahead of all that another one at its path, or a later state
/// of this one, has given. No file counts faster than a microsecond each.
pub(crate) fn first_number() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(1).max(1)
}

/// Begins a new epoch in every namespace: records stay, what led to them is forgotten. Part of a transaction.
pub(crate) fn begin_anew(conn: &Connection) -> Result<Point, Fault> {
    let mut list = conn.prepare("SELECT ns FROM registries")?;
    let namespaces: Vec<i64> = list.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?;
    for ns in namespaces {
        let Some(mut head) = load_head(conn, ns)? else {
            continue;
        };
        head.epoch = Epoch::random();
        head.secret = rand::random();
        head.forget_feed();
        conn.execute(
            "UPDATE registries SET head = ?2 WHERE ns = ?1",
            (ns, codec::write_head(&head)),
        )?;
    }
    conn.execute("DELETE FROM feed", ())?;
    let history: u64 = rand::random();
    conn.execute(
        "UPDATE file SET history = ?1, commits = commits + 1, next = max(next, ?2)",
        [history.cast_signed(), first_number()],
    )?;
    Ok(point(conn)?)
}
