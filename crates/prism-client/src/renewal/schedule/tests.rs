use std::time::SystemTime;

use prism_core::failure::{Failure, Reason};

use super::*;
use crate::{Outcome, Position};

const POLICY: Policy = Policy {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(2),
};

const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn registration(identity: &str, renew_after: Option<Duration>) -> Registration {
    let position = Position {
        epoch: 1,
        revision: 1,
    };
    Registration {
        identity: identity.to_owned(),
        outcome: Outcome::Registered,
        registered_at: SystemTime::UNIX_EPOCH,
        expires_at: None,
        generation: position,
        position,
        renew_after,
        ttl: None,
    }
}

fn renewed(renew_after: Duration) -> Renewed {
    Renewed {
        expires_at: None,
        renew_after: Some(renew_after),
    }
}

fn failure(reason: Reason) -> Error {
    Failure::new(reason, "x").into()
}

struct Table {
    schedule: Schedule,
    began: Instant,
}

impl Table {
    fn new() -> Self {
        Self {
            schedule: Schedule::new(POLICY),
            began: Instant::now(),
        }
    }

    fn at(&self, pause: Duration) -> Instant {
        self.began + pause
    }

    fn keep(&mut self, identity: &str, renew_after: Duration) -> (Key, watch::Receiver<Kept>) {
        let request = RegisterRequest::new(identity);
        self.schedule
            .insert(request, registration(identity, Some(renew_after)), self.began)
    }

    fn take(&mut self, at: Duration) -> Option<Work> {
        self.schedule.take(self.at(at))
    }

