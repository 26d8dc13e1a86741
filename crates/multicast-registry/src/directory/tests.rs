//! The view against a model that keeps every state there ever was.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prism_filter::{Compiled, Document, Filter, Limits, Path};
use prism_slot::{Cause, Change, Epoch, Identity, Owner, Position, Record, Revision, Timestamp};
use proptest::prelude::*;

use super::{
    Begun, Explained, Facet, SortKey,
    large::Matching,
    past::Past,
    query::{Found, Query, bookmark},
    rows::Row,
    view::{Horizon, Settings, View},
};

/// What one step does: which identity, and its new metadata, or `None` to remove it.
type Step = (u8, Option<(u8, u8)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(
        (0_u8..40, proptest::option::weighted(0.7, (0_u8..5, 0_u8..20))),
        0..400,
    )
}

fn identity(number: u8) -> Identity {
    Identity::new(format!("id-{number}")).unwrap()
}

fn metadata((status, level): (u8, u8)) -> Document {
    let value = match status {
        0 => serde_json::json!({ "level": level }),
        1 => serde_json::json!({ "status": null, "level": level }),
        2 => serde_json::json!({ "status": status, "level": level.to_string() }),
        other => serde_json::json!({ "status": format!("s{other}"), "level": level }),
    };
    Document::from_value(&value).unwrap()
}

fn record(name: u8, document: &Document, revision: Revision) -> Arc<Record> {
    Arc::new(Record {
        identity: identity(name),
        metadata: document.to_json().into(),
        registered_at: Timestamp(0),
        updated_at: Timestamp(revision.0 as i64),
        ttl: None,
        expires_at: None,
        generation: Position {
            epoch: Epoch(1),
            revision,
        },
        revision,
        owner: Owner::default(),
    })
}

type State = BTreeMap<Identity, Document>;

/// The changes that steps make, and every state of a model, indexed by revision.
fn history(steps: &[Step]) -> (Vec<Past>, Vec<State>) {
    let (mut states, mut changes) = (vec![State::new()], Vec::new());
    let mut records: BTreeMap<u8, Arc<Record>> = BTreeMap::new();
    for (name, written) in steps {
        let mut state = states.last().unwrap().clone();
        let revision = Revision(states.len() as u64);
        let cause = match (written, records.contains_key(name)) {
            (None, false) => continue,
            (None, true) => Cause::Expired,
            (Some(_), true) => Cause::Replaced,
            (Some(_), false) => Cause::Registered,
        };
        let before = records.remove(name);
        let document_of = |record: &Arc<Record>| Document::from_json(&record.metadata).unwrap();
        let record = match written {
            Some(written) => {
                let document = metadata(*written);
                state.insert(identity(*name), document.clone());
                records.insert(*name, record(*name, &document, revision));
                records[name].clone()
            }
            None => {
                state.remove(&identity(*name));
                before.clone().unwrap()
            }
        };
        let before = before.filter(|_| !cause.removes());
        changes.push(Past {
            document: document_of(&record),
            before: before.as_ref().map(document_of),
            change: Change {
                revision,
                cause,
                record,
                before,
            },
        });
        states.push(state);
    }
    (changes, states)
}

fn settings(horizon: Horizon) -> Settings {
    Settings {
        horizon,
        indexed: indexed().into(),
        bare: false,
    }
}

fn position(revision: u64) -> Position {
    Position {
        epoch: Epoch(1),
        revision: Revision(revision),
    }
}

/// Applies steps to a view.
fn play(horizon: Horizon, steps: &[Step]) -> (View, Vec<State>) {
    let mut view = View::new(position(0), &settings(horizon), Vec::new());
    let now = std::time::Instant::now();
    let (changes, states) = history(steps);
    for past in changes {
        view.apply(&past.change, past.document, now);
        view.collect(now, Revision(u64::MAX), usize::MAX);
    }
    (view, states)
}

