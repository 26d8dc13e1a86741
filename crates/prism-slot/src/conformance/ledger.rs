//! The cases of [`Ledger`](crate::Ledger).

mod faults;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::{
    LedgerOpen as Open, LedgerSubject,
    cases::{Case, FaultCase, cases, fault_cases},
    deadline,
    fault::Scene,
};
use crate::{
    DynLedger, Entry, Error, Expect, LedgerCapability, Listed, Result, Scope, Write, Wrote,
    capability::Survives,
};
pub(super) use faults::work;
use faults::*;

pub(super) const CASES: &[Case<LedgerCapability, Fixture>] = cases![
    namespaces_have_their_own_ledger,
    entries_outlive_the_opening if |capability: &LedgerCapability| capability.scope > Scope::Process,
    entries_are_read_as_last_written,
    writes_keep_to_what_they_expect,
    one_of_many_writes_is_done,
    entries_end_by_themselves,
    late_writes_write_nothing,
    keys_are_listed_in_pages,
    entries_let_go_are_there_where_there_is_room,
    bodies_over_the_limit_are_not_written,
    a_closed_ledger_refuses,
];

pub(super) const FAULTS: &[FaultCase<LedgerCapability, Scene<Open>>] = fault_cases![
    BlackHole: calls_end_in_the_dark =>
        "every call ends by its deadline: a read with an error, a write with one that says whether it may have been done; \
         reading tells; it goes on by itself",
    Frozen: calls_end_while_the_backend_stands_still => "as before",
    LostReplies: what_lost_answers_said_is_read => "a write is said to be unknown, and reading tells that it was done",
    Cut: a_batch_that_is_cut_is_told_one_by_one =>
        "each write of a batch is told for itself: done is there, not done is not there, of the rest reading tells",
    Restarted: acknowledged_entries_outlive_a_restart if outlives_runners =>
        "each entry is as it was last written, if the server was told to write it to its disk first",
    Killed: acknowledged_entries_outlive_kills if outlives_runners =>
        "as after a restart, whatever was under way",
    Emptied: lost_versions_are_not_given_again =>
        "the ledger is empty; who holds a version of before overwrites nothing that is written since",
    DiskFull: a_full_disk_refuses_and_loses_nothing =>
        "what needs room is refused and certainly not done, entries are read as before, and with room again it goes on by \
         itself",
];

fn outlives_runners(capability: &LedgerCapability) -> bool {
    capability.survives >= Survives::RunnerRestart
}

const LONG: Duration = Duration::from_secs(3_600);
/// Whole seconds: some backends know no less.
const SHORT: Duration = Duration::from_secs(1);

/// How a case opens the ledger of a namespace of its own.
pub(super) struct Fixture {
    pub(super) open: Arc<Open>,
    pub(super) namespace: String,
}

impl Fixture {
    async fn open(&self) -> Subject {
        self.open_other("").await
    }

    async fn open_other(&self, suffix: &str) -> Subject {
        Subject((self.open)(format!("{}{suffix}", self.namespace)).await)
    }
}

struct Subject(LedgerSubject);

impl Subject {
    fn ledger(&self) -> &Arc<dyn DynLedger> {
        &self.0.ledger
    }

    async fn write(&self, write: Write) -> Result<Wrote> {
        let mut outcomes = self.ledger().write(vec![write], deadline()).await;
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    /// Writes without a condition; the version.
    async fn put(&self, key: &str, text: &str) -> u64 {
        match self.write(write(key, text, Expect::Anything)).await {
            Ok(Wrote::Done(version)) => version,
            other => panic!("{other:?}"),
        }
    }

    async fn get(&self, key: &str) -> Option<Entry> {
        let read = self.ledger().read(vec![key.to_owned()], deadline()).await;
        let [entry] = <[_; 1]>::try_from(read.unwrap()).unwrap();
        entry
    }

    async fn text(&self, key: &str) -> Option<String> {
        let entry = self.get(key).await?;
        Some(String::from_utf8(entry.body.to_vec()).unwrap())
    }
}

fn write(key: &str, text: &str, expect: Expect) -> Write {
    Write {
        key: key.to_owned(),
        expect,
        body: Some(Bytes::copy_from_slice(text.as_bytes())),
        ttl: LONG,
    }
}

async fn namespaces_have_their_own_ledger(fixture: Fixture) {
    let (here, there) = (fixture.open().await, fixture.open_other("-other").await);
    here.put("a", "here").await;
    assert_eq!(there.get("a").await, None);
    let listed = there.ledger().list(String::new(), None, 10, deadline()).await;
    assert_eq!(listed, Ok(Listed::default()));
}

async fn entries_outlive_the_opening(fixture: Fixture) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    let version = one.put("a", "kept").await;
    assert_eq!(other.get("a").await.map(|entry| entry.version), Some(version));
    one.ledger().close().await;
    other.ledger().close().await;
    let again = fixture.open().await;
    assert_eq!(again.text("a").await.as_deref(), Some("kept"));
    let stale = again.write(write("a", "x", Expect::Version(version + 1))).await;
    assert!(matches!(stale, Ok(Wrote::Conflict(Some(_)))), "{stale:?}");
    let fits = again.write(write("a", "x", Expect::Version(version))).await;
    assert!(matches!(fits, Ok(Wrote::Done(_))), "{fits:?}");
}

