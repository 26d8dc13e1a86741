//! What is refused, under which name and how it is told.

use prism_filter::{Error, Filter, Limits, Operator};
use serde_json::{Value, json};

use crate::support::refusal;

/// What the refusal of a filter is about: the clause, and a part of the text.
fn told(filter: &Value) -> (String, String) {
    let error = refusal(filter, &Limits::default());
    (error.clause().to_owned(), error.to_string())
}

#[test]
fn malformed_filters_are_refused_by_clause() {
    for (filter, clause, text) in [
        (json!({"$and": {}}), "$and", "an array of filters"),
        (json!({"$or": [{"a": 1}, 2]}), "$or[1]", "a filter is an object"),
        (json!({"$not": [{"a": 1}]}), "$not", "one filter"),
        (
            json!({"$or": [{"$not": {"a.lt": []}}]}),
            "$or[0].$not.a",
            "`lt` takes a number or a string, not an array",
        ),
        (json!({"a": {"$lt": 1, "b": 2}}), "a", "mixed"),
        (
            json!({"a": {"$less": 1}}),
            "a",
            "no operator `$less`; there are `eq`",
        ),
        (json!({"a": {"$not": {"$lt": 1}}}), "a", "no operator `$not`"),
        (json!({"$lt": 1}), "$lt", "belongs inside a field"),
        (json!({"$nor": []}), "$nor", "there is no system field `$nor`"),
        (json!({"$identity.x": 1}), "$identity.x", "no fields of its own"),
        (json!({"a..b": 1}), "a..b", "empty key"),
        (json!({"": 1}), "", "empty key"),
        (json!({r"a\b": 1}), r"a\b", "stray backslash"),
        (
            json!({"metadata.exists": true}),
            "metadata.exists",
            "the path of a field",
        ),
        (json!({"metadata.exists": "a."}), "metadata.exists", "empty key"),
    ] {
        let (named, message) = told(&filter);
        assert_eq!(named, clause, "{filter}");
        assert!(message.contains(text), "{filter}: {message}");
        assert!(message.contains(&format!("`{clause}`")), "{filter}: {message}");
    }
}

#[test]
fn operands_of_the_wrong_type_are_refused() {
    for filter in [
        json!({"a.lt": []}),
        json!({"a": {"$gte": {"b": 1}}}),
        json!({"a.lte": null}),
        json!({"a.gt": true}),
        json!({"a.in": "x"}),
        json!({"a.nin": {"x": 1}}),
        json!({"a.startswith": 1}),
        json!({"a.endswith": null}),
        json!({"a.regex": 1}),
        json!({"a.exists": "yes"}),
        json!({"a.type": "integer"}),
        json!({"a.type": 1}),
        json!({"$identity": 1}),
        json!({"$identity.in": ["a", 1]}),
        json!({"$identity.contains": null}),
        json!({"$registered_at": "yesterday"}),
        json!({"$registered_at.lt": 0.5}),
        json!({"$updated_at.gt": true}),
        json!({"$expires_at": null}),
        json!({"$expires_at.in": [1, "x"]}),
    ] {
        let error = refusal(&filter, &Limits::default());
        assert!(matches!(error, Error::WrongOperand { .. }), "{filter}: {error}");
    }
    let (_, message) = told(&json!({"$registered_at": "yesterday"}));
    assert!(
        message.contains("takes an RFC 3339 time or whole milliseconds since 1970"),
        "{message}"
    );
    assert!(message.ends_with("not the string `yesterday`"), "{message}");
    let (_, message) = told(&json!({"a.in": {"b": 1}}));
    assert!(message.ends_with("takes an array, not an object"), "{message}");
    let (_, message) = told(&json!({"a.gt": true}));
    assert!(message.ends_with("not `true`"), "{message}");
}

#[test]
fn times_have_no_text() {
    for operator in [
        Operator::StartsWith,
        Operator::EndsWith,
        Operator::Contains,
        Operator::Regex,
        Operator::Type,
    ] {
        let error = refusal(
            &json!({format!("$updated_at.{operator}"): "x"}),
            &Limits::default(),
        );
        assert_eq!(
            error,
            Error::Inapplicable {
                clause: "$updated_at".into(),
                operator,
                field: "a time, compare it with `lt` or `gte`"
            }
        );
    }
}

