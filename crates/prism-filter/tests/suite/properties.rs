//! What holds for any filter, any document and any input.

use prism_filter::{Document, Filter, Limits, Operator, merge_patch};
use prism_proto::pattern::{Filter as Message, filter};
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost_types::Struct;
use serde_json::{Value, json};

use crate::{
    reference::{equal, holds, merge},
    support::{NOW, Sample},
};

/// Wide enough for whatever is generated here.
fn limits() -> Limits {
    Limits {
        max_depth: 20,
        max_clauses: 500,
        max_regex_bytes: 64 << 10,
        max_regex_program_bytes: 64 << 20,
        ..Limits::default()
    }
}

/// Few and short, so that filters and documents meet.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]{0,3}",
        1 => select(vec!["*", "é", "\"\\\n", "sensor-1", "$a", "."]).prop_map(str::to_owned),
        1 => notations().prop_map(str::to_owned),
    ]
}

/// Texts that say something beyond themselves, or nearly so.
fn notations() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        select(&VERSIONS),
        select(&ADDRESSES),
        select(vec![
            "1970-01-01T00:00:01Z",
            "1970-01-01T00:00:02Z",
            "1970-01-01T01:00:01.5+01:00",
            "1970-01-01"
        ]),
        select(vec!["1.0", "v1.0.0", "10.0.0.1:80", "10.0.0", "now", "now-1s"]),
    ]
}

const VERSIONS: [&str; 9] = [
    "0.9.0",
    "1.0.0-alpha",
    "1.0.0-alpha.2",
    "1.0.0-alpha.10",
    "1.0.0-rc.20240229",
    "1.0.0",
    "1.0.0+build.77",
    "1.10.0",
    "18446744073709551615.0.0",
];
const ADDRESSES: [&str; 7] = [
    "10.0.0.1",
    "10.0.0.200",
    "11.0.0.0",
    "::ffff:10.0.0.1",
    "::1",
    "2001:db8::1",
    "::10.0.0.1",
];
const NETWORKS: [&str; 9] = [
    "10.0.0.0/8",
    "10.0.0.0/25",
    "10.0.0.1",
    "0.0.0.0/0",
    "::/0",
    "::/64",
    "2001:db8::/32",
    "::ffff:10.0.0.0/104",
    "::ffff:10.0.0.1",
];

fn latitudes() -> impl Strategy<Value = Value> {
    select(vec![-90.0, -0.0, 0.05, 45.0, 89.99, 90.0, 91.0]).prop_map(Value::from)
}

fn longitudes() -> impl Strategy<Value = Value> {
    select(vec![-180.0, -179.95, 0.0, 0.05, 90.0, 179.95, 180.0, -181.0]).prop_map(Value::from)
}

fn places() -> impl Strategy<Value = Value> {
    (latitudes(), longitudes()).prop_map(|(lat, lon)| json!({ "lat": lat, "lon": lon, "a": 1 }))
}

/// Some of them are refused.
fn areas() -> impl Strategy<Value = Value> {
    let radius = select(vec![0.0, 6_000.0, 12_000.0, 5_005_000.0, 1.1e7, 3e7]);
    let circles = (latitudes(), longitudes(), radius)
        .prop_map(|(lat, lon, radius)| json!({ "lat": lat, "lon": lon, "radius_m": radius }));
    let boxes = (latitudes(), longitudes(), latitudes(), longitudes()).prop_map(
        |(south, west, north, east)| json!({ "south": south, "west": west, "north": north, "east": east }),
    );
    prop_oneof![circles, boxes]
}

fn numbers() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-3_i64..4).prop_map(Value::from),
        2 => select(vec![0.5, -0.0, 1.5, 1e300, -1e-300, 0.1]).prop_map(Value::from),
        1 => (-(1_i64 << 53)..=1 << 53).prop_map(Value::from),
        1 => any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let scalars = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        numbers(),
        texts().prop_map(Value::from),
    ];
    scalars.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            4 => vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => objects(inner, 4),
            1 => places(),
        ]
    })
}