/// What happened after a revision, in words.
fn told(view: &View, after: u64) -> Option<Vec<String>> {
    let show = |row: Option<&Row>| {
        row.map(|row| {
            let metadata = String::from_utf8(row.document().to_json()).unwrap();
            format!("{} {metadata} {:?}", row.identity(), row.generation())
        })
    };
    let steps = view.changes_after(Revision(after))?;
    Some(
        steps
            .map(|step| {
                format!(
                    "{:?} {:?} {:?} {:?}",
                    step.revision,
                    step.cause,
                    show(step.before),
                    show(step.after)
                )
            })
            .collect(),
    )
}

/// The model's answer, in the order asked for.
fn expected(state: &State, filter: &Filter, sort: &[SortKey]) -> Vec<String> {
    let compiled = filter.compile(&Limits::default()).unwrap();
    let rows = state.iter().map(|(identity, document)| {
        let record = Record {
            identity: identity.clone(),
            ..(*record(0, document, Revision(1))).clone()
        };
        Row::new(&record, document.clone())
    });
    let mut rows: Vec<Row> = rows.filter(|row| compiled.matches(row)).collect();
    rows.sort_by(|one, other| {
        let by = |key: &SortKey| {
            let rank = |row: &Row| reference_key(row, &key.path);
            let order = rank(one).partial_cmp(&rank(other)).unwrap();
            if key.descending { order.reverse() } else { order }
        };
        sort.iter()
            .map(by)
            .find(|order| order.is_ne())
            .unwrap_or_else(|| one.identity().cmp(other.identity()))
    });
    rows.iter().map(|row| row.identity().to_string()).collect()
}

/// Kind first, then value, written apart from the code under test.
fn reference_key(row: &Row, path: &Path) -> (u8, f64, String) {
    let value = row.document().to_value();
    match path.keys().first().and_then(|key| value.get(&**key)) {
        None => (0, 0.0, String::new()),
        Some(serde_json::Value::Null) => (1, 0.0, String::new()),
        Some(serde_json::Value::Number(number)) => (3, number.as_f64().unwrap(), String::new()),
        Some(serde_json::Value::String(text)) => (4, 0.0, text.clone()),
        Some(other) => panic!("{other}"),
    }
}

fn pages(
    view: &View,
    at: Revision,
    filter: &Filter,
    sort: &[SortKey],
    limit: usize,
) -> (Vec<String>, Vec<u64>) {
    let compiled = filter.compile(&Limits::default()).unwrap();
    let filter = (!filter.is_empty()).then_some(&compiled);
    let (mut names, mut totals, mut after, mut total) = (Vec::new(), Vec::new(), None, None);
    loop {
        let query = Query {
            filter,
            sort,
            after: after.as_ref(),
            limit,
            total,
            ..Query::default()
        };
        let found = view.select(at, &query);
        names.extend(found.rows.iter().map(|row| row.identity().to_string()));
        totals.push(found.total);
        total = Some(found.total);
        if !found.more {
            return (names, totals);
        }
        assert_eq!(found.rows.len(), limit, "only the last page may be short");
        after = found.rows.iter().last().map(|row| bookmark(row, sort));
    }
}

fn filters() -> impl Strategy<Value = Filter> {
    prop_oneof![
        Just(Filter::new()),
        Just(Filter::new().eq("status", "s3")),
        Just(Filter::new().exists("status")),
        (0_u8..20).prop_map(|level| Filter::new().lt("level", f64::from(level))),
        Just(Filter::not(Filter::new().eq("status", "s4"))),
    ]
}

fn sorts() -> impl Strategy<Value = Vec<SortKey>> {
    let key = |path: &str, descending| SortKey {
        path: Path::parse(path).unwrap(),
        descending,
    };
    prop_oneof![
        Just(vec![]),
        any::<bool>().prop_map(move |descending| vec![key("level", descending)]),
        any::<(bool, bool)>().prop_map(move |(one, two)| vec![key("status", one), key("level", two)]),
    ]
}

