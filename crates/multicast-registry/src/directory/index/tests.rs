//! Answers through indexes beside answers by asking every row.

use std::collections::HashMap;

use prism_filter::{Document, Filter, Limits, Node, Operator, Path};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use roaring::RoaringBitmap;
use serde_json::{Value, json};

use super::{
    Indexes,
    plan::{Plan, Space},
};

/// The moment of every call, in milliseconds since 1970.
const NOW: i64 = 2_000;

const PATHS: [&str; 4] = ["a", "b", "c.d", "list"];

/// The identities of the first rows; the others are not asked for by name.
const NAMES: [&str; 5] = ["id-0", "id-1", "id-2", "id-3", "id-4"];

struct Rows {
    documents: Vec<Document>,
    indexes: Indexes,
}

impl Rows {
    fn new(documents: Vec<Document>, indexed: &[Path]) -> Self {
        let mut indexes = Indexes::on(indexed);
        for (id, document) in documents.iter().enumerate() {
            indexes.insert(id as u32, document);
        }
        Self { documents, indexes }
    }

    /// What an index must find, by asking every row.
    fn matching(&self, filter: &Filter) -> RoaringBitmap {
        let compiled = filter.compile_at(NOW, &Limits::default()).unwrap();
        let matches =
            |(id, document): (usize, &Document)| compiled.matches(&Device(id, document)).then_some(id as u32);
        self.documents.iter().enumerate().filter_map(matches).collect()
    }
}

impl Space for Rows {
    fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    fn all(&self) -> RoaringBitmap {
        (0..self.documents.len() as u32).collect()
    }

    fn count(&self) -> u64 {
        self.documents.len() as u64
    }

    fn named(&self, identity: &str) -> RoaringBitmap {
        let row = NAMES.iter().position(|name| *name == identity);
        row.filter(|&id| id < self.documents.len())
            .map(|id| id as u32)
            .into_iter()
            .collect()
    }
}

struct Device<'a>(usize, &'a Document);

impl prism_filter::Record for Device<'_> {
    fn identity(&self) -> &str {
        NAMES.get(self.0).copied().unwrap_or("another")
    }
    fn registered_at(&self) -> i64 {
        self.0 as i64
    }
    fn updated_at(&self) -> i64 {
        self.0 as i64
    }
    fn expires_at(&self) -> Option<i64> {
        None
    }
    fn document(&self) -> &Document {
        self.1
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i32..4).prop_map(Value::from),
        (-3_i32..4).prop_map(|half| Value::from(f64::from(half) / 2.0)),
        prop::sample::select(vec![0.0, -0.0, 1_000.0, 1_999.5, 2_000.0, 2_001.0]).prop_map(Value::from),
        "[ab]{0,3}".prop_map(Value::from),
        // Too long for an index.
        "[ab]".prop_map(|end| Value::from("a".repeat(300) + &end)),
        prop::sample::select(notations()).prop_map(Value::from),
    ]
}

const VERSIONS: [&str; 7] = [
    "0.0.0-0",
    "1.0.0-rc.2",
    "1.0.0-rc.10",
    "1.0.0",
    "1.0.0+build",
    "1.10.0",
    "18446744073709551615.0.0",
];

/// Texts that say something, and some that nearly do. Two are too long for an index.
fn notations() -> Vec<String> {
    let plain = [
        "10.0.0.1",
        "10.0.0.200",
        "11.0.0.0",
        "::ffff:10.0.0.1",
        "::1",
        "2001:db8::1",
        "ffff:ffff::",
        "255.255.255.255",
        "1970-01-01T00:00:01Z",
        "1970-01-01T01:00:02+01:00",
        "1969-12-31T23:59:59.5Z",
        "now",
        "1.0",
        "10.0.0",
    ];
    let long = [
        format!("1.0.0+{}", "b".repeat(300)),
        format!("1970-01-01T00:00:01Z[{}]", "x".repeat(300)),
    ];
    plain
        .iter()
        .chain(&VERSIONS)
        .map(|text| (*text).to_owned())
        .chain(long)
        .collect()
}

fn place() -> impl Strategy<Value = Value> {
    let lat = prop::sample::select(vec![-90.0, -0.05, -0.0, 0.0, 0.05, 45.0, 90.0, 91.0]);
    let lon = prop::sample::select(vec![-180.0, -179.95, 0.0, 0.05, 90.0, 180.0]);
    (lat, lon).prop_map(|(lat, lon)| json!({ "lat": lat, "lon": lon, "d": 1 }))
}

fn area() -> impl Strategy<Value = Value> {
    let radius = prop::sample::select(vec![0.0, 6_000.0, 12_000.0, 5_005_000.0, 3e7]);
    let circle = (place(), radius)
        .prop_map(|(place, radius)| json!({ "lat": place["lat"], "lon": place["lon"], "radius_m": radius }));
    let bounds = (place(), place()).prop_map(|(one, other)| {
        json!({ "south": one["lat"], "west": one["lon"], "north": other["lat"], "east": other["lon"] })
    });
    prop_oneof![circle, bounds]
}

