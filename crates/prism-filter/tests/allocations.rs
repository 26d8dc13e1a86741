//! Asking a compiled filter about a record allocates nothing.

#![allow(clippy::unwrap_used, reason = "a helper of a test may end the test")]

use prism_filter::{Document, Filter, Limits, Record};

struct Device(Document);

impl Record for Device {
    fn identity(&self) -> &str {
        "sensor-1"
    }

    fn registered_at(&self) -> i64 {
        1_000
    }

    fn updated_at(&self) -> i64 {
        2_000
    }

    fn expires_at(&self) -> Option<i64> {
        None
    }

    fn document(&self) -> &Document {
        &self.0
    }
}

fn device() -> Device {
    let json = br#"{
        "status":"online","battery":0.15,"tags":["a","b"],"location":{"building":"HQ","lat":37.7749,"lon":-122.4194},
        "firmware":"1.2.0-nightly.20240229+sha.0123456789abcdef","address":"::ffff:10.1.2.3","seen":"1970-01-01T00:00:01.5Z"
    }"#;
    Device(Document::from_json(json).unwrap())
}

/// Asks twice, the first time to let engines of regular expressions fill their caches, and returns the
/// answer and the allocations of the second time.
fn measured(filter: &str) -> (bool, u64) {
    let limits = Limits::default();
    let filter = Filter::parse_str(filter, &limits)
        .unwrap()
        .compile_at(2_000, &limits)
        .unwrap();
    let device = device();
    let first = filter.matches(&device);
    let mut second = !first;
    let allocations = allocation_counter::measure(|| second = filter.matches(&device));
    assert_eq!(first, second);
    (second, allocations.count_total)
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(device()));
    assert!(counted.count_total > 0);
}

#[test]
fn matches_allocates_nothing() {
    for filter in [
        r#"{}"#,
        r#"{"status":"online"}"#,
        r#"{"status.ne":"offline"}"#,
        r#"{"location.building":"HQ"}"#,
        r#"{"battery":{"$gt":0.1,"$lte":0.2}}"#,
        r#"{"status.gt":"of"}"#,
        r#"{"status.in":["offline","online"]}"#,
        r#"{"battery.nin":[1,2,"x",null]}"#,
        r#"{"status.startswith":"on"}"#,
        r#"{"status.endswith":"ne"}"#,
        r#"{"status.contains":"nli"}"#,
        r#"{"tags.contains":"b"}"#,
        r#"{"tags":["a","b"]}"#,
        r#"{"status.regex":"^(on|away)"}"#,
        r#"{"status.regex":"n\\w{2}ne$"}"#,
        r#"{"region.exists":false}"#,
        r#"{"tags.type":"array"}"#,
        r#"{"$identity.regex":"^sensor-\\d+$"}"#,
        r#"{"$registered_at.lt":"2024-01-01T00:00:00Z"}"#,
        r#"{"$updated_at.in":[1,2000]}"#,
        r#"{"firmware.semver.gte":"1.2.0-nightly.20240228+sha.fedcba9876543210"}"#,
        r#"{"firmware":{"$semver.lt":"1.2.0","$semver.gt":"1.1.0"}}"#,
        r#"{"$not":{"status.semver.eq":"1.0.0"}}"#,
        r#"{"location.within":{"lat":37.77,"lon":-122.42,"radius_m":1000}}"#,
        r#"{"location.within":{"south":37,"west":-123,"north":38,"east":-122}}"#,
        r#"{"address.cidr":"10.0.0.0/8"}"#,
        r#"{"$not":{"firmware.cidr":"::/0"}}"#,
        r#"{"seen.gt":"now-1s"}"#,
        r#"{"battery.lt":"now"}"#,
        r#"{"$not":{"status.lt":"now"}}"#,
        r#"{"$not":{"firmware.lt":"now"}}"#,
        r#"{"$registered_at.lt":"now"}"#,
        r#"{"$or":[{"a":1},{"$and":[{"status":"*"},{"$not":{"b":2}}]}]}"#,
    ] {
        assert_eq!(measured(filter), (true, 0), "{filter}");
    }
}

#[test]
fn refusing_a_hostile_filter_takes_little_memory() {
    let limits = Limits::default();
    let refused = |filter: &str| {
        let mut refused = false;
        let measured = allocation_counter::measure(|| {
            let filter = Filter::parse_str(filter, &limits);
            refused = filter.and_then(|filter| filter.compile(&limits)).is_err();
        });
        assert!(refused && measured.bytes_current == 0);
        measured.bytes_max
    };
    for pattern in [
        "(?:(?:(?:a{90}){90}){90}){90}",
        r"\\w{900}",
        r"(?i)(?:\\pL{90}){90}",
    ] {
        let used = refused(&format!(r#"{{"a.regex":"{pattern}"}}"#));
        assert!(used < 8 << 20, "{pattern} took {used} bytes");
    }
    for (name, filter) in [
        (
            "a long list",
            format!(r#"{{"a.in":[{}1]}}"#, "1,".repeat(1_000_000)),
        ),
        (
            "many clauses",
            format!(r#"{{"$or":[{}{{}}]}}"#, "{},".repeat(1_000_000)),
        ),
        (
            "depth",
            format!("{}{{}}{}", r#"{"$not":"#.repeat(1_000_000), "}".repeat(1_000_000)),
        ),
        ("a long string", format!(r#"{{"a":"{}"}}"#, "x".repeat(300_000))),
    ] {
        let used = refused(&filter);
        assert!(used < 8 << 20, "{name} took {used} bytes");
    }
}
