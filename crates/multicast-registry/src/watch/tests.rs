//! Watches of a whole namespace on memory slots.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::FutureExt;
use prism_filter::{Document, Filter};
use prism_slot::{
    Position, Revision, Timestamp,
    memory::{ManualClock, MemoryMessaging, MemoryRegistry},
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    Kind, Watch, WatchItem,
    groups::{BACKLOG, Told},
};
use crate::{
    config::Behavior,
    coordinator::{Config, Coordinator, Error, Register},
    directory::Row,
    testing::{Broker, Fate, Op, Store, generated, soon},
};

fn coordinator(change: impl FnOnce(&mut Behavior)) -> Coordinator {
    let mut config = Config::named("test");
    change(&mut config.behavior);
    let registry = Arc::new(MemoryRegistry::new(Default::default()));
    let messaging = Arc::new(MemoryMessaging::new(Default::default()));
    Coordinator::new(config, registry, messaging, None)
}

async fn put(coordinator: &Coordinator, name: &str, metadata: &str) -> Position {
    let request = Register {
        replace: true,
        ..Register::new(name, Document::from_json(metadata.as_bytes()).unwrap()).unwrap()
    };
    coordinator.register(request, soon()).await.unwrap().position
}

async fn remove(coordinator: &Coordinator, name: &str) {
    coordinator.unregister(name, None, soon()).await.unwrap();
}

async fn watch(coordinator: &Coordinator, filter: &Filter) -> Watch {
    coordinator.watch(Some(filter), None, soon()).await.unwrap()
}

async fn resume(coordinator: &Coordinator, filter: &Filter, from: Position) -> Result<Watch, Error> {
    coordinator.watch(Some(filter), Some(from), soon()).await
}

/// The item in a few words.
fn words(item: &WatchItem) -> String {
    let name = |row: &Row| row.identity().to_string();
    match item {
        WatchItem::Present { row, .. } => format!("{} is there", name(row)),
        WatchItem::Changed(event) => {
            format!("{} {:?} {:?}", name(&event.row), event.kind, event.cause)
        }
        WatchItem::Bookmark(at) => format!("all up to {}", at.revision.0),
    }
}

async fn next(watch: &mut Watch) -> String {
    let item = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
    words(&item.expect("an item").unwrap())
}

async fn take(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(next(watch).await);
    }
    items
}

/// Takes what it begins with, until it is told of what happens.
async fn caught_up(watch: &mut Watch) {
    while !watch.is_live() {
        if let Some(item) = watch.next().now_or_never() {
            item.unwrap();
        }
        tokio::task::yield_now().await;
    }
    // What it was told to have reached, where that is still to be taken.
    while let Some(item) = watch.next().now_or_never() {
        item.unwrap();
    }
}

async fn error_of(watch: &mut Watch) -> Error {
    loop {
        let item = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
        if let Err(error) = item.expect("an end") {
            return error;
        }
    }
}

fn revision(watch: &Watch) -> Revision {
    watch.position().map_or(Revision::ZERO, |at| at.revision)
}

fn online() -> Filter {
    Filter::new().eq("status", "online")
}