fn value() -> impl Strategy<Value = Value> {
    let list = prop::collection::vec(scalar(), 0..4).prop_map(Value::from);
    let long = Just(Value::from((0..300).collect::<Vec<_>>()));
    let object = scalar().prop_map(|value| json!({ "d": value }));
    prop_oneof![6 => scalar(), 2 => list, 1 => long, 1 => object, 1 => place()]
}

fn document() -> impl Strategy<Value = Document> {
    let field = || prop::option::of(value());
    (field(), field(), field(), field()).prop_map(|(a, b, c, list)| {
        let mut fields = serde_json::Map::new();
        let named = [
            ("a", a),
            ("b", b),
            ("c", c.map(|value| json!({ "d": value }))),
            ("list", list),
        ];
        fields.extend(
            named
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?))),
        );
        Document::from_value(&Value::Object(fields)).unwrap()
    })
}

/// An operand that an operator takes, most of the time.
fn operand(operator: Operator) -> BoxedStrategy<Value> {
    let texts = |texts: &[&'static str]| prop::sample::select(texts.to_vec()).prop_map(Value::from);
    match operator {
        Operator::In | Operator::Nin => prop::collection::vec(value(), 0..3).prop_map(Value::from).boxed(),
        Operator::Exists => any::<bool>().prop_map(Value::from).boxed(),
        Operator::Type => texts(&["string", "number", "boolean", "null", "array", "object"]).boxed(),
        Operator::Within => area().boxed(),
        Operator::Cidr => texts(&[
            "10.0.0.0/8",
            "10.0.0.1",
            "0.0.0.0/0",
            "::/0",
            "::/64",
            "2001:db8::/32",
        ])
        .boxed(),
        Operator::SemverLt
        | Operator::SemverLte
        | Operator::SemverGt
        | Operator::SemverGte
        | Operator::SemverEq => texts(&VERSIONS).boxed(),
        Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => {
            prop_oneof![3 => value(), 1 => texts(&["now", "now-1s", "now+1ms", "now-3s"])].boxed()
        }
        _ => value().boxed(),
    }
}

/// One clause as JSON. Those that the language refuses are left out by the caller.
fn clause() -> impl Strategy<Value = Value> {
    let names = prop::collection::vec("id-[0-6]", 0..3);
    let paths = prop::sample::select(&PATHS[..]);
    let operators = prop::sample::select(Operator::ALL.to_vec());
    let asked = operators.prop_flat_map(|operator| (Just(operator), operand(operator)));
    prop_oneof![
        8 => (paths, asked).prop_map(|(path, (operator, operand))| {
            json!({ path: { format!("${operator}"): operand } })
        }),
        1 => (names, any::<bool>()).prop_map(|(names, not)| {
            json!({ "$identity": { if not { "$nin" } else { "$in" }: names } })
        }),
        1 => (0..5).prop_map(|at| json!({ "$registered_at": { "$gte": at } })),
        1 => (1_998..2_003).prop_map(|away| json!({ "$registered_at": { "$lt": format!("now-{away}ms") } })),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    let tree = clause().prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            list.clone().prop_map(|nodes| json!({ "$and": nodes })),
            list.prop_map(|nodes| json!({ "$or": nodes })),
            inner.prop_map(|node| json!({ "$not": node })),
        ]
    });
    tree.prop_filter_map("refused by the language", |json| {
        let limits = Limits {
            max_depth: 16,
            ..Limits::default()
        };
        let filter = Filter::parse_json(&json, &limits).ok()?;
        filter.compile_at(NOW, &limits).ok()?;
        Some(filter)
    })
}

