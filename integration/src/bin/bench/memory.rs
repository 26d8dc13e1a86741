//! In one process, on memory slots: what the pattern itself costs.
//!
//! Floors are the prototype's figures. Where it was measured on this kind of machine that figure is
//! used, otherwise the one that it published, which stems from a faster machine.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use multicast_registry::{Config, Coordinator, Enumerate, Register};
use prism_filter::{Document, Filter, Limits, Record};
use prism_slot::{
    Identity,
    memory::{MemoryMessaging, MemoryRegistry},
};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    inboxes,
    report::{Better, Report, median},
};

/// How often each row is measured; the median counts.
pub(crate) const ROUNDS: usize = 101;
pub(crate) const WARM_UP: usize = 10;

/// The prototype on this kind of machine, in nanoseconds.
const MEASURED: [(&str, f64); 7] = [
    ("filter_eq", 71.0),
    ("register_memory", 1_700.0),
    ("enumerate_1000_filtered_memory", 110_000.0),
    ("multicast_10_memory", 9_600.0),
    ("multicast_100_memory", 85_000.0),
    ("multicast_1000_memory", 829_000.0),
    // The same operation with a lease; published as 1.09 times the one without.
    ("register_ttl_memory", 1_700.0),
];

/// The prototype as published, in nanoseconds.
const PUBLISHED: [(&str, f64); 2] = [("enumerate_1000_memory", 9_700.0), ("unregister_memory", 245.0)];

/// The prototype's figure, in nanoseconds.
pub(crate) fn prototype(name: &str) -> f64 {
    let all = MEASURED.iter().chain(&PUBLISHED);
    all.clone()
        .find(|(known, _)| *known == name)
        .map_or(f64::NAN, |(_, nanos)| *nanos)
}

pub(crate) fn run(report: &mut Report) -> Result<()> {
    filter(report)?;
    // One thread: what is counted is the work, not its distribution.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    registrations(report, &runtime)?;
    enumerations(report, &runtime)?;
    inboxes::run(report, &runtime)
}

fn coordinator(runtime: &Runtime) -> Coordinator {
    let _entered = runtime.enter();
    let mut config = Config::named("bench");
    config.behavior.max_identities = 10_000_000;
    let registry = Arc::new(MemoryRegistry::new(Default::default()));
    let messaging = Arc::new(MemoryMessaging::new(Default::default()));
    let coordinator = Coordinator::new(config, registry, messaging, None);
    runtime.block_on(async {
        let _ = coordinator.enumerate(Enumerate::default(), soon()).await;
    });
    coordinator
}

pub(crate) fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(60)
}

fn metadata(number: usize) -> Document {
    let status = if number.is_multiple_of(4) {
        "online"
    } else {
        "offline"
    };
    let fields = json!({ "status": status, "firmware_version": "1.2.3", "location": "warehouse-a" });
    Document::from_value(&fields).unwrap_or_else(|_| Document::empty())
}

/// Adds a row for an operation that `work` does `count` times, over several rounds. What a round needs
/// is made by `prepare`, outside the measured time.
fn measure<T>(
    report: &mut Report,
    name: &str,
    count: usize,
    mut prepare: impl FnMut() -> T,
    mut work: impl FnMut(T),
) {
    if !report.wants(name) {
        return;
    }
    let mut nanos = Vec::new();
    for _ in 0..WARM_UP {
        work(prepare());
    }
    for _ in 0..ROUNDS {
        let prepared = prepare();
        let began = Instant::now();
        work(prepared);
        nanos.push(began.elapsed().as_secs_f64() * 1e9 / count as f64);
    }
    let prepared = prepare();
    let counted = allocation_counter::measure(|| work(prepared));
    let each = |total: u64| (total as f64 / count as f64 * 100.0).round() / 100.0;
    let more = json!({ "allocations": each(counted.count_total), "bytes": each(counted.bytes_total) });
    report.row(
        name,
        median(&mut nanos),
        "ns",
        prototype(name),
        Better::Lower,
        more,
    );
}