fn objects(values: impl Strategy<Value = Value>, fields: usize) -> impl Strategy<Value = Value> {
    let keys = select(vec![
        "a", "b", "c", "lt", "type", "x.y", "z\\", "$d", "metadata", "", "ключ",
    ]);
    vec((keys, values), 0..fields).prop_map(|fields| {
        fields
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    })
}

fn documents() -> impl Strategy<Value = Value> {
    objects(values(), 8)
}

fn metadata_paths() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a",
        "b",
        "c",
        "a.b",
        "a.a.c",
        "metadata.b",
        "lt",
        "a.lt",
        "type",
        r"x\.y",
        r"z\\",
        "metadata.$d",
        "metadata.metadata.a",
        "metadata",
        "ключ.a",
    ])
}

fn time_paths() -> impl Strategy<Value = &'static str> {
    select(vec!["$registered_at", "$updated_at", "$expires_at"])
}

fn times() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0_i64..4).prop_map(|second| json!(1_000 * second)),
        (0..4).prop_map(|second| json!(format!("1970-01-01T00:00:0{second}Z"))),
    ]
}

const ORDERED: [Operator; 4] = [Operator::Lt, Operator::Lte, Operator::Gt, Operator::Gte];
const EQUAL: [Operator; 2] = [Operator::Eq, Operator::Ne];
const LISTED: [Operator; 2] = [Operator::In, Operator::Nin];
const TEXTUAL: [Operator; 3] = [Operator::StartsWith, Operator::EndsWith, Operator::Contains];
const TYPES: [&str; 6] = ["string", "number", "boolean", "null", "array", "object"];
const PATTERNS: [&str; 6] = ["", "^a", "b$", "a+b?", "é|a", r"^\w+$"];

const SEMVER: [Operator; 5] = [
    Operator::SemverLt,
    Operator::SemverLte,
    Operator::SemverGt,
    Operator::SemverGte,
    Operator::SemverEq,
];

fn relative() -> impl Strategy<Value = Value> {
    select(vec!["now", "now-1s", "now+1s", "now-500ms"]).prop_map(Value::from)
}

fn clauses() -> impl Strategy<Value = Filter> {
    let ordered = prop_oneof![3 => numbers(), 3 => texts().prop_map(Value::from), 1 => relative()];
    let metadata = prop_oneof![
        (select(&EQUAL), values()),
        (select(&ORDERED), ordered),
        (select(&LISTED), vec(values(), 0..5).prop_map(Value::from)),
        (select(&TEXTUAL), texts().prop_map(Value::from)),
        (Just(Operator::Contains), values()),
        (Just(Operator::Regex), select(&PATTERNS).prop_map(Value::from)),
        (Just(Operator::Exists), any::<bool>().prop_map(Value::from)),
        (Just(Operator::Type), select(&TYPES).prop_map(Value::from)),
        (select(&SEMVER), select(&VERSIONS).prop_map(Value::from)),
        (Just(Operator::Within), areas()),
        (Just(Operator::Cidr), select(&NETWORKS).prop_map(Value::from)),
    ];
    let identity = prop_oneof![
        (
            prop_oneof![select(&EQUAL), select(&ORDERED), select(&TEXTUAL)],
            texts().prop_map(Value::from)
        ),
        (select(&LISTED), vec(texts(), 0..3).prop_map(Value::from)),
        (select(&SEMVER), select(&VERSIONS).prop_map(Value::from)),
        (Just(Operator::Cidr), select(&NETWORKS).prop_map(Value::from)),
        (Just(Operator::Type), select(&TYPES).prop_map(Value::from)),
        (Just(Operator::Exists), any::<bool>().prop_map(Value::from)),
    ];
    let time = prop_oneof![
        (prop_oneof![select(&EQUAL), select(&ORDERED)], times()),
        (select(&ORDERED), relative()),
        (select(&LISTED), vec(times(), 0..3).prop_map(Value::from)),
        (Just(Operator::Exists), any::<bool>().prop_map(Value::from)),
    ];
    prop_oneof![
        6 => (metadata_paths(), metadata),
        1 => (Just("$identity"), identity),
        1 => (time_paths(), time),
    ]
    .prop_filter_map("refused", |(path, (operator, operand))| {
        let filter = Filter::new().clause(path, operator, operand);
        filter.check(&limits()).is_ok().then_some(filter)
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    clauses().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Filter::and),
            vec(inner.clone(), 0..4).prop_map(Filter::or),
            inner.prop_map(Filter::not),
        ]
    })
}