async fn entries_are_read_as_last_written(fixture: Fixture) {
    let subject = fixture.open().await;
    let odd = "open/0123456789abcdef-_/Z";
    for round in 0..20 {
        let text = format!("{round}\0\u{e9}");
        let version = subject.put(odd, &text).await;
        let entry = subject.get(odd).await.unwrap();
        assert_eq!((entry.version, &entry.body[..]), (version, text.as_bytes()));
    }
    subject.put("empty", "").await;
    let keys = ["empty", "absent", odd, "empty"].map(str::to_owned).to_vec();
    let read = subject.ledger().read(keys, deadline()).await.unwrap();
    let there: Vec<bool> = read.iter().map(Option::is_some).collect();
    assert_eq!(there, [true, false, true, true]);
    assert_eq!(read[0].as_ref().unwrap().body.len(), 0);
    assert_eq!(
        subject.ledger().read(Vec::new(), deadline()).await,
        Ok(Vec::new())
    );
    let large = "x".repeat(subject.ledger().capability().max_body.min(900 << 10));
    subject.put("large", &large).await;
    assert_eq!(subject.text("large").await, Some(large));
}

async fn writes_keep_to_what_they_expect(fixture: Fixture) {
    let subject = fixture.open().await;
    let absent = subject.write(write("a", "x", Expect::Version(1))).await;
    assert_eq!(absent, Ok(Wrote::Conflict(None)));
    let Ok(Wrote::Done(first)) = subject.write(write("a", "1", Expect::Absent)).await else {
        panic!("it is absent");
    };
    assert!(first > 0);
    let current = subject.get("a").await;
    let again = subject.write(write("a", "2", Expect::Absent)).await;
    assert_eq!(again, Ok(Wrote::Conflict(current)));
    let Ok(Wrote::Done(second)) = subject.write(write("a", "2", Expect::Version(first))).await else {
        panic!("it has that version");
    };
    assert_ne!(first, second);
    let remove = |expect| Write {
        body: None,
        ..write("a", "", expect)
    };
    let stale = subject.write(remove(Expect::Version(first))).await;
    assert!(matches!(stale, Ok(Wrote::Conflict(Some(_)))), "{stale:?}");
    assert_eq!(subject.text("a").await.as_deref(), Some("2"));
    assert_eq!(
        subject.write(remove(Expect::Version(second))).await,
        Ok(Wrote::Done(0))
    );
    assert_eq!(subject.get("a").await, None);
    assert_eq!(subject.write(remove(Expect::Anything)).await, Ok(Wrote::Done(0)));
    // What was there before does not count for what comes after.
    let Ok(Wrote::Done(third)) = subject.write(write("a", "3", Expect::Absent)).await else {
        panic!("it is absent again");
    };
    assert!(![first, second].contains(&third));
    let many = (0..300).map(|number| write(&format!("many/{number}"), "x", Expect::Absent));
    let outcomes = subject.ledger().write(many.collect(), deadline()).await;
    assert_eq!(outcomes.len(), 300);
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Ok(Wrote::Done(_))))
    );
}

async fn one_of_many_writes_is_done(fixture: Fixture) {
    let subject = fixture.open().await;
    for (round, expect) in [None, Some(())].into_iter().enumerate() {
        let expect = match expect {
            None => Expect::Absent,
            Some(()) => Expect::Version(subject.get("a").await.unwrap().version),
        };
        let texts: Vec<String> = (0..30).map(|number| format!("{round}.{number}")).collect();
        let writes = texts.iter().map(|text| subject.write(write("a", text, expect)));
        let outcomes = join_all(writes).await;
        let done = outcomes
            .iter()
            .zip(&texts)
            .filter(|(outcome, _)| matches!(outcome, Ok(Wrote::Done(_))));
        let done: Vec<&String> = done.map(|(_, text)| text).collect();
        assert_eq!(done.len(), 1, "{outcomes:?}");
        assert_eq!(subject.text("a").await.as_ref(), Some(done[0]));
    }
}

