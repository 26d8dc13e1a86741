//! The whole system over Redis and NATS: client, proxy, runner and servers as processes of their own.
//!
//! Floors are the raw library calls that do the least of what each operation needs: a `SET`, a `MGET` of as
//! many keys, a publish of as many subjects with a barrier.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fred::prelude::*;
use futures::{StreamExt, future::try_join_all};
use integration::System;
use prism_client::{
    Client, EnumerateRequest, Event, Filter, MulticastRequest, RegisterRequest, Subscription,
};
use serde_json::json;

use crate::{
    redis::raw_pool,
    report::{Better, Report, percentile},
};

const ROUNDS: usize = 300;
const WARM_UP: usize = 30;
const IDENTITIES: usize = 1_000;
/// One of ten has it.
const STATUS: [&str; 10] = [
    "online", "away", "away", "busy", "off", "off", "off", "off", "off", "off",
];

const NAMES: [&str; 7] = [
    "register_p50_redis_nats",
    "enumerate_p50_redis_nats",
    "multicast_p50_redis_nats",
    "enumerate_1000_redis",
    "multicast_100_redis_nats",
    "enumerate_10k_redis",
    "enumerate_1000_redis_native",
];

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    if !NAMES.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let bench = Bench::start(System::on_redis_and_nats(1).await?).await?;
    let register = bench.time(Bench::register).await?;
    let set = bench.time(Bench::raw_set).await?;
    add(report, NAMES[0], register, set, 0.5);
    let names = bench.fill().await?;
    let enumerate = bench.time(Bench::enumerate).await?;
    let mget = bench.time(Bench::raw_mget).await?;
    add(report, NAMES[1], enumerate.clone(), mget.clone(), 0.5);
    add(report, NAMES[3], enumerate.clone(), mget, 0.99);
    let native = native().await?;
    add(report, NAMES[6], native, enumerate, 0.99);
    let _readers = bench.subscribe(&names).await?;
    let multicast = bench.time(Bench::multicast).await?;
    let publish = bench.time(Bench::raw_publish).await?;
    add(report, NAMES[2], multicast.clone(), publish.clone(), 0.5);
    add(report, NAMES[4], multicast, publish, 0.99);
    bench.fill_devices().await?;
    let mut devices = bench.time(Bench::devices).await?;
    let more = json!({ "statistic": "p99", "max": percentile(&mut devices, 1.0) });
    // Its aim.
    let floor = 10_000.0;
    report.row(
        NAMES[5],
        percentile(&mut devices, 0.99),
        "us",
        floor,
        Better::Lower,
        more,
    );
    Ok(())
}

/// The same data and filter without a view: what the view's figure is the floor of.
async fn native() -> Result<Vec<Duration>> {
    let bench = Bench::start(System::on_redis_and_nats_without_view(1).await?).await?;
    bench.fill().await?;
    bench.time(Bench::enumerate).await
}

fn add(report: &mut Report, name: &str, mut value: Vec<Duration>, mut floor: Vec<Duration>, share: f64) {
    let statistic = if share > 0.9 { "p99" } else { "p50" };
    let more = json!({ "statistic": statistic, "max": percentile(&mut value, 1.0) });
    let (value, floor) = (percentile(&mut value, share), percentile(&mut floor, share));
    report.row(name, value, "us", floor, Better::Lower, more);
}

struct Bench {
    client: Client,
    redis: Pool,
    nats: async_nats::Client,
    _system: System,
}

impl Bench {
    async fn start(system: System) -> Result<Self> {
        let redis = raw_pool(system.redis.as_ref().context("no redis")?, 1).await?;
        let nats = async_nats::connect(system.nats.as_ref().context("no nats")?.url()).await?;
        Ok(Self {
            client: system.client()?,
            redis,
            nats,
            _system: system,
        })
    }

