//! What is left of sessions.

use std::{sync::Arc, time::Duration};

use prism_slot::{DurableInbox, InboxLimits, Timestamp, memory::ManualClock};
use prism_slot_sqlite::SqliteInbox;
use rusqlite::Connection;

use super::support::*;

/// More than one sweep looks at.
const MANY: usize = 200;

fn rows(place: &Place) -> i64 {
    let conn = Connection::open(&place.path).unwrap();
    conn.query_row("SELECT count(*) FROM inboxes WHERE part = x'00'", (), |row| {
        row.get(0)
    })
    .unwrap()
}

/// Identities that had a session once cost nothing when they are gone, however many they are.
#[tokio::test]
async fn sessions_that_have_gone_leave_nothing() {
    let (place, clock) = (Place::fast(), Arc::new(ManualClock::new(Timestamp(1_000_000))));
    let limits = InboxLimits {
        idle: Duration::from_secs(10),
        ..roomy()
    };
    let slot = SqliteInbox::open_with_clock(NAMESPACE, inbox_config(&place.path), limits, clock.clone());
    let slot = slot.await.unwrap();
    for name in 0..MANY {
        slot.open(&consumer(&format!("id-{name}"), 1), deadline())
            .await
            .unwrap();
    }
    let waits = message("waits");
    store(&slot, "id-7", &waits).await;
    let there = consumer("id-8", 1);
    for _ in 0..4 {
        clock.advance(Duration::from_secs(4));
        slot.fetch(&there, everything(), deadline()).await.unwrap();
        for _ in 0..2 * MANY / 64 {
            slot.sweep(deadline()).await.unwrap();
        }
    }
    assert_eq!(rows(&place), 2);
    slot.fetch(&there, everything(), deadline()).await.unwrap();
    let fetched = slot.fetch(&consumer("id-7", 1), everything(), deadline()).await;
    assert_eq!(fetched.unwrap().deliveries[0].message, waits);

    // As versions before this one wrote it: it does not say when it was heard of.
    let conn = Connection::open(&place.path).unwrap();
    let shorten = "UPDATE inboxes SET body = substr(body, 1, length(body) - 9)
        WHERE part = x'00' AND identity = 'id-8'";
    assert_eq!(conn.execute(shorten, ()).unwrap(), 1);
    clock.advance(Duration::from_secs(60));
    slot.sweep(deadline()).await.unwrap();
    assert_eq!(rows(&place), 2);
    clock.advance(Duration::from_secs(15));
    slot.sweep(deadline()).await.unwrap();
    assert_eq!(rows(&place), 1);
}

/// It need not be written down each time that a session is heard of. It is not forgotten any sooner for that.
#[tokio::test]
async fn a_session_is_not_forgotten_before_it_was_silent_for_long() {
    let (place, clock) = (Place::fast(), Arc::new(ManualClock::new(Timestamp(1_000_000))));
    let limits = InboxLimits {
        idle: Duration::from_secs(10),
        ..roomy()
    };
    let slot = SqliteInbox::open_with_clock(NAMESPACE, inbox_config(&place.path), limits, clock.clone());
    let slot = slot.await.unwrap();
    let session = consumer("a", 1);
    slot.open(&session, deadline()).await.unwrap();
    for silence in [4_999, 9_999, 9_999] {
        clock.advance(Duration::from_millis(silence));
        slot.sweep(deadline()).await.unwrap();
        let fetched = slot.fetch(&session, everything(), deadline()).await;
        assert!(fetched.is_ok(), "after {silence} ms: {fetched:?}");
    }
    clock.advance(Duration::from_secs(15));
    slot.sweep(deadline()).await.unwrap();
    assert_eq!(rows(&place), 0);
}