struct Device(Document);

impl Record for Device {
    fn identity(&self) -> &str {
        "device-sensor-42"
    }
    fn registered_at(&self) -> i64 {
        0
    }
    fn updated_at(&self) -> i64 {
        0
    }
    fn expires_at(&self) -> Option<i64> {
        None
    }
    fn document(&self) -> &Document {
        &self.0
    }
}

fn filter(report: &mut Report) -> Result<()> {
    let filter = Filter::new().eq("status", "online").compile(&Limits::default())?;
    let fields = json!({
        "status": "online", "firmware_version": "1.2.3", "location": "warehouse-a",
        "battery": 0.7, "model": "t-1000", "floor": 2,
    });
    let device = Device(Document::from_value(&fields)?);
    measure(
        report,
        "filter_eq",
        1_000_000,
        || (),
        |()| {
            for _ in 0..1_000_000 {
                black_box(filter.matches(black_box(&device)));
            }
        },
    );
    Ok(())
}

/// A namespace of 1,000 identities is filled and emptied, over and over.
fn registrations(report: &mut Report, runtime: &Runtime) -> Result<()> {
    const COUNT: usize = 1_000;
    let request = |number, ttl| {
        let request = Register::new(format!("device-{number}"), metadata(number))?;
        anyhow::Ok(Register { ttl, ..request })
    };
    let requests = |ttl| -> Result<Vec<Register>> { (0..COUNT).map(|number| request(number, ttl)).collect() };
    let fill = |coordinator: &Coordinator, requests: Vec<Register>| {
        let deadline = soon();
        runtime.block_on(async {
            for request in requests {
                let _ = black_box(coordinator.register(request, deadline).await);
            }
        });
    };
    let names = (0..COUNT).map(|number| Identity::new(format!("device-{number}")));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let empty = |coordinator: &Coordinator| {
        let deadline = soon();
        runtime.block_on(async {
            for name in &names {
                let _ = black_box(coordinator.unregister(name.clone(), None, deadline).await);
            }
        });
    };
    for (name, ttl) in [
        ("register_memory", None),
        ("register_ttl_memory", Some(Duration::from_secs(300))),
    ] {
        let (coordinator, requests) = (coordinator(runtime), requests(ttl)?);
        let prepare = || {
            empty(&coordinator);
            requests.clone()
        };
        measure(report, name, COUNT, prepare, |requests| {
            fill(&coordinator, requests)
        });
    }
    let (coordinator, requests) = (coordinator(runtime), requests(None)?);
    let prepare = || fill(&coordinator, requests.clone());
    measure(report, "unregister_memory", COUNT, prepare, |()| {
        empty(&coordinator)
    });
    Ok(())
}

pub(crate) fn filled(runtime: &Runtime, count: usize) -> Result<Coordinator> {
    let coordinator = coordinator(runtime);
    for number in 0..count {
        let request = Register::new(format!("device-{number:04}"), metadata(number))?;
        runtime.block_on(coordinator.register(request, soon()))?;
    }
    Ok(coordinator)
}

fn enumerations(report: &mut Report, runtime: &Runtime) -> Result<()> {
    const COUNT: usize = 100;
    let coordinator = filled(runtime, 1_000)?;
    let all = Enumerate {
        limit: 1_000,
        ..Default::default()
    };
    let some = Enumerate {
        filter: Some(Filter::new().eq("status", "online")),
        ..all.clone()
    };
    for (name, request) in [
        ("enumerate_1000_memory", all),
        ("enumerate_1000_filtered_memory", some),
    ] {
        let work = |()| {
            runtime.block_on(async {
                for _ in 0..COUNT {
                    let _ = black_box(coordinator.enumerate(request.clone(), soon()).await);
                }
            });
        };
        measure(report, name, COUNT, || (), work);
    }
    Ok(())
}