/// The same page by way of a large read.
fn large(view: &View, at: Revision, query: &Query<'_>) -> (Found, Vec<Facet>) {
    let candidates = view.candidates(at, query, view.indexed(at, query));
    let read = futures::executor::block_on(candidates.page(query));
    read.unwrap()
}

fn page_of(found: &Found) -> (Vec<String>, u64, bool) {
    let names = found.rows.iter().map(|row| row.identity().to_string()).collect();
    (names, found.total, found.more)
}

/// How often each value occurs, written apart from the code under test.
fn counted(state: &State, filter: &Filter, key: &str) -> (BTreeMap<String, u64>, u64) {
    let compiled = filter.compile(&Limits::default()).unwrap();
    let (mut values, mut missing) = (BTreeMap::new(), 0);
    for (identity, document) in state {
        let record = Record {
            identity: identity.clone(),
            ..(*record(0, document, Revision(1))).clone()
        };
        if compiled.matches(&Row::new(&record, document.clone())) {
            match document.to_value().get(key) {
                Some(value) => *values.entry(value.to_string()).or_default() += 1,
                None => missing += 1,
            }
        }
    }
    (values, missing)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A view that was built just now and told of the last changes is like one that followed them all.
    #[test]
    fn what_a_view_is_told_of_the_past_is_what_it_would_have_seen(
        steps in steps(), filter in filters(), sort in sorts(), known in 0_usize..200, seed in any::<u64>(),
    ) {
        let (witness, states) = play(Horizon::default(), &steps);
        let (mut past, _) = history(&steps);
        let head = past.len();
        let past = past.split_off(head - known.min(head));
        let floor = head - past.len();
        let records = states[head].keys().map(|identity| {
            let row = witness.get(identity.as_str()).unwrap();
            let number = identity.as_str()[3..].parse().unwrap();
            Row::new(&record(number, row.document(), row.revision()), row.document().clone())
        });
        let mut view = View::new(position(head as u64), &settings(Horizon::default()), records.collect());
        view.remember(past, std::time::Instant::now());
        prop_assert_eq!(view.floor(), Revision(floor as u64));
        for after in [floor, head, floor + seed as usize % (head - floor + 1)] {
            prop_assert_eq!(told(&view, after as u64), told(&witness, after as u64));
        }
        if floor > 0 {
            prop_assert_eq!(told(&view, floor as u64 - 1), None);
        }
        let at = Revision((floor + seed as usize % (head - floor + 1)) as u64);
        let (names, _) = pages(&view, at, &filter, &sort, 7);
        prop_assert_eq!(names, expected(&states[at.0 as usize], &filter, &sort));
    }
}

