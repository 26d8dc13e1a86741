//! What schemas let through, and what they say about the rest.

mod properties;

use prism_filter::{Document, Path};
use serde_json::{Value, json};

use super::{Occasion, Schema, Violation};

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
        ("integer", json!(-3), json!("3")),
        ("number", json!(1e300), json!([1])),
        ("double", json!(0), json!(null)),
        ("bool", json!(false), json!(0)),
        ("array[int]", json!([]), json!([1.5])),
        ("array[enum[a, b]]", json!(["b", "b"]), json!(["c"])),
        ("array[array[int]]", json!([[1], []]), json!([1])),
        (
            "array[geo_point]",
            json!([{ "lat": 0, "lon": 180 }]),
            json!([{ "lat": 0 }]),
        ),
        ("array[object]", json!([{}]), json!([[]])),
    ];
    for (kind, good, bad) in cases {
        let schema = json!({ "field": kind });
        assert_eq!(
            complete(&schema, &json!({ "field": good })),
            Ok(json!({ "field": good })),
            "{kind}"
        );
        let refused = complete(&schema, &json!({ "field": bad })).expect_err(kind);
        assert!(refused.starts_with("the field `field"), "{refused}");
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

/// What is in an object concerns an object that is there.
#[test]
fn nested_fields_are_checked_and_filled_where_their_object_is() {
    let schema = json!({ "fields": { "place": { "type": "object", "additional": false, "fields": {
        "floor": { "type": "int", "required": true },
        "wing": { "type": "enum", "values": ["north", "south"], "default": "north" },
        "at": { "type": "object", "fields": { "seen": { "type": "timestamp", "auto": "now" } } },
    } } } });
    assert_eq!(
        complete(&schema, &json!({})),
        Ok(json!({})),
        "no object, nothing to ask of it"
    );
    assert_eq!(
        complete(&schema, &json!({ "place": { "floor": 3 } })),
        Ok(json!({ "place": { "floor": 3, "wing": "north" } }))
    );
    assert_eq!(
        complete(
            &schema,
            &json!({ "place": { "floor": 3, "wing": "south", "at": {} } })
        ),
        Ok(json!({ "place": { "floor": 3, "wing": "south", "at": { "seen": 1_700_000_000_000_i64 } } }))
    );
    let refused = |place: Value| complete(&schema, &json!({ "place": place })).unwrap_err();
    assert_eq!(
        refused(json!({})),
        "the field `place.floor` is required and missing"
    );
    assert_eq!(
        refused(json!({ "floor": 1, "room": 1 })),
        "the field `place.room` is not in the schema"
    );
    assert_eq!(refused(json!([])), "the field `place` is no object: `[]`");
}

#[test]
fn items_have_a_shape_of_their_own() {
    let schema = json!({ "fields": { "slots": { "type": "array", "max_length": 3, "items": {
        "type": "object", "additional": false, "fields": {
            "name": { "type": "string", "required": true, "max_length": 4 },
            "tags": "array[string]",
        },
    } } } });
    let slots = |items: Value| complete(&schema, &json!({ "slots": items }));
    assert!(slots(json!([{ "name": "a", "tags": ["x"] }, { "name": "b" }])).is_ok());
    for (items, expected) in [
        (
            json!([{ "name": "a" }, {}]),
            "the field `slots[1].name` is required and missing",
        ),
        (
            json!([{ "name": "abcde" }]),
            "the field `slots[0].name` has a length of 5, the schema allows 4",
        ),
        (
            json!([{ "name": "a", "tags": ["x", 1] }]),
            "the field `slots[0].tags[1]` is no string: `1`",
        ),
        (
            json!([{ "name": "a", "x": 1 }]),
            "the field `slots[0].x` is not in the schema",
        ),
        (
            json!([{}, {}, {}, {}]),
            "the field `slots[0].name` is required and missing",
        ),
    ] {
        assert_eq!(slots(items).unwrap_err(), expected);
    }
    let short = json!({ "fields": { "names": {
        "type": "array", "items": { "type": "string", "max_length": 2 }
    } } });
    assert!(complete(&short, &json!({ "names": ["ab", "cd"] })).is_ok());
    assert!(complete(&short, &json!({ "names": ["abc"] })).is_err());
}

/// A dotted path says something about what it leads to and nothing about what is beside that, unless
/// nothing may be.
#[test]
fn dotted_paths_lead_into_objects() {
    let fields = json!({ "place.floor": "int", "place.room.name": "string", "at": "geo_point", "at.building": "string" });
    let closed = json!({ "additional": false, "fields": fields });
    let fine = json!({ "place": { "floor": 1, "room": { "name": "a" } }, "at": { "lat": 1, "lon": 2, "building": "HQ" } });
    assert_eq!(complete(&fields, &fine), Ok(fine.clone()));
    assert_eq!(complete(&closed, &fine), Ok(fine));
    for (metadata, problem) in [
        (
            json!({ "place": { "wing": 1 } }),
            "the field `place.wing` is not in the schema",
        ),
        (
            json!({ "place": { "room": { "x": 1 } } }),
            "the field `place.room.x` is not in the schema",
        ),
        (
            json!({ "place": "roof" }),
            "the field `place` must be an object, the schema has fields in it",
        ),
    ] {
        assert!(
            complete(&fields, &metadata).is_ok(),
            "{metadata}: others may be there"
        );
        assert_eq!(complete(&closed, &metadata).unwrap_err(), problem);
    }
    let wrong = complete(&fields, &json!({ "at": { "lat": 1, "lon": 2, "building": 7 } }));
    assert_eq!(wrong.unwrap_err(), "the field `at.building` is no string: `7`");
    let escaped = json!({ "a\\.b": "int" });
    let wrong = complete(&escaped, &json!({ "a.b": "x" }));
    assert_eq!(wrong.unwrap_err(), "the field `a\\.b` is no int: `\"x\"`");
}

#[test]
fn the_short_form_has_options_beside_its_fields() {
    let closed = json!({ "status": "string", "additional": false });
    assert!(complete(&closed, &json!({ "status": "on" })).is_ok());
    assert!(complete(&closed, &json!({ "x": 1 })).is_err());
    let keyed = json!({ "device_id": "string", "primary_key": "device_id" });
    assert_eq!(complete(&keyed, &json!({})), Ok(json!({ "device_id": "id-1" })));
    // As fields they are fields.
    let named = json!({ "additional": "string" });
    assert!(complete(&named, &json!({ "additional": 1, "x": 1 })).is_err());
    assert!(complete(&named, &json!({ "additional": "y", "x": 1 })).is_ok());
    // RFC-017's way to say that identities are texts.
    assert!(
        complete(
            &json!({ "primary_key": "string", "a": "int" }),
            &json!({ "a": 1 })
        )
        .is_ok()
    );
}

/// Everything that is wrong with a document, as much as is asked for.
#[test]
fn a_stored_document_is_told_everything() {
    let schema = Schema::read(&json!({ "primary_key": "id", "additional": false, "fields": {
        "id": "string",
        "level": { "type": "int", "required": true, "default": 1 },
        "tags": "array[string]",
    } }))
    .unwrap();
    let stored = Document::from_value(&json!({ "tags": [1, "a", 2], "x": 1, "y": 2 })).unwrap();
    let told = |most| {
        let found = schema.violations("id-1", &stored, most);
        found.iter().map(Violation::to_string).collect::<Vec<_>>()
    };
    let all = [
        "the field `id` is the primary key and is missing",
        "the field `level` is required and missing",
        "the field `tags[0]` is no string: `1`",
        "the field `tags[2]` is no string: `2`",
        "the field `x` is not in the schema",
        "the field `y` is not in the schema",
    ];
    assert_eq!(told(100), all);
    assert_eq!(told(3), all[..3]);
    assert!(told(0).is_empty());
    let fine = Document::from_value(&json!({ "id": "id-1", "level": 2 })).unwrap();
    assert!(schema.violations("id-1", &fine, 100).is_empty());
}

#[test]
fn what_is_indexed_is_told_by_its_whole_path() {
    let schema = Schema::read(&json!({ "fields": {
        "status": { "type": "string", "index": true },
        "note": "string",
        "place.wing": { "type": "string", "index": true },
        "room": { "type": "object", "fields": {
            "floor": { "type": "int", "index": true },
            "door.color": { "type": "string", "index": true },
        } },
    } }))
    .unwrap();
    let mut indexed: Vec<_> = schema.indexed().iter().map(Path::to_string).collect();
    indexed.sort();
    assert_eq!(indexed, ["place.wing", "room.door.color", "room.floor", "status"]);
    let kind = |path: &str| {
        schema
            .type_at(&Path::parse(path).unwrap())
            .map(ToString::to_string)
    };
    assert_eq!(kind("room.door.color").as_deref(), Some("string"));
    assert_eq!(kind("room").as_deref(), Some("object"));
    assert_eq!(
        (kind("place"), kind("room.door"), kind("elsewhere")),
        (None, None, None)
    );
}

#[test]
fn a_schema_that_makes_no_sense_is_refused() {
    let cases = [
        (json!({ "a": "enum[]" }), "a: `enum[]` has an empty value"),
        (json!({ "a": "enum" }), "a: missing key `values`"),
        (json!({ "a": "enum[x, x]" }), "a: the value `x` is given twice"),
        (
            json!({ "a": { "type": "enum", "values": [] } }),
            "a.values: an enum has at least one value",
        ),
        (
            json!({ "a": { "type": "enum[x]", "values": ["y"] } }),
            "a.values: the values already stand in the type",
        ),
        (json!({ "a": { "type": "enum", "values": [1] } }), "a.values[0]: "),
        (json!({ "a": "array[strings]" }), "a: unknown type `strings`"),
        (json!({ "a": "array[enum]" }), "a: missing key `values`"),
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
            json!({ "a": { "type": "array[int]", "items": "int" } }),
            "a.items: `items` does not go with the type `array[int]`",
        ),
        (
            json!({ "a": { "type": "array", "items": { "type": "int", "default": 1 } } }),
            "a.items.default: `default` is said of a field, and not of the items of a list",
        ),
        (
            json!({ "a": { "type": "array", "items": { "type": "object", "fields": { "b": { "type": "int", "default": 1 } } } } }),
            "a.items.fields.b.default: `default` has no effect inside a list, leave it out",
        ),
        (
            json!({ "a": { "type": "int", "fields": {} } }),
            "a.fields: `fields` does not go with the type `int`",
        ),
        (
            json!({ "a": { "type": "geo_point", "additional": false } }),
            "a.additional: `additional` does not go with the type `geo_point`",
        ),
        (
            json!({ "a": { "type": "object", "fields": { "b": "sting" } } }),
            "a.fields.b: unknown type `sting`",
        ),
        (
            json!({ "a": "string", "a.b": "int" }),
            "`a` is `string`, there are no fields in it",
        ),
        (
            json!({ "a": { "type": "object", "fields": {} }, "a.b": "int" }),
            "what is in `a` stands among its own `fields`",
        ),
        (
            json!({ "a": "string", "metadata.a": "int" }),
            "the same field is given as",
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
            json!({ "a": { "type": "timestamp", "auto": "now", "default": 1 } }),
            "a.default: an automatic field is always written",
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
            json!({ "a": { "type": "object", "fields": { "b": "int" }, "default": { "b": "x" } } }),
            "a.default: the default is wrong: the field `b` is no int",
        ),
        (json!({ "a": 7 }), "a: "),
        (json!([]), ""),
        (
            json!({ "$identity": "string" }),
            "$identity: `$identity` is a system field",
        ),
        (
            json!({ "primary_key": "b", "fields": { "a": "string" } }),
            "primary_key: there is no field `b`",
        ),
        (
            json!({ "primary_key": "a", "fields": { "a": "int" } }),
            "primary_key: the field `a` must have the type `string`",
        ),
    ];
    for (schema, expected) in cases {
        let message = Schema::read(&schema).expect_err(&schema.to_string()).to_string();
        assert!(
            message.contains(expected),
            "\n     got {message}\nexpected {expected}"
        );
    }
}

