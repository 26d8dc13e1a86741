//! Answers fit into what clients decode, and say what was left out.

use prism_proto::pattern::{self as proto, delivery_status::Status};
use prism_slot::Outcome;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};

use super::{super::wire, fixture, registration, to};

/// What clients decode unless they are told otherwise.
const DECODED: usize = 4 << 20;

#[tokio::test]
async fn pages_are_bounded_in_bytes() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let large = json!({ "text": "x".repeat(60_000) });
    for number in 0..200 {
        let request = registration(&format!("id-{number:03}"), &large);
        client.register(to("test", request)).await.unwrap();
    }
    let expected: Vec<String> = (0..200).map(|number| format!("id-{number:03}")).collect();
    for include_metadata in [true, false] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = proto::EnumerateRequest {
                include_metadata: Some(include_metadata),
                pagination: Some(proto::Pagination {
                    limit: 1_000,
                    cursor,
                    ..Default::default()
                }),
                ..Default::default()
            };
            let page = client.enumerate(to("test", request)).await.unwrap().into_inner();
            assert!(page.encoded_len() < DECODED, "{} bytes", page.encoded_len());
            assert_eq!(page.total_count, 200);
            seen.extend(page.identities.into_iter().map(|identity| identity.identity));
            pages += 1;
            match page.next_cursor {
                Some(next) => cursor = next,
                None => break,
            }
        }
        assert_eq!(seen, expected);
        assert_eq!(pages, if include_metadata { 4 } else { 1 });
    }
}

