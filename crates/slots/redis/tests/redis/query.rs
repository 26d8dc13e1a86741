//! Filters inside Redis: never fewer than the reference selects, and what can be decided there is.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use prism_filter::{Compiled, Document, Filter, Limits, Operator, Record as Reference};
use prism_slot::{Error, Query, QueryPage, Record, RegistryStore};
use prism_slot_redis::RedisRegistry;
use prism_testkit::RedisServer;
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config as Runs, TestRunner},
};
use serde_json::{Map, Value, json};

use super::support::*;

/// The moment of a call, among the times that are generated.
const NOW: i64 = 2_000;
const PATHS: [&str; 7] = ["a", "b", "c.d", "list", "1", "metadata.$in", r"dotted\.key"];

/// A record as the reference sees it.
struct Seen {
    record: Arc<Record>,
    document: Document,
}

impl Reference for Seen {
    fn identity(&self) -> &str {
        self.record.identity.as_str()
    }
    fn registered_at(&self) -> i64 {
        self.record.registered_at.0
    }
    fn updated_at(&self) -> i64 {
        self.record.updated_at.0
    }
    fn expires_at(&self) -> Option<i64> {
        self.record.expires_at.map(|at| at.0)
    }
    fn document(&self) -> &Document {
        &self.document
    }
}

async fn pages(slot: &RedisRegistry, filter: Option<Arc<Compiled>>) -> Vec<QueryPage> {
    let mut pages: Vec<QueryPage> = Vec::new();
    loop {
        let query = Query {
            filter: filter.clone(),
            cursor: pages.last().and_then(|page| page.next.clone()),
            limit: 512,
        };
        pages.push(slot.query(call(), query).await.unwrap());
        if pages.last().is_some_and(|page| page.next.is_none()) {
            return pages;
        }
    }
}

async fn selected(slot: &RedisRegistry, filter: Option<Arc<Compiled>>) -> Vec<Seen> {
    let records = pages(slot, filter)
        .await
        .into_iter()
        .flat_map(|page| page.records);
    let seen = records.map(|record| Seen {
        document: Document::from_json(&record.metadata).unwrap(),
        record,
    });
    seen.collect()
}

fn names(seen: &[Seen], filter: &Compiled) -> BTreeSet<String> {
    let matching = seen.iter().filter(|seen| filter.matches(*seen));
    matching.map(|seen| seen.identity().to_owned()).collect()
}

fn limits() -> Limits {
    Limits {
        max_depth: 16,
        ..Limits::default()
    }
}

fn compiled(json: &Value) -> Option<Arc<Compiled>> {
    let filter = Filter::parse_json(json, &limits()).ok()?;
    Some(Arc::new(filter.compile_at(NOW, &limits()).ok()?))
}

/// Numbers at the edges of what a double holds, texts that sort otherwise where a locale is asked, or say
/// something, or hold what JSON escapes.
fn scalar() -> impl Strategy<Value = Value> {
    let numbers = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        1_000.0,
        1_999.5,
        2_000.0,
        2_001.0,
        0.1,
        0.30000000000000004,
        1e300,
        5e-324,
        9_007_199_254_740_992.0,
        9_007_199_254_740_991.0,
        1.7976931348623157e308,
    ];
    let texts = [
        "",
        "a",
        "B",
        "b",
        "ab",
        "é",
        "z",
        "Z",
        "10",
        "1",
        "null",
        "\u{0}",
        "\"\\\n\u{7f}",
        "\u{1f600}",
        "a\u{0}b",
        "1.0.0-rc.10",
        "1.0.0",
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "1970-01-01T00:00:01Z",
        "1970-01-01T00:00:02Z",
        "now",
    ];
    prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        3 => select(numbers.to_vec()).prop_map(Value::from),
        4 => select(texts.to_vec()).prop_map(Value::from),
        1 => "[ab]".prop_map(|end| Value::from("a".repeat(300) + &end)),
        1 => "[ab]".prop_map(|end| Value::from("a".repeat(5_000) + &end)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let list = prop::collection::vec(
        prop_oneof![4 => scalar(), 1 => Just(json!([])), 1 => Just(json!({}))],
        0..4,
    );
    let object = select(vec!["d", "1", "$in", "lat"])
        .prop_flat_map(|key| scalar().prop_map(move |value| json!({ key: value })));
    let place = select(vec![
        json!({ "lat": 0.05, "lon": 0 }),
        json!({ "lat": 91, "lon": 0 }),
    ]);
    let deep = Just((0..20).fold(json!(1), |inner, _| json!([inner])));
    prop_oneof![6 => scalar(), 2 => list.prop_map(Value::from), 1 => Just(json!({})), 2 => object, 1 => place, 1 => deep]
}

