//! Messages as proto JSON.

use std::{collections::HashMap, sync::LazyLock};

use prism_client::Applied;
use prism_proto::{DESCRIPTORS, pattern};
use prost::Message;
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Map, Number, Value, json, value::Serializer};

use crate::fault::{Fault, Stop};

/// Beyond it not every integer is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

static POOL: LazyLock<Result<DescriptorPool, DescriptorError>> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS));

/// A message and its full name in the proto files.
pub(crate) trait Named: Message {
    const NAME: &'static str;
}

macro_rules! named {
    ($($message:ident)*) => {$(
        impl Named for pattern::$message {
            const NAME: &'static str = concat!("prism.pattern.", stringify!($message));
        }
    )*};
}

named! {
    RegisterResponse RenewResponse UpdateResponse GetResponse EnumerateResponse ExplainResponse
    MulticastResponse MulticastStreamResponse ListDeadLettersResponse RedriveDeadLettersResponse UnregisterResponse SubscribeResponse WatchResponse CheckSchemaResponse
}

/// A message as a tree: the proto's own field names, defaults included, so that a field is there
/// whether or not it is zero.
pub(crate) fn tree<M: Named>(message: &M) -> Result<Value, Stop> {
    let tree = || -> anyhow::Result<Value> {
        let pool = POOL.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
        let descriptor = pool.get_message_by_name(M::NAME);
        let descriptor = descriptor.ok_or_else(|| anyhow::anyhow!("`{}` is not described", M::NAME))?;
        let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .skip_default_fields(false);
        Ok(message.serialize_with_options(Serializer, &options)?)
    };
    let tree = tree().map_err(|error| Fault::internal(format!("cannot show the answer: {error}")))?;
    Ok(tidy(tree))
}

/// The same with the members of objects in order of their names, which maps do not have on the wire, and
/// with whole numbers written as such.
pub(crate) fn tidy(tree: Value) -> Value {
    match tree {
        Value::Object(members) => {
            let mut members: Vec<_> = members
                .into_iter()
                .map(|(key, value)| (key, tidy(value)))
                .collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(Map::from_iter(members))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(tidy).collect()),
        Value::Number(number) => Value::Number(whole(&number).unwrap_or(number)),
        other => other,
    }
}

fn whole(number: &Number) -> Option<Number> {
    let double = number.as_f64().filter(|_| number.is_f64())?;
    let fits = double.fract() == 0.0 && double.abs() <= EXACT && (double != 0.0 || double.is_sign_positive());
    fits.then(|| Number::from(double as i64))
}

/// Metadata as a line of JSON.
pub(crate) fn metadata_text(metadata: &HashMap<String, prost_types::Value>) -> Result<String, Stop> {
    if metadata.is_empty() {
        return Ok(String::new());
    }
    let holder = pattern::GetResponse {
        identity: Some(pattern::Identity {
            metadata: metadata.clone(),
            ..Default::default()
        }),
        position: None,
    };
    Ok(tree(&holder)?["identity"]["metadata"].to_string())
}

/// A scalar as it is written in JSON.
pub(crate) fn scalar_text(value: &prost_types::Value) -> String {
    use prost_types::value::Kind;
    match &value.kind {
        Some(Kind::BoolValue(value)) => value.to_string(),
        Some(Kind::NumberValue(number)) => {
            let number = Number::from_f64(*number);
            let text = number.map(|number| whole(&number).unwrap_or(number).to_string());
            text.unwrap_or_default()
        }
        Some(Kind::StringValue(text)) => Value::from(text.as_str()).to_string(),
        _ => "null".to_owned(),
    }
}

/// A fault as one line of JSON.
pub(crate) fn error_object(fault: &Fault) -> String {
    let applied = fault.applied.map(|applied| match applied {
        Applied::No => "no",
        Applied::Unknown => "unknown",
    });
    let mut error = json!({
        "message": fault.message,
        "reason": fault.reason,
        "code": fault.code.map(|code| format!("{code:?}")),
        "field": fault.field,
        "retry_after_ms": fault.retry_after.map(|pause| pause.as_millis() as u64),
        "applied": applied,
        "hint": fault.hint,
        "exit_code": fault.exit.number(),
    });
    if let Some(members) = error.as_object_mut() {
        members.retain(|_, value| !value.is_null());
        if !fault.details.is_empty() {
            members.insert("details".to_owned(), json!(fault.details));
        }
    }
    json!({ "error": tidy(error) }).to_string()
}

#[cfg(test)]
mod tests {
    use prism_client::testing::answers;

    use super::*;

    #[test]
    fn a_message_keeps_the_names_and_types_of_proto_json() {
        let tree = tree(&answers::registered(7)).unwrap();
        let expected = json!({
            "success": true,
            "registered_at": "1970-01-01T00:01:00Z",
            "expires_at": "1970-01-01T00:01:30Z",
            "outcome": "REGISTERED",
            "generation": {"epoch": "24301", "revision": "7"},
            "position": {"epoch": "24301", "revision": "7"},
            "renew_after_ms": "10000",
            "ttl_ms": "30000",
            "reason": "",
            "maybe_applied": false,
        });
        assert_eq!(tree, expected);
    }

    #[test]
    fn what_is_zero_is_there_and_what_is_absent_is_not() {
        let tree = tree(&answers::unregistered(false)).unwrap();
        assert_eq!(tree["existed"], json!(false));
        assert!(tree.get("error").is_none());
    }

    #[test]
    fn bytes_are_base64() {
        let tree = tree(&answers::message("hello")).unwrap();
        assert_eq!(tree["delivery"]["payload"], "aGVsbG8=");
    }

    #[test]
    fn every_message_is_described() {
        let pool = POOL.as_ref().unwrap();
        for name in [
            pattern::RegisterResponse::NAME,
            pattern::RenewResponse::NAME,
            pattern::UpdateResponse::NAME,
            pattern::GetResponse::NAME,
            pattern::EnumerateResponse::NAME,
            pattern::ExplainResponse::NAME,
            pattern::MulticastResponse::NAME,
            pattern::UnregisterResponse::NAME,
            pattern::SubscribeResponse::NAME,
            pattern::CheckSchemaResponse::NAME,
            pattern::WatchResponse::NAME,
        ] {
            assert!(pool.get_message_by_name(name).is_some(), "{name}");
        }
    }

    #[test]
    fn trees_are_the_same_every_time() {
        let tree = tidy(json!({"b": 3.0, "a": [1.5, -0.0, 1e300]}));
        assert_eq!(tree.to_string(), r#"{"a":[1.5,-0.0,1e+300],"b":3}"#);
    }
}