async fn entries_end_by_themselves(fixture: Fixture) {
    let subject = fixture.open().await;
    let short = |key: &str, expect| Write {
        ttl: SHORT,
        ..write(key, "x", expect)
    };
    subject.write(short("a", Expect::Absent)).await.unwrap();
    subject.write(short("b", Expect::Absent)).await.unwrap();
    subject.put("b", "longer").await;
    assert!(subject.get("a").await.is_some());
    (subject.0.pass)(SHORT * 3).await;
    assert_eq!(subject.get("a").await, None);
    assert_eq!(subject.text("b").await.as_deref(), Some("longer"));
    let listed = subject.ledger().list(String::new(), None, 10, deadline()).await;
    assert_eq!(listed.unwrap().keys, ["b"]);
    let again = subject.write(short("a", Expect::Absent)).await;
    assert!(matches!(again, Ok(Wrote::Done(_))), "{again:?}");
}

/// Each has a moment more than the one before it, so that some find out on the way, or in a queue, that they are too late.
async fn late_writes_write_nothing(fixture: Fixture) {
    let subject = fixture.open().await;
    let batch = |number: u32| -> Vec<Write> {
        let keys = (0..10).map(|part| format!("{number}/{part}"));
        keys.map(|key| write(&key, "x", Expect::Absent)).collect()
    };
    let (began, moment) = (Instant::now(), Duration::from_micros(100));
    let calls = (0..200).map(|number| subject.ledger().write(batch(number), began + moment * number));
    let outcomes = join_all(calls).await;
    let is_late =
        |outcome: &Result<Wrote>| matches!(outcome, Err(error) if error.applied() == crate::Applied::No);
    assert!(outcomes[0].iter().all(is_late), "{:?}", outcomes[0]);
    for (number, outcomes) in (0..).zip(outcomes) {
        let late = batch(number).into_iter().zip(&outcomes);
        let late: Vec<Write> = late
            .filter_map(|(write, outcome)| is_late(outcome).then_some(write))
            .collect();
        let again = subject.ledger().write(late, deadline()).await;
        assert!(
            again.iter().all(|outcome| matches!(outcome, Ok(Wrote::Done(_)))),
            "it was said not to be written: {again:?}"
        );
    }
}

async fn keys_are_listed_in_pages(fixture: Fixture) {
    let subject = fixture.open().await;
    let keys: Vec<String> = (0..25).map(|number| format!("open/{number:02}")).collect();
    for key in keys
        .iter()
        .map(String::as_str)
        .chain(["opem", "open", "openx/1", "z"])
    {
        subject.put(key, "x").await;
    }
    let page = async |after: Option<&str>| {
        let after = after.map(str::to_owned);
        let listed = subject.ledger().list("open/".to_owned(), after, 10, deadline());
        listed.await.unwrap()
    };
    let (mut found, mut after) = (Vec::new(), None::<String>);
    loop {
        let listed = page(after.as_deref()).await;
        assert!(listed.keys.len() <= 10);
        after = listed.keys.last().cloned();
        found.extend(listed.keys);
        if !listed.more {
            break;
        }
    }
    assert_eq!(found, keys);
    assert_eq!(page(Some("open/24")).await, Listed::default());
}

async fn entries_let_go_are_there_where_there_is_room(fixture: Fixture) {
    let subject = fixture.open().await;
    let version = subject.put("a", "x").await;
    let keys = ["a", "absent"].map(str::to_owned).to_vec();
    subject.ledger().let_go(keys, Duration::ZERO);
    subject.put("b", "x").await;
    assert_eq!(subject.get("a").await.map(|entry| entry.version), Some(version));
    assert_eq!(subject.get("absent").await, None);
    let again = subject.write(write("a", "y", Expect::Version(version))).await;
    assert!(matches!(again, Ok(Wrote::Done(_))), "{again:?}");
    assert_eq!(subject.text("a").await.as_deref(), Some("y"));
}

async fn bodies_over_the_limit_are_not_written(fixture: Fixture) {
    let subject = fixture.open().await;
    let most = subject.ledger().capability().max_body;
    let large = Write {
        body: Some(vec![0; most + 1].into()),
        ..write("a", "", Expect::Anything)
    };
    let refused = subject.write(large).await;
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    assert_eq!(subject.get("a").await, None);
}

async fn a_closed_ledger_refuses(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.put("a", "x").await;
    subject.ledger().close().await;
    let written = subject.write(write("a", "y", Expect::Anything)).await.map(drop);
    let read = subject
        .ledger()
        .read(vec!["a".to_owned()], deadline())
        .await
        .map(drop);
    for refused in [written, read] {
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    }
}