fn document() -> impl Strategy<Value = Value> {
    let field = || prop::option::of(value());
    (field(), field(), field(), field(), field(), field(), field()).prop_map(
        |(a, b, c, list, number, system, dotted)| {
            let c = c.map(|value| json!({ "d": value }));
            let named = [
                ("a", a),
                ("b", b),
                ("c", c),
                ("list", list),
                ("1", number),
                ("$in", system),
                ("dotted.key", dotted),
            ];
            let fields = named
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(Map::from_iter(fields))
        },
    )
}

fn operand(operator: Operator) -> BoxedStrategy<Value> {
    let texts = |texts: &[&'static str]| select(texts.to_vec()).prop_map(Value::from);
    match operator {
        Operator::In | Operator::Nin => prop::collection::vec(value(), 0..4).prop_map(Value::from).boxed(),
        Operator::Exists => any::<bool>().prop_map(Value::from).boxed(),
        Operator::Type => texts(&["string", "number", "boolean", "null", "array", "object"]).boxed(),
        Operator::Within => Just(json!({ "lat": 0, "lon": 0, "radius_m": 9_000 })).boxed(),
        Operator::Cidr => texts(&["10.0.0.0/8", "::/0"]).boxed(),
        Operator::SemverLt
        | Operator::SemverLte
        | Operator::SemverGt
        | Operator::SemverGte
        | Operator::SemverEq => texts(&["1.0.0-rc.2", "1.0.0"]).boxed(),
        Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => {
            prop_oneof![3 => scalar(), 1 => texts(&["now", "now-1s", "now+1ms"])].boxed()
        }
        Operator::Regex => texts(&["a+", "^1", ""]).boxed(),
        _ => value().boxed(),
    }
}

fn clause() -> impl Strategy<Value = Value> {
    let asked = select(Operator::ALL.to_vec()).prop_flat_map(|operator| (Just(operator), operand(operator)));
    let names = prop::collection::vec("id-[0-9]", 0..3);
    let of_identity = select(vec![
        "gt",
        "startswith",
        "contains",
        "eq",
        "ne",
        "endswith",
        "regex",
    ]);
    prop_oneof![
        12 => (select(&PATHS[..]), asked).prop_map(|(path, (operator, operand))| {
            json!({ path: { format!("${operator}"): operand } })
        }),
        1 => (names, any::<bool>()).prop_map(|(names, not)| {
            json!({ "$identity": { if not { "$nin" } else { "$in" }: names } })
        }),
        1 => (of_identity, "id-[0-9]").prop_map(|(operator, name)| json!({ "$identity": { format!("${operator}"): name } })),
        1 => (select(vec!["lt", "gte", "eq", "ne"]), select(vec![json!(0), json!(4_000_000_000_000_u64), json!("2001-01-01T00:00:00Z"), json!("2001-01-01T00:00:00.0000001Z")]))
            .prop_map(|(operator, time)| json!({ "$updated_at": { format!("${operator}"): time } })),
        1 => any::<bool>().prop_map(|leased| json!({ "$expires_at": { "$exists": leased } })),
        1 => Just(json!({ "$registered_at": { "$lt": "now+1h" } })),
    ]
}

fn filter() -> impl Strategy<Value = Arc<Compiled>> {
    let tree = clause().prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            list.clone().prop_map(|nodes| json!({ "$and": nodes })),
            list.prop_map(|nodes| json!({ "$or": nodes })),
            inner.prop_map(|node| json!({ "$not": node })),
        ]
    });
    tree.prop_filter_map("refused by the language", |json| compiled(&json))
}

