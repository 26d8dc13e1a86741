//! Who waits for changes of a namespace, and where its history is.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use prism_slot::Position;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::watch;

use crate::step::load_head;

/// Where the histories of namespaces are, as far as anybody waits for them to go on.
#[derive(Default)]
pub(crate) struct Signals {
    heads: Mutex<HashMap<Arc<str>, watch::Sender<Option<Position>>>>,
}

impl Signals {
    /// Told whenever the namespace's history has gone on.
    pub(crate) fn watch(&self, name: &Arc<str>) -> watch::Receiver<Option<Position>> {
        let mut heads = self.heads.lock();
        let head = heads
            .entry(name.clone())
            .or_insert_with(|| watch::channel(None).0);
        head.subscribe()
    }

    /// Whether anybody waits.
    pub(crate) fn is_watched(&self) -> bool {
        self.heads.lock().values().any(|head| head.receiver_count() > 0)
    }

    /// Tells everybody who waits where it is now, as far as `position` knows.
    pub(crate) fn tell(&self, position: impl Fn(&str) -> Option<Position>) {
        let heads = self.heads.lock();
        for (name, head) in heads.iter().filter(|(_, head)| head.receiver_count() > 0) {
            let Some(now) = position(name) else { continue };
            head.send_if_modified(|was| was.replace(now) != Some(now));
        }
    }

    /// Where a namespace is by what is stored.
    pub(crate) fn look(conn: &Connection, name: &str) -> Option<Position> {
        let mut find = conn
            .prepare_cached("SELECT id FROM namespaces WHERE name = ?1")
            .ok()?;
        let ns: i64 = find.query_row([name], |row| row.get(0)).optional().ok()??;
        Some(load_head(conn, ns).ok()??.position())
    }
}
