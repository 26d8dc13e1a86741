//! Metadata and filters that meet.

use prism_filter::{Document, Filter, Limits, Operator};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The moment of a call, in milliseconds since 1970, among the times that are generated.
pub(crate) const NOW: i64 = 2_000;

/// The fields that filters ask about.
pub(crate) const PATHS: [&str; 4] = ["a", "b", "c.d", "list"];

/// How deep they may be nested.
pub(crate) const MAX_DEPTH: usize = 16;

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
    prop_oneof![6 => scalar(), 2 => list, 1 => long, 1 => object, 2 => place()]
}

pub(crate) fn document() -> impl Strategy<Value = Document> {
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

/// A system field that is a time and moves by writes only.
fn system_time() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["$registered_at", "$updated_at"])
}

/// One of the first moments of 1970, as a number or as text.
fn moment() -> impl Strategy<Value = Value> {
    (0..5, any::<bool>()).prop_map(|(at, text)| match text {
        true => json!(format!("1970-01-01T00:00:00.00{at}Z")),
        false => json!(at),
    })
}

/// One clause as JSON. Those that the language refuses are left out by the caller.
pub(crate) fn clause() -> impl Strategy<Value = Value> {
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
        1 => (system_time(), moment()).prop_map(|(field, at)| json!({ field: at })),
        1 => (system_time(), prop::collection::vec(moment(), 0..3), any::<bool>()).prop_map(|(field, moments, not)| {
            json!({ field: { if not { "$nin" } else { "$in" }: moments } })
        }),
        1 => (1_998..2_003).prop_map(|away| json!({ "$registered_at": { "$lt": format!("now-{away}ms") } })),
    ]
}

pub(crate) fn filter() -> impl Strategy<Value = Filter> {
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
            max_depth: MAX_DEPTH,
            ..Limits::default()
        };
        let filter = Filter::parse_json(&json, &limits).ok()?;
        filter.compile_at(NOW, &limits).ok()?;
        Some(filter)
    })
}
