//! Checks of a schema against a scripted registry.

use std::{future::ready, time::Duration};

use futures::stream;
use prism_client::{
    CheckSchemaRequest, Client, Error, Reason, SchemaFinding,
    testing::{FakeRegistry, answers},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{CheckSchemaResponse, check_schema_response::Progress};
use serde_json::json;

fn violation(identity: &str) -> CheckSchemaResponse {
    CheckSchemaResponse {
        identity: identity.to_owned(),
        field: "level".to_owned(),
        violation: "the field `level` is no int".to_owned(),
        progress: None,
    }
}

fn progress(checked: u64, done: bool) -> CheckSchemaResponse {
    let progress = Progress {
        checked,
        nonconforming: 1,
        total: 2,
        done,
        position: Some(answers::position(7)),
    };
    CheckSchemaResponse {
        progress: Some(progress),
        ..Default::default()
    }
}

async fn client(fake: &FakeRegistry) -> Client {
    let builder = Client::builder().endpoint(fake.endpoint());
    builder
        .timeout(Duration::from_millis(500))
        .connect_lazy()
        .unwrap()
}

#[tokio::test]
async fn a_check_tells_what_it_finds_and_that_it_is_done() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_check_schema(|request| {
        let fields = request.schema.unwrap().fields;
        assert_eq!((fields.len(), request.limit), (1, 5));
        let answers = [violation("a"), progress(1, false), progress(2, true)];
        ready(Ok(stream::iter(answers.map(Ok))))
    });
    let request = CheckSchemaRequest {
        schema: Some(json!({ "level": "int" })),
        limit: Some(5),
    };
    let mut check = client(&fake).await.registry.check_schema(request).await.unwrap();
    let mut next = async || check.next().await.transpose().unwrap();
    let Some(SchemaFinding::Violation(found)) = next().await else {
        panic!()
    };
    assert_eq!((found.identity.as_str(), found.field.as_str()), ("a", "level"));
    let Some(SchemaFinding::Progress(half)) = next().await else {
        panic!()
    };
    assert_eq!((half.checked, half.done), (1, false));
    let Some(SchemaFinding::Progress(whole)) = next().await else {
        panic!()
    };
    assert_eq!(
        (whole.checked, whole.nonconforming, whole.total, whole.done),
        (2, 1, 2, true)
    );
    assert!(next().await.is_none());
}

/// A check that ends without saying that it is done is not taken for one that found nothing.
#[tokio::test]
async fn a_check_that_breaks_off_is_no_clean_bill() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_check_schema(|_| ready(Ok(stream::iter([Ok(progress(1, false))]))));
    let client = client(&fake).await;
    let mut check = client.registry.check_schema(Default::default()).await.unwrap();
    assert!(check.next().await.unwrap().is_ok());
    let broken = check.next().await.unwrap().unwrap_err();
    assert!(matches!(broken, Error::ConnectionLost { .. }), "{broken:?}");
    assert!(check.next().await.is_none());

    let changed = Failure::new(Reason::EpochChanged, "began anew").not_applied();
    fake.on_check_schema(move |_| ready(Ok(stream::iter([Err(changed.clone().into())]))));
    let mut check = client.registry.check_schema(Default::default()).await.unwrap();
    let error = check.next().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::EpochChanged));
}

/// A service that says nothing is not waited for.
#[tokio::test]
async fn a_silent_check_ends() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_check_schema(|_| ready(Ok(stream::pending())));
    let mut check = client(&fake)
        .await
        .registry
        .check_schema(Default::default())
        .await
        .unwrap();
    let error = check.next().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
}
