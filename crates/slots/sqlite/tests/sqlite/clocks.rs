//! A wall clock that is set back.

use std::{sync::Arc, time::Duration};

use prism_slot::{
    DurableInbox, Settled, Timestamp, Verdict,
    memory::{Clock, ManualClock},
};
use prism_slot_sqlite::SqliteInbox;
use rusqlite::Connection;

use super::support::*;

const NOON: Timestamp = Timestamp(1_800_000_000_000);
const HOUR: i64 = 3_600_000;

/// Inboxes, and a clock that is at noon.
async fn at_noon(place: &Place) -> (SqliteInbox, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(NOON));
    let slot = SqliteInbox::open_with_clock(NAMESPACE, inbox_config(&place.path), roomy(), clock.clone());
    (slot.await.unwrap(), clock)
}

#[tokio::test]
async fn what_is_due_stays_so_when_the_clock_is_set_back() {
    let place = Place::fast();
    let (slot, clock) = at_noon(&place).await;
    let (new, out) = (message("new"), message("out"));
    store(&slot, "new", &new).await;
    store(&slot, "out", &out).await;
    assert_eq!(delivered(&slot, "out", 1).await, [(out.multicast, 1)]);
    // Another session takes it over, and then the clock is set back.
    slot.open(&consumer("out", 2), deadline()).await.unwrap();
    clock.set(Timestamp(NOON.0 - HOUR));
    assert_eq!(delivered(&slot, "new", 1).await, [(new.multicast, 1)]);
    let of_second = consumer("out", 2);
    let fetch = async || {
        let fetched = slot.fetch(&of_second, everything(), deadline()).await.unwrap();
        fetched
            .deliveries
            .iter()
            .map(|delivery| delivery.attempt)
            .collect::<Vec<_>>()
    };
    assert_eq!(fetch().await, [2]);
    for (verdict, attempt) in [
        (Verdict::Release, 2),
        (
            Verdict::Nack {
                delay: Duration::ZERO,
            },
            3,
        ),
    ] {
        let settled = slot
            .settle(&of_second, vec![(out.multicast, verdict)], deadline())
            .await;
        assert_eq!(settled, Ok(vec![Settled::Done]));
        clock.set(Timestamp(clock.now().0 - HOUR));
        assert_eq!(fetch().await, [attempt]);
    }
}

#[tokio::test]
async fn what_never_was_handed_out_is_due_as_versions_before_wrote_it() {
    let place = Place::fast();
    let (slot, clock) = at_noon(&place).await;
    let waits = message("waits");
    store(&slot, "a", &waits).await;
    let conn = Connection::open(&place.path).unwrap();
    // The format, the holder and the attempt come before it, and one byte after it.
    let when = "UPDATE inboxes SET body = CAST(substr(body, 1, 21) || ?1 || substr(body, 30) AS BLOB)
        WHERE substr(part, 1, 1) = x'01'";
    assert_eq!(conn.execute(when, [NOON.0.to_be_bytes()]).unwrap(), 1);
    clock.set(Timestamp(NOON.0 - HOUR));
    assert_eq!(delivered(&slot, "a", 1).await, [(waits.multicast, 1)]);
}
