//! What a match costs: `cargo run --release -p prism-filter --example filter_eq`.
//!
//! Prints the time of an equality match, of other filters, of reading metadata and of writing it, and
//! what a document takes in memory. Each figure is the best of several rounds, so that what else the
//! machine does counts less.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use prism_filter::{Document, Filter, Limits, Record, merge_patch};

const ROUNDS: usize = 15;

/// The moment of every call: half an hour into 2024.
const NOW: i64 = 1_704_069_000_000;

struct Device {
    document: Document,
}

impl Record for Device {
    fn identity(&self) -> &str {
        "device-0001"
    }

    fn registered_at(&self) -> i64 {
        1_700_000_000_000
    }

    fn updated_at(&self) -> i64 {
        1_700_000_000_000
    }

    fn expires_at(&self) -> Option<i64> {
        None
    }

    fn document(&self) -> &Document {
        &self.document
    }
}

fn metadata(index: usize) -> String {
    let status = ["online", "offline", "away", "busy"][index % 4];
    format!(
        r#"{{"device_type":"sensor","firmware_version":"1.0.{}","location":{{"building":"HQ","floor":{}}},"battery":0.{},"status":"{status}","capabilities":["temperature","humidity","motion-{index}"]}}"#,
        index % 10,
        index % 30,
        index % 100,
    )
}