#[tokio::test]
async fn a_watch_begins_with_what_matches_and_tells_each_change() {
    let coordinator = coordinator(|_| {});
    put(&coordinator, "a", r#"{"status":"online"}"#).await;
    put(&coordinator, "b", r#"{"status":"away"}"#).await;
    let mut watch = watch(&coordinator, &online()).await;
    assert_eq!(take(&mut watch, 2).await, ["a is there", "all up to 2"]);
    // What it takes to have caught up is said once.
    for _ in 0..3 {
        assert!(watch.next().now_or_never().is_none());
    }

    put(&coordinator, "b", r#"{"status":"online"}"#).await;
    put(&coordinator, "b", r#"{"status":"online","n":1}"#).await;
    put(&coordinator, "c", r#"{"status":"away"}"#).await;
    put(&coordinator, "a", r#"{"status":"away"}"#).await;
    remove(&coordinator, "b").await;
    remove(&coordinator, "c").await;
    put(&coordinator, "d", r#"{"status":"online"}"#).await;
    let changes = take(&mut watch, 5).await;
    assert_eq!(
        changes,
        [
            "b Enter Replaced",
            "b Update Replaced",
            "a Leave Replaced",
            "b Leave Unregistered",
            "d Enter Registered",
        ]
    );
    assert_eq!(revision(&watch), Revision(9));
}

#[tokio::test]
async fn one_that_left_is_shown_as_it_last_matched() {
    let coordinator = coordinator(|_| {});
    let mut watch = watch(&coordinator, &online()).await;
    put(&coordinator, "a", r#"{"status":"online","n":1}"#).await;
    put(&coordinator, "a", r#"{"status":"away","n":2}"#).await;
    let left = loop {
        if let WatchItem::Changed(event) = watch.next().await.unwrap()
            && event.kind == Kind::Leave
        {
            break event;
        }
    };
    assert_eq!(left.row.document().to_json(), br#"{"n":1,"status":"online"}"#);
    assert_eq!(left.revision, Revision(2));
}

#[tokio::test]
async fn a_watch_goes_on_where_another_one_ended() {
    let coordinator = coordinator(|_| {});
    put(&coordinator, "a", r#"{"status":"online"}"#).await;
    let mut first = watch(&coordinator, &online()).await;
    caught_up(&mut first).await;
    put(&coordinator, "b", r#"{"status":"online"}"#).await;
    assert_eq!(next(&mut first).await, "b Enter Registered");
    let at = first.position().unwrap();
    drop(first);
    remove(&coordinator, "a").await;
    put(&coordinator, "c", r#"{"status":"online"}"#).await;
    let mut second = resume(&coordinator, &online(), at).await.unwrap();
    let items = take(&mut second, 3).await;
    assert_eq!(
        items,
        ["a Leave Unregistered", "c Enter Registered", "all up to 4"]
    );
}

/// Whoever comes back learns how far it is also where nothing happened.
#[tokio::test]
async fn a_watch_that_goes_on_says_where_it_is() {
    let coordinator = coordinator(|_| {});
    let at = put(&coordinator, "a", "{}").await;
    let mut watch = resume(&coordinator, &online(), at).await.unwrap();
    assert_eq!(next(&mut watch).await, "all up to 1");
    assert!(watch.next().now_or_never().is_none());
}

#[tokio::test]
async fn positions_that_lead_nowhere_are_refused() {
    let coordinator = coordinator(no_history);
    let first = put(&coordinator, "a", "{}").await;
    for _ in 0..3 {
        put(&coordinator, "a", "{}").await;
    }
    let head = put(&coordinator, "b", "{}").await;
    let all = Filter::new();
    // Past versions go when the view is next looked after.
    let compacted = loop {
        // Whoever watches has what came last kept.
        match resume(&coordinator, &all, first).await.map(drop) {
            Err(error) => break error,
            Ok(()) => tokio::task::yield_now().await,
        }
    };
    assert!(
        matches!(
            compacted,
            Error::Compacted {
                asked: Revision(1),
                ..
            }
        ),
        "{compacted:?}"
    );
    let mut other = head;
    other.epoch.0 ^= 1;
    let refused = resume(&coordinator, &all, other).await.err().unwrap();
    assert_eq!(refused, Error::OtherEpoch { current: head.epoch });
    let mut later = head;
    later.revision.0 += 1;
    let refused = resume(&coordinator, &all, later).await.err().unwrap();
    assert!(
        matches!(
            &refused,
            Error::InvalidArgument {
                field: "resume_from",
                ..
            }
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_moves_without_a_write_is_not_watched() {
    let coordinator = coordinator(|_| {});
    let filter = Filter::new().gt("$expires_at", 0);
    let refused = coordinator
        .watch(Some(&filter), None, soon())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&refused, Error::InvalidArgument { field: "filter", .. }),
        "{refused:?}"
    );
}

/// `now` would be another moment with every change.
#[tokio::test]
async fn what_is_relative_to_now_is_not_watched() {
    let coordinator = coordinator(|_| {});
    let filter = Filter::or([online(), Filter::new().lt("seen", "now-5m")]);
    let refused = coordinator
        .watch(Some(&filter), None, soon())
        .await
        .err()
        .unwrap();
    let Error::InvalidFilter(refused) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refused.clause(), "$or[1].seen");
    assert!(
        refused.to_string().contains("relative to the moment of a call"),
        "{refused}"
    );
    assert!(
        coordinator
            .watch(Some(&Filter::new().eq("seen", "now-5m")), None, soon())
            .await
            .is_ok()
    );
}

/// The next changes, whatever else is said in between.
async fn changes(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut changes = Vec::new();
    while changes.len() < count {
        let item = next(watch).await;
        if !item.starts_with("all up to") {
            changes.push(item);
        }
    }
    changes
}

async fn put_online(coordinator: &Coordinator, numbers: std::ops::Range<usize>) {
    for number in numbers {
        put(coordinator, &format!("id-{number:04}"), r#"{"status":"online"}"#).await;
    }
}

/// It reads what it was not told of in the log.
#[tokio::test]
async fn a_watcher_that_falls_behind_misses_nothing() {
    const CHANGES: usize = 3_000;
    let coordinator = coordinator(|behavior| behavior.max_watch_filters = 1);
    let all = Filter::new();
    let (mut slow, mut quick) = (
        watch(&coordinator, &all).await,
        watch(&coordinator, &online()).await,
    );
    caught_up(&mut slow).await;
    caught_up(&mut quick).await;
    for begin in (0..CHANGES).step_by(100) {
        put_online(&coordinator, begin..begin + 100).await;
        changes(&mut quick, 100).await;
    }
    let read = changes(&mut slow, 1_000).await;
    put_online(&coordinator, CHANGES..CHANGES + 100).await;
    // It has its place all the time: nobody else gets it meanwhile.
    let mut other = watch(&coordinator, &Filter::new().gt("n", 1)).await;
    let refused = error_of(&mut other).await;
    assert!(matches!(refused, Error::Overloaded { limit: 1, .. }));
    let more = changes(&mut slow, CHANGES - 900).await;
    let expected = (0..CHANGES + 100).map(|number| format!("id-{number:04} Enter Registered"));
    assert!(read.into_iter().chain(more).eq(expected));
    // And is told of what comes next as it comes.
    put(&coordinator, "last", "{}").await;
    assert_eq!(changes(&mut slow, 1).await, ["last Enter Registered"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_is_behind_what_is_kept_is_cut() {
    let coordinator = coordinator(no_history);
    let mut slow = watch(&coordinator, &Filter::new()).await;
    let mut quick = watch(&coordinator, &Filter::new()).await;
    caught_up(&mut slow).await;
    caught_up(&mut quick).await;
    for number in 0..3_000 {
        put(&coordinator, "a", &format!(r#"{{"n":{number}}}"#)).await;
        changes(&mut quick, 1).await;
    }
    let error = error_of(&mut slow).await;
    let at = slow.position().unwrap();
    assert_eq!(error, Error::TooSlow { at });
}

/// There may be as many filters as there are watchers.
#[test]
fn a_filter_that_is_watched_takes_little_memory() {
    let each = BACKLOG * size_of::<Told>();
    assert!(each <= 1_024, "{each} bytes");
}

fn no_history(behavior: &mut Behavior) {
    behavior.history_age = Duration::ZERO;
    behavior.history_bytes = 0;
}

/// However little is kept of the past, whoever watches is told first.
#[tokio::test(start_paused = true)]
async fn watches_outlast_a_history_that_is_short() {
    let short = |behavior: &mut Behavior| behavior.history_age = Duration::ZERO;
    let small = |behavior: &mut Behavior| behavior.history_bytes = 0;
    for coordinator in [coordinator(short), coordinator(small), coordinator(no_history)] {
        let mut live = watch(&coordinator, &Filter::new()).await;
        caught_up(&mut live).await;
        for number in 0..5 {
            put(&coordinator, "a", &format!(r#"{{"n":{number}}}"#)).await;
            changes(&mut live, 1).await;
        }
        remove(&coordinator, "a").await;
        assert_eq!(changes(&mut live, 1).await, ["a Leave Unregistered"]);
        // All at once, and more than a watcher is told before it reads.
        for number in 0..500 {
            put(&coordinator, "a", &format!(r#"{{"n":{number}}}"#)).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let told = changes(&mut live, 500).await;
        assert_eq!(told[499], "a Update Replaced");
        // Nothing is kept for those who are gone.
        drop(live);
        put(&coordinator, "a", "{}").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let kept = coordinator.directory().read(|view| view.closed().len());
        assert_eq!(kept, 0);
    }
}

/// It is written as text, and rows have a number.
#[tokio::test]
async fn moments_are_watched_like_any_value() {
    let moment = Timestamp(1_800_000_000_000);
    let clock = Arc::new(ManualClock::new(moment));
    let store = Store::new(clock.clone());
    let coordinator = Coordinator::new(Config::named("test"), store, Broker::new(), None);
    let now = "2027-01-15T08:00:00Z";
    let filters = [
        Filter::new().eq("$registered_at", now),
        Filter::new().eq("$updated_at", now).exists("n"),
        Filter::new().is_in("$registered_at", [now, "2000-01-01T00:00:00Z"]),
        Filter::new().eq("$registered_at", moment.0 as f64),
    ];
    for filter in filters {
        let mut live = watch(&coordinator, &filter).await;
        caught_up(&mut live).await;
        put(&coordinator, "a", r#"{"n":1}"#).await;
        assert_eq!(next(&mut live).await, "a Enter Registered", "{filter}");
        remove(&coordinator, "a").await;
        assert_eq!(next(&mut live).await, "a Leave Unregistered", "{filter}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Wherever a filter is anchored, it is told of every change that it says anything about.
    #[test]
    fn a_watch_is_told_what_its_filter_says(
        writes in prop::collection::vec((0..4, prop::option::weighted(0.8, generated::document())), 1..12),
        filters in prop::collection::vec(generated::filter(), 6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(watched_as_said(writes, filters))?;
    }
}

async fn watched_as_said(
    writes: Vec<(i32, Option<Document>)>,
    filters: Vec<Filter>,
) -> Result<(), TestCaseError> {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let mut config = Config::named("test");
    config.behavior.max_filter_depth = generated::MAX_DEPTH;
    let coordinator = Coordinator::new(config, Store::new(clock.clone()), Broker::new(), None);
    let mut watches = Vec::new();
    for filter in filters {
        // `now` is not watched.
        if let Ok(compiled) = filter.compile(&coordinator.config().limits()) {
            let mut watch = watch(&coordinator, &filter).await;
            caught_up(&mut watch).await;
            watches.push((compiled, watch, Vec::new()));
        }
    }
    let directory = coordinator.directory();
    let row_of = |name: &str| directory.read(|view| view.get(name).map(Row::copy));
    for (number, document) in writes {
        let name = format!("id-{number}");
        let before = row_of(&name);
        match document {
            Some(document) => {
                let json = String::from_utf8(document.to_json()).unwrap();
                put(&coordinator, &name, &json).await;
            }
            None => remove(&coordinator, &name).await,
        }
        clock.advance(Duration::from_millis(1));
        directory.make_current(soon()).await.unwrap();
        let (at, after) = (directory.head().revision.0, row_of(&name));
        for (filter, _, expected) in &mut watches {
            let matches = |row: &Option<Row>| row.as_ref().is_some_and(|row| filter.matches(row));
            let kind = match (matches(&before), matches(&after)) {
                (false, true) => "Enter",
                (true, true) => "Update",
                (true, false) => "Leave",
                _ => continue,
            };
            expected.push(format!("{name} {kind} {at}"));
        }
    }
    for (filter, watch, expected) in &mut watches {
        let (mut model, mut told) = (Model::default(), Vec::new());
        drain(watch, &mut model, &mut told, usize::MAX).await.unwrap();
        prop_assert_eq!(&told, expected, "{}", filter.filter());
    }
    Ok(())
}

#[tokio::test]
async fn watchers_are_counted_and_bounded() {
    let coordinator = coordinator(|behavior| {
        behavior.max_watchers = 3;
        behavior.max_watch_filters = 1;
    });
    let anything = Filter::new();
    let mut all = Vec::new();
    for filter in [&anything, &anything, &online()] {
        let mut watch = watch(&coordinator, filter).await;
        caught_up(&mut watch).await;
        all.push(watch);
    }
    let refused = coordinator.watch(None, None, soon()).await.err().unwrap();
    assert!(
        matches!(refused, Error::Overloaded { limit: 3, .. }),
        "{refused:?}"
    );
    all.pop();
    // A second one that every change would have to be compared with.
    let mut second = watch(&coordinator, &Filter::new().gt("n", 1)).await;
    let refused = error_of(&mut second).await;
    assert!(
        matches!(refused, Error::Overloaded { limit: 1, .. }),
        "{refused:?}"
    );
    drop((second, all));
    let mut second = watch(&coordinator, &Filter::new().gt("n", 1)).await;
    assert_eq!(next(&mut second).await, "all up to 0");
    caught_up(&mut second).await;
}

#[tokio::test]
async fn a_change_is_compared_with_the_filters_that_it_concerns() {
    let coordinator = coordinator(|_| {});
    let mut watches = Vec::new();
    for room in 0..1_000 {
        let filter = Filter::new().eq("room", room).gt("n", 0);
        let mut watch = watch(&coordinator, &filter).await;
        caught_up(&mut watch).await;
        watches.push(watch);
    }
    let compared = || coordinator.metrics().watch_evaluations();
    let before = compared();
    for number in 0..100 {
        let metadata = format!(r#"{{"room":{},"n":1}}"#, number % 10);
        put(&coordinator, "a", &metadata).await;
    }
    for (room, watch) in watches.iter_mut().take(10).enumerate() {
        // Entered ten times, left ten times; the last one stays.
        take(watch, if room == 9 { 19 } else { 20 }).await;
    }
    assert_eq!(compared() - before, 199, "the room before and the room after");
}

/// Ten thousand of them, a hundred to a filter.
#[tokio::test]
async fn many_watchers_of_few_filters_cost_by_filters() {
    const FILTERS: usize = 100;
    const EACH: usize = 100;
    let coordinator = coordinator(|_| {});
    let mut watches = Vec::new();
    for number in 0..FILTERS * EACH {
        let filter = Filter::new().eq("room", (number % FILTERS) as u32);
        let mut watch = watch(&coordinator, &filter).await;
        caught_up(&mut watch).await;
        watches.push(watch);
    }
    let before = coordinator.metrics().watch_evaluations();
    put(&coordinator, "a", r#"{"room":7}"#).await;
    put(&coordinator, "a", r#"{"room":8}"#).await;
    for (number, watch) in watches.iter_mut().enumerate() {
        match number % FILTERS {
            7 => assert_eq!(take(watch, 2).await, ["a Enter Registered", "a Leave Replaced"]),
            8 => assert_eq!(take(watch, 1).await, ["a Enter Replaced"]),
            _ => assert!(watch.next().now_or_never().is_none()),
        }
    }
    assert_eq!(coordinator.metrics().watch_evaluations() - before, 3);
}

/// The end of a snapshot and the beginning of what is told fit together, however the two fall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_what_follows_fit_together() {
    let coordinator = coordinator(|_| {});
    for number in 0..2_000 {
        put(
            &coordinator,
            &format!("id-{number:04}"),
            r#"{"status":"online","n":0}"#,
        )
        .await;
    }
    let writer = {
        let coordinator = coordinator.clone();
        tokio::spawn(async move {
            for n in 1..4_000 {
                let name = format!("id-{:04}", n % 2_000);
                put(&coordinator, &name, &format!(r#"{{"status":"online","n":{n}}}"#)).await;
                tokio::task::yield_now().await;
            }
        })
    };
    let mut watch = watch(&coordinator, &online()).await;
    let mut model = Model::default();
    let mut last = Revision::ZERO;
    while last < Revision(2_000 + 3_999) {
        match watch.next().await {
            Ok(item) => model.apply(&item),
            // Behind while the snapshot was read: that is what resuming is for.
            Err(Error::TooSlow { at }) => watch = resume(&coordinator, &online(), at).await.unwrap(),
            Err(error) => panic!("{error:?}"),
        }
        last = revision(&watch);
    }
    writer.await.unwrap();
    assert_eq!(model.0.len(), 2_000);
    for number in 0..2_000_i64 {
        let n = if number == 0 {
            2_000
        } else if number < 2_000 {
            number + 2_000
        } else {
            number
        };
        let expected = format!(r#"{{"n":{n},"status":"online"}}"#);
        assert_eq!(model.0[&format!("id-{number:04}")], expected);
    }
}

/// What a watcher knows.
#[derive(Debug, Default, PartialEq)]
struct Model(BTreeMap<String, String>);

impl Model {
    fn apply(&mut self, item: &WatchItem) {
        let (row, present) = match item {
            WatchItem::Present { row, .. } => (row, false),
            WatchItem::Changed(event) => (&event.row, event.kind != Kind::Enter),
            WatchItem::Bookmark(_) => return,
        };
        let name = row.identity().to_string();
        assert_eq!(self.0.contains_key(&name), present, "{}", words(item));
        if matches!(item, WatchItem::Changed(event) if event.kind == Kind::Leave) {
            self.0.remove(&name);
        } else {
            let metadata = String::from_utf8(row.document().to_json()).unwrap();
            self.0.insert(name, metadata);
        }
    }
}

/// A hundred thousand changes, and a hundred times that a watcher is cut off: it is told exactly what
/// happened, in order and once.
#[tokio::test]
async fn a_watch_that_is_cut_again_and_again_tells_exactly_what_happened() {
    const CHANGES: u64 = 100_000;
    let mut random = SmallRng::seed_from_u64(7);
    let coordinator = coordinator(|behavior| behavior.max_identities = 1_000);
    let filters = [
        Filter::new().eq("s", 1),
        Filter::new().gte("n", 50).lt("n", 90),
        Filter::not(Filter::new().eq("s", 2)),
        Filter::new(),
    ];
    let mut watchers: Vec<(Filter, Watch, Model)> = Vec::new();
    for filter in filters {
        let watch = watch(&coordinator, &filter).await;
        let mut watch = watch;
        caught_up(&mut watch).await;
        watchers.push((filter, watch, Model::default()));
    }
    let mut expected: Vec<Vec<String>> = vec![Vec::new(); watchers.len()];
    let mut told: Vec<Vec<String>> = expected.clone();
    let (mut current, mut cuts): (BTreeMap<String, Document>, usize) = Default::default();
    for step in 0..CHANGES {
        let name = format!("id-{}", random.random_range(0..300));
        let after = if current.contains_key(&name) && random.random_bool(0.3) {
            remove(&coordinator, &name).await;
            None
        } else {
            let metadata = format!(
                r#"{{"n":{},"s":{}}}"#,
                random.random_range(0..100),
                random.random_range(0..4)
            );
            put(&coordinator, &name, &metadata).await;
            Some(Document::from_json(metadata.as_bytes()).unwrap())
        };
        let before = match &after {
            Some(document) => current.insert(name.clone(), document.clone()),
            None => current.remove(&name),
        };
        for ((filter, ..), expected) in watchers.iter().zip(&mut expected) {
            let compiled = filter.compile(&Default::default()).unwrap();
            let matches = |document: &Option<Document>| {
                document
                    .as_ref()
                    .is_some_and(|document| compiled.matches(&Plain(document)))
            };
            let kind = match (matches(&before), matches(&after)) {
                (false, true) => "Enter",
                (true, true) => "Update",
                (true, false) => "Leave",
                _ => continue,
            };
            expected.push(format!("{name} {kind} {}", step + 1));
        }
        if step % 500 == 499 {
            for ((filter, watch, model), told) in watchers.iter_mut().zip(&mut told) {
                let read = drain(watch, model, told, random.random_range(0..700)).await;
                if read.is_err() {
                    *watch = resume(&coordinator, filter, watch.position().unwrap())
                        .await
                        .unwrap();
                }
                if cuts < 100 && random.random_bool(0.5) {
                    cuts += 1;
                    *watch = resume(&coordinator, filter, watch.position().unwrap())
                        .await
                        .unwrap();
                }
            }
        }
    }
    assert_eq!(cuts, 100);
    for ((filter, watch, model), (told, expected)) in watchers.iter_mut().zip(told.iter_mut().zip(&expected))
    {
        while told.len() < expected.len() {
            if drain(watch, model, told, 10_000).await.is_err() {
                *watch = resume(&coordinator, filter, watch.position().unwrap())
                    .await
                    .unwrap();
            }
        }
        assert_eq!(told, expected);
    }
}

/// Reads what there is, up to so many items.
async fn drain(
    watch: &mut Watch,
    model: &mut Model,
    told: &mut Vec<String>,
    most: usize,
) -> Result<(), Error> {
    /// How often a watcher may have nothing to say, in a row, until it has nothing to say.
    const QUIET: usize = 50;
    let (mut items, mut quiet) = (0, 0);
    while items < most && quiet < QUIET {
        let Some(item) = watch.next().now_or_never() else {
            quiet += 1;
            tokio::task::yield_now().await;
            continue;
        };
        let item = item?;
        (items, quiet) = (items + 1, 0);
        model.apply(&item);
        if let WatchItem::Changed(event) = &item {
            let (name, at) = (event.row.identity(), event.revision.0);
            told.push(format!("{name} {:?} {at}", event.kind));
        }
    }
    Ok(())
}

struct Plain<'a>(&'a Document);

impl prism_filter::Record for Plain<'_> {
    fn identity(&self) -> &str {
        ""
    }

    fn registered_at(&self) -> i64 {
        0
    }

    fn updated_at(&self) -> i64 {
        0
    }

    fn expires_at(&self) -> Option<i64> {
        None
    }

    fn document(&self) -> &Document {
        self.0
    }
}

#[tokio::test]
async fn a_namespace_that_goes_elsewhere_ends_its_watches() {
    let coordinator = coordinator(|_| {});
    let mut live = watch(&coordinator, &online()).await;
    caught_up(&mut live).await;
    let mut fresh = watch(&coordinator, &online()).await;
    coordinator.close_sessions();
    assert_eq!(error_of(&mut live).await, Error::Draining);
    assert_eq!(error_of(&mut fresh).await, Error::Draining);
}

fn store() -> Arc<Store> {
    Store::new(Arc::new(ManualClock::new(Default::default())))
}

/// The view is built anew, and knows the past all the same.
#[tokio::test(start_paused = true)]
async fn a_view_that_is_built_anew_loses_nobody() {
    let store = store();
    let coordinator = Coordinator::new(Config::named("test"), store.clone(), Broker::new(), None);
    let mut live = watch(&coordinator, &Filter::new()).await;
    caught_up(&mut live).await;
    put(&coordinator, "a", "{}").await;
    assert_eq!(next(&mut live).await, "a Enter Registered");
    let lost = prism_slot::Error::Compacted { up_to: Revision(5) };
    store.script.next(Op::Sync, Fate::Refuse(lost));
    put(&coordinator, "b", "{}").await;
    assert_eq!(next(&mut live).await, "b Enter Registered");
    assert_eq!(store.script.count(Op::Scan), 2);
}

/// The records are gone with their store.
#[tokio::test(start_paused = true)]
async fn a_new_epoch_ends_watches_with_a_word() {
    let coordinator = Coordinator::new(Config::named("test"), store(), Broker::new(), None);
    let mut live = watch(&coordinator, &Filter::new()).await;
    caught_up(&mut live).await;
    put(&coordinator, "a", "{}").await;
    next(&mut live).await;
    coordinator.replace_registry(store());
    let error = error_of(&mut live).await;
    let current = put(&coordinator, "b", "{}").await.epoch;
    assert_eq!(error, Error::OtherEpoch { current });
}

/// As soon as the slot tells, and not when the view is next looked after.
#[tokio::test(start_paused = true)]
async fn changes_arrive_by_themselves() {
    let coordinator = coordinator(|_| {});
    let mut live = watch(&coordinator, &Filter::new()).await;
    caught_up(&mut live).await;
    for number in 0..20 {
        let began = Instant::now();
        put(&coordinator, &format!("id-{number}"), "{}").await;
        next(&mut live).await;
        // Of virtual time, in which nothing takes any but waiting.
        assert!(
            began.elapsed() <= Duration::from_millis(50),
            "{:?}",
            began.elapsed()
        );
    }
}

/// One who is told of nothing learns all the same how far that goes.
#[tokio::test(start_paused = true)]
async fn a_watcher_of_nothing_gets_bookmarks() {
    let coordinator = coordinator(|_| {});
    let mut live = watch(&coordinator, &online()).await;
    caught_up(&mut live).await;
    put(&coordinator, "a", "{}").await;
    assert_eq!(next(&mut live).await, "all up to 1");
    put(&coordinator, "a", r#"{"status":"online"}"#).await;
    assert_eq!(next(&mut live).await, "a Enter Replaced");
}
