//! Single calls: what is sent, and what comes back.

use std::{future::ready, time::Duration};

use futures::TryStreamExt;
use prism_client::{
    Applied, EnumerateRequest, Error, Filter, MulticastRequest, Reason, RegisterRequest, Status,
    UpdateRequest,
    testing::{FakeRegistry, answers, in_turn},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{RegisterManyResponse, RegisterResponse};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{builder, started};

#[tokio::test]
async fn explanations_are_read() {
    let (fake, client) = started().await;
    let (sent, mut received) = mpsc::unbounded_channel();
    fake.on_explain(move |request| {
        let request = request.into_inner();
        let answer = match request.identity {
            None => answers::explained(),
            Some(_) => answers::explained_why(),
        };
        sent.send(request).unwrap();
        ready(Ok(answer))
    });
    let filter = Filter::new().eq("status", "online").lt("battery", 0.2);
    let told = client.registry.explain(Some(&filter)).await.unwrap();
    assert_eq!(told.steps.as_deref(), Some("index(status eq)"));
    assert_eq!(
        (told.candidate_count, told.match_count, told.registered_count),
        (118, 7, 10_000)
    );
    assert_eq!((told.elapsed, told.view_age), (Duration::from_micros(85), None));
    assert_eq!(told.to_string(), "plan: index(status eq)");
    let asked = received.recv().await.unwrap();
    assert_eq!(asked.filter, Some(filter.to_proto().unwrap()));

    let why = client.registry.explain_why("sensor-1", None).await.unwrap();
    assert_eq!(
        (why.matches, why.verdicts.len(), why.to_string()),
        (false, 4, "no  $and".to_owned())
    );
    let battery = &why.verdicts[2];
    assert_eq!(
        (battery.depth, battery.holds, battery.value.as_deref()),
        (1, false, Some("0.7"))
    );
    let asked = received.recv().await.unwrap();
    assert_eq!(
        (asked.filter, asked.identity.as_deref()),
        (None, Some("sensor-1"))
    );

    // An answer to the other question, and one of another shape.
    fake.on_explain(|_| ready(Ok(answers::explained_why())));
    let error = client.registry.explain(None).await.unwrap_err();
    assert!(
        matches!(&error, Error::Malformed { field, .. } if field == "plan"),
        "{error:?}"
    );
    fake.on_explain(|_| {
        let mut answer = answers::explained_why();
        answer.why.as_mut().unwrap().verdicts[1].depth = -1;
        ready(Ok(answer))
    });
    let error = client.registry.explain_why("a", None).await.unwrap_err();
    assert!(
        matches!(&error, Error::Malformed { field, .. } if field == "why.verdicts[1].depth"),
        "{error:?}"
    );
    let mistaken = client
        .registry
        .explain(Some(&Filter::new().semver_gte("a", "1")))
        .await
        .unwrap_err();
    assert_eq!(mistaken.field(), Some("filter"));
}

#[tokio::test]
async fn the_example_of_the_specification_works_as_it_is_written() -> Result<(), Box<dyn std::error::Error>> {
    let (fake, client) = started().await;
    let (sent, mut received) = mpsc::unbounded_channel();
    fake.on_register(move |request| {
        sent.send(request.into_inner()).unwrap();
        ready(Ok(answers::registered(1)))
    });
    fake.on_enumerate(|_| ready(Ok(answers::page(&["payment-service-1"]))));
    fake.on_multicast(|_| ready(Ok(answers::delivered(&["payment-service-1"]))));

    let client = client.namespace("microservices")?;

    client
        .registry
        .register(RegisterRequest {
            identity: "payment-service-1".into(),
            metadata: json!({
                "service_name": "payment-service",
                "version": "2.3.1",
                "health_status": "healthy",
            }),
            ttl: Some(30),
            ..Default::default()
        })
        .await?;

    let services = client
        .registry
        .enumerate(EnumerateRequest {
            filter: Some(
                Filter::new()
                    .eq("service_name", "payment-service")
                    .eq("health_status", "healthy"),
            ),
            ..Default::default()
        })
        .await?;

    let result = client
        .registry
        .multicast(MulticastRequest {
            filter: Some(Filter::new().eq("service_name", "*")),
            payload: serde_json::to_vec(&json!({"type": "config_update"}))?,
            ..Default::default()
        })
        .await?;

    let register = received.recv().await.unwrap();
    assert_eq!(
        (register.identity.as_str(), register.ttl_seconds),
        ("payment-service-1", Some(30))
    );
    assert_eq!((register.metadata.len(), register.session.len()), (3, 16));
    assert_eq!(services.identities[0].metadata["status"], "online");
    assert_eq!((result.delivered_count, result.target_count), (1, 1));
    assert_eq!(result.statuses[0].status, Status::Delivered);
    let namespaces: Vec<_> = fake
        .calls()
        .iter()
        .map(|call| call.metadata("x-prism-namespace").unwrap().to_owned())
        .collect();
    assert_eq!(namespaces, ["microservices"; 3]);
    Ok(())
}

#[tokio::test]
async fn every_call_carries_its_namespace_deadline_trace_and_the_callers_metadata() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_get(|_| ready(Ok(answers::found("a"))));
    let builder = builder(fake.endpoint()).metadata("authorization", "Bearer x");
    let client = builder
        .on_request(|metadata| drop(metadata.insert("x-request", "7".parse().unwrap())))
        .connect()
        .await;
    client.unwrap().registry.get("a").await.unwrap();

    let call = &fake.calls()[0];
    assert_eq!(call.metadata("x-prism-namespace"), Some("presence"));
    assert_eq!(call.metadata("authorization"), Some("Bearer x"));
    assert_eq!(call.metadata("x-request"), Some("7"));
    assert!(call.metadata("grpc-timeout").is_some());
    assert!(call.metadata("traceparent").is_some());
}

