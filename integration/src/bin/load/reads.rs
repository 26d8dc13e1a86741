//! What reads cost, among a hundred identities and among a million.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use multicast_registry::{Config, Coordinator, Enumerate, Register, schema::Schema};
use prism_filter::{Document, Filter};
use prism_slot::memory::{MemoryMessaging, MemoryRegistry};
use serde_json::json;
use tokio::time::Instant as Deadline;

use crate::chart::{BLUE, Chart, GREEN, Line, PURPLE, RED};

const SIZES: [usize; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];
const SAMPLES: usize = 500;
/// How many match.
const MATCHES: usize = 10;

const WAYS: [(&str, plotters::style::RGBColor); 4] = [
    ("equality, ten found", BLUE),
    ("range, ten found", GREEN),
    ("equality, ten counted", RED),
    ("range, half of all counted", PURPLE),
];
const CHART: Chart = Chart {
    title: "Reads by the number of identities",
    across: "identities in the namespace",
    up: "microseconds, in process",
    from: (80.0, 1.0),
    to: (1_300_000.0, 10_000.0),
    ring: "p99",
};

pub(crate) async fn run(path: &Path) -> Result<()> {
    let mut lines = WAYS.map(|(name, color)| Line::new(name, color));
    crate::heading("identities", "p99 us");
    for size in SIZES {
        let coordinator = filled(size).await?;
        for (index, line) in lines.iter_mut().enumerate() {
            let (median, tail) = measure(&coordinator, index, size).await?;
            line.point(size, median, tail);
        }
        coordinator.close().await;
    }
    CHART.draw(&lines, path)
}

fn soon() -> Deadline {
    Deadline::now() + Duration::from_secs(60)
}

/// Ten identities have each `group`, and `order` numbers them.
async fn filled(size: usize) -> Result<Coordinator> {
    let schema = json!({
        "group": { "type": "number", "index": true },
        "order": { "type": "number", "index": true },
    });
    let mut config = Config::named("load");
    config.behavior.max_identities = 10_000_000;
    config.schema = Some(Schema::read(&schema).context("the schema")?);
    let registry = Arc::new(MemoryRegistry::new(Default::default()));
    let messaging = Arc::new(MemoryMessaging::new(Default::default()));
    let coordinator = Coordinator::new(config, registry, messaging, None);
    for number in 0..size {
        let metadata = json!({
            "group": number % (size / MATCHES), "order": number, "status": "online", "model": "sensor-x",
            "firmware": "2.4.1", "tags": ["edge", "beta"], "owner": "team-edge", "region": "eu-central",
        });
        let request = Register::new(format!("device-{number:07}"), Document::from_value(&metadata)?)?;
        coordinator.register(request, soon()).await?;
    }
    // The first read follows what there is.
    coordinator.enumerate(Enumerate::default(), soon()).await?;
    Ok(coordinator)
}

async fn measure(coordinator: &Coordinator, way: usize, size: usize) -> Result<(f64, f64)> {
    let mut samples = Vec::with_capacity(SAMPLES);
    for round in 0..SAMPLES + 50 {
        let group = (round * 7_919 % (size / MATCHES)) as u32;
        let filter = match way {
            1 => Filter::new()
                .gte("order", group)
                .lt("order", group + MATCHES as u32),
            3 => Filter::new().gte("order", (size / 2) as u32),
            _ => Filter::new().eq("group", group),
        };
        let expected = if way == 3 { size - size / 2 } else { MATCHES };
        let request = Enumerate {
            filter: Some(filter),
            count_only: way >= 2,
            ..Default::default()
        };
        let began = Instant::now();
        let page = coordinator.enumerate(request, soon()).await?;
        let took = began.elapsed();
        ensure!(page.total == expected as u64, "{} of {size}", page.total);
        if round >= 50 {
            samples.push(took.as_secs_f64() * 1e6);
        }
    }
    samples.sort_unstable_by(f64::total_cmp);
    Ok((samples[SAMPLES / 2], samples[SAMPLES * 99 / 100]))
}
