//! What matches what: every operator, every type, every spelling.

use serde_json::{Value, json};

use crate::support::{Sample, matches};

/// The record that the tables ask about.
fn device() -> Sample {
    Sample::new(&json!({
        "name": "sensor",
        "battery": 0.15,
        "floor": 3,
        "active": true,
        "owner": null,
        "empty": "",
        "star": "*",
        "type": "thermometer",
        "version": "2.10",
        "tags": ["indoor", "beta", 7, null, ["nested"], {"k": 1}],
        "nothing": [],
        "location": {"building": "HQ", "geo": {"lat": 52.5}, "lt": 5},
        "a.b": "dotted",
        "back\\slash": "escaped",
        "metadata": {"inner": 1},
        "$odd": "dollar",
        "ключ": "значение"
    }))
}

fn assert_all(cases: &[(Value, bool)]) {
    let device = device();
    for (filter, expected) in cases {
        assert_eq!(matches(filter, &device), *expected, "{filter}");
        assert_eq!(
            matches(&json!({"$not": filter}), &device),
            !expected,
            "$not {filter}"
        );
    }
}

#[test]
fn equality() {
    assert_all(&[
        (json!({}), true),
        (json!({"name": "sensor"}), true),
        (json!({"name": "Sensor"}), false),
        (json!({"name.eq": "sensor"}), true),
        (json!({"name": {"$eq": "sensor"}}), true),
        (json!({"floor": 3}), true),
        (json!({"floor": 3.0}), true),
        (json!({"floor": "3"}), false),
        (json!({"active": true}), true),
        (json!({"active": 1}), false),
        (json!({"active": "true"}), false),
        (json!({"empty": ""}), true),
        (json!({"absent": ""}), false),
        (json!({"name": "sensor", "floor": 3}), true),
        (json!({"name": "sensor", "floor": 4}), false),
        (json!({"ключ": "значение"}), true),
    ]);
}

#[test]
fn inequality_is_exact_negation() {
    assert_all(&[
        (json!({"name.ne": "sensor"}), false),
        (json!({"name.ne": "other"}), true),
        (json!({"absent.ne": "sensor"}), true),
        (json!({"floor.ne": "3"}), true),
        (json!({"owner.ne": null}), false),
        (json!({"absent.ne": null}), true),
        (json!({"name.ne": "*"}), false),
        (json!({"absent.ne": "*"}), true),
    ]);
}

#[test]
fn null_is_a_value_and_not_an_absence() {
    assert_all(&[
        (json!({"owner": null}), true),
        (json!({"absent": null}), false),
        (json!({"name": null}), false),
        (json!({"owner.exists": true}), true),
        (json!({"owner.type": "null"}), true),
        (json!({"owner.lt": 1}), false),
        (json!({"owner.in": [null]}), true),
    ]);
}

#[test]
fn deep_equality_of_arrays_and_objects() {
    assert_all(&[
        (json!({"nothing": []}), true),
        (json!({"nothing": {}}), false),
        (json!({"tags": ["indoor"]}), false),
        (json!({"tags": "indoor"}), false),
        (
            json!({"tags": ["indoor", "beta", 7, null, ["nested"], {"k": 1}]}),
            true,
        ),
        (
            json!({"tags": ["beta", "indoor", 7, null, ["nested"], {"k": 1}]}),
            false,
        ),
        (
            json!({"location": {"lt": 5.0, "geo": {"lat": 52.5}, "building": "HQ"}}),
            true,
        ),
        (json!({"location": {"building": "HQ"}}), false),
        (json!({"location.geo": {"lat": 52.5}}), true),
    ]);
}

