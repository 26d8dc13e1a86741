//! Answers through indexes beside answers by asking every row.

use std::collections::HashMap;

use prism_filter::{Document, Filter, Limits, Node, Operator, Path};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use roaring::RoaringBitmap;
use serde_json::json;

use super::{
    Indexes,
    plan::{Plan, Space},
};
use crate::testing::generated::{NOW, PATHS, clause, document, filter};

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

    /// The same of clauses by themselves, of which a tree dilutes the mistakes.
    #[test]
    fn clauses_find_what_matches(documents in prop::collection::vec(document(), 40), clauses in prop::collection::vec(clause(), 8)) {
        let rows = Rows::new(documents, &PATHS.map(|path| Path::parse(path).unwrap()));
        for json in clauses {
            let Ok(filter) = Filter::parse_json(&json, &Limits::default()) else { continue };
            for filter in [filter.clone(), Filter::not(filter)] {
                let expected = rows.matching(&filter);
                let Some(plan) = Plan::of(filter.node(), Some(NOW), &rows) else { continue };
                let found = plan.find(&rows);
                prop_assert!(expected.is_subset(&found), "{} lost {:?} of {}", plan, &expected - &found, filter);
                prop_assert!(!plan.estimate.exact || found == expected, "{} found too much for {}", plan, filter);
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
        Document::from_value(&json!({ "a": id % 2, "b": rare, "c": id, "free": id })).unwrap()
    };
    let indexed = ["a", "b", "c"].map(|path| Path::parse(path).unwrap());
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
        (Filter::new().gte("c", 5).lt("c", 9), "index(c gte lt)"),
        (
            Filter::new().gte("c", 5).eq("b", "no").lt("c", 900),
            "all(index(c gte lt), index(b eq))",
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(plan_of(&filter, &rows), expected, "{filter}");
    }
    assert!(matches!(rare.node(), Node::Clause(_)));
}
