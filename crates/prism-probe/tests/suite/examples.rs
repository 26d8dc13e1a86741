//! What the examples tell their readers to type does what it says.

use std::{fs, path::Path};

use prism_filter::{Document, Filter, Limits, Record};
use serde_json::Value;

struct Registered {
    identity: String,
    metadata: Document,
}

impl Record for Registered {
    fn identity(&self) -> &str {
        &self.identity
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
        &self.metadata
    }
}

/// The JSON that follows an option.
fn option(line: &str, name: &str) -> Option<Value> {
    let (_, rest) = line.split_once(&format!("{name} '"))?;
    let (text, _) = rest.split_once('\'')?;
    Some(serde_json::from_str(text).unwrap())
}

#[test]
fn a_message_of_an_example_reaches_somebody_whom_it_registers() {
    let limits = Limits::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut published = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let registered: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once("multicast register "))
            .map(|(_, line)| Registered {
                identity: line.split(' ').next().unwrap().to_owned(),
                metadata: Document::from_value(&option(line, "--metadata").unwrap()).unwrap(),
            })
            .collect();
        for line in text.lines().filter(|line| line.contains("multicast publish ")) {
            let Some(filter) = option(line, "--filter") else {
                continue;
            };
            let filter = Filter::parse_json(&filter, &limits)
                .unwrap()
                .compile(&limits)
                .unwrap();
            assert!(
                registered.iter().any(|record| filter.matches(record)),
                "{}: {line}",
                path.display()
            );
            published += 1;
        }
    }
    assert!(published > 0, "nothing was looked at");
}