fn main() -> anyhow::Result<()> {
    let texts: Vec<_> = (0..1_000).map(metadata).collect();
    let devices = texts
        .iter()
        .map(|text| {
            Ok(Device {
                document: Document::from_json(text.as_bytes())?,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;

    for (name, filter) in [
        ("equality, status", r#"{"status": "online"}"#),
        ("equality, first field", r#"{"battery": 0.5}"#),
        ("equality, missing field", r#"{"region": "eu"}"#),
        ("equality, nested", r#"{"location.building": "HQ"}"#),
        ("less than", r#"{"battery.lt": 0.2}"#),
        ("prefix", r#"{"firmware_version.startswith": "1.0"}"#),
        ("substring", r#"{"device_type.contains": "ens"}"#),
        ("membership", r#"{"capabilities.contains": "humidity"}"#),
        ("one of three", r#"{"status.in": ["online", "away", "busy"]}"#),
        (
            "regular expression",
            r#"{"firmware_version.regex": "^1\\.0\\.[0-3]$"}"#,
        ),
        ("identity", r#"{"$identity.startswith": "device-"}"#),
        ("two clauses", r#"{"status": "online", "battery.lt": 0.2}"#),
    ] {
        matching(name, filter, &devices)?;
    }
    notations()?;
    reading_and_writing(&texts, &devices)?;
    memory(&texts, &devices);
    Ok(())
}

/// What it costs to read more into a value than its type says.
fn notations() -> anyhow::Result<()> {
    let metadata = |index: usize| {
        let (lat, lon) = ((index * 7) % 180, (index * 13) % 360);
        format!(
            r#"{{"firmware":"1.{}.{}","nightly":"2.0.{}-nightly.20240229+sha.0123456789abcdef","address":"10.0.{}.{}","mapped":"::ffff:10.0.0.{}","location":{{"lat":{}.5,"lon":{}.25}},"seen":"2024-01-01T00:00:{:02}Z","seen_ms":{},"status":"online"}}"#,
            index % 20,
            index % 10,
            index % 5,
            index % 250,
            index % 200,
            index % 100,
            lat as i64 - 90,
            lon as i64 - 180,
            index % 60,
            1_704_067_200_000_i64 + index as i64,
        )
    };
    let devices: Vec<_> = (0..1_000)
        .map(|index| {
            Ok(Device {
                document: Document::from_json(metadata(index).as_bytes())?,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    for (name, filter) in [
        ("version", r#"{"firmware.semver.gte": "1.10.0"}"#),
        (
            "version, long",
            r#"{"nightly.semver.gte": "2.0.3-nightly.20240101"}"#,
        ),
        ("version, of another text", r#"{"status.semver.gte": "1.10.0"}"#),
        ("network", r#"{"address.cidr": "10.0.0.0/17"}"#),
        ("network, mapped address", r#"{"mapped.cidr": "10.0.0.0/26"}"#),
        ("network, of another text", r#"{"status.cidr": "10.0.0.0/17"}"#),
        (
            "within a radius, most not",
            r#"{"location.within": {"lat": 37.77, "lon": -122.42, "radius_m": 50000}}"#,
        ),
        (
            "within a radius, half",
            r#"{"location.within": {"lat": 0, "lon": 0, "radius_m": 10000000}}"#,
        ),
        (
            "within a box",
            r#"{"location.within": {"south": -45, "west": 90, "north": 45, "east": -90}}"#,
        ),
        ("relative time, of a number", r#"{"seen_ms.gt": "now-5m"}"#),
        ("relative time, of a text", r#"{"seen.gt": "now-5m"}"#),
        ("relative time, of another text", r#"{"status.gt": "now-5m"}"#),
        (
            "relative time, of a system field",
            r#"{"$registered_at.gt": "now-5m"}"#,
        ),
    ] {
        matching(name, filter, &devices)?;
    }
    Ok(())
}

fn matching(name: &str, filter: &str, devices: &[Device]) -> anyhow::Result<()> {
    let filter = compile(filter)?;
    let ask = || {
        let matching = devices.iter().filter(|device| filter.matches(black_box(*device)));
        black_box(matching.count());
    };
    report(name, time(devices.len(), ask));
    Ok(())
}

fn reading_and_writing(texts: &[String], devices: &[Device]) -> anyhow::Result<()> {
    report(
        "document from JSON",
        time(texts.len(), || {
            for text in texts {
                let _ = black_box(Document::from_json(black_box(text.as_bytes())));
            }
        }),
    );
    let canonical: Vec<_> = devices.iter().map(|device| device.document.to_json()).collect();
    report(
        "document from canonical JSON",
        time(texts.len(), || {
            for text in &canonical {
                let _ = black_box(Document::from_json(black_box(text)));
            }
        }),
    );
    let mut json = Vec::new();
    report(
        "document to JSON",
        time(devices.len(), || {
            for device in devices {
                json.clear();
                black_box(&device.document).write_json(&mut json);
            }
        }),
    );
    let patch = Document::from_json(br#"{"status":"busy","location":{"floor":3}}"#)?;
    report(
        "merge patch",
        time(devices.len(), || {
            for device in devices {
                let _ = black_box(merge_patch(black_box(&device.document), &patch));
            }
        }),
    );
    report(
        "serde_json::Value from JSON, to compare",
        time(texts.len(), || {
            for text in texts {
                let _ = black_box(serde_json::from_str::<serde_json::Value>(black_box(text)));
            }
        }),
    );
    let limits = Limits::default();
    report(
        "filter, parse and compile",
        time(1_000, || {
            for _ in 0..1_000 {
                let filter = Filter::parse_str(black_box(r#"{"status": "online"}"#), &limits);
                let _ = black_box(filter.and_then(|filter| filter.compile(&limits)));
            }
        }),
    );
    Ok(())
}

fn memory(texts: &[String], devices: &[Device]) {
    let text: usize = texts.iter().map(String::len).sum();
    let encoded: usize = devices.iter().map(|device| device.document.byte_len()).sum();
    let count = texts.len();
    println!(
        "{:<42}{:>8.1} bytes of JSON",
        "metadata",
        text as f64 / count as f64
    );
    println!(
        "{:<42}{:>8.1} bytes, and 16 of reference counts",
        "document",
        encoded as f64 / count as f64
    );
}

fn compile(filter: &str) -> anyhow::Result<prism_filter::Compiled> {
    let limits = Limits::default();
    Ok(Filter::parse_str(filter, &limits)?.compile_at(NOW, &limits)?)
}

/// The best time for one of the `count` things that `run` does.
fn time(count: usize, mut run: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..10 {
            run();
        }
        best = best.min(begin.elapsed());
    }
    best.as_nanos() as f64 / (10 * count) as f64
}

fn report(name: &str, nanoseconds: f64) {
    println!("{name:<42}{nanoseconds:>8.1} ns");
}
