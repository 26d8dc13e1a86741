//! What a plan makes of metadata.

use prism_filter::{Document, merge_patch};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn plan(renames: &[&str], retypes: &[&str], fills: &[&str]) -> Plan {
    try_plan(renames, retypes, fills).unwrap()
}

fn try_plan(renames: &[&str], retypes: &[&str], fills: &[&str]) -> Result<Plan, String> {
    let renames = renames
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let retypes = retypes
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let fills = fills.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    Plan::new(renames, retypes, fills)
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// What an update with this patch makes of metadata.
fn patched(metadata: &Map<String, Value>, patch: &Value) -> Document {
    let before = Document::from_value(&Value::Object(metadata.clone())).unwrap();
    merge_patch(&before, &Document::from_value(patch).unwrap()).unwrap()
}

/// What the metadata is after the patch, or why it is left.
fn after(plan: &Plan, metadata: Value) -> Result<Value, String> {
    let before = object(metadata.clone());
    match plan.patch(&before) {
        Ok(None) => Ok(metadata),
        Ok(Some(patch)) => Ok(patched(&before, &patch).to_value()),
        Err(problem) => Err(problem.to_string()),
    }
}

#[test]
fn a_field_is_renamed_wherever_it_goes() {
    let plan = plan(&["firmware=firmware_version", "place.floor=level"], &[], &[]);
    for (before, expected) in [
        (
            json!({ "firmware": "1.0", "x": 1 }),
            json!({ "firmware_version": "1.0", "x": 1 }),
        ),
        (json!({ "x": 1 }), json!({ "x": 1 })),
        (
            json!({ "place": { "floor": 3, "wing": "n" } }),
            json!({ "level": 3, "place": { "wing": "n" } }),
        ),
        (json!({ "place": { "floor": 3 } }), json!({ "level": 3 })),
        (json!({ "place": {} }), json!({ "place": {} })),
        (
            json!({ "firmware": "1", "firmware_version": "1" }),
            json!({ "firmware_version": "1" }),
        ),
        (
            json!({ "firmware": { "a": [1, null] } }),
            json!({ "firmware_version": { "a": [1, null] } }),
        ),
    ] {
        assert_eq!(after(&plan, before.clone()), Ok(expected), "{before}");
    }
    assert_eq!(
        after(&plan, json!({ "firmware": "1", "firmware_version": "2" })).unwrap_err(),
        "the field `firmware_version` is there beside `firmware`, and holds something else"
    );
    let nested = self::plan(&["level=place.floor"], &[], &[]);
    assert_eq!(
        after(&nested, json!({ "level": 3 })),
        Ok(json!({ "place": { "floor": 3 } }))
    );
    assert_eq!(
        after(&nested, json!({ "level": 3, "place": "roof" })).unwrap_err(),
        "the field `place.floor` cannot be written, what holds it is no object"
    );
}

/// A merge patch takes away what it carries as null, so such a value cannot be moved by one.
#[test]
fn what_an_update_cannot_write_is_left() {
    let plan = plan(&["a=b"], &[], &[]);
    for value in [json!(null), json!({ "x": null })] {
        let told = after(&plan, json!({ "a": value })).unwrap_err();
        assert!(told.contains("null"), "{told}");
    }
}

#[test]
fn types_change_where_that_is_exact() {
    let cases = [
        ("string:integer", json!("42"), Ok(json!(42))),
        ("string:integer", json!("-7"), Ok(json!(-7))),
        ("string:integer", json!(42), Ok(json!(42))),
        ("string:integer", json!("042"), Err("is not exactly a integer")),
        ("string:integer", json!("4.0"), Err("is not exactly a integer")),
        ("string:integer", json!(" 4"), Err("is not exactly a integer")),
        (
            "string:integer",
            json!("9007199254740993"),
            Err("is not exactly a integer"),
        ),
        ("string:integer", json!(4.5), Err("is no string")),
        ("string:integer", json!(null), Err("is no string")),
        ("string:number", json!("0.1"), Ok(json!(0.1))),
        ("string:number", json!("3"), Ok(json!(3))),
        ("string:number", json!("1.50"), Err("is not exactly a number")),
        ("string:number", json!("1e999"), Err("is not exactly a number")),
        ("string:number", json!("NaN"), Err("is not exactly a number")),
        ("string:boolean", json!("true"), Ok(json!(true))),
        ("string:boolean", json!("True"), Err("is not exactly a boolean")),
        ("string:boolean", json!(1), Err("is no string")),
        (
            "string:timestamp",
            json!("2026-01-02T03:04:05.006Z"),
            Ok(json!(1_767_323_045_006_i64)),
        ),
        (
            "string:timestamp",
            json!("2026-01-02T05:04:05+02:00"),
            Ok(json!(1_767_323_045_000_i64)),
        ),
        (
            "string:timestamp",
            json!("2026-01-02T03:04:05.0001Z"),
            Err("is not exactly a timestamp"),
        ),
        (
            "string:timestamp",
            json!("yesterday"),
            Err("is not exactly a timestamp"),
        ),
        ("integer:string", json!(42), Ok(json!("42"))),
        ("integer:string", json!(42.0), Ok(json!("42"))),
        ("integer:string", json!("x"), Ok(json!("x"))),
        ("integer:string", json!(4.5), Err("is no integer")),
        ("number:string", json!(4.5), Ok(json!("4.5"))),
        ("number:string", json!(true), Err("is no number")),
        ("boolean:string", json!(false), Ok(json!("false"))),
        (
            "timestamp:string",
            json!(1_767_323_045_006_i64),
            Ok(json!("2026-01-02T03:04:05.006Z")),
        ),
        ("timestamp:string", json!(1_i64 << 53), Err("is out of range")),
    ];
    for (conversion, value, expected) in cases {
        let plan = plan(&[], &[&format!("f={conversion}")], &[]);
        match (after(&plan, json!({ "f": value })), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found["f"], expected, "{conversion} {value}"),
            (Err(told), Err(expected)) => assert!(told.contains(expected), "{conversion} {value}: {told}"),
            (found, expected) => panic!("{conversion} {value}: {found:?}, not {expected:?}"),
        }
        assert_eq!(
            after(&plan, json!({})),
            Ok(json!({})),
            "what is absent stays absent"
        );
    }
}

