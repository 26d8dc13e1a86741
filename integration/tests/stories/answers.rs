//! Answers that any client can take, and requests that nobody can: through the proxy.

use anyhow::Result;
use integration::System;
use prism_core::failure::{APPLIED, Failure, Reason};
use prism_proto::pattern::{
    self as proto, multicast_registry_pattern_client::MulticastRegistryPatternClient as RawClient,
};
use prost_types::{ListValue, Value, value::Kind};
use tonic::{Code, Request, Status, transport::Channel};

fn to_test<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-prism-namespace", "test".parse().unwrap());
    request
}

fn registration(identity: String, value: Kind) -> proto::RegisterRequest {
    let value = Value { kind: Some(value) };
    proto::RegisterRequest {
        identity,
        metadata: [("value".to_owned(), value)].into(),
        ..Default::default()
    }
}

/// A client as it comes, which decodes 4 MiB and no more.
async fn raw(system: &System) -> Result<RawClient<Channel>> {
    let channel = Channel::from_shared(format!("http://{}", system.proxy.data))?;
    Ok(RawClient::new(channel.connect().await?))
}

#[tokio::test]
async fn large_registrations_come_in_pages_that_fit() -> Result<()> {
    const COUNT: usize = 150;
    let system = System::on_memory().await?;
    let mut raw = raw(&system).await?;
    for number in 0..COUNT {
        let text = Kind::StringValue("x".repeat(60_000));
        raw.register(to_test(registration(format!("id-{number:03}"), text)))
            .await?;
    }
    let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let pagination = proto::Pagination {
            limit: 1_000,
            cursor,
            ..Default::default()
        };
        let request = proto::EnumerateRequest {
            pagination: Some(pagination),
            ..Default::default()
        };
        let page = raw.enumerate(to_test(request)).await?.into_inner();
        assert_eq!(page.total_count, COUNT as i64);
        seen.extend(page.identities.into_iter().map(|identity| identity.identity));
        pages += 1;
        match page.next_cursor {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let expected: Vec<String> = (0..COUNT).map(|number| format!("id-{number:03}")).collect();
    assert_eq!(seen, expected);
    assert!(pages > 1);
    Ok(())
}

/// What no method ever sees is refused in the same form as everything else.
#[tokio::test]
async fn requests_that_cannot_be_decoded_are_refused_by_name() -> Result<()> {
    let system = System::on_memory().await?;
    let mut raw = raw(&system).await?;
    let deep = (0..60).fold(Kind::NullValue(0), |inner, _| {
        let values = vec![Value { kind: Some(inner) }];
        Kind::ListValue(ListValue { values })
    });
    let large = Kind::StringValue("x".repeat(17 << 20));
    let wide = Kind::ListValue(ListValue {
        values: vec![
            Value {
                kind: Some(Kind::NumberValue(1.0))
            };
            200_000
        ],
    });
    let cases = [
        ("deep", deep, Reason::InvalidRequest),
        // The proxy has read enough to know.
        ("large", large, Reason::PayloadTooLarge),
        ("wide", wide, Reason::InvalidMetadata),
    ];
    for (name, value, reason) in cases {
        let status: Status = raw
            .register(to_test(registration("a".into(), value)))
            .await
            .expect_err(name);
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
        let failure = Failure::from_status(&status).expect(name);
        assert_eq!(failure.reason, reason, "{name}");
        assert_eq!(
            status.metadata().get(APPLIED).map(|value| value.as_bytes()),
            Some(&b"no"[..]),
            "{name}"
        );
    }
    let fine = registration("a".into(), Kind::BoolValue(true));
    raw.register(to_test(fine)).await?;
    Ok(())
}