#[test]
fn order_of_numbers_and_strings() {
    assert_all(&[
        (json!({"battery.lt": 0.2}), true),
        (json!({"battery.lt": 0.15}), false),
        (json!({"battery.lte": 0.15}), true),
        (json!({"battery.gt": 0.1}), true),
        (json!({"battery.gt": 0.15}), false),
        (json!({"battery.gte": 0.15}), true),
        (json!({"battery": {"$gte": 0.1, "$lt": 0.2}}), true),
        (json!({"battery": {"$gte": 0.1, "$lt": 0.12}}), false),
        (json!({"floor.lt": 1e300}), true),
        (json!({"floor.gt": -1}), true),
        (json!({"floor.gt": "2"}), false),
        (json!({"name.gt": 2}), false),
        (json!({"active.gte": 0}), false),
        (json!({"absent.lt": 1}), false),
        (json!({"version.gte": "2.0"}), true),
        (json!({"version.lt": "2.9"}), true),
        (json!({"name.gt": "Sensor"}), true),
        (json!({"ключ.gt": "z"}), true),
        (json!({"tags.gt": "a"}), false),
    ]);
}

#[test]
fn lists_of_alternatives() {
    assert_all(&[
        (json!({"name.in": ["gateway", "sensor"]}), true),
        (json!({"name.in": ["gateway"]}), false),
        (json!({"name.in": []}), false),
        (json!({"floor.in": [1, 3.0]}), true),
        (json!({"floor.in": ["3", true, null]}), false),
        (json!({"absent.in": [null]}), false),
        (json!({"nothing.in": [[], 1]}), true),
        (json!({"name.in": ["*"]}), false),
        (json!({"name.nin": ["gateway"]}), true),
        (json!({"name.nin": ["sensor"]}), false),
        (json!({"absent.nin": ["sensor"]}), true),
        (json!({"name.nin": []}), true),
    ]);
}

#[test]
fn parts_of_strings() {
    assert_all(&[
        (json!({"version.startswith": "2."}), true),
        (json!({"version.startswith": "10"}), false),
        (json!({"version.startswith": ""}), true),
        (json!({"floor.startswith": "3"}), false),
        (json!({"tags.startswith": "indoor"}), false),
        (json!({"version.endswith": ".10"}), true),
        (json!({"version.endswith": "2"}), false),
        (json!({"absent.endswith": ""}), false),
        (json!({"name.contains": "ens"}), true),
        (json!({"name.contains": ""}), true),
        (json!({"name.contains": "x"}), false),
        (json!({"name.contains": 1}), false),
        (json!({"ключ.contains": "чен"}), true),
        (json!({"name.regex": "^s.*r$"}), true),
        (json!({"name.regex": "ns"}), true),
        (json!({"name.regex": "^ns"}), false),
        (json!({"name.regex": "(?i)SENSOR"}), true),
        (json!({"ключ.regex": r"^\w+$"}), true),
        (json!({"floor.regex": "3"}), false),
        (json!({"absent.regex": ""}), false),
    ]);
}

#[test]
fn membership_in_arrays() {
    assert_all(&[
        (json!({"tags.contains": "indoor"}), true),
        (json!({"tags.contains": "in"}), false),
        (json!({"tags.contains": 7}), true),
        (json!({"tags.contains": "7"}), false),
        (json!({"tags.contains": null}), true),
        (json!({"tags.contains": ["nested"]}), true),
        (json!({"tags.contains": "nested"}), false),
        (json!({"tags": {"$contains": {"k": 1}}}), true),
        (json!({"nothing.contains": null}), false),
        (json!({"location.contains": "building"}), false),
    ]);
}

#[test]
fn existence_and_types() {
    assert_all(&[
        (json!({"name": "*"}), true),
        (json!({"owner": "*"}), true),
        (json!({"absent": "*"}), false),
        (json!({"name.eq": "*"}), true),
        (json!({"name": {"$eq": "*"}}), false),
        (json!({"star": {"$eq": "*"}}), true),
        (json!({"star": {"$ne": "*"}}), false),
        (json!({"name.exists": true}), true),
        (json!({"name.exists": false}), false),
        (json!({"absent.exists": true}), false),
        (json!({"absent.exists": false}), true),
        (json!({"metadata.exists": "location"}), true),
        (json!({"metadata.exists": "location.geo.lat"}), true),
        (json!({"metadata.exists": "location.geo.lon"}), false),
        (json!({"name.type": "string"}), true),
        (json!({"name.type": "number"}), false),
        (json!({"floor.type": "number"}), true),
        (json!({"active.type": "boolean"}), true),
        (json!({"tags.type": "array"}), true),
        (json!({"location.type": "object"}), true),
        (json!({"absent.type": "null"}), false),
    ]);
}

