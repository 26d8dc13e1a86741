//! Bad input: what is said, by field and by limit, and that it harms nobody.

use prism_core::failure::Failure;
use prism_proto::pattern as proto;
use prost_types::{ListValue, Value, value::Kind};
use serde_json::json;
use tonic::{Code, Status};

use super::{Client, connect, failure, fixture, namespace, registration, to};
use crate::schema::Schema;

fn number(number: f64) -> Value {
    Value {
        kind: Some(Kind::NumberValue(number)),
    }
}

fn list(values: Vec<Value>) -> Value {
    Value {
        kind: Some(Kind::ListValue(ListValue { values })),
    }
}

/// Lists inside each other.
fn nested(depth: usize) -> Value {
    (0..depth).fold(number(0.0), |inner, _| list(vec![inner]))
}

fn with(value: Value) -> proto::RegisterRequest {
    proto::RegisterRequest {
        metadata: [("field".to_owned(), value)].into(),
        ..registration("a", &json!({}))
    }
}

/// `reason field limit`, as far as there is one, of a refusal that changed nothing.
fn told<T: std::fmt::Debug>(outcome: Result<T, Status>) -> String {
    let failure = failure(&outcome.expect_err("accepted"));
    assert_eq!(failure.applied, Some(false), "{failure}");
    words(&failure)
}

fn words(failure: &Failure) -> String {
    let detail = |key: &str| failure.details.get(key).map(|value| format!(" {value}"));
    let details: String = ["field", "limit"].into_iter().filter_map(detail).collect();
    format!("{}{details}", failure.reason.as_str())
}

#[tokio::test]
async fn registrations() {
    let fixture = fixture(|config| {
        config.schema = Some(Schema::read(&json!({ "level": "int" })).unwrap());
    });
    let mut client = fixture.client().await;
    let plain = |identity: &str| registration(identity, &json!({}));
    let leased = |seconds, millis| proto::RegisterRequest {
        ttl_seconds: seconds,
        ttl_ms: millis,
        ..plain("a")
    };
    let session = |length| proto::RegisterRequest {
        session: vec![1; length],
        ..plain("a")
    };
    const LONGEST: &str = "3162240000";
    let cases = [
        (plain(""), "INVALID_IDENTITY identity 256".to_owned()),
        (plain(&"x".repeat(257)), "INVALID_IDENTITY identity 256".into()),
        (plain("a\u{1b}[0m"), "INVALID_IDENTITY identity 256".into()),
        (with(number(f64::NAN)), "INVALID_METADATA metadata.field".into()),
        (
            with(number(f64::INFINITY)),
            "INVALID_METADATA metadata.field".into(),
        ),
        (
            with(list(vec![number(1.0), number(f64::NEG_INFINITY)])),
            "INVALID_METADATA metadata.field[1]".into(),
        ),
        (
            with(Value { kind: None }),
            "INVALID_METADATA metadata.field".into(),
        ),
        (
            with(nested(30)),
            format!("INVALID_METADATA metadata.field{} 24", "[0]".repeat(23)),
        ),
        (
            with(list(vec![number(0.0); 1_000_000])),
            "INVALID_METADATA metadata 65536".into(),
        ),
        (
            registration("a", &json!({ "text": "x".repeat(65 << 10) })),
            "INVALID_METADATA metadata 65536".into(),
        ),
        (
            registration("a", &json!({ "level": "high" })),
            "INVALID_METADATA metadata.level".into(),
        ),
        (leased(Some(-1), None), "INVALID_TTL ttl_seconds".into()),
        (
            leased(Some(i64::MAX), None),
            format!("INVALID_TTL ttl_seconds {LONGEST}"),
        ),
        (leased(None, Some(-1)), "INVALID_TTL ttl_ms".into()),
        (
            leased(Some(1), Some(i64::MAX)),
            format!("INVALID_TTL ttl_ms {LONGEST}"),
        ),
        (session(15), "INVALID_REQUEST session".into()),
        (session(17), "INVALID_REQUEST session".into()),
    ];
    for (request, expected) in cases {
        assert_eq!(told(client.register(to("test", request)).await), expected);
    }
    assert_eq!(
        fixture.store.script.count(crate::testing::Op::Register),
        0,
        "none reached the slot"
    );
    assert!(client.register(to("test", plain("a"))).await.is_ok());
}

