//! What the proxy costs: the same calls directly to a tonic echo server and through a proxy, each in a
//! process of its own.
//!
//! `cargo run --release -p prism-proxy --example bench [-- SECONDS]` prints one JSON object a line, in
//! the form of the project's benchmark report.

use std::{
    env,
    io::{BufRead, BufReader},
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use prism_core::id::InstanceId;
use prism_proto::pattern::{
    UnregisterRequest, UnregisterResponse, multicast_registry_pattern_client::MulticastRegistryPatternClient,
};
use prism_proxy::{
    forward::{Forward, Limits, lane::Lanes},
    metrics::Metrics,
    route::{Table, Target},
    serve::{Port, Settings},
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Request, Response, Status, body::Body, transport::Channel};

const NAMESPACE: &str = "bench";
const CONNECTIONS: usize = 2;
const IN_FLIGHT: usize = 64;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("backend") => backend().await,
        Some("proxy") => proxy(args.get(1).context("the backend's address is missing")?).await,
        seconds => measure(seconds.map_or(Ok(5), str::parse)?).await,
    }
}

/// Answers `Unregister` with the identity that it was asked about, and nothing else.
#[derive(Clone)]
struct Echo;

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "prism.pattern.MulticastRegistryPattern";
}

impl tonic::server::UnaryService<UnregisterRequest> for Echo {
    type Response = UnregisterResponse;
    type Future = std::future::Ready<Result<Response<UnregisterResponse>, Status>>;

    fn call(&mut self, request: Request<UnregisterRequest>) -> Self::Future {
        let error = Some(request.into_inner().identity);
        std::future::ready(Ok(Response::new(UnregisterResponse {
            success: true,
            error,
            ..Default::default()
        })))
    }
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // As generated code does it.
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.unary(Self, request).await)
        })
    }
}

async fn backend() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(Echo);
    Ok(server.serve_with_incoming(incoming).await?)
}

async fn proxy(backend: &str) -> anyhow::Result<()> {
    let table = Arc::new(Table::new(Arc::new(Lanes::default()), Arc::new(Metrics::new())));
    table.declare([NAMESPACE]);
    let instance_id = InstanceId::generate("bench", 1);
    table.set(
        NAMESPACE,
        vec![Target {
            instance_id,
            endpoint: backend.to_owned(),
            idempotent: Arc::default(),
        }],
    );
    let forward = Arc::new(Forward::new(table, Limits::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = Port::serve(
        listener,
        Settings::default(),
        Default::default(),
        move |request| {
            let forward = forward.clone();
            async move { forward.call(request).await }
        },
    )?;
    announce(port.address());
    std::future::pending().await
}

#[allow(clippy::print_stdout)]
fn announce(address: std::net::SocketAddr) {
    println!("{address}");
}

/// A process of this program in another role; ended when dropped.
struct Role {
    child: Child,
    address: String,
}

impl Role {
    fn start(args: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        let stdout = child.stdout.take().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut address)?;
        Ok(Self {
            child,
            address: address.trim().to_owned(),
        })
    }
}

impl Role {
    /// Processor time so far, in microseconds; the kernel counts in hundredths of a second.
    fn cpu(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("no process state")?;
        let ticks = |index: usize| fields.split(' ').nth(index).unwrap_or_default().parse::<f64>();
        Ok((ticks(11)? + ticks(12)?) * 10_000.0)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn measure(seconds: u64) -> anyhow::Result<()> {
    let backend = Role::start(&["backend"])?;
    let proxy = Role::start(&["proxy", &backend.address])?;
    let span = Duration::from_secs(seconds);
    for role in [&backend, &proxy] {
        throughput(&role.address, Duration::from_secs(1)).await?;
    }
    // Taken in turns, so that a slow moment of the machine hits both.
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    let (mut direct_rate, mut through_rate) = (0.0, 0.0);
    let (mut backend_cost, mut proxy_cost) = (0.0, 0.0);
    for _ in 0..3 {
        direct.extend(latencies(&backend.address, span / 3).await?);
        through.extend(latencies(&proxy.address, span / 3).await?);
        let (rate, cost) = costly(&backend, span / 3).await?;
        (direct_rate, backend_cost) = (direct_rate + rate / 3.0, backend_cost + cost / 3.0);
        let (rate, cost) = costly(&proxy, span / 3).await?;
        (through_rate, proxy_cost) = (through_rate + rate / 3.0, proxy_cost + cost / 3.0);
    }
    for percent in [50, 99] {
        let (floor, value) = (
            percentile(&mut direct, percent),
            percentile(&mut through, percent),
        );
        report(
            &format!("proxy_unary_latency_p{percent}"),
            value,
            "us",
            floor,
            "lower",
        );
    }
    report(
        "proxy_unary_throughput",
        through_rate,
        "calls/s",
        direct_rate,
        "higher",
    );
    report(
        "proxy_unary_processor_time",
        proxy_cost,
        "us/call",
        backend_cost,
        "lower",
    );
    Ok(())
}

/// Throughput, and the processor time that the process spent on each call.
async fn costly(role: &Role, span: Duration) -> anyhow::Result<(f64, f64)> {
    let (began, before) = (Instant::now(), role.cpu()?);
    let rate = throughput(&role.address, span).await?;
    let cost = (role.cpu()? - before) / (rate * began.elapsed().as_secs_f64());
    Ok((rate, cost))
}

#[allow(clippy::print_stdout)]
fn report(name: &str, value: f64, unit: &str, floor: f64, better: &str) {
    let ratio = value / floor;
    let line = serde_json::json!({
        "name": name, "value": value, "unit": unit, "floor": floor, "ratio": ratio, "better": better,
    });
    println!("{line}");
}

async fn connect(address: &str) -> anyhow::Result<MulticastRegistryPatternClient<Channel>> {
    let endpoint = Channel::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20);
    Ok(MulticastRegistryPatternClient::new(endpoint.connect().await?))
}

fn request() -> Request<UnregisterRequest> {
    let mut request = Request::new(UnregisterRequest {
        identity: "x".repeat(100),
        ..Default::default()
    });
    let metadata = request.metadata_mut();
    metadata.insert(
        "x-prism-namespace",
        tonic::metadata::MetadataValue::from_static(NAMESPACE),
    );
    request
}

async fn latencies(address: &str, span: Duration) -> anyhow::Result<Vec<f64>> {
    let mut client = connect(address).await?;
    let (began, mut taken) = (Instant::now(), Vec::new());
    while began.elapsed() < span {
        let call = Instant::now();
        client.unregister(request()).await?;
        taken.push(call.elapsed().as_secs_f64() * 1e6);
    }
    Ok(taken)
}

async fn throughput(address: &str, span: Duration) -> anyhow::Result<f64> {
    let (began, mut callers) = (Instant::now(), JoinSet::new());
    for _ in 0..CONNECTIONS {
        let client = connect(address).await?;
        for _ in 0..IN_FLIGHT / CONNECTIONS {
            let mut client = client.clone();
            callers.spawn(async move {
                let mut calls = 0_u32;
                while began.elapsed() < span {
                    client.unregister(request()).await?;
                    calls += 1;
                }
                Ok::<_, Status>(calls)
            });
        }
    }
    let mut calls = 0;
    while let Some(caller) = callers.join_next().await {
        calls += caller??;
    }
    Ok(f64::from(calls) / began.elapsed().as_secs_f64())
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len() * percent / 100)
        .copied()
        .unwrap_or_default()
}
