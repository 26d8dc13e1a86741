//! What schemas let through, and what they say about the rest.

use prism_filter::Document;
use serde_json::{Value, json};

use super::{Occasion, Schema};

fn complete(schema: &Value, metadata: &Value) -> Result<Value, String> {
    complete_on(Occasion::Registered, schema, metadata)
}

fn complete_on(occasion: Occasion, schema: &Value, metadata: &Value) -> Result<Value, String> {
    let schema = Schema::read(schema).map_err(|error| error.to_string())?;
    let document = Document::from_value(metadata).unwrap();
    let done = schema.complete("id-1", document, 1_700_000_000_000, occasion);
    done.map(|document| document.to_value())
        .map_err(|violation| violation.to_string())
}

#[test]
fn every_type_takes_its_values_and_no_others() {
    let cases = [
        ("string", json!("x"), json!(1)),
        ("int", json!(3), json!(3.5)),
        ("float", json!(3.5), json!("3.5")),
        ("boolean", json!(true), json!("true")),
        ("enum[on, off]", json!("off"), json!("of")),
        ("timestamp", json!("2026-01-02T03:04:05Z"), json!("yesterday")),
        ("timestamp", json!(1_700_000_000_000_i64), json!(true)),
        (
            "geo_point",
            json!({ "lat": 37.7, "lon": -122.4, "building": "HQ" }),
            json!({ "lat": 91, "lon": 0 }),
        ),
        ("array", json!([1, "a"]), json!({})),
        ("array[string]", json!(["a"]), json!(["a", 1])),
        ("object", json!({ "a": 1 }), json!([])),
    ];
    for (kind, good, bad) in cases {
        let schema = json!({ "field": kind });
        assert_eq!(
            complete(&schema, &json!({ "field": good })),
            Ok(json!({ "field": good })),
            "{kind}"
        );
        let refused = complete(&schema, &json!({ "field": bad })).expect_err(kind);
        assert!(refused.starts_with("the field `field` "), "{refused}");
        assert_eq!(
            complete(&schema, &json!({})),
            Ok(json!({})),
            "short-form fields are optional"
        );
        let null = complete(&schema, &json!({ "field": null }));
        assert!(null.is_err(), "null is a value, and no {kind}");
    }
}

#[test]
fn defaults_and_times_are_written_where_they_are_missing() {
    let schema = json!({ "fields": {
        "status": { "type": "enum", "values": ["online", "offline"], "default": "offline" },
        "seen": { "type": "timestamp", "auto": "now" },
        "place.floor": { "type": "int", "default": 0 },
    } });
    let filled = complete(&schema, &json!({ "seen": 1, "other": [] })).unwrap();
    let expected =
        json!({ "status": "offline", "seen": 1_700_000_000_000_i64, "place": { "floor": 0 }, "other": [] });
    assert_eq!(filled, expected);
    let kept = complete(&schema, &json!({ "status": "online", "place": { "floor": 7 } })).unwrap();
    assert_eq!(
        (&kept["status"], &kept["place"]["floor"]),
        (&json!("online"), &json!(7))
    );
    let blocked = complete(&schema, &json!({ "place": "roof" })).unwrap_err();
    assert_eq!(
        blocked,
        "the field `place.floor` cannot be filled in, what holds it is no object"
    );
}

#[test]
fn an_automatic_field_is_written_at_registration_and_stays() {
    let schema = json!({ "fields": { "seen": { "type": "timestamp", "auto": "now" } } });
    let updated = |metadata| complete_on(Occasion::Updated, &schema, &metadata);
    assert_eq!(
        complete(&schema, &json!({ "seen": 1 })),
        Ok(json!({ "seen": 1_700_000_000_000_i64 })),
        "whatever the client says"
    );
    assert_eq!(updated(json!({ "seen": 1 })), Ok(json!({ "seen": 1 })));
    assert_eq!(updated(json!({})), Ok(json!({ "seen": 1_700_000_000_000_i64 })));
}

#[test]
fn required_long_and_foreign_fields_are_refused() {
    let schema = json!({ "additional": false, "fields": {
        "name": { "type": "string", "required": true, "max_length": 3 },
        "tags": { "type": "array", "items": "string", "max_length": 2 },
    } });
    assert_eq!(
        complete(&schema, &json!({})),
        Err("the field `name` is required and missing".into())
    );
    let long = complete(&schema, &json!({ "name": "éééé" })).unwrap_err();
    assert_eq!(long, "the field `name` has a length of 4, the schema allows 3");
    assert!(complete(&schema, &json!({ "name": "ééé", "tags": ["a", "b", "c"] })).is_err());
    let foreign = complete(&schema, &json!({ "name": "a", "x": 1 })).unwrap_err();
    assert_eq!(foreign, "the field `x` is not in the schema");
}

#[test]
fn the_primary_key_repeats_the_identity() {
    let schema = json!({ "primary_key": "device_id", "fields": { "device_id": { "type": "string" } } });
    assert_eq!(complete(&schema, &json!({})), Ok(json!({ "device_id": "id-1" })));
    assert_eq!(
        complete(&schema, &json!({ "device_id": "id-1" })),
        Ok(json!({ "device_id": "id-1" }))
    );
    assert!(complete(&schema, &json!({ "device_id": "id-2" })).is_err());
}

#[test]
fn a_schema_that_makes_no_sense_is_refused() {
    let cases = [
        (json!({ "a": "enum[]" }), "a: `enum[]` has an empty value"),
        (json!({ "a": "enum" }), "a: missing key `values`"),
        (json!({ "a": "array[strings]" }), "a: unknown type `strings`"),
        (
            json!({ "a": "array[string" }),
            "a: `array[string` has no closing `]`",
        ),
        (
            json!({ "a": { "type": "int", "values": ["x"] } }),
            "a.values: `values` does not go with the type `int`",
        ),
        (
            json!({ "a": { "type": "int", "items": "int" } }),
            "a.items: `items` does not go with the type `int`",
        ),
        (
            json!({ "a": { "type": "int", "auto": "now" } }),
            "a.auto: only a `timestamp` can be automatic",
        ),
        (
            json!({ "a": { "type": "timestamp", "auto": "later" } }),
            "a.auto: unknown value `later`",
        ),
        (
            json!({ "a": { "type": "int", "max_length": 3 } }),
            "a.max_length: only a `string` or `array`",
        ),
        (
            json!({ "a": { "type": "int", "requird": true } }),
            "a.requird: unknown key `requird`, did you mean `required`?",
        ),
        (
            json!({ "$identity": "string" }),
            "$identity: `$identity` is a system field",
        ),
        (
            json!({ "primary_key": "b", "fields": { "a": "string" } }),
            "primary_key: there is no field `b`",
        ),
    ];
    for (schema, expected) in cases {
        let message = Schema::read(&schema).unwrap_err().to_string();
        assert!(
            message.contains(expected),
            "\n     got {message}\nexpected {expected}"
        );
    }
}
