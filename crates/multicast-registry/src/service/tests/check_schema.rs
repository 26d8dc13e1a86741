//! `CheckSchema` as a client sees it.

use prism_core::failure::Reason;
use prism_proto::pattern::{self as proto, check_schema_response::Progress};
use serde_json::{Value, json};

use super::{Fixture, failure, fixture, to};
use crate::schema::Schema;

fn asked(schema: Option<Value>, limit: u32) -> proto::CheckSchemaRequest {
    let fields = schema.map(|tree| {
        let document = prism_filter::Document::from_value(&tree).unwrap();
        document.to_proto()
    });
    proto::CheckSchemaRequest {
        schema: fields.map(|fields| prost_types::Struct { fields }),
        limit,
    }
}

/// Violations as `identity field`, and the last word.
async fn check(fixture: &Fixture, request: proto::CheckSchemaRequest) -> (Vec<String>, Progress) {
    let mut client = fixture.client().await;
    let mut answers = client
        .check_schema(to("test", request))
        .await
        .unwrap()
        .into_inner();
    let (mut violations, mut last) = (Vec::new(), Progress::default());
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(!last.done, "nothing comes after the end");
        match answer.progress {
            Some(progress) => {
                assert!(answer.identity.is_empty() && progress.checked >= last.checked);
                last = progress;
            }
            None => {
                assert!(answer.violation.contains(&answer.field), "{answer:?}");
                violations.push(format!("{} {}", answer.identity, answer.field));
            }
        }
    }
    assert!(last.done);
    (violations, last)
}

#[tokio::test]
async fn every_violation_is_told_and_counted() {
    let fixture = fixture(|_| {});
    fixture.service_registers(&["a", "b", "c"]).await;
    let schema = json!({ "fields": {
        "name": { "type": "string", "required": true },
        "level": { "type": "int", "required": true },
    } });
    let (violations, last) = check(&fixture, asked(Some(schema.clone()), 0)).await;
    assert_eq!(
        violations,
        ["a level", "a name", "b level", "b name", "c level", "c name"]
    );
    assert_eq!((last.checked, last.nonconforming, last.total), (3, 3, 3));
    let head = fixture.coordinator.directory().head();
    let began = last.position.unwrap();
    assert_eq!((began.epoch, began.revision), (head.epoch.0, head.revision.0));
    // Fewer are told, and all are counted.
    let (violations, last) = check(&fixture, asked(Some(schema), 3)).await;
    assert_eq!(violations, ["a level", "a name", "b level"]);
    assert_eq!((last.checked, last.nonconforming), (3, 3));
}

/// Without a schema of its own, the call means the namespace's.
#[tokio::test]
async fn the_namespaces_own_schema_is_checked_by_default() {
    let fixture = fixture(|_| {});
    fixture.service_registers(&["a"]).await;
    let mut client = fixture.client().await;
    let none = client.check_schema(to("test", asked(None, 0))).await.unwrap_err();
    assert_eq!(failure(&none).reason, Reason::Unsupported);
    let mut config = (*fixture.coordinator.config()).clone();
    config.schema = Some(Schema::read(&json!({ "primary_key": "id", "id": "string" })).unwrap());
    fixture.coordinator.reconfigure(config);
    let (violations, _) = check(&fixture, asked(None, 0)).await;
    assert_eq!(violations, ["a id"]);
}

#[tokio::test]
async fn a_schema_that_makes_no_sense_is_refused_by_field() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    for (schema, field) in [
        (json!({ "a": "sting" }), "schema.a"),
        (
            json!({ "fields": { "a": { "type": "int", "items": "int" } } }),
            "schema.fields.a.items",
        ),
        (
            json!({ "fields": { "a": "array[".repeat(50_000) } }),
            "schema.fields.a",
        ),
    ] {
        let refused = client.check_schema(to("test", asked(Some(schema), 0))).await;
        let told = failure(&refused.unwrap_err());
        assert_eq!(
            (told.reason, told.details["field"].as_str()),
            (Reason::InvalidRequest, field)
        );
    }
}