/// Whoever can name a schema cannot make reading it or checking by it expensive.
#[test]
fn a_schema_is_bounded_in_every_direction() {
    let refused = |schema: Value| Schema::read(&schema).unwrap_err().to_string();
    let brackets = format!("{}int{}", "array[".repeat(100_000), "]".repeat(100_000));
    assert!(refused(json!({ "a": brackets })).contains("nested deeper"));
    let objects = |depth| {
        (0..depth).fold(
            json!("int"),
            |inner, _| json!({ "type": "object", "fields": { "a": inner } }),
        )
    };
    assert!(refused(json!({ "a": objects(24) })).contains("nested deeper"));
    assert!(Schema::read(&json!({ "a": objects(22) })).is_ok());
    let lists = (0..30).fold(
        json!("int"),
        |inner, _| json!({ "type": "array", "items": inner }),
    );
    assert!(refused(json!({ "a": lists })).contains("nested deeper"));
    let wide: serde_json::Map<_, _> = (0..1_001).map(|n| (format!("f{n}"), json!("int"))).collect();
    assert!(refused(Value::Object(wide.clone())).contains("at most 1000 fields"));
    let nested = json!({ "a": { "type": "object", "fields": wide } });
    assert!(refused(nested).contains("at most 1000 fields"));
    let values: Vec<_> = (0..1_001).map(|n| n.to_string()).collect();
    assert!(refused(json!({ "a": format!("enum[{}]", values.join(",")) })).contains("at most 1000 values"));
}
