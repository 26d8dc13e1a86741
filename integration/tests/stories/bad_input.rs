//! What bad input is told, through the proxy; and that it harms nobody.

use anyhow::Result;
use integration::{Proxy, Runner, memory_namespace};
use prism_core::failure::{APPLIED, Failure, Reason};
use prism_proto::pattern::{
    self as proto, multicast_registry_pattern_client::MulticastRegistryPatternClient as RawClient,
};
use serde_json::{Value, json};
use tonic::{Request, Status, transport::Channel};

/// A namespace with every limit set low.
fn strict_namespace() -> Value {
    let mut namespace = memory_namespace("strict");
    namespace["identity_schema"] = json!({
        "additional": false,
        "fields": { "status": { "type": "enum", "values": ["on", "off"], "required": true } },
    });
    namespace["behavior"] = json!({ "ttl_max": 60, "ttl_default": 30, "max_payload_bytes": 1000 });
    namespace
}

struct Fixture {
    _proxy: Proxy,
    _runner: Runner,
    raw: RawClient<Channel>,
}

impl Fixture {
    async fn start() -> Result<Self> {
        let proxy = Proxy::start(&[memory_namespace("test"), strict_namespace()]).await?;
        let runner = Runner::under(proxy.control).await?;
        for namespace in ["test", "strict"] {
            proxy.wait_for_runners(namespace, 1).await;
        }
        let channel = Channel::from_shared(format!("http://{}", proxy.data))?
            .connect()
            .await?;
        Ok(Self {
            _proxy: proxy,
            _runner: runner,
            raw: RawClient::new(channel),
        })
    }

    async fn register(&mut self, namespace: &str, request: proto::RegisterRequest) -> Result<(), Status> {
        self.raw.register(to(namespace, request)).await.map(drop)
    }

    async fn filter(&mut self, filter: Value) -> Result<(), Status> {
        let expression = serde_json::from_value::<serde_json::Map<_, _>>(filter).unwrap();
        let request = proto::EnumerateRequest {
            filter: Some(struct_filter(expression)),
            ..Default::default()
        };
        self.raw.enumerate(to("test", request)).await.map(drop)
    }
}

fn to<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-prism-namespace", namespace.parse().unwrap());
    request
}

fn struct_filter(fields: serde_json::Map<String, Value>) -> proto::Filter {
    let document = prism_filter::Document::from_value(&Value::Object(fields)).unwrap();
    let expression = prost_struct(document.to_proto());
    proto::Filter {
        node: Some(proto::filter::Node::Expression(expression)),
    }
}

fn prost_struct(fields: std::collections::BTreeMap<String, prost_types::Value>) -> prost_types::Struct {
    prost_types::Struct { fields }
}

fn registration(identity: &str, metadata: Value) -> proto::RegisterRequest {
    let metadata = prism_filter::Document::from_value(&metadata).unwrap().to_proto();
    proto::RegisterRequest {
        identity: identity.to_owned(),
        metadata,
        ..Default::default()
    }
}

/// The refusal that a status carries, which must say that nothing was changed.
fn refusal(outcome: Result<(), Status>, what: &str) -> Failure {
    let status = outcome.expect_err(what);
    let failure = Failure::from_status(&status).unwrap_or_else(|| panic!("{what}: {status:?} has no reason"));
    assert_eq!(failure.reason.code(), status.code(), "{what}");
    assert_eq!(
        status.metadata().get(APPLIED).map(|value| value.as_bytes()),
        Some(&b"no"[..]),
        "{what}"
    );
    failure
}

#[tokio::test]
async fn bad_registrations_are_refused_by_name() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    let leased = |ttl| proto::RegisterRequest {
        ttl_seconds: Some(ttl),
        ..registration("a", json!({}))
    };
    let strict = |ttl| proto::RegisterRequest {
        ttl_seconds: ttl,
        ..registration("a", json!({ "status": "on" }))
    };
    let large = json!({ "text": "x".repeat(65 * 1024) });
    let session = proto::RegisterRequest {
        session: vec![1; 15],
        ..registration("a", json!({}))
    };
    let cases = [
        (
            "test",
            registration("", json!({})),
            Reason::InvalidIdentity,
            "identity",
        ),
        (
            "test",
            registration(&"x".repeat(257), json!({})),
            Reason::InvalidIdentity,
            "identity",
        ),
        (
            "test",
            registration("a\u{7}b", json!({})),
            Reason::InvalidIdentity,
            "identity",
        ),
        (
            "test",
            registration("a", large),
            Reason::InvalidMetadata,
            "metadata",
        ),
        ("test", leased(-1), Reason::InvalidTtl, "ttl_seconds"),
        ("test", leased(i64::MAX), Reason::InvalidTtl, "ttl_seconds"),
        ("test", session, Reason::InvalidRequest, "session"),
        ("strict", strict(Some(0)), Reason::InvalidTtl, "ttl_seconds"),
        ("strict", strict(Some(61)), Reason::InvalidTtl, "ttl_seconds"),
        (
            "strict",
            registration("a", json!({})),
            Reason::InvalidMetadata,
            "metadata.status",
        ),
        (
            "strict",
            registration("a", json!({ "status": "maybe" })),
            Reason::InvalidMetadata,
            "metadata.status",
        ),
        (
            "strict",
            registration("a", json!({ "status": "on", "x": 1 })),
            Reason::InvalidMetadata,
            "metadata.x",
        ),
    ];
    for (namespace, request, reason, field) in cases {
        let what = format!("{reason:?} {field}");
        let failure = refusal(fixture.register(namespace, request).await, &what);
        assert_eq!(
            (failure.reason, failure.details["field"].as_str()),
            (reason, field),
            "{failure}"
        );
    }
    let mut inexact = registration("a", json!({}));
    let nested = prost_types::Value { kind: None };
    inexact.metadata.insert("unset".into(), nested);
    let failure = refusal(fixture.register("test", inexact).await, "a value that is not set");
    assert_eq!(failure.reason, Reason::InvalidMetadata);
    let fine = fixture.register("test", registration("a", json!({}))).await;
    assert!(fine.is_ok(), "nothing of that did any harm: {fine:?}");
    Ok(())
}