#[test]
fn combinations() {
    assert_all(&[
        (json!({"$and": [{"name": "sensor"}, {"floor": 3}]}), true),
        (json!({"$and": [{"name": "sensor"}, {"floor": 4}]}), false),
        (json!({"$or": [{"name": "gateway"}, {"floor": 3}]}), true),
        (json!({"$or": [{"name": "gateway"}, {"floor": 4}]}), false),
        (json!({"$not": {"name": "gateway"}}), true),
        (json!({"$not": {"absent": "x"}}), true),
        (json!({"$not": {"absent": {"$lt": 1, "$gt": 0}}}), true),
        (json!({"$and": []}), true),
        (json!({"$or": []}), false),
        (json!({"$or": [{}]}), true),
        (json!({"$not": {}}), false),
        (
            json!({"name": "sensor", "$or": [{"floor": 1}, {"floor": 3}]}),
            true,
        ),
        (
            json!({"name": "other", "$or": [{"floor": 1}, {"floor": 3}]}),
            false,
        ),
        (
            json!({"$or": [{"$and": [{"name": "sensor"}, {"$not": {"floor": 3}}]}, {"active": true}]}),
            true,
        ),
        (json!({"floor.gt": 1, "floor": {"$lt": 5}}), true),
        (json!({"$not": {"$not": {"$not": {"name": "sensor"}}}}), false),
    ]);
}

#[test]
fn paths() {
    assert_all(&[
        (json!({"location.building": "HQ"}), true),
        (json!({"location.geo.lat": 52.5}), true),
        (json!({"location.geo.lat.gt": 52}), true),
        (json!({"location.geo.lat.deg": 52.5}), false),
        (json!({"metadata.name": "sensor"}), true),
        (json!({"metadata.metadata.inner": 1}), true),
        (json!({"metadata": {"inner": 1}}), true),
        (json!({r"a\.b": "dotted"}), true),
        (json!({"a.b": "dotted"}), false),
        (json!({r"back\\slash": "escaped"}), true),
        (json!({"metadata.$odd": "dollar"}), true),
        (json!({"tags.0": "indoor"}), false),
        (json!({"name.length": 6}), false),
    ]);
}

#[test]
fn a_last_segment_that_names_an_operator_is_the_operator() {
    assert_all(&[
        (json!({"location.lt": 9}), false),
        (json!({"location.lt": {"$eq": 5}}), true),
        (json!({"location.lt": {"$lt": 9}}), true),
        (json!({"location.lt.lt": 9}), true),
        (json!({"type": "thermometer"}), true),
        (json!({"metadata.type": "thermometer"}), true),
        (json!({"type.startswith": "thermo"}), true),
    ]);
}

#[test]
fn system_fields() {
    assert_all(&[
        (json!({"$identity": "sensor-1"}), true),
        (json!({"$identity": "*"}), true),
        (json!({"$identity.ne": "sensor-1"}), false),
        (json!({"$identity.lt": "sensor-2"}), true),
        (json!({"$identity.gte": "t"}), false),
        (json!({"$identity.in": ["x", "sensor-1"]}), true),
        (json!({"$identity.nin": ["x", "sensor-1"]}), false),
        (json!({"$identity.startswith": "sensor-"}), true),
        (json!({"$identity.endswith": "-2"}), false),
        (json!({"$identity.contains": "or-"}), true),
        (json!({"$identity.regex": r"^sensor-\d+$"}), true),
        (json!({"$identity.exists": true}), true),
        (json!({"$identity.type": "string"}), true),
        (json!({"$identity.type": "number"}), false),
        (json!({"$registered_at": 1_000}), true),
        (json!({"$registered_at.ne": 1_000}), false),
        (json!({"$registered_at": "1970-01-01T00:00:01Z"}), true),
        (json!({"$registered_at": "1970-01-01T01:00:01+01:00"}), true),
        (json!({"$registered_at.lt": "1970-01-01T00:00:01.0000001Z"}), true),
        (
            json!({"$updated_at": {"$gt": 1_000, "$lte": "1970-01-01T00:00:02Z"}}),
            true,
        ),
        (json!({"$updated_at.gte": 2_001}), false),
        (json!({"$updated_at.in": [1_999, "1970-01-01T00:00:02Z"]}), true),
        (json!({"$updated_at.nin": [2_000]}), false),
        (json!({"$expires_at.lte": 3_000}), true),
        (json!({"$expires_at.exists": true}), true),
        (json!({"$expires_at": "*"}), true),
    ]);
}