proptest! {
    /// A large read is the same as a small one, and counts what is there.
    #[test]
    fn large_reads_answer_like_small_ones(
        steps in steps(), filter in filters(), sort in sorts(), limit in 1_usize..12, offset in 0_usize..9,
        seed in any::<u64>(),
    ) {
        let (view, states) = play(Horizon::default(), &steps);
        let at = seed as usize % states.len();
        let compiled = filter.compile(&Limits::default()).unwrap();
        let facets = ["status", "level"].map(|path| Path::parse(path).unwrap());
        let (mut after, mut total, mut offset) = (None, None, offset);
        loop {
            let query = Query {
                filter: (!filter.is_empty()).then_some(&compiled),
                sort: &sort,
                after: after.as_ref(),
                limit,
                offset,
                total,
                facets: &facets,
                ..Query::default()
            };
            let small = view.select(Revision(at as u64), &query);
            // Later pages stop early, and count nothing.
            let facets: &[Path] = if total.is_none() { &facets } else { &[] };
            let (found, counts) = large(&view, Revision(at as u64), &Query { facets, ..query });
            prop_assert_eq!(page_of(&found), page_of(&small));
            for facet in counts {
                let (values, missing) = counted(&states[at], &filter, &facet.path.to_string());
                let told = facet.values.iter().map(|(value, count)| (value.to_string(), *count));
                prop_assert_eq!(told.collect::<BTreeMap<_, _>>(), values);
                prop_assert_eq!((facet.missing, facet.others), (missing, 0));
                prop_assert!(facet.values.is_sorted_by(|(_, one), (_, other)| one >= other));
            }
            if !small.more {
                break;
            }
            (total, offset) = (Some(small.total), 0);
            after = small.rows.iter().last().map(|row| bookmark(row, &sort));
        }
    }

    /// Every revision that is kept answers as the model did at that revision, page by page.
    #[test]
    fn any_kept_revision_reads_as_it_was(
        steps in steps(), filter in filters(), sort in sorts(), limit in 1_usize..12, seed in any::<u64>(),
    ) {
        let (view, states) = play(Horizon::default(), &steps);
        let revision = seed as usize % states.len();
        prop_assert_eq!(view.floor(), Revision::ZERO);
        let (names, totals) = pages(&view, Revision(revision as u64), &filter, &sort, limit);
        let expected = expected(&states[revision], &filter, &sort);
        prop_assert!(totals.iter().all(|total| *total == expected.len() as u64));
        prop_assert_eq!(names, expected);
    }

    /// A small horizon gives up the past, never the present, and says how far back it reaches.
    #[test]
    fn the_horizon_bounds_the_past(steps in steps(), filter in filters()) {
        let horizon = Horizon { age: Duration::from_secs(60), bytes: 3_000 };
        let (view, states) = play(horizon, &steps);
        for at in view.floor().0..=view.head().revision.0 {
            let (names, _) = pages(&view, Revision(at), &filter, &[], 7);
            prop_assert_eq!(names, expected(&states[at as usize], &filter, &[]), "at {}", at);
        }
    }
}

/// How a filter is answered, and how many match.
fn explain(view: &View, filter: &Compiled) -> (Explained, u64) {
    let query = Query {
        filter: Some(filter),
        ..Query::default()
    };
    match view.explain(&query) {
        (explained, Begun::Done(found)) => (explained, found.total),
        (_, Begun::Large(_)) => panic!("so few are no large read"),
    }
}

/// How many match, of few.
fn matching(view: &View, filter: &Compiled) -> usize {
    let query = Query {
        filter: Some(filter),
        ..Query::default()
    };
    match view.matching(view.head().revision, &query) {
        Matching::Few(rows) => rows.len(),
        Matching::Many(_) => panic!("so few are no large read"),
    }
}

/// Explaining finds nothing worth an index, and uses one no more than asking does.
#[test]
fn to_explain_is_not_to_ask() {
    let steps: Vec<Step> = (0..40).map(|name| (name, Some((3, name)))).collect();
    let (mut view, _) = play(Horizon::default(), &steps);
    let (free, indexed) = (Filter::new().eq("level", 7), Filter::new().eq("status", "s3"));
    let [free, indexed] = [free, indexed].map(|filter| filter.compile(&Limits::default()).unwrap());
    let adapted = |view: &mut View| {
        view.begin_index();
        view.fill_indexes(1_000);
        explain(view, &free).0.plan.is_some()
    };
    for _ in 0..100 {
        assert_eq!(explain(&view, &free).1, 1);
    }
    assert!(!adapted(&mut view), "nobody asked");
    for _ in 0..100 {
        assert_eq!(matching(&view, &free), 1);
    }
    assert!(adapted(&mut view), "many asked");

    let status = Path::parse("status").unwrap();
    let before = view.indexes().uses(&status);
    matching(&view, &indexed);
    let asked = view.indexes().uses(&status) - before;
    explain(&view, &indexed);
    assert!(view.indexes().uses(&status) - before - asked <= asked);
}