    /// The identities of the renewal that is due.
    fn take_renewal(&mut self, at: Duration) -> Vec<String> {
        match self.take(at) {
            Some(Work::Renew { leases, .. }) => leases.into_iter().map(|(_, lease)| lease.identity).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_is_due_early_and_nothing_twice() {
    let mut table = Table::new();
    table.keep("a", seconds(10));
    assert!(table.take(seconds(10) - Duration::from_millis(1)).is_none());
    assert_eq!(table.take_renewal(seconds(10)), ["a"]);
    assert!(table.take(seconds(1_000)).is_none(), "a call for it is under way");
    assert_eq!(table.schedule.next_due(), None);
}

#[test]
fn the_whole_spread_of_one_lease_length_goes_into_one_call() {
    let mut table = Table::new();
    for (identity, due) in [("first", 8_000), ("middle", 10_000), ("last", 11_200)] {
        table.keep(identity, Duration::from_millis(due));
    }
    table.keep("much-later", seconds(60));
    let mut taken = table.take_renewal(seconds(8));
    taken.sort_unstable();
    assert_eq!(taken, ["first", "last", "middle"]);
}

#[test]
fn a_call_is_bounded_and_as_patient_as_its_shortest_lease() {
    let mut table = Table::new();
    for number in 0..=BATCH {
        table.keep(&number.to_string(), seconds(10));
    }
    table.keep("short", seconds(9));
    let Some(Work::Renew { leases, timeout }) = table.take(seconds(10)) else {
        panic!()
    };
    assert_eq!((leases.len(), timeout), (BATCH, seconds(9)));
    let Some(Work::Renew { leases, timeout }) = table.take(seconds(10)) else {
        panic!()
    };
    assert_eq!((leases.len(), timeout), (2, seconds(10)));
}

#[test]
fn a_renewal_is_due_again_when_the_service_says() {
    let mut table = Table::new();
    let (key, kept) = table.keep("a", seconds(10));
    table.take_renewal(seconds(10));
    table
        .schedule
        .renewed(key, Ok(renewed(seconds(7))), table.at(seconds(11)));
    assert_eq!(table.schedule.next_due(), Some(table.at(seconds(18))));
    assert_eq!(kept.borrow().confirmations, 2);
}

#[test]
fn an_outage_is_waited_out_however_long_it_is() {
    let mut table = Table::new();
    let (key, kept) = table.keep("a", seconds(10));
    let mut now = table.at(seconds(10));
    for attempt in 1..=100 {
        assert!(table.schedule.take(now).is_some());
        table
            .schedule
            .not_renewed(key, failure(Reason::BackendUnavailable), now);
        assert!(matches!(kept.borrow().state, State::Failing { attempts, .. } if attempts == attempt));
        let next = table.schedule.next_due().unwrap();
        assert!(next > now && next <= now + POLICY.cap);
        now = next;
    }
    assert!(table.schedule.take(now).is_some());
    table.schedule.renewed(key, Ok(renewed(seconds(10))), now);
    assert!(matches!(kept.borrow().state, State::Live));
}

#[test]
fn what_expired_is_registered_again_at_once_without_taking_it_from_anybody() {
    for reason in [Reason::NotRegistered, Reason::EpochChanged] {
        let mut table = Table::new();
        let request = RegisterRequest {
            replace: true,
            ..RegisterRequest::new("a")
        };
        let (key, kept) = table
            .schedule
            .insert(request, registration("a", Some(seconds(10))), table.began);
        table.take_renewal(seconds(10));
        table
            .schedule
            .renewed(key, Err(failure(reason)), table.at(seconds(10)));
        let Some(Work::Register { request, .. }) = table.take(seconds(10)) else {
            panic!("{reason:?}")
        };
        assert!(!request.replace);
        table.schedule.registered(
            key,
            Ok(registration("a", Some(seconds(10)))),
            table.at(seconds(10)),
        );
        assert!(matches!(kept.borrow().state, State::Live));
        assert_eq!(table.take_renewal(seconds(20)), ["a"]);
    }
}

#[test]
fn a_new_history_under_a_whole_call_loses_all_of_its_leases() {
    let mut table = Table::new();
    let (key, _kept) = table.keep("a", seconds(10));
    table.take_renewal(seconds(10));
    table
        .schedule
        .not_renewed(key, failure(Reason::EpochChanged), table.at(seconds(10)));
    assert!(matches!(table.take(seconds(10)), Some(Work::Register { .. })));
}

#[test]
fn a_refused_call_does_not_end_the_registrations_in_it() {
    for reason in [
        Reason::InvalidRequest,
        Reason::UnknownNamespace,
        Reason::Unsupported,
    ] {
        let mut table = Table::new();
        let (key, kept) = table.keep("a", seconds(10));
        table.take_renewal(seconds(10));
        table
            .schedule
            .not_renewed(key, failure(reason), table.at(seconds(10)));
        assert!(matches!(kept.borrow().state, State::Failing { .. }), "{reason:?}");
    }
}

#[test]
fn who_was_superseded_stays_away() {
    let mut table = Table::new();
    let (key, kept) = table.keep("a", seconds(10));
    table.take_renewal(seconds(10));
    table
        .schedule
        .renewed(key, Err(failure(Reason::StaleGeneration)), table.at(seconds(10)));
    assert!(
        matches!(&kept.borrow().state, State::Lost { error } if error.reason() == Some(Reason::StaleGeneration))
    );
    assert!(table.take(seconds(1_000)).is_none());
    assert!(!table.schedule.hurry(key, table.at(seconds(1_000))));
    assert!(table.take(seconds(1_000)).is_none());
}

#[test]
fn who_comes_back_too_late_finds_the_new_owner() {
    let mut table = Table::new();
    let (key, kept) = table.keep("a", seconds(10));
    table.take_renewal(seconds(10));
    table
        .schedule
        .renewed(key, Err(failure(Reason::NotRegistered)), table.at(seconds(10)));
    assert!(table.take(seconds(10)).is_some());
    table.schedule.registered(
        key,
        Err(failure(Reason::AlreadyRegistered)),
        table.at(seconds(10)),
    );
    assert!(
        matches!(&kept.borrow().state, State::Lost { error } if error.reason() == Some(Reason::AlreadyRegistered))
    );
}

#[test]
fn a_full_namespace_is_asked_again() {
    let mut table = Table::new();
    let (key, kept) = table.keep("a", seconds(10));
    table.take_renewal(seconds(10));
    table
        .schedule
        .renewed(key, Err(failure(Reason::NotRegistered)), table.at(seconds(10)));
    assert!(table.take(seconds(10)).is_some());
    table
        .schedule
        .registered(key, Err(failure(Reason::QuotaExceeded)), table.at(seconds(10)));
    assert!(matches!(kept.borrow().state, State::Failing { .. }));
    assert!(matches!(table.take(seconds(13)), Some(Work::Register { .. })));
}

#[test]
fn a_registration_without_a_lease_is_looked_after() {
    let mut table = Table::new();
    table
        .schedule
        .insert(RegisterRequest::new("a"), registration("a", None), table.began);
    assert_eq!(table.schedule.next_due(), Some(table.at(LOOK_AFTER)));
}

#[test]
fn a_service_that_asks_for_no_pause_gets_one() {
    let mut table = Table::new();
    let (key, _kept) = table.keep("a", Duration::ZERO);
    assert_eq!(table.schedule.next_due(), Some(table.at(SHORTEST_INTERVAL)));
    table.take_renewal(SHORTEST_INTERVAL);
    table
        .schedule
        .renewed(key, Ok(renewed(Duration::ZERO)), table.at(seconds(1)));
    assert_eq!(
        table.schedule.next_due(),
        Some(table.at(seconds(1) + SHORTEST_INTERVAL))
    );
}

#[test]
fn hurrying_counts_also_while_a_call_is_under_way() {
    let mut table = Table::new();
    let (key, _kept) = table.keep("a", seconds(10));
    assert!(table.schedule.hurry(key, table.at(seconds(1))));
    assert_eq!(table.take_renewal(seconds(1)), ["a"]);
    assert!(!table.schedule.hurry(key, table.at(seconds(1))));
    table
        .schedule
        .renewed(key, Ok(renewed(seconds(10))), table.at(seconds(2)));
    assert_eq!(table.take_renewal(seconds(2)), ["a"]);
    table
        .schedule
        .renewed(key, Ok(renewed(seconds(10))), table.at(seconds(3)));
    assert_eq!(table.schedule.next_due(), Some(table.at(seconds(13))));
}

#[test]
fn what_is_removed_is_not_registered_again_by_a_call_that_was_under_way() {
    let mut table = Table::new();
    let (key, _kept) = table.keep("a", seconds(10));
    table.take_renewal(seconds(10));
    assert!(!table.schedule.remove(key));
    table
        .schedule
        .renewed(key, Err(failure(Reason::NotRegistered)), table.at(seconds(10)));
    assert!(table.take(seconds(1_000)).is_none());
    assert!(table.schedule.remove(key));
}

#[test]
fn answers_for_what_was_forgotten_are_ignored() {
    let mut table = Table::new();
    let (key, _kept) = table.keep("a", seconds(10));
    table.take_renewal(seconds(10));
    table.schedule.forget(key);
    table
        .schedule
        .renewed(key, Ok(renewed(seconds(10))), table.at(seconds(10)));
    assert_eq!(table.schedule.next_due(), None);
}

#[test]
fn metadata_that_was_changed_is_what_is_registered_again() {
    let mut table = Table::new();
    let (key, _kept) = table.keep("a", seconds(10));
    table
        .schedule
        .set_metadata(key, serde_json::json!({"status": "away"}));
    table.take_renewal(seconds(10));
    table
        .schedule
        .renewed(key, Err(failure(Reason::NotRegistered)), table.at(seconds(10)));
    let Some(Work::Register { request, .. }) = table.take(seconds(10)) else {
        panic!()
    };
    assert_eq!(request.metadata, serde_json::json!({"status": "away"}));
}
