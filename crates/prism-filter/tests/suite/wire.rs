//! The protobuf forms.

use std::collections::{BTreeMap, HashMap};

use prism_filter::{Document, DocumentError, Error, Filter, Limits, Operator};
use prism_proto::pattern::{
    Clause, EnumerateResponse, Filter as Message, FilterList, Identity, clause, filter::Node,
};
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use serde_json::json;

fn message(node: Node) -> Message {
    Message { node: Some(node) }
}

fn string(text: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.into())),
    }
}

fn number(number: f64) -> Value {
    Value {
        kind: Some(Kind::NumberValue(number)),
    }
}

fn clause(field: &str, operator: clause::Operator, operand: Value) -> Message {
    message(Node::Clause(Clause {
        field: field.into(),
        operator: operator.into(),
        operand: Some(operand),
    }))
}

fn list(filters: Vec<Message>) -> FilterList {
    FilterList { filters }
}

fn expression(json: serde_json::Value) -> Message {
    let fields: BTreeMap<_, _> = Document::from_value(&json).unwrap().to_proto();
    message(Node::Expression(Struct { fields }))
}

fn read(message: &Message) -> Result<Filter, Error> {
    Filter::from_proto(message, &Limits::default())
}

#[test]
fn each_form_says_the_same() {
    let nested = message(Node::Or(list(vec![
        clause("battery", clause::Operator::Lt, number(0.2)),
        message(Node::Not(Box::new(clause(
            "metadata.status",
            clause::Operator::Eq,
            string("online"),
        )))),
        expression(json!({"tags.contains": "beta"})),
    ])));
    let expected = Filter::or([
        Filter::new().lt("battery", 0.2),
        Filter::not(Filter::new().eq("status", "online")),
        Filter::new().contains("tags", "beta"),
    ]);
    assert_eq!(read(&nested).unwrap(), expected);
    assert_eq!(read(&expression(expected.to_json())).unwrap(), expected);
    assert_eq!(read(&expected.to_proto().unwrap()).unwrap(), expected);
}

#[test]
fn every_operator_crosses_the_wire() {
    for &operator in Operator::ALL {
        let operand = match operator {
            Operator::In | Operator::Nin => json!(["a"]),
            Operator::Exists => json!(false),
            Operator::Type => json!("array"),
            Operator::Within => json!({"lat": 1, "lon": 2, "radius_m": 3}),
            Operator::Cidr => json!("10.0.0.0/8"),
            operator if operator.as_str().starts_with("semver.") => json!("1.0.0"),
            _ => json!("a"),
        };
        let filter = Filter::new().clause("a.b", operator, operand);
        assert_eq!(read(&filter.to_proto().unwrap()), Ok(filter));
    }
}

#[test]
fn an_asterisk_in_a_clause_is_one() {
    let literal = clause("a", clause::Operator::Eq, string("*"));
    assert_eq!(read(&literal).unwrap().to_json(), json!({"a": {"$eq": "*"}}));
    assert_eq!(
        read(&expression(json!({"a": "*"}))).unwrap().to_json(),
        json!({"a": {"$exists": true}})
    );
}

#[test]
fn unset_means_everything_only_as_a_whole() {
    assert!(read(&Message::default()).unwrap().is_empty());
    assert!(read(&message(Node::And(list(vec![])))).unwrap().is_empty());
    let unset = |clause: &str, part| Error::Unset {
        clause: clause.into(),
        part,
    };
    let known = clause("a", clause::Operator::Eq, number(1.0));
    let in_list = message(Node::Or(list(vec![known.clone(), Message::default()])));
    assert_eq!(read(&in_list), Err(unset("$or[1]", "condition")));
    let in_not = message(Node::And(list(vec![message(Node::Not(Box::default()))])));
    assert_eq!(read(&in_not), Err(unset("$and[0].$not", "condition")));
    let no_operator = clause("a", clause::Operator::Unspecified, number(1.0));
    assert_eq!(read(&no_operator), Err(unset("a", "operator")));
    let no_operand = Clause {
        field: "a".into(),
        operator: clause::Operator::Eq.into(),
        operand: None,
    };
    assert_eq!(
        read(&message(Node::Clause(no_operand))),
        Err(unset("a", "operand"))
    );
    let unknown = Clause {
        field: "a".into(),
        operator: 99,
        operand: Some(number(1.0)),
    };
    assert!(matches!(
        read(&message(Node::Clause(unknown))),
        Err(Error::UnknownOperator { operator, .. }) if operator == "99"
    ));
    let no_kind = clause("a", clause::Operator::Eq, Value { kind: None });
    assert_eq!(
        read(&no_kind),
        Err(Error::Operand {
            clause: "a".into(),
            source: DocumentError::Unset { path: String::new() }
        })
    );
}