/// An index that leads to nearly everything does not keep a better one from being made.
#[test]
fn a_second_field_is_worth_an_index_too() {
    let steps: Vec<Step> = (0..250).map(|name| (name, Some((3, name)))).collect();
    let (mut view, _) = play(Horizon::default(), &steps);
    let both = Filter::new().eq("status", "s3").eq("level", 7);
    let both = both.compile(&Limits::default()).unwrap();
    let level = Path::parse("level").unwrap();
    for _ in 0..100 {
        assert_eq!(matching(&view, &both), 1);
    }
    assert_eq!(view.indexes().uses(&level), 0, "there is none yet");
    view.begin_index();
    view.fill_indexes(1_000);
    assert_eq!(matching(&view, &both), 1);
    assert!(view.indexes().uses(&level) > 0);
}

/// Of many rows only what an index settles is counted at once; the rest is looked at apart from the view.
#[tokio::test]
async fn a_large_explanation_gives_others_their_turn() {
    let document = |number: u32| {
        let status = if number.is_multiple_of(2) { "even" } else { "odd" };
        Document::from_value(&serde_json::json!({ "status": status, "level": number })).unwrap()
    };
    let records = (1..=50_000_u32).map(|number| {
        let (document, revision) = (document(number), Revision(u64::from(number)));
        let named = Record {
            identity: Identity::new(format!("id-{number}")).unwrap(),
            ..(*record(0, &document, revision)).clone()
        };
        Row::new(&named, document)
    });
    let head = Position {
        epoch: Epoch(1),
        revision: Revision(50_000),
    };
    let settings = Settings {
        indexed: indexed().into(),
        ..Settings::default()
    };
    let view = View::new(head, &settings, records.collect());
    let even = Filter::new().eq("status", "even");
    for (filter, matches, asked) in [
        (even.clone(), 25_000, 0),
        (even.lte("level", 100), 50, 25_000),
        (Filter::new().lte("level", 100), 100, 50_000),
    ] {
        let compiled = filter.compile(&Limits::default()).unwrap();
        let query = Query {
            filter: Some(&compiled),
            ..Query::default()
        };
        let (explained, begun) = view.explain(&query);
        assert_eq!(
            (explained.asked, explained.exact),
            (asked, asked == 0),
            "{filter}"
        );
        let found = match begun {
            Begun::Done(found) => (asked == 0).then_some(found),
            Begun::Large(candidates) => (asked > 0).then_some(candidates.page(&query).await.unwrap().0),
        };
        assert_eq!(found.map(|found| found.total), Some(matches), "{filter}");
    }
}

/// A view of so many rows, each with so much text.
fn filled(rows: u32, text: usize) -> View {
    let text = "x".repeat(text);
    let rows = (1..=rows).map(|number| {
        let value = serde_json::json!({ "status": "s3", "text": text, "level": number });
        let (document, revision) = (Document::from_value(&value).unwrap(), Revision(u64::from(number)));
        let named = Record {
            identity: Identity::new(format!("id-{number:05}")).unwrap(),
            ..(*record(0, &document, revision)).clone()
        };
        Row::new(&named, document)
    });
    let rows: Vec<Row> = rows.collect();
    View::new(position(rows.len() as u64), &settings(Horizon::default()), rows)
}

/// Rows are asked under the view's lock only as far as that is over soon, however long each of them is.
#[test]
fn what_is_asked_of_few_rows_is_large_where_they_are() {
    let exact = Filter::new().eq("status", "s3");
    let asked = Filter::new().contains("text", "y");
    let partly = exact.clone().contains("text", "y");
    for (rows, text, filter, large) in [
        (1_000, 100, &asked, false),
        (1_000, 100, &partly, false),
        (40, 60 << 10, &asked, true),
        (40, 60 << 10, &partly, true),
        (40, 60 << 10, &exact, false),
        (4_096, 0, &exact, false),
    ] {
        let (view, filter) = (filled(rows, text), filter.compile(&Limits::default()).unwrap());
        let query = Query {
            filter: Some(&filter),
            limit: 10,
            ..Query::default()
        };
        let at = view.head().revision;
        let begun = matches!(view.begin(at, &query), Begun::Large(_));
        let found = matches!(view.matching(at, &query), Matching::Many(_));
        assert_eq!(
            [begun, found],
            [large; 2],
            "{rows} rows of {text} bytes, {filter:?}"
        );
    }
    let many = filled(4_097, 0);
    assert!(matches!(
        many.matching(many.head().revision, &Query::default()),
        Matching::Many(_)
    ));
}