#[test]
fn a_registration_without_a_lease_has_no_end() {
    let permanent = Sample {
        expires_at: None,
        ..device()
    };
    for (filter, expected) in [
        (json!({"$expires_at.exists": true}), false),
        (json!({"$expires_at.exists": false}), true),
        (json!({"$expires_at.gt": 0}), false),
        (json!({"$expires_at.lt": 9e15}), false),
        (json!({"$expires_at.ne": 0}), true),
        (json!({"$not": {"$expires_at.gt": 0}}), true),
    ] {
        assert_eq!(matches(&filter, &permanent), expected, "{filter}");
    }
}

#[test]
fn versions() {
    let record = |version: Value| Sample::new(&json!({ "firmware": version, "a": { "semver": "1.0" } }));
    for (filter, version, expected) in [
        (json!({"firmware.semver.lt": "1.10.0"}), "1.9.0", true),
        (json!({"firmware.semver.lt": "1.10.0"}), "1.10.0", false),
        (json!({"firmware.semver.lte": "1.10.0"}), "1.10.0", true),
        (json!({"firmware.semver.gt": "1.9.0"}), "1.10.0", true),
        (json!({"firmware.semver.gte": "1.10.0"}), "1.9.99", false),
        (
            json!({"firmware": {"$semver.gte": "1.2.0", "$semver.lt": "2.0.0-0"}}),
            "1.99.0",
            true,
        ),
        (
            json!({"firmware": {"$semver.gte": "1.2.0", "$semver.lt": "2.0.0-0"}}),
            "2.0.0-rc.1",
            false,
        ),
        (json!({"firmware.semver.eq": "1.2.0"}), "1.2.0+build.5", true),
        (json!({"firmware.semver.eq": "1.2.0"}), "1.2.0-rc.1", false),
        (json!({"$not": {"firmware.semver.gte": "1.2.0"}}), "none", true),
        // No versions.
        (json!({"firmware.semver.gte": "0.0.0-0"}), "1.2", false),
        (json!({"firmware.semver.gte": "0.0.0-0"}), "v1.2.0", false),
        (json!({"firmware.semver.gte": "0.0.0-0"}), "1.02.0", false),
        (json!({"firmware.semver.gte": "0.0.0-0"}), "", false),
        // The field that is called so.
        (json!({"a.semver": {"$gte": "1.0"}}), "", true),
    ] {
        assert_eq!(
            matches(&filter, &record(version.into())),
            expected,
            "{filter} of {version}"
        );
    }
    for value in [json!(1), json!(null), json!(["1.0.0"]), json!({"major": 1})] {
        assert!(
            !matches(&json!({"firmware.semver.gte": "0.0.0-0"}), &record(value.clone())),
            "{value}"
        );
    }
}

#[test]
fn places() {
    let record = |place: Value| Sample::new(&json!({ "location": place }));
    let office = json!({ "lat": 37.7749, "lon": -122.4194, "building": "HQ" });
    let near = json!({"location.within": {"lat": 37.775, "lon": -122.419, "radius_m": 100}});
    let bay = json!({"location": {"$within": {"south": 37, "west": -123, "north": 38.5, "east": -121.5}}});
    for filter in [&near, &bay] {
        assert!(matches(filter, &record(office.clone())), "{filter}");
        let elsewhere = [
            json!({ "lat": 37.7749, "lon": 122.4194 }),
            json!({ "lat": 37.7749 }),
            json!([37.7, -122.4]),
            json!("HQ"),
            json!(null),
        ];
        for place in elsewhere {
            assert!(!matches(filter, &record(place.clone())), "{filter} {place}");
            assert!(
                matches(&json!({ "$not": filter }), &record(place.clone())),
                "$not {filter} {place}"
            );
        }
        assert!(!matches(filter, &Sample::new(&json!({}))));
    }
}