#[tokio::test]
async fn leases_where_there_is_a_longest() {
    let fixture = fixture(|config| config.behavior.ttl_max = Some(std::time::Duration::from_secs(60)));
    let mut client = fixture.client().await;
    let leased = |seconds| proto::RegisterRequest {
        ttl_seconds: seconds,
        ..registration("a", &json!({}))
    };
    for seconds in [None, Some(0), Some(61)] {
        let told = told(client.register(to("test", leased(seconds))).await);
        assert_eq!(told, "INVALID_TTL ttl_seconds 60");
    }
    assert!(client.register(to("test", leased(Some(60)))).await.is_ok());
}

#[tokio::test]
async fn renewals_updates_and_removals() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let lease = |identity: &str, generation| proto::renew_request::Lease {
        identity: identity.to_owned(),
        generation,
    };
    let half = Some(proto::Position {
        epoch: 0,
        revision: 7,
    });
    let renewals = [
        (vec![lease("a", None); 10_001], "INVALID_REQUEST leases 10000"),
        (
            vec![lease("a", None), lease("", None)],
            "INVALID_IDENTITY leases[1].identity 256",
        ),
        (
            vec![lease("a", half)],
            "INVALID_REQUEST leases[0].generation.epoch",
        ),
    ];
    for (leases, expected) in renewals {
        assert_eq!(
            told(client.renew(to("test", proto::RenewRequest { leases })).await),
            expected
        );
    }
    let update = |patch, generation| proto::UpdateRequest {
        identity: "a".into(),
        patch: [("field".to_owned(), patch)].into(),
        generation,
        if_revision: 0,
    };
    let updates = [
        (update(number(f64::NAN), None), "INVALID_METADATA patch.field"),
        (update(number(1.0), half), "INVALID_REQUEST generation.epoch"),
        (update(number(1.0), None), "NOT_FOUND"),
    ];
    for (request, expected) in updates {
        assert_eq!(told(client.update(to("test", request)).await), expected);
    }
    let removal = |identity: &str, generation| proto::UnregisterRequest {
        identity: identity.to_owned(),
        generation,
    };
    assert_eq!(
        told(client.unregister(to("test", removal("", None))).await),
        "INVALID_IDENTITY identity 256"
    );
    assert_eq!(
        told(client.unregister(to("test", removal("a", half))).await),
        "INVALID_REQUEST generation.epoch"
    );
    let read = proto::GetRequest {
        identity: String::new(),
    };
    assert_eq!(
        told(client.get(to("test", read)).await),
        "INVALID_IDENTITY identity 256"
    );
}

/// Nothing to renew is nothing wrong, and neither is one identity twice.
#[tokio::test]
async fn renewals_of_nothing_and_of_the_same() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let leased = proto::RegisterRequest {
        ttl_seconds: Some(60),
        ..registration("a", &json!({}))
    };
    client.register(to("test", leased)).await.unwrap();
    for (names, expected) in [(vec![], vec![]), (vec!["a", "b", "a"], vec![true, false, true])] {
        let lease = |name: &&str| proto::renew_request::Lease {
            identity: (*name).to_owned(),
            generation: None,
        };
        let request = proto::RenewRequest {
            leases: names.iter().map(lease).collect(),
        };
        let answer = client.renew(to("test", request)).await.unwrap().into_inner();
        let renewed: Vec<bool> = answer.results.iter().map(|result| result.success).collect();
        assert_eq!(renewed, expected);
        let error = answer.results.iter().find_map(|result| result.error.clone());
        assert_eq!(error.as_deref(), expected.contains(&false).then_some("NOT_FOUND"));
    }
}