#[test]
fn point_reads_see_the_head() {
    let (view, _) = play(
        Horizon::default(),
        &[(1, Some((3, 1))), (2, Some((3, 2))), (1, None), (2, Some((4, 3)))],
    );
    assert!(view.get("id-1").is_none());
    assert_eq!(
        view.get("id-2").unwrap().document().to_json(),
        br#"{"level":3,"status":"s4"}"#
    );
}

/// Enough churn that chunks empty, move and are used again.
#[test]
fn churn_neither_loses_rows_nor_grows_without_bound() {
    let horizon = Horizon {
        age: Duration::ZERO,
        bytes: 0,
    };
    let mut steps: Vec<Step> = Vec::new();
    for round in 0..400_u32 {
        steps.extend((0..40_u8).map(|name| (name, Some((3, (round % 20) as u8)))));
        steps.push(((round % 40) as u8, None));
    }
    let (view, states) = play(horizon, &steps);
    let (names, _) = pages(&view, view.head().revision, &Filter::new(), &[], 1_000);
    assert_eq!(names, expected(states.last().unwrap(), &Filter::new(), &[]));
    assert!(
        view.chunk_count() <= 4,
        "{} chunks for {} rows",
        view.chunk_count(),
        names.len()
    );
}

#[test]
fn an_answer_outlives_the_rows_it_selected() {
    let horizon = Horizon {
        age: Duration::ZERO,
        bytes: 0,
    };
    let (mut view, _) = play(horizon, &[(1, Some((3, 1)))]);
    let found = view.select(
        view.head().revision,
        &Query {
            limit: 10,
            ..Query::default()
        },
    );
    for revision in 2..2_000 {
        let document = metadata((3, 2));
        let record = record(1, &document, Revision(revision));
        let change = Change {
            revision: Revision(revision),
            cause: Cause::Replaced,
            record,
            before: None,
        };
        view.apply(&change, document, std::time::Instant::now());
        view.collect(std::time::Instant::now(), Revision(u64::MAX), usize::MAX);
    }
    let kept: Vec<_> = found.rows.iter().map(|row| row.document().to_json()).collect();
    assert_eq!(kept, [br#"{"level":1,"status":"s3"}"#.to_vec()]);
}

/// What somebody is still to be told of stays, but not whatever it takes.
#[test]
fn what_is_held_is_kept_up_to_a_limit() {
    const LIMIT: usize = 64 << 20;
    let horizon = Horizon {
        age: Duration::ZERO,
        bytes: 0,
    };
    let mut view = View::new(position(0), &settings(horizon), Vec::new());
    let document = Document::from_value(&serde_json::json!({ "text": "x".repeat(1 << 20) })).unwrap();
    let write = |view: &mut View, revision| {
        let change = Change {
            revision: Revision(revision),
            cause: Cause::Replaced,
            record: record(1, &Document::empty(), Revision(revision)),
            before: None,
        };
        view.apply(&change, document.clone(), std::time::Instant::now());
        while view.collect(std::time::Instant::now(), Revision(5), 1) {}
        view.closed().len()
    };
    // What was told of goes at once.
    assert_eq!([1, 2, 3, 4, 5].map(|revision| write(&mut view, revision)), [0; 5]);
    let kept: Vec<_> = (6..200).map(|revision| write(&mut view, revision)).collect();
    assert_eq!(kept[..60], (1..=60).collect::<Vec<_>>());
    assert!(view.changes_after(Revision(5)).is_none());
    let most = kept.iter().max().copied().unwrap();
    assert!(most << 20 <= LIMIT, "{most} MiB");
}

/// On one of the two fields that the steps write, so that both ways are taken and mixed.
fn indexed() -> [Path; 1] {
    [Path::parse("status").unwrap()]
}
