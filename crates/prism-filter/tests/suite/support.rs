//! Records to ask about, and short ways to ask.

use prism_filter::{Document, Error, Filter, Limits, Record};
use serde_json::Value;

/// The moment of every call, in milliseconds since 1970.
pub(crate) const NOW: i64 = 2_000;

/// A record whose system fields are fixed: `sensor-1`, registered at 1,000, updated at 2,000 ms.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) document: Document,
    pub(crate) expires_at: Option<i64>,
}

impl Sample {
    pub(crate) fn new(metadata: &Value) -> Self {
        Self {
            document: Document::from_value(metadata).unwrap(),
            expires_at: Some(3_000),
        }
    }
}

impl Record for Sample {
    fn identity(&self) -> &str {
        "sensor-1"
    }

    fn registered_at(&self) -> i64 {
        1_000
    }

    fn updated_at(&self) -> i64 {
        2_000
    }

    fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }

    fn document(&self) -> &Document {
        &self.document
    }
}

/// Whether the record matches the filter, through the whole path from JSON.
pub(crate) fn matches(filter: &Value, record: &Sample) -> bool {
    let limits = Limits::default();
    let filter = Filter::parse_json(filter, &limits).unwrap_or_else(|error| panic!("{filter}: {error}"));
    filter.compile_at(NOW, &limits).unwrap().matches(record)
}

/// Reads and compiles a filter that must be refused.
pub(crate) fn refusal(filter: &Value, limits: &Limits) -> Error {
    let compiled = Filter::parse_json(filter, limits).and_then(|filter| filter.compile_at(NOW, limits));
    compiled.err().unwrap_or_else(|| panic!("accepted {filter}"))
}
