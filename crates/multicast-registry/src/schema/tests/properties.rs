//! What holds for every schema and every document.

use prism_filter::Document;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use super::super::{Occasion, Schema};

/// Names that often meet.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "a.b", "b.c.a", "x\\.y"]).prop_map(str::to_owned)
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "x.y"]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5..5_i64).prop_map(Value::from),
        Just(json!(0.5)),
        prop::sample::select(vec!["on", "off", "2026-01-02T03:04:05Z", ""]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn kind() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "string",
        "int",
        "float",
        "boolean",
        "enum[on, off]",
        "timestamp",
        "geo_point",
        "array",
        "array[int]",
        "array[array[string]]",
        "array[enum[on, off]]",
        "object",
    ])
    .prop_map(str::to_owned)
}

/// An enum whose values stand beside it, of which some could not stand in its type.
fn listed() -> impl Strategy<Value = Value> {
    let value = prop::sample::select(vec!["on", "off", "R&D, Berlin", "", " ", " on", "[on", "on]"]);
    let values = prop::collection::vec(value, 1..4);
    values.prop_map(|values| json!({ "type": "enum", "values": values }))
}

/// A field in one of its forms, of which some make no sense.
fn field() -> impl Strategy<Value = Value> {
    let long = (
        kind(),
        any::<bool>(),
        prop::option::of(value()),
        prop::option::of(0..3_usize),
        any::<bool>(),
        prop::bool::weighted(0.2),
    );
    let long = long.prop_map(|(kind, required, default, max_length, index, auto)| {
        let mut tree = json!({ "type": kind, "required": required, "index": index });
        let optional = [
            ("default", default),
            ("max_length", max_length.map(Value::from)),
            ("auto", auto.then(|| json!("now"))),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                tree[key] = value;
            }
        }
        tree
    });
    let leaf = prop_oneof![4 => kind().prop_map(Value::from), 4 => long, 1 => listed()];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let fields = prop::collection::btree_map(name(), inner.clone(), 0..3);
        prop_oneof![
            (fields, any::<bool>()).prop_map(|(fields, additional)| {
                json!({ "type": "object", "fields": fields, "additional": additional })
            }),
            inner.prop_map(|items| json!({ "type": "array", "items": items })),
        ]
    })
}

fn schema() -> impl Strategy<Value = Value> {
    let fields = prop::collection::btree_map(name(), field(), 0..4);
    (fields, any::<bool>(), any::<bool>()).prop_map(|(fields, additional, keyed)| {
        let mut tree = json!({ "fields": fields, "additional": additional });
        if keyed {
            tree["fields"]["id"] = json!("string");
            tree["primary_key"] = json!("id");
        }
        tree
    })
}

fn document() -> impl Strategy<Value = Document> {
    let fields = prop::collection::btree_map(key(), value(), 0..4);
    fields.prop_map(|fields| {
        let tree: Map<String, Value> = fields.into_iter().collect();
        Document::from_value(&Value::Object(tree)).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Reading never fails but by saying so, and the canonical form says the same.
    #[test]
    fn the_canonical_form_reads_back(tree in schema()) {
        if let Ok(read) = Schema::read(&tree) {
            let canonical = read.to_value();
            let again = Schema::read(&canonical).unwrap();
            prop_assert_eq!(again.to_value(), canonical);
            prop_assert_eq!(again, read);
        }
    }

    /// What is stored has nothing wrong with it, and would be stored again as it is.
    #[test]
    fn what_was_completed_is_complete(tree in schema(), document in document()) {
        let Ok(schema) = Schema::read(&tree) else { return Ok(()) };
        let Ok(stored) = schema.complete("id-1", document.clone(), 1_700_000_000_000, Occasion::Registered) else {
            return Ok(());
        };
        prop_assert!(schema.violations("id-1", &stored, 100).is_empty());
        for occasion in [Occasion::Registered, Occasion::Updated] {
            let again = schema.complete("id-1", stored.clone(), 1_700_000_000_000, occasion);
            prop_assert_eq!(again.as_ref(), Ok(&stored));
        }
        let later = schema.complete("id-1", stored.clone(), 1_800_000_000_000, Occasion::Updated);
        prop_assert_eq!(later.as_ref(), Ok(&stored), "an update writes no time");
    }

    /// Fields that are in the document stay as they are, but for automatic ones.
    #[test]
    fn nothing_that_is_there_is_changed(tree in schema(), document in document()) {
        let Ok(schema) = Schema::read(&tree) else { return Ok(()) };
        if tree.to_string().contains("auto") {
            return Ok(());
        }
        if let Ok(stored) = schema.complete("id-1", document.clone(), 0, Occasion::Registered) {
            prop_assert!(contains(&stored.to_value(), &document.to_value()));
        }
    }

    /// Fewer violations are the first of more, and one is found if and only if there is any.
    #[test]
    fn a_bound_on_violations_only_cuts(tree in schema(), document in document()) {
        let Ok(schema) = Schema::read(&tree) else { return Ok(()) };
        let all = schema.violations("id-1", &document, 1_000);
        for most in 0..4 {
            let some = schema.violations("id-1", &document, most);
            prop_assert_eq!(&some[..], &all[..most.min(all.len())]);
        }
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part))),
        (whole, part) => whole == part,
    }
}

/// The cases above are not all of those that say nothing.
#[test]
fn enough_of_the_cases_matter() {
    let mut runner = TestRunner::deterministic();
    let (mut read, mut stored, mut filled) = (0, 0, 0);
    for _ in 0..2_000 {
        let tree = schema().new_tree(&mut runner).unwrap().current();
        let document = document().new_tree(&mut runner).unwrap().current();
        let Ok(schema) = Schema::read(&tree) else { continue };
        read += 1;
        if let Ok(complete) = schema.complete("id-1", document.clone(), 1, Occasion::Registered) {
            stored += 1;
            filled += usize::from(complete != document);
        }
    }
    assert!(
        read > 800 && stored > 400 && filled > 200,
        "{read} {stored} {filled}"
    );
}