/// Each with an operand that it takes.
#[test]
fn what_reads_text_or_places_does_not_apply_to_everything() {
    let area = json!({"lat": 1, "lon": 2, "radius_m": 3});
    for (filter, clause, part) in [
        (
            json!({"$registered_at.semver.lt": "1.0.0"}),
            "$registered_at",
            "does not apply to a time",
        ),
        (
            json!({"$updated_at.cidr": "::/0"}),
            "$updated_at",
            "does not apply to a time",
        ),
        (
            json!({"$expires_at": {"$within": area}}),
            "$expires_at",
            "does not apply to a time",
        ),
        (
            json!({"$identity": {"$within": area}}),
            "$identity",
            "`within` does not apply to an identity",
        ),
    ] {
        let (named, message) = told(&filter);
        assert_eq!(named, clause, "{filter}");
        assert!(message.contains(part), "{filter}: {message}");
    }
}

#[test]
fn operands_that_cannot_be_read_are_refused() {
    for (filter, part) in [
        (
            json!({"a.semver.gte": "1.2"}),
            "takes a semantic version of three numbers, such as `1.2.0` or `2.0.0-rc.1`, not the string `1.2`",
        ),
        (json!({"a.semver.eq": "v1.2.0"}), "not the string `v1.2.0`"),
        (json!({"a.semver.lt": 1}), "not `1`"),
        (json!({"a.semver.gt": ["1.0.0"]}), "not an array"),
        (
            json!({"a.semver.gt": "18446744073709551616.0.0"}),
            "three numbers",
        ),
        (
            json!({"a.cidr": "10.0.0.1/8"}),
            "with no bit set beyond its prefix, not the string `10.0.0.1/8`",
        ),
        (
            json!({"a.cidr": "10.0.0.0/33"}),
            "takes a network such as `10.0.0.0/8`",
        ),
        (json!({"a.cidr": ["10.0.0.0/8"]}), "not an array"),
        (
            json!({"a.within": {"lat": 1, "lon": 2}}),
            "in degrees and metres, not an object without `radius_m`",
        ),
        (
            json!({"a.within": {"lat": 1, "lon": 2, "radius_m": -5}}),
            "not one with a `radius_m` of -5",
        ),
        (
            json!({"a": {"$within": {"south": 2, "west": 1, "north": 1, "east": 1}}}),
            "not one whose `south` lies north of its `north`",
        ),
        (json!({"a.within": "home"}), "not the string `home`"),
        (
            json!({"a.lt": "now-5min"}),
            "not the string `now-5min`; a time relative to the call is `now`",
        ),
        (
            json!({"a": {"$gte": "now - 5m"}}),
            "`now-5m` or `now+1h`, in `ms s m h d w`",
        ),
        (
            json!({"$registered_at.lt": "now-5"}),
            "such as `now-5m`, not the string `now-5`; a time",
        ),
        (
            json!({"$registered_at.lt": "nowhen"}),
            "such as `now-5m`, not the string `nowhen`",
        ),
        (
            json!({"$registered_at": "now"}),
            "takes an RFC 3339 time or whole milliseconds since 1970, not the string `now`",
        ),
        (
            json!({"$registered_at.in": ["now"]}),
            "an array of RFC 3339 times",
        ),
    ] {
        let error = refusal(&filter, &Limits::default());
        assert!(matches!(error, Error::WrongOperand { .. }), "{filter}: {error}");
        assert!(error.to_string().contains(part), "{filter}: {error}");
    }
}

/// `a.semver.ne` taken for `ne` on a field `semver` would hold for everything.
#[test]
fn there_is_no_other_operator_on_versions() {
    for operator in ["ne", "in", "exists", "regex", "within"] {
        let key = format!("a.semver.{operator}");
        let (clause, message) = told(&json!({&key: "1.0.0"}));
        assert_eq!(clause, key);
        assert!(
            message.contains(&format!("no operator `semver.{operator}`")),
            "{message}"
        );
        assert!(message.contains("negated by `$not`"), "{message}");
    }
    let (_, message) = told(&json!({"a": {"$semver.ne": "1.0.0"}}));
    assert!(message.contains("no operator `$semver.ne`"), "{message}");
}