#[tokio::test]
async fn pages() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    for name in ["a", "b", "c"] {
        let request = registration(name, &json!({ "n": name }));
        client.register(to("test", request)).await.unwrap();
    }
    let page = |pagination| proto::EnumerateRequest {
        pagination: Some(pagination),
        ..Default::default()
    };
    let limit = |limit| {
        page(proto::Pagination {
            limit,
            ..Default::default()
        })
    };
    let offset = |offset| {
        page(proto::Pagination {
            offset,
            ..Default::default()
        })
    };
    let cursor = |cursor: &str| {
        page(proto::Pagination {
            cursor: cursor.to_owned(),
            limit: 1,
            offset: 0,
        })
    };
    let sorted = |keys: &[&str]| proto::EnumerateRequest {
        sort_by: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..limit(1)
    };
    let after = |epoch, revision| proto::EnumerateRequest {
        min_position: Some(proto::Position { epoch, revision }),
        ..Default::default()
    };
    let first = client.enumerate(to("test", limit(1))).await.unwrap().into_inner();
    let (next, epoch) = (first.next_cursor.unwrap(), first.position.unwrap().epoch);
    let other_sort = proto::EnumerateRequest {
        sort_by: vec!["n".into()],
        ..cursor(&next)
    };
    let other_filter = proto::EnumerateRequest {
        filter: Some(expression(&json!({ "n": "a" }))),
        ..cursor(&next)
    };
    let cases = [
        (limit(-1), "INVALID_REQUEST pagination.limit"),
        (limit(1_001), "INVALID_REQUEST pagination.limit 1000"),
        (offset(-1), "INVALID_REQUEST pagination.offset"),
        (offset(10_001), "INVALID_REQUEST pagination.offset 10000"),
        (cursor("x"), "INVALID_CURSOR pagination.cursor"),
        (cursor(&next[1..]), "INVALID_CURSOR pagination.cursor"),
        (cursor(&"A".repeat(1 << 20)), "INVALID_CURSOR pagination.cursor"),
        (other_sort, "INVALID_CURSOR pagination.cursor"),
        (other_filter, "INVALID_CURSOR pagination.cursor"),
        (sorted(&["n upwards"]), "INVALID_REQUEST sort_by"),
        (sorted(&["n DESC"]), "INVALID_REQUEST sort_by"),
        (sorted(&[""]), "INVALID_REQUEST sort_by"),
        (sorted(&["a..b"]), "INVALID_REQUEST sort_by"),
        (sorted(&["$ttl"]), "INVALID_REQUEST sort_by"),
        (sorted(&["$expires_at"]), "INVALID_REQUEST sort_by"),
        (sorted(&["n"; 9]), "INVALID_REQUEST sort_by 8"),
        (
            sorted(&["long path with blanks ".repeat(10_000).as_str()]),
            "INVALID_REQUEST sort_by",
        ),
        (after(0, 7), "INVALID_REQUEST min_position.epoch"),
        (after(epoch, 1 << 40), "INVALID_REQUEST min_position"),
        (after(epoch ^ 1, 1), "EPOCH_CHANGED"),
        (
            proto::EnumerateRequest {
                consistency: 7,
                ..Default::default()
            },
            "INVALID_REQUEST consistency",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(told(client.enumerate(to("test", request)).await), expected);
    }
    // What is not there sorts, before everything else.
    let missing = client
        .enumerate(to("test", sorted(&["nowhere desc", "n desc"])))
        .await
        .unwrap();
    assert_eq!(missing.into_inner().identities[0].identity, "c");
    assert!(client.enumerate(to("test", cursor(&next))).await.is_ok());
}

