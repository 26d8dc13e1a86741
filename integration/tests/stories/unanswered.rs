//! A backend takes what it is sent and never answers: every call ends all the same, by the namespace's own
//! limit, with a reason, although its caller set no deadline.

use std::time::{Duration, Instant};

use anyhow::Result;
use integration::{Proxy, Runner, START_LIMIT, shared_namespace_at};
use prism_core::failure::{Failure, Reason};
use prism_proto::pattern::{
    self as proto, delivery_status::Status as Verdict,
    multicast_registry_pattern_client::MulticastRegistryPatternClient as RawClient,
};
use prism_testkit::{FaultProxy, NatsServer, RedisServer, eventually};
use serde_json::json;
use tonic::{Request, Status, transport::Channel};

/// Far more than the second that the namespace gives a call.
const CALL_LIMIT: Duration = Duration::from_secs(7);

type Raw = RawClient<Channel>;

fn to_test<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-prism-namespace", "test".parse().unwrap());
    request
}

struct Fixture {
    _proxy: Proxy,
    _runner: Runner,
    raw: Raw,
}

impl Fixture {
    /// A namespace that gives a call one second, with `a` registered.
    async fn start(redis: std::net::SocketAddr, nats: std::net::SocketAddr) -> Result<Self> {
        let mut namespace = shared_namespace_at("test", redis, nats);
        namespace["behavior"] = json!({ "call_timeout": "1s", "ttl_default": "10m" });
        let proxy = Proxy::start(&[namespace]).await?;
        let runner = Runner::under(proxy.control).await?;
        proxy.wait_for_runners("test", 1).await;
        let channel = Channel::from_shared(format!("http://{}", proxy.data))?;
        let raw = RawClient::new(channel.connect().await?);
        let fixture = Self {
            _proxy: proxy,
            _runner: runner,
            raw,
        };
        fixture.call("Register").await?;
        Ok(fixture)
    }

    /// Makes one call; a failure within the answer counts as one.
    async fn call(&self, method: &str) -> Result<(), Status> {
        let mut raw = self.raw.clone();
        let identity = || "a".to_owned();
        match method {
            "Register" => {
                let request = proto::RegisterRequest {
                    identity: identity(),
                    replace: true,
                    ..Default::default()
                };
                raw.register(to_test(request)).await.map(drop)
            }
            "Renew" => {
                let lease = proto::renew_request::Lease {
                    identity: identity(),
                    generation: None,
                };
                let request = proto::RenewRequest { leases: vec![lease] };
                let answer = raw.renew(to_test(request)).await?.into_inner();
                let reason = answer.results[0].error.as_deref().and_then(Reason::parse);
                reason.map_or(Ok(()), |reason| Err(Failure::new(reason, "of the lease").into()))
            }
            "Update" => {
                let request = proto::UpdateRequest {
                    identity: identity(),
                    ..Default::default()
                };
                raw.update(to_test(request)).await.map(drop)
            }
            "Get" => raw
                .get(to_test(proto::GetRequest { identity: identity() }))
                .await
                .map(drop),
            "Enumerate" => raw.enumerate(to_test(Default::default())).await.map(drop),
            "Multicast" => raw.multicast(to_test(Default::default())).await.map(drop),
            "Unregister" => {
                let request = proto::UnregisterRequest {
                    identity: "b".into(),
                    generation: None,
                };
                raw.unregister(to_test(request)).await.map(drop)
            }
            "Subscribe" => {
                let open = proto::subscribe_request::Open {
                    identity: identity(),
                    ..Default::default()
                };
                let message = Some(proto::subscribe_request::Message::Open(open));
                let requests = futures::stream::iter([proto::SubscribeRequest { message }]);
                let mut session = raw.subscribe(to_test(requests)).await?.into_inner();
                session.message().await.map(drop)
            }
            other => panic!("{other}"),
        }
    }

    /// Makes one call, which has to end in time.
    async fn timely(&self, method: &str) -> Result<(), Status> {
        let began = Instant::now();
        let outcome = tokio::time::timeout(CALL_LIMIT, self.call(method)).await;
        outcome.unwrap_or_else(|_| panic!("{method} has not ended after {:?}", began.elapsed()))
    }

    async fn until_all_work(&self) {
        for method in METHODS {
            let works = async || self.timely(method).await.is_ok();
            eventually(START_LIMIT, &format!("{method} works"), works).await;
        }
    }
}

const METHODS: [&str; 8] = [
    "Register",
    "Renew",
    "Update",
    "Get",
    "Enumerate",
    "Multicast",
    "Unregister",
    "Subscribe",
];

#[tokio::test]
async fn every_call_ends_while_the_store_is_frozen() -> Result<()> {
    let (mut redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let fixture = Fixture::start(redis.addr(), nats.addr()).await?;
    fixture.until_all_work().await;
    redis.freeze()?;
    // Twice: the first calls meet a connection that is open, later ones one that was given up.
    for round in 0..2 {
        for method in METHODS {
            let status = fixture.timely(method).await.expect_err(method);
            let failure = Failure::from_status(&status);
            let reason = failure.map(|failure| failure.reason);
            let clear = [
                Reason::DeadlineExceeded,
                Reason::BackendUnavailable,
                Reason::NotReady,
            ];
            assert!(
                reason.is_some_and(|reason| clear.contains(&reason)),
                "{method} in round {round}: {status:?}"
            );
        }
    }
    let stale = proto::EnumerateRequest {
        consistency: proto::Consistency::Stale.into(),
        ..Default::default()
    };
    let page = fixture.raw.clone().enumerate(to_test(stale)).await?.into_inner();
    assert!(page.view_age_ms.is_some() && page.total_count == 1, "{page:?}");
    redis.thaw()?;
    fixture.until_all_work().await;
    Ok(())
}

#[tokio::test]
async fn every_call_ends_while_the_broker_is_a_black_hole() -> Result<()> {
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let dark = FaultProxy::start(nats.addr()).await?;
    let fixture = Fixture::start(redis.addr(), dark.addr()).await?;
    fixture.until_all_work().await;
    dark.black_hole();
    for method in METHODS {
        let outcome = fixture.timely(method).await;
        match method {
            "Subscribe" => {
                let status = outcome.expect_err(method);
                assert!(Failure::from_status(&status).is_some(), "{status:?}");
            }
            _ => assert!(outcome.is_ok(), "{method} needs no broker to answer: {outcome:?}"),
        }
    }
    let sent = fixture
        .raw
        .clone()
        .multicast(to_test(Default::default()))
        .await?
        .into_inner();
    assert_eq!(
        (sent.target_count, sent.delivered_count),
        (1, 0),
        "nothing is claimed"
    );
    let verdict = sent.statuses[0].status();
    assert!(matches!(verdict, Verdict::Timeout | Verdict::Failed), "{sent:?}");
    dark.heal();
    fixture.until_all_work().await;
    Ok(())
}