#[test]
fn clauses_are_checked_like_those_of_json() {
    let error = |message| read(&message).unwrap_err();
    assert!(matches!(
        error(clause("a..b", clause::Operator::Eq, number(1.0))),
        Error::Path { .. }
    ));
    assert!(matches!(
        error(clause("a", clause::Operator::Lt, Value::from(true))),
        Error::WrongOperand { .. }
    ));
    assert!(matches!(
        error(clause("a", clause::Operator::Eq, number(f64::NAN))),
        Error::Operand { .. }
    ));
    assert!(matches!(
        error(clause("a", clause::Operator::Eq, string(&"x".repeat(70_000)))),
        Error::TooLarge { part: "operand", .. }
    ));
    let long = prost_types::ListValue {
        values: vec![number(1.0); 70_000],
    };
    assert!(matches!(
        error(clause(
            "a",
            clause::Operator::In,
            Value {
                kind: Some(Kind::ListValue(long))
            }
        )),
        Error::TooLarge { part: "operand", .. }
    ));
    assert!(matches!(
        error(expression(json!({"a.lt": null}))),
        Error::WrongOperand { .. }
    ));
    let huge = (0..300_000)
        .map(|index| (format!("f{index}"), number(1.0)))
        .collect();
    assert!(matches!(
        error(message(Node::Expression(Struct { fields: huge }))),
        Error::Unreadable { .. }
    ));
}

#[test]
fn hostile_messages_are_refused_before_they_are_followed() {
    let deep = |wrap: fn(Message) -> Node, levels: usize| {
        (0..levels).fold(clause("a", clause::Operator::Eq, number(1.0)), |inner, _| {
            message(wrap(inner))
        })
    };
    let nest = [
        |inner| Node::Not(Box::new(inner)),
        |inner| Node::And(list(vec![inner])),
        |inner| Node::Or(list(vec![inner, expression(json!({"b": 1}))])),
    ];
    for wrap in nest {
        assert!(read(&deep(wrap, 5)).is_ok());
        assert!(matches!(
            read(&deep(wrap, 6)),
            Err(Error::TooDeep { limit: 5, .. })
        ));
        // Deep enough to overflow a stack, which is also why it is never dropped.
        let hostile = std::mem::ManuallyDrop::new(deep(wrap, 100_000));
        assert!(matches!(read(&hostile), Err(Error::TooDeep { .. })));
    }
    // An expression inside a message is as deep as both together.
    for list in ["$and", "$or"] {
        let inner = (0..3).fold(json!({"a": 1}), |inner, _| json!({list: [inner]}));
        let outer = |levels| {
            (0..levels).fold(expression(inner.clone()), |inner, _| {
                message(Node::Not(Box::new(inner)))
            })
        };
        assert!(read(&outer(2)).is_ok());
        assert!(matches!(read(&outer(3)), Err(Error::TooDeep { limit: 5, .. })));
    }
    let known = clause("a", clause::Operator::Eq, number(1.0));
    for wide in [
        message(Node::Or(list(vec![known; 21]))),
        message(Node::Or(list(vec![expression(json!({})); 1_000]))),
        message(Node::And(list(vec![message(Node::And(list(vec![]))); 21]))),
    ] {
        assert!(matches!(read(&wide), Err(Error::TooManyClauses { .. })));
    }
}

#[test]
fn metadata_crosses_the_wire() {
    let document = Document::from_value(&json!({
        "n": null, "t": true, "d": 1.5, "s": "x", "a": [1, {"k": []}], "o": {"": {}}
    }))
    .unwrap();
    let hashed: HashMap<String, Value> = document.to_proto();
    assert_eq!(Document::from_proto(&hashed), Ok(document.clone()));
    let ordered: BTreeMap<String, Value> = document.to_proto();
    assert_eq!(Document::from_proto(&ordered), Ok(document));
}

#[test]
fn metadata_that_no_document_holds_is_refused_with_its_path() {
    let refused = |value| Document::from_proto(&HashMap::from([("a".to_owned(), value)])).unwrap_err();
    let list = |values| Value {
        kind: Some(Kind::ListValue(prost_types::ListValue { values })),
    };
    assert_eq!(
        refused(Value { kind: None }),
        DocumentError::Unset { path: "a".into() }
    );
    let infinite = list(vec![number(1.0), number(f64::INFINITY)]);
    assert_eq!(
        refused(infinite),
        DocumentError::NotFinite {
            path: "a[1]".into(),
            number: "inf".into()
        }
    );
    let deep = (0..1_000).fold(number(1.0), |inner, _| list(vec![inner]));
    assert!(matches!(
        refused(deep),
        DocumentError::TooDeep {
            limit: Document::MAX_DEPTH,
            ..
        }
    ));
}

#[test]
fn the_deepest_metadata_passes_a_decoder() {
    let deepest = (1..Document::MAX_DEPTH).fold(json!({}), |inner, _| json!({"a": inner}));
    let metadata = Document::from_value(&deepest).unwrap().to_proto();
    let sent = EnumerateResponse {
        identities: vec![Identity {
            metadata,
            ..Identity::default()
        }],
        ..EnumerateResponse::default()
    };
    let received = EnumerateResponse::decode(&*sent.encode_to_vec());
    assert_eq!(received, Ok(sent));
}