fn records() -> impl Strategy<Value = (Sample, Value)> {
    (documents(), option::of(0_i64..4_000)).prop_map(|(metadata, expires_at)| {
        (
            Sample {
                expires_at,
                ..Sample::new(&metadata)
            },
            metadata,
        )
    })
}

/// The value with its numbers as a document holds them.
fn in_doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap() + 0.0;
            match number as i64 {
                whole if whole as f64 == number && whole != i64::MAX => whole.into(),
                _ => number.into(),
            }
        }
        Value::Array(elements) => elements.iter().map(in_doubles).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), in_doubles(value)))
            .collect(),
        other => other.clone(),
    }
}

/// Four times as many as usual, so that `PROPTEST_CASES` still says how many.
fn more_cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: 4 * usual.cases,
        ..usual
    }
}

proptest! {
    #![proptest_config(more_cases())]

    #[test]
    fn compiled_filters_answer_like_the_reference(filter in filters(), (record, metadata) in records()) {
        let compiled = filter.compile_at(NOW, &limits()).unwrap();
        prop_assert_eq!(compiled.matches(&record), holds(filter.node(), &record, &metadata));
    }

    /// What each part says adds up to what the filter says.
    #[test]
    fn verdicts_agree_with_the_answer(filter in filters(), (record, metadata) in records()) {
        let compiled = filter.compile_at(NOW, &limits()).unwrap();
        let verdicts = compiled.verdicts(&record);
        prop_assert_eq!(verdicts[0].holds, compiled.matches(&record));
        for verdict in verdicts {
            prop_assert_eq!(verdict.holds, holds(verdict.node, &record, &metadata));
        }
    }

    #[test]
    fn not_is_the_exact_negation(filter in filters(), (record, _) in records()) {
        let compile = |filter: &Filter| filter.compile_at(NOW, &limits()).unwrap();
        let negated = Filter::not(filter.clone());
        prop_assert_ne!(compile(&filter).matches(&record), compile(&negated).matches(&record));
    }

    #[test]
    fn ne_and_nin_are_exact_negations(
        path in metadata_paths(), value in values(), list in vec(values(), 0..4), (record, _) in records(),
    ) {
        let matches = |operator, operand: &Value| {
            let filter = Filter::new().clause(path, operator, operand.clone());
            filter.compile_at(NOW, &limits()).unwrap().matches(&record)
        };
        prop_assert_ne!(matches(Operator::Eq, &value), matches(Operator::Ne, &value));
        let list = Value::from(list);
        prop_assert_ne!(matches(Operator::In, &list), matches(Operator::Nin, &list));
    }

    #[test]
    fn json_reads_back_as_the_same_filter(filter in filters()) {
        let json = filter.to_json();
        let read = Filter::parse_json(&json, &limits()).unwrap();
        prop_assert_eq!(&read, &filter);
        prop_assert_eq!(Filter::parse_json(&read.to_json(), &limits()).unwrap().to_json(), read.to_json());
        let from_text = Filter::parse_str(&json.to_string(), &limits()).unwrap();
        prop_assert_eq!(from_text.node(), read.node());
    }

    #[test]
    fn whatever_is_within_limits_reads_back_within_them(filter in filters()) {
        let limits = Limits { max_depth: 4, max_clauses: 12, ..limits() };
        if filter.check(&limits).is_ok() {
            prop_assert!(Filter::parse_json(&filter.to_json(), &limits).is_ok());
        }
    }

    #[test]
    fn the_canonical_form_is_one_and_means_the_same(filter in filters(), (record, _) in records()) {
        let canonical = filter.canonical();
        let again = canonical.canonical();
        prop_assert_eq!(again.node(), canonical.node());
        prop_assert_eq!(&canonical, &filter);
        prop_assert_eq!(&Filter::parse_str(&filter.to_string(), &limits()).unwrap(), &filter);
        let compile = |filter: &Filter| filter.compile_at(NOW, &limits()).unwrap();
        prop_assert_eq!(compile(&canonical).matches(&record), compile(&filter).matches(&record));
    }

    #[test]
    fn protobuf_and_json_agree(filter in filters()) {
        let message = filter.to_proto().unwrap();
        let read = Filter::from_proto(&message, &limits()).unwrap();
        prop_assert_eq!(read.node(), filter.node());
        let fields = Document::from_value(&filter.to_json()).unwrap().to_proto();
        let message = Message { node: Some(filter::Node::Expression(Struct { fields })) };
        prop_assert_eq!(Filter::from_proto(&message, &limits()).unwrap(), filter);
    }

    #[test]
    fn documents_hold_what_serde_json_does(value in documents()) {
        let document = Document::from_value(&value).unwrap();
        prop_assert_eq!(document.to_value(), in_doubles(&value));
        let read = Document::from_json(value.to_string().as_bytes()).unwrap();
        prop_assert_eq!(&read, &document);
        let text = document.to_json();
        prop_assert_eq!(Document::from_json(&text).unwrap().to_json(), text.clone());
        prop_assert!(equal(&serde_json::from_slice(&text).unwrap(), &value));
        let fields: std::collections::HashMap<_, _> = document.to_proto();
        prop_assert_eq!(Document::from_proto(&fields).unwrap(), document);
    }

    #[test]
    fn documents_are_equal_when_their_texts_are(one in documents(), other in documents()) {
        let (one, other) = (Document::from_value(&one).unwrap(), Document::from_value(&other).unwrap());
        prop_assert_eq!(one == other, one.to_json() == other.to_json());
    }

    #[test]
    fn merge_patches_like_the_reference(target in documents(), patch in documents()) {
        let document = |value: &Value| Document::from_value(value).unwrap();
        let merged = merge_patch(&document(&target), &document(&patch)).unwrap();
        prop_assert_eq!(merged, document(&merge(Some(target), &patch)));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}", bytes in vec(any::<u8>(), 0..60)) {
        let _ = Filter::parse_str(&text, &Limits::default());
        let _ = prism_filter::Path::parse(&text);
        let _ = Document::from_json(&bytes);
        let _ = Document::from_json(text.as_bytes());
    }

    #[test]
    fn any_json_is_a_filter_or_refused(keys in vec("[$a-d.\\\\]{0,6}", 1..4), value in values(), (record, _) in records()) {
        let json = keys.iter().rev().fold(value, |inner, key| json!({key: inner}));
        for json in [json!({"$and": [json.clone()]}), json!({"$or": json.clone()}), json] {
            if let Ok(compiled) = Filter::parse_json(&json, &limits()).and_then(|filter| filter.compile_at(NOW, &limits())) {
                compiled.matches(&record);
            }
        }
    }

    #[test]
    fn every_integer_is_held_exactly_or_refused(integer in any::<i128>(), shift in 0_u32..127) {
        let integer = integer >> shift;
        let exact = integer as f64 as i128 == integer && integer != i128::MAX;
        let read = Document::from_json(format!(r#"{{"a":{integer}}}"#).as_bytes());
        prop_assert_eq!(read.is_ok(), exact, "{}", integer);
    }
}
