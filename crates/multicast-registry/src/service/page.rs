//! What a page shows.

use std::collections::HashMap;

use prism_core::failure::Reason;
use prism_filter::{Document, Path};
use prism_proto::pattern as proto;
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};

use super::wire::{ANSWER_BYTES, ITEM_OVERHEAD, Result, invalid, largest, to_listed, to_position};
use crate::{coordinator::Page, directory::Facet};

/// How many fields one call may ask for.
const MAX_FIELDS: usize = 64;
/// How many values of a facet are shown.
const MAX_BUCKETS: usize = 100;

pub(super) fn paths(field: &str, texts: &[String]) -> Result<Vec<Path>> {
    let path = |(index, text): (usize, &String)| {
        Path::parse(text).map_err(|error| {
            let message = format!("`{text}` is no path: {error}");
            invalid(Reason::InvalidRequest, &format!("{field}[{index}]"), message)
        })
    };
    texts.iter().enumerate().map(path).collect()
}

/// What an answer shows of metadata.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    All,
    Nothing,
    Fields(Vec<Path>),
}

impl Shown {
    pub(super) fn read(request: &proto::EnumerateRequest) -> Result<Self> {
        if request.fields.len() > MAX_FIELDS {
            let message = format!(
                "at most {MAX_FIELDS} fields can be asked for, not {}",
                request.fields.len()
            );
            return Err(invalid(Reason::InvalidRequest, "fields", message).with("limit", MAX_FIELDS));
        }
        let fields = paths("fields", &request.fields)?;
        if let Some(index) = fields.iter().position(|path| path.system().is_some()) {
            let message = "what begins with `$` is no metadata and always part of the answer";
            return Err(invalid(
                Reason::InvalidRequest,
                &format!("fields[{index}]"),
                message,
            ));
        }
        Ok(match request.include_metadata.unwrap_or(true) {
            false => Self::Nothing,
            true if fields.is_empty() => Self::All,
            true => Self::Fields(fields),
        })
    }

    pub(super) fn of(&self, document: &Document) -> HashMap<String, Value> {
        let mut metadata = HashMap::new();
        match self {
            Self::All => return document.to_proto(),
            Self::Nothing => {}
            Self::Fields(paths) => {
                for path in paths {
                    if let (Some((first, rest)), Some(value)) =
                        (path.keys().split_first(), document.get(path))
                    {
                        put(metadata.entry(first.to_string()).or_default(), rest, value.into());
                    }
                }
            }
        }
        metadata
    }
}

/// Puts a value into the objects that lead to it.
fn put(place: &mut Value, keys: &[Box<str>], value: Value) {
    let Some((first, rest)) = keys.split_first() else {
        *place = value;
        return;
    };
    if !matches!(place.kind, Some(Kind::StructValue(_))) {
        place.kind = Some(Kind::StructValue(Struct::default()));
    }
    if let Some(Kind::StructValue(object)) = &mut place.kind {
        put(object.fields.entry(first.to_string()).or_default(), rest, value);
    }
}

pub(super) fn to_enumerate_response(mut page: Page, shown: &Shown) -> proto::EnumerateResponse {
    let whole = page.rows.iter().map(largest).sum::<usize>() <= ANSWER_BYTES;
    let mut identities = Vec::with_capacity(page.rows.len());
    let mut left = ANSWER_BYTES;
    for row in page.rows.iter() {
        let identity = to_listed(row, page.expires_at(row), shown);
        // Measured only where it may matter: that takes about as long as encoding.
        let size = if whole {
            0
        } else {
            identity.encoded_len() + ITEM_OVERHEAD
        };
        if size > left && !identities.is_empty() {
            break;
        }
        left = left.saturating_sub(size);
        identities.push(identity);
    }
    page.truncate(identities.len());
    proto::EnumerateResponse {
        identities,
        total_count: page.total as i64,
        next_cursor: page.next,
        position: Some(to_position(page.position)),
        view_age_ms: page.age.map(|age| age.as_millis() as i64),
        facets: page.facets.into_iter().map(to_facet).collect(),
    }
}

fn to_facet(facet: Facet) -> proto::Facet {
    let value_count = facet.values.len() as i64;
    let buckets = facet.values.into_iter().take(MAX_BUCKETS);
    proto::Facet {
        field: facet.path.to_string(),
        buckets: buckets
            .map(|(value, count)| proto::facet::Bucket {
                value: Some(scalar(&value)),
                count: count as i64,
            })
            .collect(),
        value_count,
        other_count: facet.others as i64,
        missing_count: facet.missing as i64,
    }
}

fn scalar(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        _ => Kind::NullValue(0),
    };
    Value { kind: Some(kind) }
}
