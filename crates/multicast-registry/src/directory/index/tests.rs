//! Answers through indexes beside answers by asking every row.

use prism_filter::{Document, Filter, Limits, Node, Path};
use proptest::prelude::*;
use roaring::RoaringBitmap;
use serde_json::{Value, json};

use super::{
    Indexes,
    plan::{Plan, Space},
};

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
        let compiled = filter.compile(&Limits::default()).unwrap();
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
        "[ab]{0,3}".prop_map(Value::from),
        // Too long for an index.
        "[ab]".prop_map(|end| Value::from("a".repeat(300) + &end)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let list = prop::collection::vec(scalar(), 0..4).prop_map(Value::from);
    let long = Just(Value::from((0..300).collect::<Vec<_>>()));
    prop_oneof![6 => scalar(), 2 => list, 1 => long, 1 => scalar().prop_map(|value| json!({ "d": value }))]
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

/// One clause as JSON. Those that the language refuses are left out by the caller.
fn clause() -> impl Strategy<Value = Value> {
    let names = prop::collection::vec("id-[0-6]", 0..3);
    let paths = prop::sample::select(&PATHS[..]);
    let operators = prop::sample::select(prism_filter::Operator::ALL.to_vec());
    let operand = prop_oneof![
        4 => value(),
        2 => prop::collection::vec(value(), 0..3).prop_map(Value::from),
        1 => prop::sample::select(&["string", "number", "boolean", "null", "array", "object"][..]).prop_map(Value::from),
    ];
    prop_oneof![
        8 => (paths, operators, operand).prop_map(|(path, operator, operand)| {
            json!({ path: { format!("${operator}"): operand } })
        }),
        1 => (names, any::<bool>()).prop_map(|(names, not)| {
            json!({ "$identity": { if not { "$nin" } else { "$in" }: names } })
        }),
        1 => (0..5).prop_map(|at| json!({ "$registered_at": { "$gte": at } })),
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
        filter.compile(&limits).ok()?;
        Some(filter)
    })
}

fn indexed() -> impl Strategy<Value = Vec<Path>> {
    prop::sample::subsequence(PATHS.to_vec(), 0..=PATHS.len())
        .prop_map(|paths| paths.into_iter().map(|path| Path::parse(path).unwrap()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// A plan never loses a row that matches, and where it says that it is exact, finds no other.
    #[test]
    fn plans_find_what_matches(
        documents in prop::collection::vec(document(), 0..40), filter in filter(), indexed in indexed(),
    ) {
        let rows = Rows::new(documents, &indexed);
        let expected = rows.matching(&filter);
        if let Some(plan) = Plan::of(filter.node(), &rows) {
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
        if let Some(plan) = Plan::of(filter.node(), &rows).filter(|plan| plan.estimate.exact) {
            prop_assert_eq!(only(plan.find(&rows)), expected, "{}", plan);
        }
        for id in (0..rows.documents.len() as u32).filter(is_kept) {
            rows.indexes.remove(id, &rows.documents[id as usize]);
        }
        prop_assert!(rows.indexes.is_empty());
    }
}

fn plan_of(filter: &Filter, rows: &Rows) -> String {
    Plan::of(filter.node(), rows).map_or_else(|| "all rows".to_owned(), |plan| plan.to_string())
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
