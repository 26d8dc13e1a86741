//! Through the proxy, with client, proxy and runner as processes of their own on this machine.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::future::try_join_all;
use integration::System;
use prism_client::RegisterRequest;
use prism_proto::pattern::{
    GetRequest, multicast_registry_pattern_client::MulticastRegistryPatternClient as RawClient,
};
use serde_json::json;
use tonic::{Request, transport::Channel};

use crate::report::{Better, Report, median, percentile};

const ROUNDS: usize = 7;

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    if !["proxy_unary_latency_p50", "proxy_unary_throughput"]
        .iter()
        .any(|name| report.wants(name))
    {
        return Ok(());
    }
    let system = System::on_memory().await?;
    system
        .client()?
        .registry
        .register(RegisterRequest::new("a"))
        .await?;
    let through = connect(system.proxy.data).await?;
    let direct = connect(system.runners[0].data).await?;
    latency(report, &through, &direct).await?;
    throughput(report, &through, &direct).await
}

async fn connect(address: SocketAddr) -> Result<RawClient<Channel>> {
    let channel = Channel::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect()
        .await?;
    Ok(RawClient::new(channel))
}

fn get() -> Request<GetRequest> {
    let mut request = Request::new(GetRequest { identity: "a".into() });
    request.metadata_mut().insert(
        "x-prism-namespace",
        tonic::metadata::MetadataValue::from_static("test"),
    );
    request
}

/// One call after the other, in turns, so that drift of the machine hits both alike.
async fn latency(
    report: &mut Report,
    through: &RawClient<Channel>,
    direct: &RawClient<Channel>,
) -> Result<()> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..4_000 {
        for (client, samples) in [(through, &mut with), (direct, &mut without)] {
            let mut client = client.clone();
            let began = Instant::now();
            client.get(get()).await?;
            if round >= 500 {
                samples.push(began.elapsed());
            }
        }
    }
    let (value, floor) = (percentile(&mut with, 0.5), percentile(&mut without, 0.5));
    let more = json!({ "added": value - floor, "p99": percentile(&mut with, 0.99), "floor_p99": percentile(&mut without, 0.99) });
    report.row("proxy_unary_latency_p50", value, "us", floor, Better::Lower, more);
    Ok(())
}

/// 64 callers for a while, in turns.
async fn throughput(
    report: &mut Report,
    through: &RawClient<Channel>,
    direct: &RawClient<Channel>,
) -> Result<()> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let pair = (per_second(through).await?, per_second(direct).await?);
        if round > 0 {
            with.push(pair.0);
            without.push(pair.1);
        }
    }
    let (value, floor) = (median(&mut with), median(&mut without));
    report.row(
        "proxy_unary_throughput",
        value,
        "calls/s",
        floor,
        Better::Higher,
        json!({}),
    );
    Ok(())
}

async fn per_second(client: &RawClient<Channel>) -> Result<f64> {
    const FOR: Duration = Duration::from_millis(700);
    let began = Instant::now();
    let callers = (0..64).map(|_| {
        let mut client = client.clone();
        async move {
            let mut calls = 0_u64;
            while began.elapsed() < FOR {
                client.get(get()).await?;
                calls += 1;
            }
            anyhow::Ok(calls)
        }
    });
    let calls: u64 = try_join_all(callers).await?.iter().sum();
    Ok(calls as f64 / began.elapsed().as_secs_f64())
}