#[test]
fn a_relative_time_needs_a_moment() {
    let limits = Limits::default();
    let filter = Filter::parse_json(&json!({"$or": [{"b": 1}, {"a.gt": "now-5m"}]}), &limits).unwrap();
    assert!(filter.uses_relative_time());
    let error = filter.compile(&limits).unwrap_err();
    let expected = Error::RelativeTime {
        clause: "$or[1].a".into(),
        operand: "now-5m".into(),
    };
    assert_eq!(error, expected);
    assert!(
        error
            .to_string()
            .contains("`now-5m` is relative to the moment of a call"),
        "{error}"
    );
    assert_eq!(filter.compile_at(7, &limits).unwrap().now(), Some(7));
    for plain in [
        json!({"a": "now"}),
        json!({"$identity.gt": "now"}),
        json!({"a.gt": "nowhere"}),
        json!({"$not": {"a.gt": 5}}),
    ] {
        let filter = Filter::parse_json(&plain, &limits).unwrap();
        assert!(!filter.uses_relative_time(), "{plain}");
        assert_eq!(filter.compile_at(7, &limits).unwrap().now(), None);
        assert!(filter.compile(&limits).is_ok(), "{plain}");
    }
    let inside = Filter::not(Filter::and([
        Filter::new().eq("a", 1),
        Filter::new().lte("$expires_at", "now+1h"),
    ]));
    assert!(inside.uses_relative_time());
}