#[tokio::test]
async fn bad_filters_are_refused_by_clause() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    let deep = (0..6).fold(
        json!({ "a": 1 }),
        |inner, _| json!({ "$not": { "$or": [inner] } }),
    );
    let many: Vec<Value> = (0..21).map(|number| json!({ "a": number })).collect();
    let cases = [
        (deep, "deep"),
        (json!({ "$or": many }), "clauses"),
        (json!({ "$xor": [] }), "$xor"),
        (json!({ "a": { "$near": 1 } }), "$near"),
        (json!({ "a.regex": "(" }), "a"),
        (json!({ "a.lt": [1] }), "a"),
        (json!({ "a.startswith": 3 }), "a"),
        (json!({ "a.in": 3 }), "a"),
        (json!({ "a.type": "text" }), "a"),
        (json!({ "$registered_at.gt": "yesterday" }), "$registered_at"),
    ];
    for (filter, word) in cases {
        let failure = refusal(fixture.filter(filter.clone()).await, &filter.to_string());
        assert_eq!(failure.reason, Reason::InvalidFilter, "{filter}");
        assert!(failure.message.contains(word), "{filter}: {failure}");
        assert_eq!(failure.details["field"], "filter");
    }
    assert!(fixture.filter(json!({ "a": 1 })).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn bad_calls_are_refused_by_field() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    let raw = &mut fixture.raw;
    let page = |pagination| proto::EnumerateRequest {
        pagination: Some(pagination),
        ..Default::default()
    };
    let pagination = proto::Pagination::default;
    let cases = [
        (
            page(proto::Pagination {
                limit: -1,
                ..pagination()
            }),
            Reason::InvalidRequest,
            "pagination.limit",
        ),
        (
            page(proto::Pagination {
                limit: 1_001,
                ..pagination()
            }),
            Reason::InvalidRequest,
            "pagination.limit",
        ),
        (
            page(proto::Pagination {
                offset: 10_001,
                ..pagination()
            }),
            Reason::InvalidRequest,
            "pagination.offset",
        ),
        (
            page(proto::Pagination {
                cursor: "x".into(),
                ..pagination()
            }),
            Reason::InvalidCursor,
            "pagination.cursor",
        ),
        (
            proto::EnumerateRequest {
                sort_by: vec!["a upwards".into()],
                ..Default::default()
            },
            Reason::InvalidRequest,
            "sort_by",
        ),
    ];
    for (request, reason, field) in cases {
        let failure = refusal(raw.enumerate(to("test", request)).await.map(drop), field);
        assert_eq!(
            (failure.reason, failure.details["field"].as_str()),
            (reason, field)
        );
    }

    let large = proto::MulticastRequest {
        payload: vec![0; 1_001].into(),
        ..Default::default()
    };
    let failure = refusal(
        raw.multicast(to("strict", large)).await.map(drop),
        "a large payload",
    );
    assert_eq!(
        (failure.reason, failure.details["limit"].as_str()),
        (Reason::PayloadTooLarge, "1000")
    );
    let durable = proto::MulticastRequest {
        delivery: Some(proto::DeliverySemantics::AtLeastOnce.into()),
        ..Default::default()
    };
    let failure = refusal(
        raw.multicast(to("test", durable)).await.map(drop),
        "a durable multicast",
    );
    assert_eq!(failure.reason, Reason::Unsupported);

    let nowhere = raw
        .get(to("elsewhere", proto::GetRequest { identity: "a".into() }))
        .await;
    assert_eq!(
        refusal(nowhere.map(drop), "an unknown namespace").reason,
        Reason::UnknownNamespace
    );
    let later = raw
        .get_multicast(to("test", proto::GetMulticastRequest::default()))
        .await;
    let failure = refusal(later.map(drop), "a multicast without a name");
    assert_eq!(failure.reason, Reason::InvalidRequest);
    assert_eq!(failure.details["field"], "multicast_id");
    Ok(())
}