#[tokio::test]
async fn a_typed_metadata_goes_in_and_comes_out() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Device {
        firmware: String,
        slots: Vec<u8>,
        battery: f64,
    }
    let (fake, client) = started().await;
    let device = Device {
        firmware: "1.0.3".to_owned(),
        slots: vec![1, 2],
        battery: 0.78,
    };
    fake.on_register(|_| ready(Ok(answers::registered(1))));
    fake.on_update(|request| {
        let mut answer = answers::updated("a");
        answer.identity.as_mut().unwrap().metadata = request.into_inner().patch;
        ready(Ok(answer))
    });
    let request = RegisterRequest::new("a").with_metadata(&device).unwrap();
    let update = UpdateRequest {
        identity: "a".into(),
        patch: request.metadata.clone(),
        ..Default::default()
    };
    client.registry.register(request).await.unwrap();
    let found = client.registry.update(update).await.unwrap();
    assert_eq!(found.identity.metadata_as::<Device>().unwrap(), device);
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_whole() {
    let (fake, client) = started().await;
    fake.on_register(|_| {
        let failure = Failure::new(Reason::InvalidMetadata, "too large")
            .field("metadata")
            .with("limit", 65_536);
        ready(Err(failure.not_applied().into()))
    });
    let error = client
        .registry
        .register(RegisterRequest::new("a"))
        .await
        .unwrap_err();
    let Error::Refused(refusal) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (error.reason(), error.field()),
        (Some(Reason::InvalidMetadata), Some("metadata"))
    );
    assert_eq!(refusal.details["limit"], "65536");
    assert_eq!(fake.count("Register"), 1);
}

#[tokio::test]
async fn what_cannot_be_sent_is_not() {
    let (fake, client) = started().await;
    let request = RegisterRequest {
        metadata: json!([1, 2]),
        ..RegisterRequest::new("a")
    };
    let error = client.registry.register(request).await.unwrap_err();
    assert_eq!((error.field(), error.applied()), (Some("metadata"), Applied::No));
    let filter = Filter::new().lt("battery", serde_json::Value::Null.is_null());
    let request = EnumerateRequest {
        filter: Some(filter),
        ..Default::default()
    };
    assert_eq!(
        client.registry.enumerate(request).await.unwrap_err().field(),
        Some("filter")
    );
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn all_pages_are_one_stream() {
    let (fake, client) = started().await;
    let (sent, mut received) = mpsc::unbounded_channel();
    fake.on_enumerate(move |request| {
        let pagination = request.into_inner().pagination.unwrap();
        let names: &[&str] = if pagination.cursor.is_empty() {
            &["a", "b"]
        } else {
            &["c"]
        };
        let mut page = answers::page(names);
        page.next_cursor = pagination.cursor.is_empty().then(|| "next".to_owned());
        sent.send(pagination).unwrap();
        ready(Ok(page))
    });
    let request = EnumerateRequest {
        limit: Some(2),
        offset: 5,
        ..Default::default()
    };
    let all: Vec<_> = client
        .registry
        .enumerate_all(request)
        .map_ok(|found| found.identity)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(all, ["a", "b", "c"]);
    let (first, second) = (received.recv().await.unwrap(), received.recv().await.unwrap());
    assert_eq!((first.offset, first.limit), (5, 2));
    assert_eq!(
        (second.offset, second.limit, second.cursor.as_str()),
        (0, 2, "next")
    );
}

/// One that is refused does not hide the others, and each says whether and when to come again.
#[tokio::test]
async fn each_of_many_registrations_has_its_own_result() {
    let (fake, client) = started().await;
    let refused = |reason: Reason| RegisterResponse {
        success: false,
        error: Some("no".to_owned()),
        reason: reason.as_str().to_owned(),
        ..Default::default()
    };
    let limited = RegisterResponse {
        retry_after_ms: Some(250),
        ..refused(Reason::RateLimited)
    };
    let unknown = RegisterResponse {
        maybe_applied: true,
        ..refused(Reason::DeadlineExceeded)
    };
    let results = vec![
        answers::registered(1),
        refused(Reason::AlreadyRegistered),
        limited,
        unknown,
    ];
    let answer = RegisterManyResponse { results };
    // The first attempt is lost with its runner; all of them carry a session.
    let lost = Failure::new(Reason::RunnerLost, "gone").maybe_applied();
    let answers = in_turn([Err(lost.into()), Ok(answer)]);
    let (sent, mut received) = mpsc::unbounded_channel();
    fake.on_register_many(move |requests| {
        sent.send(requests).unwrap();
        ready(answers())
    });
    let requests = ["a", "b", "c", "d"].map(RegisterRequest::new);
    let results = client.registry.register_many(requests).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().identity, "a");
    let told: Vec<_> = results[1..]
        .iter()
        .map(|result| result.as_ref().unwrap_err())
        .map(|error| (error.reason().unwrap(), error.applied(), error.retry_after()))
        .collect();
    assert_eq!(
        told,
        [
            (Reason::AlreadyRegistered, Applied::No, None),
            (Reason::RateLimited, Applied::No, Some(Duration::from_millis(250))),
            (Reason::DeadlineExceeded, Applied::Unknown, None),
        ]
    );
    let (first, second) = (received.recv().await.unwrap(), received.recv().await.unwrap());
    assert_eq!(first, second);
    assert!(first.iter().all(|request| request.session.len() == 16));

    fake.on_register_many(|_| ready(Ok(RegisterManyResponse::default())));
    let short = client.registry.register_many([RegisterRequest::new("a")]).await;
    assert!(matches!(short, Err(Error::Malformed { .. })), "{short:?}");
}
