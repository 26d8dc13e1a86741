//! Filters made in code, and their canonical form.

use std::collections::HashSet;

use prism_filter::{Error, Filter, Kind, Limits, Node, Operator, Path, ValueRef};
use serde_json::json;

use crate::support::Sample;

fn parsed(json: serde_json::Value) -> Filter {
    Filter::parse_json(&json, &Limits::default()).unwrap()
}

#[test]
fn every_method_has_its_json() {
    let new = Filter::new;
    for (built, json) in [
        (new(), json!({})),
        (Filter::default(), json!({})),
        (new().eq("a", "x"), json!({"a": "x"})),
        (new().eq("a", 1), json!({"a": 1})),
        (new().eq("a", "*"), json!({"a": {"$exists": true}})),
        (new().ne("a", "*"), json!({"a": {"$exists": false}})),
        (new().ne("a.b", true), json!({"a.b": {"$ne": true}})),
        (new().lt("a", 0.2), json!({"a": {"$lt": 0.2}})),
        (new().lte("a", 2_u32), json!({"a": {"$lte": 2}})),
        (new().gt("a", "x".to_owned()), json!({"a": {"$gt": "x"}})),
        (new().gte("a", 7_i64), json!({"a": {"$gte": 7}})),
        (new().is_in("a", ["x", "y"]), json!({"a": {"$in": ["x", "y"]}})),
        (new().not_in("a", [1, 2]), json!({"a": {"$nin": [1, 2]}})),
        (new().starts_with("a", "x"), json!({"a": {"$startswith": "x"}})),
        (new().ends_with("a", "x"), json!({"a": {"$endswith": "x"}})),
        (new().contains("a", "x"), json!({"a": {"$contains": "x"}})),
        (new().regex("a", "^x"), json!({"a": {"$regex": "^x"}})),
        (new().exists("a"), json!({"a": {"$exists": true}})),
        (new().missing("a"), json!({"a": {"$exists": false}})),
        (new().has_type("a", Kind::Array), json!({"a": {"$type": "array"}})),
        (new().clause("a", Operator::Eq, "*"), json!({"a": {"$eq": "*"}})),
        (
            new().semver_lt("a", "1.0.0"),
            json!({"a": {"$semver.lt": "1.0.0"}}),
        ),
        (
            new().semver_lte("a", "1.0.0"),
            json!({"a": {"$semver.lte": "1.0.0"}}),
        ),
        (
            new().semver_gt("a", "1.0.0"),
            json!({"a": {"$semver.gt": "1.0.0"}}),
        ),
        (
            new().semver_gte("a", "1.0.0"),
            json!({"a": {"$semver.gte": "1.0.0"}}),
        ),
        (
            new().semver_eq("a", "1.0.0"),
            json!({"a": {"$semver.eq": "1.0.0"}}),
        ),
        (new().cidr("a", "::/0"), json!({"a": {"$cidr": "::/0"}})),
        (
            new().within_radius("a", (1.5, -2.0), 300.0),
            json!({"a": {"$within": {"lat": 1.5, "lon": -2, "radius_m": 300}}}),
        ),
        (
            new().within_box("a", (-1.0, 170.0), (1.0, -170.0)),
            json!({"a": {"$within": {"south": -1, "west": 170, "north": 1, "east": -170}}}),
        ),
        (new().gte("seen", "now-5m"), json!({"seen": {"$gte": "now-5m"}})),
        (
            new().eq("a.semver.gte", "x"),
            json!({"a.semver.gte": {"$eq": "x"}}),
        ),
        (new().eq(r"a.semver\.gte", "x"), json!({r"a.semver\.gte": "x"})),
        (
            new().eq("a", json!({"x": [1, null]})),
            json!({"a": {"x": [1, null]}}),
        ),
        (new().eq("a", json!({"$x": 1})), json!({"a": {"$eq": {"$x": 1}}})),
        (new().eq("limits.lt", 3), json!({"limits.lt": {"$eq": 3}})),
        (new().eq("type", 3), json!({"type": 3})),
        (
            new().eq("$identity", "x").eq("b", 1),
            json!({"$identity": "x", "b": 1}),
        ),
        (new().gt("a", 1).lt("a", 2), json!({"a": {"$gt": 1, "$lt": 2}})),
        (new().eq("a", 1).lt("a", 2), json!({"a": {"$eq": 1, "$lt": 2}})),
        (
            new().contains("a", 1).contains("a", 2),
            json!({"$and": [{"a": {"$contains": 1}}, {"a": {"$contains": 2}}]}),
        ),
        (
            Filter::or([new().eq("a", 1), new().eq("b", 2)]),
            json!({"$or": [{"a": 1}, {"b": 2}]}),
        ),
        (Filter::or([]), json!({"$or": []})),
        (Filter::and([]), json!({})),
        (Filter::not(new().eq("a", 1)), json!({"$not": {"a": 1}})),
        (
            Filter::and([new().eq("a", 1), Filter::or([new().eq("b", 1), new().eq("c", 1)])]),
            json!({"$or": [{"b": 1}, {"c": 1}], "a": 1}),
        ),
    ] {
        assert_eq!(built.to_json(), json);
        assert_eq!(parsed(json), built);
        assert!(built.compile_at(0, &Limits::default()).is_ok(), "{built}");
    }
}

