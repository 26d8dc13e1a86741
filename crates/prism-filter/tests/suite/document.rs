//! Documents: what they accept, how they read, what they refuse.

use prism_filter::{Document, DocumentError, Kind, Path, ValueRef, merge_patch};
use serde_json::{Value, json};

fn document(json: &str) -> Document {
    Document::from_json(json.as_bytes()).unwrap()
}

fn text(document: &Document) -> String {
    String::from_utf8(document.to_json()).unwrap()
}

#[test]
fn text_is_canonical() {
    for (given, canonical) in [
        ("{}", "{}"),
        (r#" { "b" : 1 , "a" : [ ] } "#, r#"{"a":[],"b":1}"#),
        (
            r#"{"a":1.0,"b":-0.0,"c":-0,"d":1e2}"#,
            r#"{"a":1,"b":0,"c":0,"d":100}"#,
        ),
        (
            r#"{"a":0.1,"b":1.5e300,"c":1e-7,"d":-2.5}"#,
            r#"{"a":0.1,"b":1.5e300,"c":1e-7,"d":-2.5}"#,
        ),
        (
            r#"{"a":9007199254740992,"b":1e18,"c":1e19}"#,
            r#"{"a":9007199254740992,"b":1000000000000000000,"c":1e19}"#,
        ),
        (
            r#"{"a":"A\n\"\\\/\u0001\ud83d\ude00"}"#,
            "{\"a\":\"A\\n\\\"\\\\/\\u0001😀\"}",
        ),
        (
            r#"{"":{"":null},"ü":true,"u":false}"#,
            r#"{"":{"":null},"u":false,"ü":true}"#,
        ),
    ] {
        let document = document(given);
        assert_eq!(text(&document), canonical);
        assert_eq!(self::document(canonical), document);
        assert_eq!(format!("{document:?}"), canonical);
    }
}

#[test]
fn every_escape_reads_back() {
    let every: String = (0..=0x7f_u8).map(char::from).chain("é€😀".chars()).collect();
    let document = Document::from_value(&json!({"a": every})).unwrap();
    assert_eq!(
        text(&document),
        serde_json::to_string(&json!({"a": every})).unwrap()
    );
    assert_eq!(Document::from_json(&document.to_json()), Ok(document));
}

#[test]
fn values_read_where_they_lie() {
    let document = document(r#"{"n":null,"t":true,"f":false,"d":1.5,"s":"x","a":[1,"y"],"o":{"k":2}}"#);
    let root = document.root();
    assert_eq!(root.iter().map(|(key, _)| key).collect::<String>(), "adfnost");
    assert_eq!((root.len(), root.is_empty()), (7, false));
    assert_eq!(root.get("n"), Some(ValueRef::Null));
    assert_eq!(root.get("t"), Some(ValueRef::Bool(true)));
    assert_eq!(root.get("f"), Some(ValueRef::Bool(false)));
    assert_eq!(root.get("d"), Some(ValueRef::Number(1.5)));
    assert_eq!(root.get("s"), Some(ValueRef::String("x")));
    assert_eq!(root.get("x"), None);
    let Some(ValueRef::Array(array)) = root.get("a") else {
        panic!()
    };
    assert_eq!((array.len(), array.is_empty(), array.get(2)), (2, false, None));
    assert_eq!(array.get(1), Some(ValueRef::String("y")));
    assert_eq!(format!("{array:?}"), r#"[1,"y"]"#);
    let Some(ValueRef::Object(object)) = root.get("o") else {
        panic!()
    };
    assert_eq!(format!("{object:?}"), r#"{"k":2}"#);
    assert_eq!(
        document.get(&Path::parse("o.k").unwrap()),
        Some(ValueRef::Number(2.0))
    );
    assert_eq!(document.get(&Path::parse("o.k.x").unwrap()), None);
    assert_eq!(document.get(&Path::parse("$identity").unwrap()), None);
}

#[test]
fn serde_sees_the_same_value() {
    let value = json!({"n": null, "t": true, "d": 1.5, "i": -3, "s": "x", "a": [1, {}], "o": {"k": 2}});
    let document = Document::from_value(&value).unwrap();
    assert_eq!(serde_json::to_value(&document).unwrap(), value);
    assert_eq!(document.to_value(), value);
    assert_eq!(serde_json::to_vec(&document).unwrap(), document.to_json());
}

#[test]
fn values_have_a_total_order() {
    let ordered = json!([
        null, false, true, -1e300, -1, 0, 0.5, 1, 1e300, "", "A", "a", "aa", "é",
        [], [1], [1, 2], [2], ["a"], {}, {"a": 1}, {"a": 1, "b": 1}, {"a": 2}, {"b": 0}
    ]);
    let document = Document::from_value(&json!({"values": ordered})).unwrap();
    let Some(ValueRef::Array(values)) = document.root().get("values") else {
        panic!()
    };
    for (left, one) in values.iter().enumerate() {
        for (right, other) in values.iter().enumerate() {
            assert_eq!(one.cmp(&other), left.cmp(&right), "{one:?} {other:?}");
            assert_eq!(one.partial_cmp(&other), Some(left.cmp(&right)));
            assert_eq!(one == other, left == right);
        }
    }
}

#[test]
fn what_is_no_document_is_refused_with_its_path() {
    let refused = |json: &str| Document::from_json(json.as_bytes()).unwrap_err();
    let inexact = |path: &str, integer: &str| DocumentError::Inexact {
        path: path.into(),
        integer: integer.into(),
    };
    assert_eq!(refused("[]"), DocumentError::NotAnObject { found: Kind::Array });
    assert_eq!(refused("1"), DocumentError::NotAnObject { found: Kind::Number });
    assert_eq!(
        refused(r#"{"a":1,"b":2,"a":1}"#),
        DocumentError::DuplicateField { path: "a".into() }
    );
    assert_eq!(
        refused(r#"{"a":[0,{"b.c":1,"b.c":2}]}"#),
        DocumentError::DuplicateField {
            path: r"a[1].b\.c".into()
        }
    );
    assert_eq!(
        refused(r#"{"a":9007199254740993}"#),
        inexact("a", "9007199254740993")
    );
    assert_eq!(
        refused(r#"{"a":{"b":[1,-9007199254740993]}}"#),
        inexact("a.b[1]", "-9007199254740993")
    );
    assert_eq!(
        refused(r#"{"a":18446744073709551615}"#),
        inexact("a", "18446744073709551615")
    );
    assert_eq!(
        refused(r#"{"x":"\"1\\","a":[1e300,{"b":18446744073709551616,"c":18446744073709551617}]}"#),
        inexact("a[1].c", "18446744073709551617")
    );
    assert_eq!(
        refused(r#"{"a":-100000000000000000000001}"#),
        inexact("a", "-100000000000000000000001")
    );
    let syntax = |json| {
        let error = refused(json);
        let DocumentError::Syntax { path, message } = &error else {
            panic!("{error:?}")
        };
        assert!(error.to_string().contains(message) && error.path() == Some(path));
        path.clone()
    };
    assert_eq!(syntax(r#"{"a":{"b":[1,x]}}"#), "a.b[1]");
    assert_eq!(syntax(r#"{"a":1e400}"#), "a");
    assert_eq!(syntax(r#"{"a":"\ud800"}"#), "a");
    assert_eq!(syntax(r#"{"a":1} 2"#), "");
    assert_eq!(syntax(""), "");
    assert!(matches!(
        Document::from_json(b"{\"a\":\"\xff\"}"),
        Err(DocumentError::Syntax { .. })
    ));
}

#[test]
fn large_numbers_that_a_double_holds_are_accepted() {
    let document = document(
        r#"{"a":18446744073709551616,"b":1e300,"c":-9223372036854775808,"d":100000000000000000000}"#,
    );
    assert_eq!(
        document.root().get("a"),
        Some(ValueRef::Number(18_446_744_073_709_551_616.0))
    );
    assert_eq!(document.root().get("d"), Some(ValueRef::Number(1e20)));
    assert_eq!(self::document(&text(&document)), document);
    assert_eq!(Document::from_value(&document.to_value()), Ok(document));
}

#[test]
fn values_in_memory_are_held_to_the_same_rules() {
    let error = Document::from_value(&json!({"a": [u64::MAX]})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`a[0]` is the integer 18446744073709551615, which a double cannot hold exactly, send it as a string"
    );
    assert_eq!(
        Document::from_value(&json!(null)),
        Err(DocumentError::NotAnObject { found: Kind::Null })
    );
    assert_eq!(
        Document::from_value(&json!({"a": -0.0})),
        Ok(document(r#"{"a":0}"#))
    );
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
    let deepest = nested(Document::MAX_DEPTH);
    assert_eq!(Document::from_value(&deepest).unwrap().to_value(), deepest);
    let too_deep = Document::from_value(&nested(Document::MAX_DEPTH + 1)).unwrap_err();
    let path = vec!["a"; Document::MAX_DEPTH].join(".");
    assert_eq!(
        too_deep,
        DocumentError::TooDeep {
            path,
            limit: Document::MAX_DEPTH
        }
    );
    let text = nested(Document::MAX_DEPTH + 1).to_string();
    assert_eq!(Document::from_json(text.as_bytes()), Err(too_deep));
    let hostile = format!(r#"{{"a":{}"#, "[".repeat(1_000_000));
    assert!(matches!(
        Document::from_json(hostile.as_bytes()),
        Err(DocumentError::TooDeep { .. })
    ));
}

#[test]
fn large_objects_and_arrays_read_like_small_ones() {
    for fields in [23, 24, 25, 26, 1_000, 70_000] {
        let value = Value::Object(
            (0..fields)
                .map(|index| (format!("k{index}"), json!(index)))
                .collect(),
        );
        let document = Document::from_value(&value).unwrap();
        assert_eq!(document.to_value(), value);
        for index in [0, 1, fields / 2, fields - 1] {
            assert_eq!(
                document.root().get(&format!("k{index}")),
                Some(ValueRef::Number(f64::from(index)))
            );
        }
        assert_eq!(document.root().get("k"), None);
        assert_eq!(document.root().get("zzz"), None);
    }
    let long = "x".repeat(70_000);
    let value = json!({"a": [long, {"b": long}, 1], "c": 2});
    let document = Document::from_json(value.to_string().as_bytes()).unwrap();
    assert_eq!(document.to_value(), value);
    assert_eq!(
        document.get(&Path::parse("c").unwrap()),
        Some(ValueRef::Number(2.0))
    );
    assert_eq!(document, Document::from_value(&value).unwrap());
}

#[test]
fn an_empty_document_is_one() {
    assert_eq!(Document::empty(), document("{}"));
    assert_eq!(Document::default().to_json(), b"{}");
    assert!(Document::empty().root().is_empty());
}

#[test]
fn memory_is_close_to_the_text() {
    let json = r#"{"battery":0.5,"capabilities":["temperature","humidity"],"device_type":"sensor","firmware_version":"1.0.3","location":{"building":"HQ","floor":3},"status":"online"}"#;
    let document = document(json);
    assert_eq!(text(&document), json);
    assert!(
        document.byte_len() <= json.len() + 20,
        "{} {}",
        document.byte_len(),
        json.len()
    );
}

#[test]
fn merge_patches_follow_the_examples_of_rfc_7396() {
    for (target, patch, result) in [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (
            r#"{"a":{"b":"c"}}"#,
            r#"{"a":{"b":"d","c":null}}"#,
            r#"{"a":{"b":"d"}}"#,
        ),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        (r#"{"a":1}"#, "{}", r#"{"a":1}"#),
        (r#"{"a":1}"#, r#"{"a":[null]}"#, r#"{"a":[null]}"#),
    ] {
        assert_eq!(
            text(&merge_patch(&document(target), &document(patch)).unwrap()),
            result,
            "{target} {patch}"
        );
    }
}