    /// One after the other.
    async fn time(&self, once: impl AsyncFn(&Self, usize) -> Result<()>) -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(ROUNDS);
        for round in 0..WARM_UP + ROUNDS {
            let began = Instant::now();
            once(self, round).await?;
            if round >= WARM_UP {
                times.push(began.elapsed());
            }
        }
        Ok(times)
    }

    async fn register(&self, round: usize) -> Result<()> {
        let metadata = json!({ "status": "off", "firmware_version": "1.2.3", "location": "warehouse-a" });
        let request = RegisterRequest {
            metadata,
            ..RegisterRequest::new(format!("timed-{round}"))
        };
        self.client.registry.register(request).await?;
        Ok(())
    }

    async fn raw_set(&self, round: usize) -> Result<()> {
        let value = r#"{"status":"off","firmware_version":"1.2.3","location":"warehouse-a"}"#;
        let _: () = self
            .redis
            .set(format!("raw-{round}"), value, None, None, false)
            .await?;
        Ok(())
    }

    /// Returns the names of the ones that are online.
    async fn fill(&self) -> Result<Vec<String>> {
        let register = async |number: usize| {
            let metadata = json!({ "status": STATUS[number % 10], "firmware_version": "1.2.3" });
            let name = format!("device-{number:04}");
            let request = RegisterRequest {
                metadata,
                ..RegisterRequest::new(name)
            };
            self.client.registry.register(request).await
        };
        for numbers in (0..IDENTITIES).collect::<Vec<_>>().chunks(100) {
            try_join_all(numbers.iter().map(|&number| register(number))).await?;
        }
        Ok((0..IDENTITIES)
            .step_by(10)
            .map(|number| format!("device-{number:04}"))
            .collect())
    }

    /// More devices, up to about the 10,000 that a namespace holds by default; a hundred of each firmware.
    async fn fill_devices(&self) -> Result<()> {
        let register = async |number: usize| {
            let metadata =
                json!({ "firmware_version": format!("2.{}.0", number % 86), "location": "warehouse-b" });
            let request = RegisterRequest {
                metadata,
                ..RegisterRequest::new(format!("sensor-{number:05}"))
            };
            self.client.registry.register(request).await
        };
        for numbers in (0..8_600).collect::<Vec<_>>().chunks(200) {
            try_join_all(numbers.iter().map(|&number| register(number))).await?;
        }
        Ok(())
    }

    async fn devices(&self, round: usize) -> Result<()> {
        let request = EnumerateRequest {
            filter: Some(Filter::new().eq("firmware_version", format!("2.{}.0", round % 86))),
            ..Default::default()
        };
        let page = self.client.registry.enumerate(request).await?;
        ensure!(page.identities.len() == 100, "found {}", page.identities.len());
        Ok(())
    }

    async fn enumerate(&self, _round: usize) -> Result<()> {
        let request = EnumerateRequest {
            filter: Some(Filter::new().eq("status", "online")),
            ..Default::default()
        };
        let page = self.client.registry.enumerate(request).await?;
        ensure!(page.identities.len() == 100, "found {}", page.identities.len());
        Ok(())
    }

    /// What enumerating without a view has to read.
    async fn raw_mget(&self, _round: usize) -> Result<()> {
        let keys: Vec<String> = (0..IDENTITIES)
            .map(|number| format!("raw-{}", number % (WARM_UP + ROUNDS)))
            .collect();
        let values: Vec<String> = self.redis.mget(keys).await?;
        ensure!(values.len() == IDENTITIES, "read {}", values.len());
        Ok(())
    }

    async fn subscribe(&self, names: &[String]) -> Result<Vec<tokio_util::task::AbortOnDropHandle<()>>> {
        let open = names.iter().map(|name| async {
            let mut session = self.client.registry.subscribe(name.as_str()).await?;
            let opened = session.next().await;
            ensure!(matches!(opened, Some(Ok(Event::Opened(_)))), "{opened:?}");
            Ok(session)
        });
        let sessions = try_join_all(open).await?;
        let read = |mut session: Subscription| async move { while session.next().await.is_some() {} };
        Ok(sessions
            .into_iter()
            .map(|session| tokio_util::task::AbortOnDropHandle::new(tokio::spawn(read(session))))
            .collect())
    }

    async fn multicast(&self, _round: usize) -> Result<()> {
        let filter = Some(Filter::new().eq("status", "online"));
        let request = MulticastRequest {
            filter,
            payload: "hello".into(),
            ..Default::default()
        };
        let report = self.client.registry.multicast(request).await?;
        ensure!(
            report.delivered_count == 100,
            "delivered {}",
            report.delivered_count
        );
        Ok(())
    }

    async fn raw_publish(&self, _round: usize) -> Result<()> {
        let inbox = self.nats.new_inbox();
        let mut echo = self.nats.subscribe(inbox.clone()).await?;
        for number in 0..100 {
            self.nats
                .publish(format!("raw.device-{number}"), Bytes::from_static(b"hello"))
                .await?;
        }
        self.nats.publish(inbox, Bytes::new()).await?;
        echo.next().await.context("no echo")?;
        Ok(())
    }
}
