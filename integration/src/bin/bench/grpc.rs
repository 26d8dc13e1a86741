//! The service on memory slots, over gRPC on loopback, beside a tonic service that echoes the same messages.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use axum::{Router, body::Body, routing::post};
use futures::future::{BoxFuture, try_join_all};
use multicast_registry::{Config, Coordinator, namespaces::Namespaces, service::Service};
use prism_filter::Document;
use prism_proto::pattern::{
    RegisterRequest, RenewRequest,
    multicast_registry_pattern_client::MulticastRegistryPatternClient as Client, renew_request::Lease,
};
use prism_slot::memory::{MemoryMessaging, MemoryRegistry};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Request, Response, Status,
    service::Routes,
    transport::{Channel, Server},
};
use tonic_prost::ProstCodec;

use crate::report::{Better, Report, median};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(800);
/// How many identities there are; each is registered again and again.
const IDENTITIES: u64 = 10_000;
const ROWS: [&str; 3] = ["register_grpc_unary", "register_grpc_batch", "renew_grpc_batch"];

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    if !ROWS.iter().any(|row| report.wants(row)) {
        return Ok(());
    }
    let (ours, _serving) = serve(registry().await?).await?;
    let (floor, _echoing) = serve(Routes::from(Router::new().route(ECHO, post(echo)))).await?;
    let (ours, floor) = (connect(ours).await?, connect(floor).await?);
    unary(report, &ours, &floor).await?;
    batches(report, &ours).await
}

async fn registry() -> Result<Routes> {
    let registry = Arc::new(MemoryRegistry::new(Default::default()));
    let messaging = Arc::new(MemoryMessaging::new(Default::default()));
    let mut config = Config::named("bench");
    config.behavior.max_identities = 10_000_000;
    let namespaces = Namespaces::default();
    namespaces.insert(Coordinator::new(config, registry, messaging, None));
    namespaces.set_complete();
    Ok(Routes::new(Service::new(namespaces).into_server()))
}

async fn serve(routes: Routes) -> Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder()
        .add_routes(routes)
        .serve_with_incoming(TcpListenerStream::new(listener));
    let task = tokio::spawn(async move {
        let _ = server.await;
    });
    Ok((address, AbortOnDropHandle::new(task)))
}

async fn connect(address: SocketAddr) -> Result<Channel> {
    let endpoint = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    Ok(endpoint.connect().await?)
}

const ECHO: &str = "/bench.Echo/Say";

struct Echo;

impl tonic::server::UnaryService<RegisterRequest> for Echo {
    type Response = RegisterRequest;
    type Future = BoxFuture<'static, Result<Response<RegisterRequest>, Status>>;

    fn call(&mut self, request: Request<RegisterRequest>) -> Self::Future {
        Box::pin(std::future::ready(Ok(Response::new(request.into_inner()))))
    }
}

async fn echo(request: axum::http::Request<Body>) -> axum::http::Response<tonic::body::Body> {
    tonic::server::Grpc::new(ProstCodec::default())
        .unary(Echo, request)
        .await
}

fn request(number: u64) -> Result<RegisterRequest> {
    let metadata = json!({ "status": "online", "firmware_version": "1.2.3", "location": "warehouse-a" });
    Ok(RegisterRequest {
        identity: format!("device-{:05}", number % IDENTITIES),
        metadata: Document::from_value(&metadata)?.to_proto(),
        replace: true,
        ..Default::default()
    })
}

async fn unary(report: &mut Report, ours: &Channel, floor: &Channel) -> Result<()> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let registered = rate(async |number| {
            Client::new(ours.clone()).register(request(number)?).await?;
            Ok(1)
        });
        let registered = registered.await?;
        let echoed = rate(async |number| {
            let mut client = tonic::client::Grpc::new(floor.clone());
            client.ready().await?;
            let message = Request::new(request(number)?);
            let path = axum::http::uri::PathAndQuery::from_static(ECHO);
            let codec = ProstCodec::<RegisterRequest, RegisterRequest>::default();
            client.unary(message, path, codec).await?;
            Ok(1)
        });
        let echoed = echoed.await?;
        if round > 0 {
            with.push(registered);
            without.push(echoed);
        }
    }
    let (value, floor) = (median(&mut with), median(&mut without));
    report.row(ROWS[0], value, "calls/s", floor, Better::Higher, json!({}));
    Ok(())
}

/// The floors are aims.
async fn batches(report: &mut Report, ours: &Channel) -> Result<()> {
    const BATCH: u64 = 5_000;
    let (mut registered, mut renewed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let many = rate_of(4, async |number| {
            let requests = (number * BATCH..(number + 1) * BATCH)
                .map(request)
                .collect::<Result<Vec<_>>>()?;
            let stream = tokio_stream::iter(requests);
            let answer = Client::new(ours.clone())
                .register_many(stream)
                .await?
                .into_inner();
            ensure!(
                answer.results.iter().all(|result| result.success),
                "not all were registered"
            );
            Ok(BATCH)
        });
        registered.push(many.await?);
        let leases: Vec<Lease> = (0..IDENTITIES)
            .map(|number| Lease {
                identity: format!("device-{number:05}"),
                generation: None,
            })
            .collect();
        let many = rate_of(4, async |_| {
            let leases = leases.clone();
            let mut client = Client::new(ours.clone()).max_decoding_message_size(64 << 20);
            let answer = client.renew(RenewRequest { leases }).await?.into_inner();
            let first = answer.results.first().context("no result")?;
            ensure!(first.success, "{:?}", first.error);
            Ok(IDENTITIES)
        });
        renewed.push(many.await?);
    }
    report.row(
        ROWS[1],
        median(&mut registered),
        "identities/s",
        100_000.0,
        Better::Higher,
        json!({}),
    );
    report.row(
        ROWS[2],
        median(&mut renewed),
        "identities/s",
        500_000.0,
        Better::Higher,
        json!({}),
    );
    Ok(())
}

async fn rate(once: impl AsyncFn(u64) -> Result<u64>) -> Result<f64> {
    rate_of(64, once).await
}

/// How much a second, with so many calls under way all the time.
async fn rate_of(in_flight: usize, once: impl AsyncFn(u64) -> Result<u64>) -> Result<f64> {
    let (next, done, began) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let callers = (0..in_flight).map(|_| async {
        while began.elapsed() < ROUND {
            let count = once(next.fetch_add(1, Ordering::Relaxed)).await?;
            done.fetch_add(count, Ordering::Relaxed);
        }
        anyhow::Ok(())
    });
    try_join_all(callers).await?;
    Ok(done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}