/// Any filter, any documents: what Redis passes over, the reference would not have selected.
#[tokio::test(flavor = "multi_thread")]
async fn redis_passes_over_nothing_that_matches() {
    let server = RedisServer::start().await.unwrap();
    let slot = Arc::new(open(server.addr()).await);
    let (runtime, round) = (
        tokio::runtime::Handle::current(),
        std::sync::atomic::AtomicUsize::new(0),
    );
    let work = move || {
        let cases = (
            prop::collection::vec(document(), 20..60),
            prop::collection::vec(filter(), 40),
        );
        let mut runner = TestRunner::new(Runs {
            cases: 48,
            failure_persistence: None,
            max_shrink_iters: 40,
            ..Runs::default()
        });
        runner.run(&cases, |(documents, filters)| {
            let number = round.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            runtime.block_on(async {
                refill(&slot, number, &documents).await;
                let all = selected(&slot, None).await;
                prop_assert_eq!(all.len(), documents.len());
                for filter in filters {
                    let (expected, answer) =
                        (names(&all, &filter), selected(&slot, Some(filter.clone())).await);
                    prop_assert_eq!(names(&answer, &filter), expected, "{:?}", filter);
                }
                Ok(())
            })
        })
    };
    tokio::task::spawn_blocking(work).await.unwrap().unwrap();
}

/// Puts documents in place of whatever was there.
async fn refill(slot: &RedisRegistry, round: usize, documents: &[Value]) {
    for seen in selected(slot, None).await {
        let request = prism_slot::Unregister {
            identity: seen.record.identity.clone(),
            generation: None,
        };
        slot.unregister(call(), request).await.unwrap();
    }
    let batch = documents.iter().enumerate().map(|(at, document)| {
        let metadata = Document::from_value(document).unwrap().to_json();
        let name = format!("id-{at}");
        prism_slot::Register {
            metadata: Bytes::from(metadata),
            ..if (at + round).is_multiple_of(3) {
                leased(&name, 600_000)
            } else {
                request(&name)
            }
        }
    });
    for registered in slot.register(call(), batch.collect()).await {
        registered.unwrap();
    }
}

/// What can be decided in Redis is decided there: of a hundred records, those that match are sent.
#[tokio::test]
async fn only_what_matches_is_sent_where_redis_can_tell() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let documents: Vec<Value> = (0..100_u32)
        .map(|number| {
            let zone = if number % 10 == 0 { "north" } else { "Süd" };
            json!({ "number": number, "zone": zone, "on": number % 4 == 0, "tags": [format!("t{}", number % 5)],
                "inner": { "none": null }, "at": number * 1_000 })
        })
        .collect();
    refill(&slot, 1, &documents).await;
    let filters = [
        json!({ "zone": "north" }),
        json!({ "zone.ne": "north" }),
        json!({ "number.lt": 7 }),
        json!({ "number": { "$gte": 20, "$lt": 30 } }),
        json!({ "zone.gt": "north" }),
        json!({ "number.in": [1, 2, "3", null] }),
        json!({ "number.nin": [1, 2] }),
        json!({ "zone.startswith": "nor" }),
        json!({ "zone.endswith": "d" }),
        json!({ "zone.contains": "ort" }),
        json!({ "tags.contains": "t3" }),
        json!({ "on": true }),
        json!({ "inner.none": null }),
        json!({ "inner.other.exists": false }),
        json!({ "zone.type": "number" }),
        json!({ "tags.type": "array" }),
        json!({ "at.gte": "now-1s" }),
        json!({ "$identity.in": ["id-1", "id-77"] }),
        json!({ "$updated_at.lt": "2001-01-01T00:00:00Z" }),
        json!({ "number.regex": "1" }),
        json!({ "$or": [{ "number": 1 }, { "$not": { "number.gte": 3 } }] }),
        json!({ "$and": [{ "zone.regex": "n" }, { "number": 10 }] }),
    ];
    for filter in filters {
        let compiled = compiled(&filter).unwrap();
        let sent = selected(&slot, Some(compiled.clone())).await;
        let matching = names(&sent, &compiled);
        assert_eq!(sent.len(), matching.len(), "{filter}");
    }
    let undecided = compiled(&json!({ "zone.regex": "^n" })).unwrap();
    assert_eq!(
        selected(&slot, Some(undecided)).await.len(),
        100,
        "Redis has no such expressions"
    );
}