#[test]
fn addresses() {
    let record = |address: Value| Sample::new(&json!({ "address": address }));
    let private = json!({"address.cidr": "10.0.0.0/8"});
    for (address, expected) in [
        (json!("10.1.2.3"), true),
        (json!("::ffff:10.1.2.3"), true),
        (json!("11.1.2.3"), false),
        (json!("10.1.2.3:80"), false),
        (json!("10.1.2"), false),
        (json!(10), false),
        (json!(["10.1.2.3"]), false),
        (json!(null), false),
    ] {
        assert_eq!(matches(&private, &record(address.clone())), expected, "{address}");
        assert_eq!(matches(&json!({"$not": private}), &record(address)), !expected);
    }
    assert!(matches(
        &json!({"address": {"$cidr": "::/0"}}),
        &record(json!("2001:db8::1"))
    ));
    assert!(!matches(&json!({"$identity.cidr": "::/0"}), &device()));
}

/// Relative to 2 s after the beginning of 1970.
#[test]
fn relative_times() {
    let record = |seen: Value| Sample::new(&json!({ "seen": seen }));
    for (filter, seen, expected) in [
        (json!({"seen.gt": "now-1s"}), json!(1_001), true),
        (json!({"seen.gt": "now-1s"}), json!(1_000), false),
        (json!({"seen.gte": "now-1s"}), json!(1_000), true),
        (
            json!({"seen": {"$gte": "now-1s", "$lt": "now"}}),
            json!(1_999.5),
            true,
        ),
        (json!({"seen": {"$lt": "now"}}), json!(2_000), false),
        (json!({"seen.lte": "now"}), json!("1970-01-01T00:00:02Z"), true),
        (json!({"seen.lt": "now"}), json!("1970-01-01T00:00:02Z"), false),
        (
            json!({"seen.lt": "now"}),
            json!("1970-01-01T01:00:01.999999999+01:00"),
            true,
        ),
        (json!({"seen.gt": "now-1w"}), json!("later"), false),
        (json!({"seen.lt": "now+1w"}), json!("2"), false),
        (json!({"seen.lt": "now+1w"}), json!(null), false),
        (json!({"seen.lt": "now+1w"}), json!([1]), false),
        // Texts, which are no times.
        (json!({"seen": "now"}), json!("now"), true),
        (json!({"seen.in": ["now-1s"]}), json!("now-1s"), true),
        (json!({"seen.startswith": "now"}), json!("now-1s"), true),
        (json!({"seen.gte": "now\0"}), json!("nowhere"), true),
        (json!({"seen.lt": "nowadays"}), json!("now"), true),
        (json!({"$identity.gt": "now"}), json!(1), true),
    ] {
        assert_eq!(
            matches(&filter, &record(seen.clone())),
            expected,
            "{filter} of {seen}"
        );
    }
    let device = device();
    for (filter, expected) in [
        (json!({"$registered_at.lt": "now"}), true),
        (json!({"$registered_at.gte": "now-999ms"}), false),
        (json!({"$updated_at.lte": "now"}), true),
        (json!({"$updated_at.lt": "now"}), false),
        (json!({"$expires_at": {"$gt": "now", "$lte": "now+1s"}}), true),
        (json!({"$not": {"$expires_at.gt": "now+1s"}}), true),
    ] {
        assert_eq!(matches(&filter, &device), expected, "{filter}");
    }
}

/// Short and long byte strings are compared in different ways.
#[test]
fn every_byte_of_keys_and_values_counts() {
    for length in 1..70 {
        let text = "x".repeat(length);
        let record = Sample::new(&json!({&text: text, "other": 1}));
        assert!(matches(&json!({&text: text}), &record), "{length}");
        for changed in 0..length {
            let mut other = text.clone();
            other.replace_range(changed..=changed, "y");
            assert!(!matches(&json!({&text: other}), &record), "{length} {changed}");
            assert!(!matches(&json!({&other: text}), &record), "{length} {changed}");
        }
    }
}
