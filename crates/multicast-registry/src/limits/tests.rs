//! Who is let in, and who is told to come again when.

use std::net::Ipv4Addr;

use tokio::time::{Instant, sleep};

use super::*;

fn behavior(change: impl FnOnce(&mut Behavior)) -> Behavior {
    let mut behavior = Behavior::default();
    change(&mut behavior);
    behavior
}

fn rate(text: &str) -> Option<Rate> {
    Some(text.parse().unwrap())
}

fn limits(change: impl FnOnce(&mut Behavior)) -> Arc<Limits> {
    Limits::of(&behavior(change), None).unwrap()
}

fn host(number: u8) -> Caller {
    Caller::Host(Ipv4Addr::new(10, 0, 0, number).into())
}

/// How many of so many calls at once are let in.
fn admitted(limits: &Limits, kind: Kind, caller: &Caller, calls: usize) -> usize {
    (0..calls).filter(|_| limits.admit(kind, caller).is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_limited_unless_it_is_configured() {
    assert!(Limits::of(&Behavior::default(), None).is_none());
    let limits = limits(|behavior| behavior.caller_reads = rate("1"));
    assert_eq!(admitted(&limits, Kind::Write, &host(1), 1_000), 1_000);
    assert_eq!(admitted(&limits, Kind::Multicast, &host(1), 1_000), 1_000);
    assert!(limits.admit_targets(&host(1), 1_000_000).is_ok());
    assert_eq!(admitted(&limits, Kind::Read, &host(1), 1_000), 1);
}

#[tokio::test(start_paused = true)]
async fn each_caller_has_an_allowance_of_its_own_for_each_kind() {
    let limits = limits(|behavior| {
        behavior.caller_writes = rate("10");
        behavior.caller_reads = rate("20");
    });
    for number in 1..=3 {
        assert_eq!(admitted(&limits, Kind::Write, &host(number), 100), 10);
        assert_eq!(admitted(&limits, Kind::Read, &host(number), 100), 20);
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(admitted(&limits, Kind::Write, &host(1), 100), 5);
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(
        admitted(&limits, Kind::Write, &host(1), 100),
        10,
        "no more is saved up"
    );
}

#[tokio::test(start_paused = true)]
async fn a_longer_burst_saves_up_more() {
    let limits = limits(|behavior| {
        behavior.caller_writes = rate("10");
        behavior.caller_burst = Duration::from_secs(5);
    });
    assert_eq!(admitted(&limits, Kind::Write, &host(1), 100), 50);
}

/// Who comes back when it was told to is let in, and no sooner.
#[tokio::test(start_paused = true)]
async fn the_pause_is_as_long_as_it_has_to_be() {
    let limits = limits(|behavior| behavior.caller_writes = rate("7"));
    assert_eq!(admitted(&limits, Kind::Write, &host(1), 100), 7);
    for _ in 0..50 {
        let exceeded = limits.admit(Kind::Write, &host(1)).unwrap_err();
        let pause = exceeded.retry_after.unwrap();
        sleep(pause - Duration::from_millis(1)).await;
        assert!(limits.admit(Kind::Write, &host(1)).is_err(), "sooner");
        sleep(Duration::from_millis(1)).await;
        assert_eq!(limits.admit(Kind::Write, &host(1)), Ok(()), "as told");
    }
}

/// Over a long time a caller gets exactly its rate, however hard it tries.
#[tokio::test(start_paused = true)]
async fn over_time_a_caller_gets_its_rate() {
    let limits = limits(|behavior| behavior.caller_writes = rate("50"));
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(10) {
        count += admitted(&limits, Kind::Write, &host(1), 3);
        sleep(Duration::from_millis(1)).await;
    }
    assert!((500..=551).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn targets_are_counted_together_or_not_at_all() {
    let limits = limits(|behavior| behavior.caller_targets = rate("100"));
    assert_eq!(limits.admit_targets(&host(1), 80), Ok(()));
    let exceeded = limits.admit_targets(&host(1), 40).unwrap_err();
    assert_eq!(exceeded.retry_after, Some(Duration::from_millis(200)));
    assert_eq!(
        limits.admit_targets(&host(1), 20),
        Ok(()),
        "nothing of the 40 was counted"
    );
    assert_eq!(limits.admit_targets(&host(1), 0), Ok(()), "nobody is nobody");
    assert_eq!(limits.admit_targets(&host(2), 100), Ok(()));
    // No waiting makes room for more than there ever is.
    let exceeded = limits.admit_targets(&host(3), 101).unwrap_err();
    assert_eq!((exceeded.retry_after, exceeded.burst), (None, 100));
    assert_eq!(
        exceeded.to_string(),
        "one caller is allowed `100/s` targets of multicasts and `100` at once, ask for less at a time"
    );
    assert!(limits.admit_targets(&host(3), usize::MAX).is_err());
}

/// A change of one limit is no amnesty under another.
#[tokio::test(start_paused = true)]
async fn what_was_counted_outlives_changes_of_other_limits() {
    let mut rules = behavior(|behavior| {
        behavior.caller_writes = rate("10");
        behavior.caller_reads = rate("10");
    });
    let before = Limits::of(&rules, None).unwrap();
    assert_eq!(admitted(&before, Kind::Write, &host(1), 100), 10);
    assert_eq!(admitted(&before, Kind::Read, &host(1), 100), 10);
    rules.caller_reads = rate("20");
    let after = Limits::of(&rules, Some(&before)).unwrap();
    assert_eq!(admitted(&after, Kind::Write, &host(1), 100), 0);
    assert_eq!(admitted(&after, Kind::Read, &host(1), 100), 20);
    rules.caller_writes = None;
    let open = Limits::of(&rules, Some(&after)).unwrap();
    assert_eq!(admitted(&open, Kind::Write, &host(1), 100), 100);
}