/// A call looks at a bounded amount, of large records at few.
#[tokio::test]
async fn large_records_make_small_pages() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let documents: Vec<Value> = (0..64)
        .map(|number| json!({ "number": number, "text": "x".repeat(60_000) }))
        .collect();
    refill(&slot, 1, &documents).await;
    let filter = compiled(&json!({ "number": 7 })).unwrap();
    let pages = pages(&slot, Some(filter)).await;
    let most = pages.iter().map(|page| page.examined).max().unwrap();
    assert!(most <= 16, "{most} records of 60 kB were looked at in one call");
    assert!(pages.iter().map(|page| page.examined).sum::<u64>() >= 64);
}

/// Values of a filter are data: whatever they say, nothing of it runs.
#[tokio::test]
async fn values_of_a_filter_are_no_script() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let texts = [
        "') redis.call('FLUSHALL') --",
        "]] error('x') [[",
        "\u{0}\"'\\",
        "&",
        "?",
        "c=m",
    ];
    let documents: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    refill(&slot, 1, &documents).await;
    for (at, text) in texts.iter().enumerate() {
        let filter = compiled(&json!({ "text": { "$eq": text } })).unwrap();
        let sent = selected(&slot, Some(filter)).await;
        let identities: Vec<&str> = sent.iter().map(Reference::identity).collect();
        assert_eq!(identities, [format!("id-{at}")], "{text}");
    }
}

/// Pages are of one history: a later page is refused when it is over, whatever ended it.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_does_not_go_on_in_another_history() {
    let mut server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    for restarts in [false, true] {
        let many = (0..600).map(|number| request(&format!("id-{number}")));
        for part in many.collect::<Vec<_>>().chunks(100) {
            for registered in slot.register(call(), part.to_vec()).await {
                registered.unwrap();
            }
        }
        let page = |cursor| {
            slot.query(
                call(),
                Query {
                    filter: None,
                    cursor,
                    limit: 100,
                },
            )
        };
        let first = page(None).await.unwrap();
        assert!(first.next.is_some());
        if restarts {
            server.restart_empty().await.unwrap();
        } else {
            Admin::to(server.addr()).await.run(&["FLUSHALL"]).await;
        }
        let refused = page(first.next).await.unwrap_err();
        let Error::EpochChanged { current } = refused else {
            panic!("{refused:?}")
        };
        assert_ne!(current, first.head.epoch);
        let anew = page(None).await.unwrap();
        assert_eq!((anew.head.epoch, anew.records.len()), (current, 0));
    }
}

/// Makes a language in which `a` comes before `B`, and returns where it is.
fn language() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("localedef")
        .args(["-i", "en_US", "-f", "UTF-8"])
        .arg(directory.path().join("en_US.UTF-8"))
        .output()
        .expect("`localedef` cannot be run, run `make deps`");
    assert!(made.status.success(), "run `make deps`: {made:?}");
    directory
}

/// Texts are compared by their bytes, whatever language the server speaks.
#[tokio::test]
async fn texts_are_compared_by_bytes_in_any_language() {
    let language = language();
    let path = language.path().to_str().unwrap();
    let environment = [("LOCPATH", path), ("LC_ALL", "en_US.UTF-8")];
    let server = RedisServer::start_in(&[], &environment).await.unwrap();
    let admin = Admin::to(server.addr()).await;
    let spoken = admin.run(&["EVAL", "return 'a' < 'B' and 1 or 0", "0"]).await;
    assert_eq!(spoken.as_u64(), Some(1), "the server does not speak it");

    let slot = open(server.addr()).await;
    let texts = ["", "B", "Z", "a", "a b", "ab", "b", "z", "É", "é", "\u{1f600}"];
    let documents: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    refill(&slot, 1, &documents).await;
    let all = selected(&slot, None).await;
    for bound in texts {
        for operator in ["lt", "lte", "gt", "gte"] {
            let filter = compiled(&json!({ format!("text.{operator}"): bound })).unwrap();
            let sent = selected(&slot, Some(filter.clone())).await;
            assert_eq!(names(&sent, &filter), names(&all, &filter), "{operator} {bound}");
            assert_eq!(
                sent.len(),
                names(&all, &filter).len(),
                "{operator} {bound}: more than has to be"
            );
        }
    }
}