#[test]
fn bad_regular_expressions_are_refused_in_one_line() {
    for (pattern, problem) in [
        ("(", "unclosed group"),
        ("a{2,1}", "invalid repetition"),
        (r"\p{Nope}", "Unicode"),
    ] {
        let (clause, message) = told(&json!({"$or": [{"a": 1}, {"b.regex": pattern}]}));
        assert_eq!(clause, "$or[1].b");
        assert!(message.contains(problem) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn regular_expressions_have_a_bounded_size() {
    let limits = Limits::default();
    for pattern in [r"\w{500}", r"(?:\pL{50}){50}", "(?:(?:(?:a{90}){90}){90}){90}"] {
        let error = refusal(&json!({"a.regex": pattern}), &limits);
        let part = "compiled regular expression";
        assert_eq!(
            error,
            Error::TooLarge {
                clause: "a".into(),
                part,
                limit: limits.max_regex_program_bytes
            }
        );
    }
    // Each fits, but not all of them together.
    let many: Vec<_> = (0..20)
        .map(|index| json!({format!("f{index}.regex"): r"^\w{3}$"}))
        .collect();
    assert!(
        Filter::parse_json(&many[0], &limits)
            .unwrap()
            .compile(&limits)
            .is_ok()
    );
    let error = refusal(&json!({"$or": many}), &limits);
    assert!(
        matches!(
            error,
            Error::TooLarge {
                part: "compiled regular expression",
                ..
            }
        ),
        "{error}"
    );
    let nested = format!("{}a{}", "(?:".repeat(60), ")".repeat(60));
    assert!(matches!(
        refusal(&json!({"a.regex": nested}), &limits),
        Error::Regex { .. }
    ));
}

/// Reading an expression may take long however little comes of it, and that holds for all of a filter together.
#[test]
fn regular_expressions_are_bounded_together() {
    let limits = Limits::default();
    let pattern = r"(?i)[\pL&&\PL]".repeat(4);
    let clauses = |count: usize| -> Vec<_> {
        let clause = |index| json!({format!("f{index}.regex"): pattern});
        (0..count).map(clause).collect()
    };
    let most = limits.max_regex_bytes / pattern.len();
    let fits = Filter::parse_json(&json!({"$or": clauses(most)}), &limits).unwrap();
    assert!(fits.compile(&limits).is_ok());
    for refused in [
        json!({"$or": clauses(most + 1)}),
        json!({"$not": {"$and": clauses(20)}}),
    ] {
        let error = refusal(&refused, &limits);
        assert_eq!(
            error,
            Error::TooLarge {
                clause: error.clause().to_owned(),
                part: "regular expression, together with those before it,",
                limit: limits.max_regex_bytes
            }
        );
        assert!(error.clause().ends_with(&format!("f{most}")), "{error}");
    }
}

fn nested(operator: &str, depth: usize) -> Value {
    (0..depth).fold(json!({"a": 1}), |inner, _| match operator {
        "$not" => json!({"$not": inner}),
        list => json!({list: [inner, {"b": 1}]}),
    })
}

#[test]
fn depth_is_limited() {
    let limits = Limits::default();
    for operator in ["$and", "$or", "$not"] {
        assert!(
            Filter::parse_json(&nested(operator, 5), &limits).is_ok(),
            "{operator}"
        );
        let error = refusal(&nested(operator, 6), &limits);
        let clause = match operator {
            "$not" => "$not.$not.$not.$not.$not.$not".to_owned(),
            list => format!("{}{list}", format!("{list}[0].").repeat(5)),
        };
        assert_eq!(error, Error::TooDeep { clause, limit: 5 });
        assert!(
            error
                .to_string()
                .ends_with("deeper than the limit of 5, make the filter flatter"),
            "{error}"
        );
        assert!(
            Filter::parse_json(
                &nested(operator, 6),
                &Limits {
                    max_depth: 6,
                    ..limits.clone()
                }
            )
            .is_ok()
        );
    }
}

#[test]
fn clauses_are_limited() {
    let limits = Limits::default();
    let fields = |count| {
        Value::Object(
            (0..count)
                .map(|index| (format!("f{index:03}"), json!(index)))
                .collect(),
        )
    };
    assert!(Filter::parse_json(&fields(20), &limits).is_ok());
    let too_many = |clause: &str| Error::TooManyClauses {
        clause: clause.into(),
        limit: 20,
    };
    assert_eq!(refusal(&fields(21), &limits), too_many("f020"));
    let list = |count| json!({"$or": (0..count).map(|index| json!({"a": index})).collect::<Vec<_>>()});
    assert!(Filter::parse_json(&list(20), &limits).is_ok());
    assert_eq!(refusal(&list(21), &limits), too_many("$or[20].a"));
    let range = json!({"a": {"$gt": 1, "$lt": 2}, "$not": {"b": {"$gt": 1, "$lt": 2}}});
    assert_eq!(
        refusal(
            &range,
            &Limits {
                max_clauses: 3,
                ..limits.clone()
            }
        ),
        Error::TooManyClauses {
            clause: "a".into(),
            limit: 3
        }
    );
    // Nothing is not free of charge.
    for nothing in [json!({}), json!({"$and": []}), json!({"$or": [{}]})] {
        for list in ["$or", "$and"] {
            let list = json!({list: vec![nothing.clone(); 21]});
            assert!(
                matches!(refusal(&list, &limits), Error::TooManyClauses { .. }),
                "{list}"
            );
        }
    }
}

#[test]
fn sizes_are_limited() {
    let limits = Limits::default();
    let too_large = |clause: &str, part, limit| Error::TooLarge {
        clause: clause.into(),
        part,
        limit,
    };
    let shown = format!("{}…", "p".repeat(64));
    assert_eq!(
        refusal(&json!({"p".repeat(513): 1}), &limits),
        too_large(&shown, "path", 512)
    );
    assert_eq!(
        refusal(&json!({"a": "x".repeat(65_536)}), &limits),
        too_large("a", "operand", 65_536)
    );
    assert_eq!(
        refusal(&json!({"a.regex": "x".repeat(257)}), &limits),
        too_large("a", "regular expression", 256)
    );
    let values = |count: i32| json!({"a.in": (0..count).collect::<Vec<_>>()});
    assert!(Filter::parse_json(&values(1_000), &limits).is_ok());
    let expected = Error::TooManyValues {
        clause: "a".into(),
        count: 1_001,
        limit: 1_000,
    };
    assert_eq!(refusal(&values(1_001), &limits), expected);
    assert_eq!(
        refusal(&json!({"a": "x".repeat(300_000)}), &limits).to_string(),
        "the filter cannot be read: larger than the limit of 262144 bytes, make it smaller"
    );
}

#[test]
fn what_is_no_filter_is_refused() {
    let limits = Limits::default();
    for text in [
        "",
        "[]",
        "1",
        "null",
        "{",
        r#"{"a":1}x"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":9007199254740993}"#,
    ] {
        let error = Filter::parse_str(text, &limits).unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{text}: {error}");
    }
    let twice = Filter::parse_str(r#"{"$or":[{"a":1,"a":2}]}"#, &limits).unwrap_err();
    assert_eq!(twice.clause(), "$or[0].a");
    let deep = format!("{}{{}}{}", r#"{"$not":"#.repeat(100_000), "}".repeat(100_000));
    assert!(matches!(
        Filter::parse_str(&deep, &limits),
        Err(Error::Unreadable { .. })
    ));
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(
        Filter::parse_str(&deep, &limits),
        Err(Error::Unreadable { .. })
    ));
}
