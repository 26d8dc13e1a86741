//! `make load`: what reads cost, among a hundred identities and among a million.
//!
//! In one process, on memory slots. Prints a table and draws `docs/scale.svg`.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use multicast_registry::{Config, Coordinator, Enumerate, Register, schema::Schema};
use plotters::prelude::*;
use prism_filter::{Document, Filter};
use prism_slot::memory::{MemoryMessaging, MemoryRegistry};
use serde_json::json;
use tokio::time::Instant as Deadline;

const SIZES: [usize; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];
const SAMPLES: usize = 500;
/// How many match.
const MATCHES: usize = 10;

/// One way to ask.
struct Line {
    name: &'static str,
    color: RGBColor,
    /// Microseconds by the number of identities: the median, and what 99 of 100 stay below.
    points: Vec<(usize, f64, f64)>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut lines = [
        ("equality, ten found", RGBColor(0x1f, 0x77, 0xb4)),
        ("range, ten found", RGBColor(0x2c, 0xa0, 0x2c)),
        ("equality, ten counted", RGBColor(0xd6, 0x27, 0x28)),
        ("range, half of all counted", RGBColor(0x94, 0x67, 0xbd)),
    ]
    .map(|(name, color)| Line {
        name,
        color,
        points: Vec::new(),
    });
    println!(
        "{:>10}  {:26}  {:>10}  {:>10}",
        "identities", "", "p50 us", "p99 us"
    );
    for size in SIZES {
        let coordinator = filled(size).await?;
        for (index, line) in lines.iter_mut().enumerate() {
            let (median, tail) = measure(&coordinator, index, size).await?;
            println!("{size:>10}  {:26}  {median:>10.1}  {tail:>10.1}", line.name);
            line.points.push((size, median, tail));
        }
        coordinator.close().await;
    }
    draw(
        &lines,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scale.svg"),
    )
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

/// Latency against size, both logarithmic: medians as lines, the 99th percentiles as rings.
fn draw(lines: &[Line], path: &Path) -> Result<()> {
    let drawn = || -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::new(path, (760, 440)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Reads by the number of identities", ("sans-serif", 20))
            .margin(14)
            .x_label_area_size(42)
            .y_label_area_size(56)
            .build_cartesian_2d((80_f64..1_300_000.0).log_scale(), (1_f64..10_000.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("identities in the namespace")
            .y_desc("microseconds, in process")
            .x_label_formatter(&|size| format!("{size:.0}"))
            .y_label_formatter(&|micros| format!("{micros:.0}"))
            .draw()?;
        for line in lines {
            let color = line.color;
            let medians = line.points.iter().map(|&(size, median, _)| (size as f64, median));
            chart
                .draw_series(LineSeries::new(medians, color.stroke_width(2)).point_size(3))?
                .label(format!("{}: median, and p99 as rings", line.name))
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
            let tails = line.points.iter().map(|&(size, _, tail)| (size as f64, tail));
            chart.draw_series(tails.map(|point| Circle::new(point, 5, color)))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE.mix(0.9))
            .draw()?;
        root.present()?;
        Ok(())
    };
    drawn().map_err(|error| anyhow!("cannot draw `{}`: {error}", path.display()))
}