#[tokio::test]
async fn counts_and_fields_are_what_was_asked_for() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    for number in 0..30 {
        let metadata = json!({
            "zone": (number % 3), "tags": ["x", "x", format!("t{}", number % 2)], "place": {"floor": number, "room": "r"},
        });
        client
            .register(to("test", registration(&format!("id-{number:02}"), &metadata)))
            .await
            .unwrap();
    }
    let request = proto::EnumerateRequest {
        count_only: true,
        facets: ["zone", "tags", "place", "nothing"].map(String::from).into(),
        ..Default::default()
    };
    let page = client.enumerate(to("test", request)).await.unwrap().into_inner();
    assert_eq!(
        (page.identities.len(), page.total_count, page.next_cursor),
        (0, 30, None)
    );
    let shown: Vec<String> = page
        .facets
        .iter()
        .map(|facet| {
            let buckets = facet.buckets.iter();
            let buckets: Vec<String> = buckets
                .map(
                    |bucket| match bucket.value.as_ref().unwrap().kind.as_ref().unwrap() {
                        prost_types::value::Kind::NumberValue(number) => format!("{number}:{}", bucket.count),
                        prost_types::value::Kind::StringValue(text) => format!("{text}:{}", bucket.count),
                        other => panic!("{other:?}"),
                    },
                )
                .collect();
            let (field, values) = (&facet.field, facet.value_count);
            format!(
                "{field} {} {values} {} {}",
                buckets.join(","),
                facet.other_count,
                facet.missing_count
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "zone 0:10,1:10,2:10 3 0 0",
            "tags x:30,t0:15,t1:15 3 0 0",
            "place  0 30 0",
            "nothing  0 0 30",
        ]
    );
    let request = proto::EnumerateRequest {
        fields: ["place.floor", "zone", "absent.at.all"].map(String::from).into(),
        pagination: Some(proto::Pagination {
            limit: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    let page = client.enumerate(to("test", request)).await.unwrap().into_inner();
    let metadata = prism_filter::Document::from_proto(&page.identities[0].metadata).unwrap();
    assert_eq!(metadata.to_value(), json!({"place": {"floor": 0}, "zone": 0}));
    assert!(page.next_cursor.is_some());
}

#[tokio::test]
async fn each_of_many_registrations_is_answered() {
    let fixture = fixture(|config| config.behavior.max_identities = 2_001);
    let mut client = fixture.client().await;
    let mut requests: Vec<_> = (0..3_000)
        .map(|number| registration(&format!("id-{number:04}"), &json!({ "n": number })))
        .collect();
    requests[5].identity = "a\nb".to_owned();
    requests[6].ttl_seconds = Some(-1);
    requests[7].identity = "id-0000".to_owned();
    let stream = tokio_stream::iter(requests);
    let answer = client
        .register_many(to("test", stream))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results.len(), 3_000);
    let reason = |index: usize| answer.results[index].reason.as_str();
    assert_eq!(
        [reason(5), reason(6), reason(7)],
        ["INVALID_IDENTITY", "INVALID_TTL", "ALREADY_EXISTS"]
    );
    let made = answer.results.iter().filter(|result| result.success).count();
    assert_eq!(made, 2_001);
    assert_eq!(reason(2_999), "QUOTA_EXCEEDED");
    assert!(
        answer.results[2_999]
            .error
            .as_deref()
            .is_some_and(|error| error.contains("2001"))
    );
    let page = client
        .enumerate(to("test", Default::default()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.total_count, 2_001);

    let nothing = client
        .register_many(to("test", tokio_stream::iter(Vec::new())))
        .await;
    assert!(nothing.unwrap().into_inner().results.is_empty());
    let many = tokio_stream::iter((0..10_001).map(|number| registration(&format!("x-{number}"), &json!({}))));
    let status = client.register_many(to("test", many)).await.unwrap_err();
    let failure = super::failure(&status);
    assert_eq!(failure.reason.as_str(), "INVALID_REQUEST");
    assert_eq!(failure.details["limit"], "10000");
}

/// Those that the slot did not take are sent again, and only those.
#[tokio::test(start_paused = true)]
async fn of_many_registrations_those_are_sent_again_that_were_not_taken() {
    let fixture = fixture(|_| {});
    let refused = crate::testing::unavailable(prism_slot::Applied::No);
    fixture.store.script.next(
        crate::testing::Op::Register,
        crate::testing::Fate::Refuse(refused),
    );
    let requests = ["a", "b"]
        .map(|name| crate::coordinator::Register::new(name, prism_filter::Document::empty()).unwrap());
    let results = fixture
        .coordinator
        .register_many(requests.into(), crate::testing::soon())
        .await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(fixture.store.script.count(crate::testing::Op::Register), 2);
}

/// When a lease ends says nothing of its length, which whoever registers it elsewhere has to know.
#[tokio::test]
async fn a_registration_says_how_long_its_lease_is() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    for (name, ttl_ms) in [("leased", Some(90_500)), ("for-ever", Some(0))] {
        let mut request = registration(name, &json!({}));
        request.ttl_ms = ttl_ms;
        client.register(to("test", request)).await.unwrap();
    }
    let page = client
        .enumerate(to("test", Default::default()))
        .await
        .unwrap()
        .into_inner();
    let listed: Vec<_> = page
        .identities
        .iter()
        .map(|found| (found.identity.as_str(), found.ttl_ms))
        .collect();
    assert_eq!(listed, [("for-ever", None), ("leased", Some(90_500))]);
    let identity = "leased".to_owned();
    let read = client
        .get(to("test", proto::GetRequest { identity }))
        .await
        .unwrap();
    assert_eq!(read.into_inner().identity.unwrap().ttl_ms, Some(90_500));
}

/// One that is larger than any page comes by itself: a page without progress would never end.
#[tokio::test]
async fn a_page_has_at_least_one_registration() {
    let fixture = fixture(|config| config.behavior.max_metadata_bytes = 8 << 20);
    let mut client = fixture.client().await.max_decoding_message_size(64 << 20);
    for name in ["a", "b"] {
        let request = registration(name, &json!({ "text": "x".repeat(5 << 20) }));
        client.register(to("test", request)).await.unwrap();
    }
    let page = client
        .enumerate(to("test", Default::default()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.identities.len(), 1);
    assert!(page.next_cursor.is_some());
}

#[tokio::test]
async fn explanations_are_told_in_fields_and_in_words() {
    let fixture = fixture(|config| {
        let schema = json!({ "fields": { "status": { "type": "string", "index": true } } });
        config.schema = Some(crate::schema::Schema::read(&schema).unwrap());
    });
    let mut client = fixture.client().await;
    for number in 0..4 {
        let metadata = json!({ "status": if number == 0 { "away" } else { "online" }, "level": number });
        client
            .register(to("test", registration(&format!("id-{number}"), &metadata)))
            .await
            .unwrap();
    }
    let filter = prism_filter::Filter::new().eq("status", "online").gt("level", 1);
    let request = |identity: Option<&str>| proto::ExplainRequest {
        filter: Some(filter.to_proto().unwrap()),
        identity: identity.map(str::to_owned),
    };
    let told = client
        .explain(to("test", request(None)))
        .await
        .unwrap()
        .into_inner();
    let plan = told.plan.unwrap();
    assert_eq!(plan.steps.as_deref(), Some("index(status eq)"));
    assert_eq!(
        (plan.indexes, plan.unindexed),
        (vec!["status".to_owned()], vec!["level".to_owned()])
    );
    assert_eq!(
        (plan.residual, plan.exact),
        (vec!["level gt 1".to_owned()], false)
    );
    let counts = [
        plan.estimated_count,
        plan.candidate_count,
        plan.asked_count,
        plan.match_count,
    ];
    assert_eq!((counts, plan.registered_count), ([3, 3, 3, 2], 4));
    assert!(
        told.explanation.contains("2 of 4 registrations match"),
        "{}",
        told.explanation
    );
    assert!((0..10_000_000).contains(&plan.elapsed_us));
    assert_eq!((told.position.unwrap().revision, told.why), (4, None));

    let told = client
        .explain(to("test", request(Some("id-1"))))
        .await
        .unwrap()
        .into_inner();
    let why = told.why.unwrap();
    let said: Vec<_> = why
        .verdicts
        .iter()
        .map(|part| (part.depth, part.part.as_str(), part.holds))
        .collect();
    let expected = [
        (0, "$and", false),
        (1, "level gt 1", false),
        (1, r#"status eq "online""#, true),
    ];
    let mut sorted = said.clone();
    sorted[1..].sort();
    assert_eq!((why.matches, sorted), (false, expected.to_vec()));
    assert!(
        told.explanation.contains("level gt 1 (is 1)"),
        "{}",
        told.explanation
    );
    assert_eq!((told.position.unwrap().revision, told.plan), (4, None));
}

/// However large the metadata and however many clauses look at it.
#[tokio::test]
async fn explanations_are_bounded_in_bytes() {
    let fixture = fixture(|_| {});
    let mut client = fixture.client().await;
    let large = json!({ "text": "x".repeat(60_000) });
    client
        .register(to("test", registration("a", &large)))
        .await
        .unwrap();
    let operand = "y".repeat(10_000);
    let clauses = (0..20).map(|number| prism_filter::Filter::new().ne("text", format!("{number}{operand}")));
    let request = proto::ExplainRequest {
        filter: Some(prism_filter::Filter::and(clauses).to_proto().unwrap()),
        identity: Some("a".to_owned()),
    };
    let told = client.explain(to("test", request)).await.unwrap().into_inner();
    assert_eq!(told.why.as_ref().unwrap().verdicts.len(), 21);
    assert!(told.encoded_len() < 64 << 10, "{} bytes", told.encoded_len());
}

/// Receipts of very many targets do not fit into one answer. The counts are of all, and what is left out
/// first is what the counts already tell.
#[tokio::test]
async fn receipts_are_bounded_in_bytes() {
    const TARGETS: usize = 30_000;
    let fixture = fixture(|config| config.behavior.max_identities = 100_000);
    let mut client = fixture.client().await;
    let padding = "x".repeat(200);
    for number in 0..TARGETS {
        let name = format!("{number:05}-{padding}");
        let request = super::super::wire::register(registration(&name, &json!({}))).unwrap();
        fixture
            .coordinator
            .register(request, crate::testing::soon())
            .await
            .unwrap();
    }
    let unsent = |number: usize| number % 100 == 7;
    let judge = |failing: fn(usize) -> bool| {
        for _ in 0..TARGETS.div_ceil(1_024) {
            fixture.broker.judge(move |targets| {
                let outcome = |target: &prism_slot::Identity| match target.as_str()[..5].parse() {
                    Ok(number) if failing(number) => Outcome::NoSubscriber,
                    _ => Outcome::Accepted,
                };
                targets.iter().map(outcome).collect()
            });
        }
    };
    let request = || {
        let mut request = to("test", proto::MulticastRequest::default());
        request.set_timeout(std::time::Duration::from_secs(60));
        request
    };
    judge(unsent);
    let answer = client.multicast(request()).await.unwrap().into_inner();
    assert!(answer.encoded_len() < DECODED, "{} bytes", answer.encoded_len());
    let counts = (answer.target_count, answer.delivered_count, answer.failed_count);
    assert_eq!(counts, (30_000, 29_700, 300));
    assert!(answer.statuses.len() < TARGETS, "some were left out");
    let failed = answer
        .statuses
        .iter()
        .filter(|status| status.status() == Status::Failed);
    assert_eq!(failed.count(), 300, "none that failed");
    assert!(
        answer
            .statuses
            .is_sorted_by(|one, other| one.identity < other.identity)
    );

    judge(|_| true);
    let answer = client.multicast(request()).await.unwrap().into_inner();
    assert!(answer.encoded_len() < DECODED, "{} bytes", answer.encoded_len());
    assert_eq!((answer.target_count, answer.failed_count), (30_000, 30_000));
    assert!(
        (8_000..TARGETS).contains(&answer.statuses.len()),
        "{}",
        answer.statuses.len()
    );
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        ".{200,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 200, 12, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..12)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A page is measured only if this bound says that it might be too large.
    #[test]
    fn no_registration_takes_more_than_its_bound(
        fields in proptest::collection::btree_map(".{0,6}", json_values(), 0..12), name in ".{1,60}",
    ) {
        let metadata = Value::Object(fields.into_iter().collect());
        let document = prism_filter::Document::from_value(&metadata).unwrap();
        let Ok(identity) = prism_slot::Identity::new(name) else { return Ok(()) };
        let at = prism_slot::Position {
            epoch: prism_slot::Epoch(u64::MAX),
            revision: prism_slot::Revision(u64::MAX >> 11),
        };
        let time = prism_slot::Timestamp(i64::MAX / 2);
        let record = prism_slot::Record {
            identity,
            metadata: Default::default(),
            registered_at: time,
            updated_at: time,
            ttl: prism_slot::Ttl::from_millis(u64::MAX),
            expires_at: Some(time),
            generation: at,
            revision: at.revision,
            owner: Default::default(),
        };
        let row = crate::directory::Row::new(&record, document);
        let encoded = wire::encoded_len(&row);
        prop_assert!(encoded <= wire::largest(&row), "{} > {}: {}", encoded, wire::largest(&row), metadata);
    }
}
