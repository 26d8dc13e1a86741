//! What a target costs where there are a thousand of them and where there are a hundred thousand, and the memory that
//! a multicast to all of those takes in the runner: sent once over NATS, and stored in each kind of inbox.
//!
//! One subscription to the topics of all counts what is sent once; what is stored waits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::{Counter, Proxy, System};
use prism_client::{Client, DeliverySemantics, Filter, MulticastRequest, RegisterRequest};
use prism_testkit::{NatsServer, RedisServer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    report::{Better, Report, median},
    usage::{Usage, forget_peak, mebibytes},
};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// How often each in one turn, and how many turns: all sizes meet a file of the same length.
const TIMES: [usize; 3] = [4, 2, 1];
const TURNS: usize = 5;
const ALL: usize = SIZES[2];
const BATCH: usize = 5_000;
const PAYLOAD: [u8; 200] = [b'x'; 200];
/// In mebibytes.
const AIM: f64 = 256.0;
const LONG: Duration = Duration::from_secs(60);

/// A way for messages to go, and its two rows.
struct Way {
    inboxes: Inboxes,
    memory: &'static str,
    linear: &'static str,
}

/// Where messages wait.
#[derive(Clone, Copy, PartialEq)]
enum Inboxes {
    /// Nowhere: they are sent once.
    None,
    JetStream,
    RedisStreams,
    Sqlite,
}

const WAYS: [Way; 4] = [
    Way {
        inboxes: Inboxes::None,
        memory: "multicast_100k_memory_nats",
        linear: "multicast_100k_linear_nats",
    },
    Way {
        inboxes: Inboxes::JetStream,
        memory: "multicast_100k_memory_jetstream",
        linear: "multicast_100k_linear_jetstream",
    },
    Way {
        inboxes: Inboxes::RedisStreams,
        memory: "multicast_100k_memory_redis_streams",
        linear: "multicast_100k_linear_redis_streams",
    },
    Way {
        inboxes: Inboxes::Sqlite,
        memory: "multicast_100k_memory_sqlite",
        linear: "multicast_100k_linear_sqlite",
    },
];

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    for way in &WAYS {
        let wanted = report.wants(way.memory) || report.wants(way.linear);
        if wanted && let Err(error) = way.measure(report).await {
            report.refuse(way.memory, &error);
        }
    }
    Ok(())
}

impl Way {
    async fn measure(&self, report: &mut Report) -> Result<()> {
        let mut bench = Bench::start(self.inboxes).await?;
        // Before anything else of that size, whose memory could be used again.
        let extra = bench.extra_memory().await?;
        let each = bench.each().await?;
        let more = json!({
            "targets": ALL, "micros_a_target": { "1000": each[0], "10000": each[1], "100000": each[2] },
        });
        if report.wants(self.memory) {
            report.row(
                self.memory,
                mebibytes(extra),
                "MiB",
                AIM,
                Better::Lower,
                more.clone(),
            );
        }
        if report.wants(self.linear) {
            report.row(self.linear, each[2], "us/target", each[0], Better::Lower, more);
        }
        Ok(())
    }
}

struct Bench {
    delivery: DeliverySemantics,
    client: Client,
    received: Counter,
    system: System,
    _directory: TempDir,
}

impl Bench {
    async fn start(inboxes: Inboxes) -> Result<Self> {
        let (directory, nats) = (tempfile::tempdir()?, NatsServer::start_with_jetstream().await?);
        let redis = match inboxes {
            Inboxes::RedisStreams => Some(RedisServer::start().await?),
            _ => None,
        };
        let durability = match inboxes {
            Inboxes::None => Value::Null,
            Inboxes::JetStream => json!({ "backend": "nats", "config": { "servers": [nats.url()] } }),
            Inboxes::RedisStreams => {
                let address = redis.as_ref().map(|redis| redis.addr().to_string());
                json!({ "backend": "redis-stream", "config": { "address": address } })
            }
            Inboxes::Sqlite => {
                json!({ "backend": "sqlite", "config": { "path": directory.path().join("inbox.db") } })
            }
        };
        let mut namespace = json!({
            "name": "test",
            "pattern": "multicast-registry",
            "slots": {
                "registry": "memory",
                "messaging": { "backend": "nats", "config": { "servers": [nats.url()] } },
            },
            "behavior": { "max_identities": 1_000_000 },
            "identity_schema": { "number": { "type": "int", "index": true } },
        });
        if !durability.is_null() {
            namespace["slots"]["durability"] = durability;
        }
        let received = Counter::subscribe(&nats, "prism.multicast.test", "device-").await?;
        let proxy = Proxy::start(&[namespace]).await?;
        let system = System::serve(proxy, 1, redis, Some(nats)).await?;
        let client = Client::builder()
            .endpoint(system.proxy.data.to_string())
            .namespace("test");
        let delivery = match inboxes {
            Inboxes::None => DeliverySemantics::AtMostOnce,
            _ => DeliverySemantics::AtLeastOnce,
        };
        let bench = Self {
            delivery,
            client: client.attempts(1).timeout(LONG).connect_lazy()?,
            received,
            system,
            _directory: directory,
        };
        bench.fill().await?;
        Ok(bench)
    }

    async fn fill(&self) -> Result<()> {
        for first in (0..ALL).step_by(BATCH) {
            let requests = (first..first + BATCH).map(|number| RegisterRequest {
                metadata: json!({ "number": number }),
                ..RegisterRequest::new(format!("device-{number:06}"))
            });
            for registered in self.client.registry.register_many(requests).await? {
                registered?;
            }
        }
        Ok(())
    }

    /// How long a multicast to so many took until it was answered. All were sent to, and what is sent once arrived.
    async fn multicast(&mut self, targets: usize) -> Result<Duration> {
        let request = MulticastRequest {
            filter: Some(Filter::new().lt("number", targets as u32)),
            payload: PAYLOAD.to_vec(),
            delivery: Some(self.delivery),
            ..Default::default()
        };
        let began = Instant::now();
        let told = self.client.registry.multicast(request).await?;
        let took = began.elapsed();
        let reached = match self.delivery {
            DeliverySemantics::AtMostOnce => told.delivered_count,
            _ => told.pending_count,
        };
        ensure!(reached == targets as u64, "{reached} of {targets}");
        if self.delivery == DeliverySemantics::AtMostOnce {
            self.received.more(targets, LONG).await?;
        }
        Ok(took)
    }

    /// Microseconds for each target, by size.
    async fn each(&mut self) -> Result<[f64; 3]> {
        let mut micros = [const { Vec::new() }; 3];
        for _ in 0..TURNS {
            for (micros, (targets, times)) in micros.iter_mut().zip(SIZES.into_iter().zip(TIMES)) {
                for _ in 0..times {
                    let took = self.multicast(targets).await?;
                    micros.push(took.as_secs_f64() * 1e6 / targets as f64);
                }
            }
        }
        Ok(micros.map(|mut micros| median(&mut micros)))
    }

    /// By how much the runner is larger at its largest, for a multicast to all.
    async fn extra_memory(&mut self) -> Result<u64> {
        let pid = self.system.runners.first().context("no runner")?.process.pid();
        // Connections, statements and the like are there by then.
        self.multicast(1).await?;
        forget_peak(pid)?;
        let before = Usage::of(pid)?.resident;
        self.multicast(ALL).await?;
        Ok(Usage::of(pid)?.peak.saturating_sub(before))
    }
}