#[test]
fn equal_filters_have_equal_text() {
    let same = [
        json!({"a": 1, "b.lt": 2}),
        json!({"b": {"$lt": 2.0}, "a.eq": 1}),
        json!({"metadata.b.lt": 2, "metadata.a": {"$eq": 1}}),
        json!({"$and": [{"b.lt": 2}, {"$and": [{"a": 1}, {"a": 1}]}]}),
        json!({"$not": {"$not": {"$and": [{"b.lt": 2}, {"a": 1}]}}}),
        json!({"$or": [{"a": 1, "b.lt": 2}]}),
    ];
    let texts: HashSet<_> = same.iter().map(|json| parsed(json.clone()).to_string()).collect();
    assert_eq!(texts, HashSet::from([r#"{"a":1,"b":{"$lt":2}}"#.to_owned()]));
    assert_eq!(
        parsed(json!({"a.in": [2, 1, 2]})),
        parsed(json!({"a.in": [1, 2]}))
    );
    assert_eq!(
        parsed(json!({"$or": [{"a": 1}, {"b": 1}]})),
        parsed(json!({"$or": [{"b": 1}, {"a": 1}, {"a": 1}]}))
    );
    assert_eq!(
        parsed(json!({"$or": [{"a": 1}, {"a": 1}]})),
        parsed(json!({"a": 1}))
    );

    let different = [
        json!({}),
        json!({"$or": []}),
        json!({"a": 1}),
        json!({"a": "1"}),
        json!({"a": null}),
        json!({"a.ne": 1}),
    ];
    let texts: HashSet<_> = different
        .iter()
        .map(|json| parsed(json.clone()).to_string())
        .collect();
    assert_eq!(texts.len(), different.len());
}

#[test]
fn the_canonical_form_may_be_taken_apart() {
    let filter = parsed(json!({"b.in": [3, 1], "a": 1})).canonical();
    let Node::And(nodes) = filter.node() else {
        panic!("{filter:?}")
    };
    let [Node::Clause(first), Node::Clause(second)] = &**nodes else {
        panic!("{filter:?}")
    };
    assert_eq!(first.path(), &Path::parse("a").unwrap());
    assert_eq!(
        (first.operator(), first.operand().view()),
        (Operator::Eq, ValueRef::Number(1.0))
    );
    assert_eq!(
        (second.operator(), second.operand().to_value()),
        (Operator::In, json!([1, 3]))
    );
}

#[test]
fn a_mistake_is_kept_and_matches_nothing() {
    let limits = Limits::default();
    let anything = Sample::new(&json!({"a": 1}));
    for (filter, clause) in [
        (Filter::new().eq("a", 1).lt("b..c", 2).eq("d", 1), "b..c"),
        (Filter::new().eq("a", u64::MAX), "a"),
        (Filter::new().is_in("a", [f64::NAN]), "a"),
        (Filter::new().lt("a", true), "a"),
        (Filter::new().eq("$registered_at", "soon"), "$registered_at"),
        (Filter::new().semver_gte("a", "1"), "a"),
        (Filter::new().within_radius("a", (f64::NAN, 0.0), 1.0), "a"),
        (Filter::new().within_box("a", (1.0, 0.0), (0.0, 0.0)), "a"),
        (Filter::not(Filter::new().eq("", 1)), ""),
        (
            Filter::or([Filter::new().eq("a", 1), Filter::new().eq("b.", 1)]),
            "b.",
        ),
    ] {
        let mistake = filter.check(&limits).unwrap_err();
        assert_eq!(mistake.clause(), clause);
        assert_eq!(filter.compile(&limits).err(), Some(mistake.clone()));
        assert_eq!(filter.to_proto(), Err(mistake.clone()));
        assert_eq!(filter.canonical().check(&limits), Err(mistake.clone()));
        assert_ne!(filter, parsed(filter.to_json()));
        assert!(
            !parsed(filter.to_json())
                .compile(&limits)
                .unwrap()
                .matches(&anything)
        );
        assert!(format!("{filter:?}").contains(&mistake.to_string()));
    }
}

#[test]
fn what_is_built_is_held_against_limits() {
    let limits = Limits::default();
    let long = (0..21).fold(Filter::new(), |filter, index| {
        filter.eq(&format!("f{index}"), index)
    });
    assert!(matches!(long.compile(&limits), Err(Error::TooManyClauses { .. })));
    let deep = (0..6).fold(Filter::new().eq("a", 1), |filter, _| Filter::not(filter));
    assert!(matches!(
        deep.compile(&limits),
        Err(Error::TooDeep { limit: 5, .. })
    ));
    let empty = Filter::or((0..21).map(|_| Filter::not(Filter::new())));
    assert!(matches!(
        empty.compile(&limits),
        Err(Error::TooManyClauses { .. })
    ));
    // Two conditions of the same sort on one field take an `$and`, and so a level.
    let twice = Filter::new().contains("a", 1).contains("a", 2);
    let deep = (0..5).fold(twice, |filter, _| Filter::not(filter));
    assert!(matches!(deep.check(&limits), Err(Error::TooDeep { .. })));
}

#[test]
fn a_compiled_filter_knows_what_it_is() {
    let limits = Limits::default();
    let compile = |json| parsed(json).compile(&limits).unwrap();
    let compiled = compile(json!({"a": 1}));
    assert_eq!(compiled.filter(), &parsed(json!({"a": 1})));
    assert_eq!(format!("{compiled:?}"), r#"Compiled({"a":1})"#);
    assert!(!compiled.uses_expires_at());
    assert!(compile(json!({"$or": [{"a": 1}, {"$not": {"$expires_at.lt": 5}}]})).uses_expires_at());
    assert!(!compile(json!({"$updated_at.lt": 5})).uses_expires_at());
    assert!(parsed(json!({})).is_empty() && !parsed(json!({"a": 1})).is_empty());
    assert_eq!(format!("{:?}", parsed(json!({}))), "Filter({})");
}

#[test]
fn a_compiled_filter_may_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<prism_filter::Compiled>();
    shared::<Filter>();
    shared::<prism_filter::Document>();
}