fn indexed() -> impl Strategy<Value = Vec<Path>> {
    prop::sample::subsequence(PATHS.to_vec(), 0..=PATHS.len())
        .prop_map(|paths| paths.into_iter().map(|path| Path::parse(path).unwrap()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// A plan never loses a row that matches, and where it says that it is exact, finds no other.
    #[test]
    fn plans_find_what_matches(
        documents in prop::collection::vec(document(), 0..40), filter in filter(), indexed in indexed(),
    ) {
        let rows = Rows::new(documents, &indexed);
        let expected = rows.matching(&filter);
        if let Some(plan) = Plan::of(filter.node(), Some(NOW), &rows) {
            let found = plan.find(&rows);
            prop_assert!(expected.is_subset(&found), "{} lost {:?}", plan, &expected - &found);
            if plan.estimate.exact {
                prop_assert_eq!(&found, &expected, "{} found too much", plan);
            }
        }
    }

    /// What was removed is found no more, and leaves nothing behind.
    #[test]
    fn removed_rows_are_gone(
        documents in prop::collection::vec(document(), 0..20), filter in filter(), kept in any::<u32>(),
    ) {
        let indexed = PATHS.map(|path| Path::parse(path).unwrap());
        let mut rows = Rows::new(documents, &indexed);
        let is_kept = |id: &u32| kept >> (id % 32) & 1 == 1;
        let removed: Vec<u32> = (0..rows.documents.len() as u32).filter(|id| !is_kept(id)).collect();
        for &id in &removed {
            rows.indexes.remove(id, &rows.documents[id as usize]);
        }
        let only = |found: RoaringBitmap| -> RoaringBitmap { found.into_iter().filter(is_kept).collect() };
        let expected = only(rows.matching(&filter));
        if let Some(plan) = Plan::of(filter.node(), Some(NOW), &rows).filter(|plan| plan.estimate.exact) {
            prop_assert_eq!(only(plan.find(&rows)), expected, "{}", plan);
        }
        for id in (0..rows.documents.len() as u32).filter(is_kept) {
            rows.indexes.remove(id, &rows.documents[id as usize]);
        }
        prop_assert!(rows.indexes.is_empty());
    }
}

fn plan_of(filter: &Filter, rows: &Rows) -> String {
    Plan::of(filter.node(), Some(NOW), rows).map_or_else(|| "all rows".to_owned(), |plan| plan.to_string())
}

/// Of each operator on a field with an index: whether that finds exactly the rows that match, or rows that
/// are asked themselves.
#[test]
fn each_operator_is_indexed_or_left_over() {
    let documents = [json!(3), json!("1.0.0"), json!({ "lat": 1, "lon": 2 })];
    let documents = documents.map(|value| Document::from_value(&json!({ "a": value })).unwrap());
    let rows = Rows::new(documents.into(), &[Path::parse("a").unwrap()]);
    for &operator in Operator::ALL {
        let operand = match operator {
            Operator::In | Operator::Nin => json!([3]),
            Operator::Exists => json!(true),
            Operator::Type => json!("number"),
            Operator::Within => json!({ "lat": 1, "lon": 2, "radius_m": 3 }),
            Operator::Cidr => json!("::/0"),
            Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => json!("now"),
            _ => json!("1.0.0"),
        };
        let filter = Filter::new().clause("a", operator, operand);
        let plan =
            Plan::of(filter.node(), Some(NOW), &rows).unwrap_or_else(|| panic!("no plan for {filter}"));
        let left_over = [
            Operator::Contains,
            Operator::EndsWith,
            Operator::Regex,
            Operator::Type,
            Operator::Within,
        ];
        assert_eq!(plan.estimate.exact, !left_over.contains(&operator), "{filter}");
    }
}

/// What is generated above would show nothing if it never met.
#[test]
fn every_operator_meets_rows_in_the_properties() {
    let mut runner = TestRunner::deterministic();
    let indexed = PATHS.map(|path| Path::parse(path).unwrap());
    let mut met = HashMap::<Operator, [bool; 2]>::new();
    for _ in 0..60 {
        let documents = prop::collection::vec(document(), 30)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let rows = Rows::new(documents, &indexed);
        for _ in 0..60 {
            let json = clause().new_tree(&mut runner).unwrap().current();
            let Ok(filter) = Filter::parse_json(&json, &Limits::default()) else {
                continue;
            };
            let (Node::Clause(clause), Some(_)) = (filter.node(), Plan::of(filter.node(), Some(NOW), &rows))
            else {
                continue;
            };
            let matching = rows.matching(&filter).len();
            let [some, not_all] = met.entry(clause.operator()).or_default();
            *some |= matching > 0;
            *not_all |= matching < rows.documents.len() as u64;
        }
    }
    for operator in Operator::ALL {
        assert_eq!(met.get(operator), Some(&[true, true]), "{operator}");
    }
}

/// Which clauses lead to rows, and which only come along.
#[test]
fn plans_start_with_what_narrows_most() {
    let document = |id: usize| {
        let rare = if id == 7 { "yes" } else { "no" };
        Document::from_value(&json!({ "a": id % 2, "b": rare, "free": id })).unwrap()
    };
    let indexed = ["a", "b"].map(|path| Path::parse(path).unwrap());
    let rows = Rows::new((0..1_000).map(document).collect(), &indexed);
    let rare = Filter::new().eq("b", "yes");
    let cases = [
        (rare.clone(), "index(b eq)"),
        (rare.clone().eq("a", 1), "index(b eq)"),
        (
            Filter::new().eq("a", 1).eq("b", "no"),
            "all(index(a eq), index(b eq))",
        ),
        (rare.clone().eq("free", 7), "index(b eq)"),
        (Filter::new().eq("free", 7), "all rows"),
        (
            Filter::or([rare.clone(), Filter::new().eq("free", 7)]),
            "all rows",
        ),
        (Filter::not(rare.clone()), "except(index(b eq))"),
        (Filter::not(Filter::new().regex("b", "y")), "all rows"),
        (Filter::new().eq("$identity", "id-3"), "names(1)"),
    ];
    for (filter, expected) in cases {
        assert_eq!(plan_of(&filter, &rows), expected, "{filter}");
    }
    assert!(matches!(rare.node(), Node::Clause(_)));
}
