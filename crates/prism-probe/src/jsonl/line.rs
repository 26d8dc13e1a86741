//! One registration as a line of JSON.

use std::{borrow::Cow, fmt, time::SystemTime};

use jiff::Timestamp;
use prism_client::{Identity, RegisterRequest};
use prism_filter::Document;
use prism_proto::pattern;
use prost::Message;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, IgnoredAny, Unexpected, Visitor},
};
use serde_json::{Value, error::Category, value::RawValue};

use crate::output::tidy;

/// What the service takes.
const MAX_IDENTITY_BYTES: usize = 256;
const MAX_REQUEST_BYTES: usize = 16 << 20;
/// By how much a line may grow on its way: a number of one digit takes thirteen bytes, and its comma none.
const GROWTH: usize = 16;

/// A line, as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    #[serde(borrow)]
    identity: Cow<'a, str>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "seconds")]
    ttl_seconds: Option<u64>,
    #[serde(default, deserialize_with = "millis")]
    ttl_ms: Option<u64>,
    /// What follows is known, and of no use here.
    #[serde(rename = "registered_at")]
    _registered_at: Option<IgnoredAny>,
    #[serde(rename = "updated_at")]
    _updated_at: Option<IgnoredAny>,
    #[serde(rename = "expires_at")]
    _expires_at: Option<IgnoredAny>,
    #[serde(rename = "error")]
    _error: Option<IgnoredAny>,
}

/// A line, as it is written.
#[derive(Serialize)]
struct Written<'a> {
    identity: &'a str,
    metadata: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    registered_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// The registration that a line asks for, or what is wrong with the line.
pub(crate) fn read(text: &str) -> Result<RegisterRequest, String> {
    let form: Form<'_> = serde_json::from_str(text).map_err(|error| mistake(&error))?;
    check_identity(&form.identity)?;
    if form.ttl_seconds.is_some() && form.ttl_ms.is_some() {
        return Err("`ttl_seconds` and `ttl_ms` are both there, give one of them".to_owned());
    }
    let metadata = match form.metadata {
        Some(metadata) => Document::from_json(metadata.get().as_bytes()),
        None => Ok(Document::empty()),
    };
    let metadata = metadata.map_err(|error| format!("metadata: {error}"))?;
    if text.len() > MAX_REQUEST_BYTES / GROWTH {
        check_size(&form.identity, &metadata)?;
    }
    for (field, length) in [("ttl_seconds", form.ttl_seconds), ("ttl_ms", form.ttl_ms)] {
        // Wire integers are signed.
        if length.is_some_and(|length| i64::try_from(length).is_err()) {
            return Err(format!("`{field}` is too large"));
        }
    }
    Ok(RegisterRequest {
        identity: form.identity.into_owned(),
        metadata: metadata.to_value(),
        ttl: form.ttl_seconds,
        ttl_ms: form.ttl_ms,
        ..Default::default()
    })
}

/// Appends a registration as a line.
pub(crate) fn write(found: Identity, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let lease = found
        .ttl
        .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let (ttl_seconds, ttl_ms) = match (lease, found.expires_at) {
        (Some(millis), _) if millis % 1_000 == 0 => (Some(millis / 1_000), None),
        (Some(millis), _) => (None, Some(millis)),
        (None, None) => (Some(0), None),
        // A service that does not say how long leases are.
        (None, Some(_)) => (None, None),
    };
    let written = Written {
        identity: &found.identity,
        metadata: tidy(Value::Object(found.metadata)),
        ttl_seconds,
        ttl_ms,
        registered_at: time(found.registered_at),
        updated_at: time(found.updated_at),
        expires_at: found.expires_at.map(time),
    };
    serde_json::to_writer(&mut *out, &written)?;
    out.push(b'\n');
    Ok(())
}

fn seconds<'de, D: Deserializer<'de>>(source: D) -> Result<Option<u64>, D::Error> {
    source.deserialize_any(Length("a number of seconds, 0 or more"))
}

fn millis<'de, D: Deserializer<'de>>(source: D) -> Result<Option<u64>, D::Error> {
    source.deserialize_any(Length("a number of milliseconds, 0 or more"))
}

/// A length of time, or null, and what people call it.
struct Length(&'static str);

impl Visitor<'_> for Length {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_u64<E: Error>(self, length: u64) -> Result<Self::Value, E> {
        Ok(Some(length))
    }

    fn visit_i64<E: Error>(self, length: i64) -> Result<Self::Value, E> {
        let wrong = || E::invalid_value(Unexpected::Signed(length), &self);
        u64::try_from(length).map(Some).map_err(|_| wrong())
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// The line that is read is always the first of its text; only the column says something.
fn mistake(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(what, _)| what);
    let what = match (error.classify(), what) {
        // Said of any word that is none of JSON's.
        (Category::Syntax, "expected ident") => "not valid JSON".to_owned(),
        (Category::Syntax | Category::Eof, what) => format!("not valid JSON: {what}"),
        (_, what) => what.to_owned(),
    };
    format!("{what}, at column {}", error.column())
}

/// A request that is too large would be refused with all that are sent together with it.
fn check_size(identity: &str, metadata: &Document) -> Result<(), String> {
    let request = pattern::RegisterRequest {
        identity: identity.to_owned(),
        metadata: metadata.to_proto(),
        ..Default::default()
    };
    // Room for the lease and the session.
    let size = request.encoded_len() + 64;
    if size > MAX_REQUEST_BYTES {
        return Err(format!(
            "it makes a request of {size} bytes, at most {MAX_REQUEST_BYTES} are taken"
        ));
    }
    Ok(())
}

fn check_identity(identity: &str) -> Result<(), String> {
    match identity.len() {
        0 => Err("`identity` is empty".to_owned()),
        length if length > MAX_IDENTITY_BYTES => Err(format!(
            "`identity` has {length} bytes, at most {MAX_IDENTITY_BYTES} are taken"
        )),
        _ if identity.contains(char::is_control) => Err("`identity` has a control character".to_owned()),
        _ => Ok(()),
    }
}

/// As in RFC 3339; nobody registers beyond the year 9999.
fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}