#[test]
fn a_default_is_written_where_there_is_nothing() {
    let plan = plan(&[], &[], &[r#"status="offline""#, r#"place.floor=0"#]);
    assert_eq!(
        after(&plan, json!({ "place": { "wing": "n" } })),
        Ok(json!({ "place": { "wing": "n", "floor": 0 }, "status": "offline" }))
    );
    let there = json!({ "status": null, "place": { "floor": 7 } });
    assert_eq!(after(&plan, there.clone()), Ok(there), "null is a value");
    assert!(after(&plan, json!({ "place": 1 })).is_err());
}

#[test]
fn renames_come_before_types_and_types_before_defaults() {
    let plan = plan(
        &["level=battery"],
        &["battery=string:number"],
        &["battery=1", "seen=0"],
    );
    assert_eq!(
        after(&plan, json!({ "level": "0.5" })),
        Ok(json!({ "battery": 0.5, "seen": 0 }))
    );
    assert_eq!(after(&plan, json!({})), Ok(json!({ "battery": 1, "seen": 0 })));
    // One step that cannot be done leaves all undone.
    assert!(after(&plan, json!({ "level": "half" })).is_err());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (renames, retypes, fills, part) in [
        (&[][..], &[][..], &[][..], "nothing to do"),
        (&["a"], &[], &[], "OLD=NEW"),
        (&["a=a.b"], &[], &[], "in each other's way"),
        (&["a=b", "b=c"], &[], &[], "`b` is given twice"),
        (&["a=c", "b=c"], &[], &[], "`c` is given twice"),
        (&["a=b"], &[], &["a=1"], "in each other's way"),
        (&["a=b"], &["a.c=string:int"], &[], "in each other's way"),
        (&[], &["a=string:int"], &["a.b=1"], "in each other's way"),
        (&[], &["a=string:int"], &[r#"a="x""#], "in each other's way"),
        (
            &[],
            &["a=string:int", "a.b=string:int"],
            &[],
            "in each other's way",
        ),
        (&["$identity=b"], &[], &[], "no field of the metadata"),
        (&["a=b..c"], &[], &[], "empty key"),
        (&[], &["a=string"], &[], "FROM:TO"),
        (&[], &["a=string:text"], &[], "unknown type `text`"),
        (&[], &["a=integer:number"], &[], "not possible"),
        (&[], &["a=string:string"], &[], "not possible"),
        (&[], &["a=string:int", "a=string:bool"], &[], "given twice"),
        (&[], &[], &["a=offline"], "expected JSON"),
        (&[], &[], &["a=null"], "null is no value"),
        (&[], &[], &[r#"a={"b":null}"#], "null is no value"),
        (&[], &[], &["a=1", "a=2"], "given twice"),
    ] {
        let told = try_plan(renames, retypes, fills).unwrap_err();
        assert!(told.contains(part), "{told}");
    }
}

fn metadata() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..1_000_000_i64).prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |number| serde_json::Number::from_f64(number)
            .map(Value::Number)),
        "[0-9.e+-]{0,4}".prop_map(Value::from),
        prop::sample::select(vec!["true", "1", "-0", "2026-01-02T03:04:05Z", "x"]).prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(2, 8, 3, |inner| {
        prop::collection::btree_map("[abc]", inner, 0..3)
            .prop_map(|fields| Value::Object(fields.into_iter().collect()))
    });
    prop::collection::btree_map("[abcd]", value, 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Once is enough: whatever a migration was broken off after, beginning again changes nothing that was done.
    #[test]
    fn twice_is_once(metadata in metadata()) {
        for plan in [
            plan(&["a=b"], &[], &[]),
            plan(&["a.b=c", "b=d.a"], &[], &["d.c=1"]),
            plan(&[], &["a=string:integer", "b=string:number", "c=string:timestamp"], &[]),
            plan(&[], &["a=number:string", "b=boolean:string", "c=timestamp:string"], &["d.b=true", "b=\"x\""]),
            plan(&["a=c"], &["c=string:boolean"], &["b=[]", "c=true"]),
            plan(&["a.b=d"], &[], &["b={}", "b.c=1", "d=2"]),
        ] {
            if let Ok(once) = after(&plan, metadata.clone()) {
                prop_assert_eq!(after(&plan, once.clone()), Ok(once));
            }
        }
    }

    /// There and back is where it began.
    #[test]
    fn an_exact_conversion_leads_back(text in "[0-9.e+-]{1,6}|true|false") {
        for (there, back) in [
            ("a=string:integer", "a=integer:string"),
            ("a=string:number", "a=number:string"),
            ("a=string:boolean", "a=boolean:string"),
        ] {
            let before = json!({ "a": text });
            if let Ok(converted) = after(&plan(&[], &[there], &[]), before.clone()) {
                prop_assert_eq!(after(&plan(&[], &[back], &[]), converted), Ok(before));
            }
        }
    }

    /// A patch says what has changed and nothing else.
    #[test]
    fn a_patch_leads_from_one_state_to_the_other(before in metadata(), wanted in metadata()) {
        let (before, wanted) = (object(before), object(wanted));
        let patch = Value::Object(diff(&before, &wanted));
        let holds_null = patch.to_string().contains("null");
        let reached = patched(&before, &patch) == Document::from_value(&Value::Object(wanted.clone())).unwrap();
        prop_assert!(reached || holds_null);
        prop_assert_eq!(before == wanted, patch == json!({}));
    }
}