/// Cursors of one namespace are nothing to another one, even where everything else is the same.
#[tokio::test]
async fn cursors_of_another_namespace() {
    let fixture = fixture(|_| {});
    fixture.namespaces.insert(namespace("other", |_| {}).0);
    let mut client = fixture.client().await;
    for name in ["test", "other"] {
        for identity in ["a", "b"] {
            client
                .register(to(name, registration(identity, &json!({}))))
                .await
                .unwrap();
        }
    }
    let mut request = proto::EnumerateRequest {
        pagination: Some(proto::Pagination {
            limit: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    let first = client
        .enumerate(to("test", request.clone()))
        .await
        .unwrap()
        .into_inner();
    request.pagination.as_mut().unwrap().cursor = first.next_cursor.unwrap();
    let told = told(client.enumerate(to("other", request)).await);
    assert_eq!(told, "INVALID_CURSOR pagination.cursor");
}

fn expression(filter: &serde_json::Value) -> proto::Filter {
    let document = prism_filter::Document::from_value(filter).unwrap();
    let fields = document.to_proto();
    proto::Filter {
        node: Some(proto::filter::Node::Expression(prost_types::Struct { fields })),
    }
}

#[tokio::test]
async fn filters() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let deep = (0..6).fold(json!({ "a": 1 }), |inner, _| json!({ "$not": inner }));
    let many: Vec<_> = (0..21).map(|number| json!({ "a": number })).collect();
    let values: Vec<_> = (0..1_001).collect();
    let cases = [
        (deep, "INVALID_FILTER filter 5"),
        (json!({ "$or": many }), "INVALID_FILTER filter 20"),
        (json!({ "a.in": values }), "INVALID_FILTER filter 1000"),
        (json!({ "a.regex": "x".repeat(300) }), "INVALID_FILTER filter 256"),
        (json!({ "a.regex": "(" }), "INVALID_FILTER filter"),
        (
            json!({ "a.eq": "x".repeat(70_000) }),
            "INVALID_FILTER filter 65536",
        ),
        (json!({ "$xor": [] }), "INVALID_FILTER filter"),
        (json!({ "a": { "$near": 1 } }), "INVALID_FILTER filter"),
        (json!({ "a.lt": [1] }), "INVALID_FILTER filter"),
        (json!({ "a.startswith": 3 }), "INVALID_FILTER filter"),
        (
            json!({ "$registered_at.gt": "yesterday" }),
            "INVALID_FILTER filter",
        ),
    ];
    for (filter, expected) in cases {
        let filter = Some(expression(&filter));
        let request = proto::EnumerateRequest {
            filter: filter.clone(),
            ..Default::default()
        };
        assert_eq!(told(client.enumerate(to("test", request)).await), expected);
        let request = proto::MulticastRequest {
            filter,
            ..Default::default()
        };
        assert_eq!(told(client.multicast(to("test", request)).await), expected);
    }
}

#[tokio::test]
async fn multicasts() {
    let fixture = fixture(|config| config.behavior.max_payload_bytes = Some(1_000));
    let mut client = fixture.client().await;
    let plain = proto::MulticastRequest::default;
    let cases = [
        (
            proto::MulticastRequest {
                payload: vec![0; 1_001].into(),
                ..plain()
            },
            "PAYLOAD_TOO_LARGE payload 1000",
        ),
        (
            proto::MulticastRequest {
                timeout_ms: Some(0),
                ..plain()
            },
            "INVALID_REQUEST timeout_ms",
        ),
        (
            proto::MulticastRequest {
                content_type: Some("text/plain\r\nX-Forged: yes".into()),
                ..plain()
            },
            "INVALID_REQUEST content_type",
        ),
        (
            proto::MulticastRequest {
                delivery: Some(9),
                ..plain()
            },
            "INVALID_REQUEST delivery",
        ),
        (
            proto::MulticastRequest {
                delivery: Some(proto::DeliverySemantics::ExactlyOnce.into()),
                ..plain()
            },
            "UNSUPPORTED",
        ),
        (
            proto::MulticastRequest {
                consistency: -1,
                ..plain()
            },
            "INVALID_REQUEST consistency",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(told(client.multicast(to("test", request)).await), expected);
    }
}

#[tokio::test]
async fn subscriptions() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let open = |identity: &str, generation| proto::SubscribeRequest {
        message: Some(proto::subscribe_request::Message::Open(
            proto::subscribe_request::Open {
                identity: identity.to_owned(),
                generation,
                ..Default::default()
            },
        )),
    };
    let half = Some(proto::Position {
        epoch: 0,
        revision: 7,
    });
    let cases = [
        (vec![], "INVALID_REQUEST open"),
        (
            vec![proto::SubscribeRequest { message: None }],
            "INVALID_REQUEST open",
        ),
        (vec![open("", None)], "INVALID_IDENTITY open.identity 256"),
        (vec![open("a", half)], "INVALID_REQUEST open.generation.epoch"),
        (vec![open("a", None)], "NOT_FOUND"),
    ];
    for (requests, expected) in cases {
        let request = to("test", tokio_stream::iter(requests));
        assert_eq!(told(client.subscribe(request).await), expected);
    }
    client
        .register(to("test", registration("a", &json!({}))))
        .await
        .unwrap();
    let twice = to("test", tokio_stream::iter(vec![open("a", None), open("a", None)]));
    let mut session = client.subscribe(twice).await.unwrap().into_inner();
    assert!(session.message().await.unwrap().is_some(), "opened");
    assert_eq!(told(session.message().await), "INVALID_REQUEST open");
}

/// What never becomes a message of ours is refused in the same words as what does.
#[tokio::test]
async fn what_cannot_be_decoded() {
    let fixture = fixture(|_| {});
    let address = fixture.serve().await;
    let mut client = Client::new(connect(address).await);
    let deep = client.register(to("test", with(nested(60)))).await.unwrap_err();
    assert_eq!(deep.code(), Code::InvalidArgument);
    assert!(deep.message().contains("cannot be read"), "{deep:?}");
    assert_eq!(told(Err::<(), _>(deep)), "INVALID_REQUEST");
    let large = registration("a", &json!({ "text": "x".repeat(17 << 20) }));
    assert_eq!(
        told(client.register(to("test", large)).await),
        "PAYLOAD_TOO_LARGE 16777216"
    );

    let mut raw = tonic::client::Grpc::new(connect(address).await);
    raw.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/prism.pattern.MulticastRegistryPattern/Guess");
    let codec = tonic_prost::ProstCodec::<proto::GetRequest, proto::GetResponse>::default();
    let guessed = raw
        .unary(to("test", proto::GetRequest::default()), path, codec)
        .await;
    assert_eq!(told(guessed), "NOT_IMPLEMENTED");
    assert!(
        client
            .register(to("test", registration("a", &json!({}))))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn namespaces() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let read = || proto::GetRequest { identity: "a".into() };
    let unnamed = client.get(tonic::Request::new(read())).await;
    assert_eq!(told(unnamed), "NOT_FOUND", "the only one there is");
    assert_eq!(
        told(client.get(to("elsewhere", read())).await),
        "UNKNOWN_NAMESPACE"
    );
    let long = client.get(to(&"x".repeat(8_000), read())).await.unwrap_err();
    assert!(long.message().len() < 1_100, "{} bytes", long.message().len());
    assert_eq!(told(Err::<(), _>(long)), "UNKNOWN_NAMESPACE");

    fixture.namespaces.insert(namespace("other", |_| {}).0);
    let unnamed = client.get(tonic::Request::new(read())).await;
    assert_eq!(told(unnamed), "INVALID_REQUEST x-prism-namespace");
    let mut alias = tonic::Request::new(read());
    alias
        .metadata_mut()
        .insert("x-namespace", "other".parse().unwrap());
    assert_eq!(told(client.get(alias).await), "NOT_FOUND", "the alias names one");
}

#[tokio::test]
async fn explanations() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let of = |identity: &str| proto::ExplainRequest {
        identity: Some(identity.to_owned()),
        ..Default::default()
    };
    assert_eq!(told(client.explain(to("test", of("nobody"))).await), "NOT_FOUND");
    assert_eq!(
        told(client.explain(to("test", of(""))).await),
        "INVALID_IDENTITY identity 256"
    );
    let wrong = proto::ExplainRequest {
        filter: Some(expression(&json!({ "a": { "$semver.gte": "1.2" } }))),
        identity: None,
    };
    let refused = client.explain(to("test", wrong)).await.unwrap_err();
    assert!(refused.message().contains("`1.2`"), "{refused:?}");
    assert_eq!(told(Err::<(), _>(refused)), "INVALID_FILTER filter");
}

#[tokio::test]
async fn counts_and_fields() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let many = |count: usize| (0..count).map(|number| format!("f{number}")).collect::<Vec<_>>();
    let asked = proto::EnumerateRequest::default;
    let cursor = || {
        Some(proto::Pagination {
            cursor: "c".to_owned(),
            ..Default::default()
        })
    };
    let cases = [
        (
            proto::EnumerateRequest {
                fields: many(65),
                ..asked()
            },
            "INVALID_REQUEST fields 64",
        ),
        (
            proto::EnumerateRequest {
                fields: vec!["a..b".into()],
                ..asked()
            },
            "INVALID_REQUEST fields[0]",
        ),
        (
            proto::EnumerateRequest {
                fields: vec!["a".into(), "$identity".into()],
                ..asked()
            },
            "INVALID_REQUEST fields[1]",
        ),
        (
            proto::EnumerateRequest {
                facets: many(9),
                ..asked()
            },
            "INVALID_REQUEST facets 8",
        ),
        (
            proto::EnumerateRequest {
                facets: vec!["".into()],
                ..asked()
            },
            "INVALID_REQUEST facets[0]",
        ),
        (
            proto::EnumerateRequest {
                facets: vec!["$registered_at".into()],
                pagination: cursor(),
                ..asked()
            },
            "INVALID_REQUEST facets",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(told(client.enumerate(to("test", request)).await), expected);
    }
}

#[tokio::test]
async fn watches() {
    let fixture = fixture(|config| config.behavior.max_watchers = 1);
    let mut client = fixture.client().await;
    let held = client.register(to("test", registration("a", &json!({})))).await;
    let at = held.unwrap().into_inner().position.unwrap();
    let position = |epoch: u64, revision| Some(proto::Position { epoch, revision });
    let cases = [
        (json!({"$expires_at.gt": 5}), None, "INVALID_REQUEST filter"),
        (json!({"a.regex": "("}), None, "INVALID_FILTER filter"),
        (json!({"a.gt": "now-5m"}), None, "INVALID_FILTER filter"),
        (json!({}), position(0, 1), "INVALID_REQUEST resume_from.epoch"),
        (json!({}), position(at.epoch ^ 1, 1), "EPOCH_CHANGED"),
        (json!({}), position(at.epoch, 99), "INVALID_REQUEST resume_from"),
    ];
    for (filter, resume_from, expected) in cases {
        let request = proto::WatchRequest {
            filter: Some(expression(&filter)),
            resume_from,
            include_metadata: None,
        };
        let outcome = client.watch(to("test", request)).await;
        assert_eq!(told(outcome.map(drop)), expected, "{filter}");
    }
    let _open = client.watch(to("test", Default::default())).await.unwrap();
    let refused = client.watch(to("test", Default::default())).await;
    assert_eq!(told(refused.map(drop)), "OVERLOADED 1");
}

/// What needs a durability slot says so where there is none.
#[tokio::test]
async fn without_a_durability_slot() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let stored = proto::MulticastRequest {
        delivery: Some(proto::DeliverySemantics::AtLeastOnce.into()),
        ..Default::default()
    };
    let all = proto::RedriveDeadLettersRequest {
        all: true,
        ..Default::default()
    };
    let outcomes = [
        told(client.multicast(to("test", stored.clone())).await),
        told(client.multicast_stream(to("test", stored)).await.map(drop)),
        told(client.list_dead_letters(to("test", Default::default())).await),
        told(client.redrive_dead_letters(to("test", all)).await),
    ];
    assert!(outcomes.iter().all(|told| told == "UNSUPPORTED"), "{outcomes:?}");
}

#[test]
fn dead_letters_that_cannot_be_are_named() {
    let page = proto::Pagination {
        cursor: "zz".into(),
        ..Default::default()
    };
    let damaged = proto::ListDeadLettersRequest {
        pagination: Some(page),
        ..Default::default()
    };
    let query = super::super::dead::query(damaged).unwrap_err();
    assert_eq!(words(&query), "INVALID_CURSOR pagination.cursor");
    let unknown = proto::RedriveDeadLettersRequest {
        letter_ids: vec!["zz".into()],
        ..Default::default()
    };
    let redrive = super::super::dead::redrive(unknown).unwrap_err();
    assert_eq!(words(&redrive), "INVALID_REQUEST letter_ids");
}
