//! Messages on the wire: the payload as it is, everything else in NATS headers.
//!
//! | header | content |
//! |---|---|
//! | `Prism-Multicast` | `v=1;id=<multicast id>;at=<time>` |
//! | `Content-Type` | absent for `application/octet-stream` |
//! | `Prism-Header-Order` | the names of the further headers, unless they are sorted |
//!
//! [`summary`](crate::summary) says what else `Prism-Multicast` may hold. All of it is one header, because each header
//! costs every target about a fifth of a bare publish.
//!
//! Further headers, `traceparent` among them, travel under their own names. Names that belong to us or to
//! the broker are refused: `Nats-Trace-Only`, for one, would make a message vanish.
//!
//! A message without `Prism-Multicast` was published by a stranger who knows the subject. It did not come
//! through a multicast, so nobody has decided that it may reach the identity: it is dropped and counted.

use std::sync::Arc;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use parking_lot::Mutex;
use prism_slot::{DEFAULT_CONTENT_TYPE, Message};

use crate::summary::{self, Summary};

const MULTICAST: HeaderName = HeaderName::from_static(summary::NAME);
const CONTENT_TYPE: HeaderName = HeaderName::from_static("Content-Type");
const ORDER: HeaderName = HeaderName::from_static("Prism-Header-Order");

/// Why a message that was received is not handed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Not published by us.
    #[error("it has no `Prism-Multicast`, so it came from outside")]
    Foreign,
    /// Published by a version of ours that this one does not know.
    #[error("it has version `{0}`, newer than `1`; upgrade this runner")]
    Newer(String),
    /// Damaged, or forged badly.
    #[error("its header `{0}` is malformed")]
    Malformed(&'static str),
}

/// From which size on a payload is most of what it came in: async-nats reads up to 64 KiB ahead.
const LARGE: usize = 64 << 10;

/// The headers that carry everything but the payload.
///
/// # Errors
/// A header that NATS cannot carry unchanged or that may not be set, with its name.
pub(crate) fn encode(message: &Message) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(MULTICAST, summary::write(message));
    if message.content_type != *DEFAULT_CONTENT_TYPE {
        headers.insert(CONTENT_TYPE, value(&CONTENT_TYPE, &message.content_type)?);
    }
    for (name, text) in &message.headers {
        let name = further_name(name)?;
        let text = value(&name, text)?;
        headers.append(name, text);
    }
    if !message.headers.is_sorted_by(|(one, _), (other, _)| one <= other) {
        let names: Vec<&str> = message.headers.iter().map(|(name, _)| &**name).collect();
        headers.insert(ORDER, names.join(","));
    }
    Ok(headers)
}

/// The message that was sent.
pub(crate) fn decode(received: async_nats::Message) -> Result<Message, Unreadable> {
    read(received.headers.as_ref(), received.payload)
}

fn read(headers: Option<&HeaderMap>, payload: Bytes) -> Result<Message, Unreadable> {
    let headers = headers.ok_or(Unreadable::Foreign)?;
    let summary = headers.get(MULTICAST).ok_or(Unreadable::Foreign)?.as_str();
    Ok(Message {
        payload: own(payload),
        content_type: content_type(headers),
        headers: further_headers(headers)?,
        ..Summary::read(summary)?.into_message()?
    })
}

/// Reads what arrives for many listeners. One message to all of them comes once for each; as often as nothing else comes
/// in between, it is read and kept once. Of what is not large the latest stays in memory, one for each slot.
#[derive(Debug, Default)]
pub(crate) struct Reader(Mutex<Option<Arc<Latest>>>);

#[derive(Debug)]
struct Latest {
    headers: HeaderMap,
    message: Arc<Message>,
}

impl Reader {
    /// As [`decode`].
    pub(crate) fn read(&self, received: async_nats::Message) -> Result<Arc<Message>, Unreadable> {
        let latest = self.0.lock().clone();
        let is_same = |latest: &Arc<Latest>| {
            received.headers.as_ref() == Some(&latest.headers) && received.payload == latest.message.payload
        };
        if let Some(latest) = latest.filter(is_same) {
            return Ok(latest.message.clone());
        }
        let message = Arc::new(read(received.headers.as_ref(), received.payload)?);
        if let Some(headers) = received.headers
            && message.payload.len() < LARGE
        {
            let message = message.clone();
            *self.0.lock() = Some(Arc::new(Latest { headers, message }));
        }
        Ok(message)
    }
}

/// A payload that keeps hardly more than itself in memory. As it arrives it is a piece of what was read from the
/// connection at once, all of which stays as long as any piece waits for its session.
fn own(payload: Bytes) -> Bytes {
    match payload.len() {
        0..LARGE => Bytes::copy_from_slice(&payload),
        _ => payload,
    }
}

fn content_type(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(CONTENT_TYPE);
    given.map_or_else(|| DEFAULT_CONTENT_TYPE.clone(), |given| given.as_str().into())
}

fn further_headers(headers: &HeaderMap) -> Result<Vec<(String, String)>, Unreadable> {
    let mut further: Vec<(&str, &[HeaderValue])> = headers
        .iter()
        .map(|(name, values)| (name.as_ref(), &**values))
        .filter(|(name, _)| !is_reserved(name))
        .collect();
    let owned = |name: &str, value: &HeaderValue| (name.to_owned(), value.as_str().to_owned());
    let Some(order) = headers.get(ORDER) else {
        further.sort_unstable_by_key(|(name, _)| *name);
        let all = further
            .iter()
            .flat_map(|(name, values)| values.iter().map(|value| owned(name, value)));
        return Ok(all.collect());
    };
    let in_order = order.as_str().split(',').map(|wanted| {
        let (name, values) = further.iter_mut().find(|(name, _)| *name == wanted)?;
        let (first, rest) = values.split_first()?;
        *values = rest;
        Some(owned(name, first))
    });
    in_order
        .collect::<Option<_>>()
        .ok_or(Unreadable::Malformed("Prism-Header-Order"))
}

fn further_name(name: &str) -> Result<HeaderName, String> {
    if is_reserved(name) {
        return Err(format!("the header `{name}` is reserved; use another name"));
    }
    // A comma would split the name in the header that keeps the order.
    let fits = !name.is_empty() && !name.contains(',');
    let parsed = HeaderName::try_from(name).ok().filter(|_| fits);
    parsed.ok_or_else(|| {
        format!(
            "the header name `{}` has characters other than visible ASCII",
            name.escape_debug()
        )
    })
}

/// What would not arrive as it was sent: line breaks end a header, spaces around it are lost.
fn value(name: &HeaderName, text: &str) -> Result<HeaderValue, String> {
    let parsed = text.parse::<HeaderValue>().ok().filter(|_| text.trim() == text);
    parsed.ok_or_else(|| {
        let shown = text.escape_debug();
        format!("the value `{shown}` of header `{name}` has line breaks, or spaces around it")
    })
}

fn is_reserved(name: &str) -> bool {
    let begins = |prefix: &str| {
        name.get(..prefix.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
    };
    begins("prism-") || begins("nats-") || name.eq_ignore_ascii_case("content-type")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prism_slot::{Kind, MulticastId, Timestamp};
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: &str = "application/octet-stream";

    fn message(kind: Kind, content_type: &str, headers: &[(&str, &str)]) -> Message {
        Message {
            kind,
            content_type: content_type.into(),
            published_at: Timestamp(-5),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            ..Message::new(MulticastId(7), &b"\0payload"[..])
        }
    }

    fn received(headers: Option<HeaderMap>, payload: &Bytes) -> async_nats::Message {
        async_nats::Message {
            subject: "s".into(),
            reply: None,
            payload: payload.clone(),
            headers,
            status: None,
            description: None,
            length: 0,
        }
    }

    fn travelled(message: &Message) -> Message {
        decode(received(Some(encode(message).unwrap()), &message.payload)).unwrap()
    }

    /// A queue that counts bytes would hold many times as much otherwise.
    #[test]
    fn a_small_message_keeps_nothing_else_in_memory() {
        let read = Bytes::from(vec![7; 256 << 10]);
        for (size, is_alone) in [(100, true), (LARGE - 1, true), (LARGE, false)] {
            let headers = encode(&message(Kind::Payload, DEFAULT, &[])).unwrap();
            let decoded = decode(received(Some(headers), &read.slice(..size))).unwrap();
            assert_eq!(decoded.payload, read.slice(..size));
            assert_eq!(read.is_unique(), is_alone, "{size}");
        }
    }

    /// And whatever differs from the one before is read for itself. Large ones are not kept for those who may come.
    #[test]
    fn what_came_for_another_listener_is_shared_where_it_is_the_same() {
        let reader = Reader::default();
        let read = |sent: &Message| {
            let headers = Some(encode(sent).unwrap());
            reader.read(received(headers, &sent.payload)).unwrap()
        };
        let sent = message(Kind::Payload, "x", &[("a", "1")]);
        let first = read(&sent);
        assert!(Arc::ptr_eq(&first, &read(&sent)));
        for other in [
            Message {
                payload: "other".into(),
                ..sent.clone()
            },
            message(Kind::Payload, "x", &[("a", "2")]),
            Message {
                multicast: MulticastId(8),
                ..sent.clone()
            },
            Message {
                payload: vec![0; LARGE].into(),
                ..sent.clone()
            },
        ] {
            assert_eq!(*read(&other), other);
            assert_eq!(*read(&sent), sent);
        }
        assert_eq!(
            reader.read(received(None, &sent.payload)),
            Err(Unreadable::Foreign)
        );
        let large = Message {
            payload: vec![0; LARGE].into(),
            ..sent
        };
        assert!(!Arc::ptr_eq(&read(&large), &read(&large)));
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let superseded = Kind::Superseded {
            session_seq: u64::MAX,
        };
        for sent in [
            message(Kind::Payload, DEFAULT, &[]),
            message(Kind::Payload, "", &[("traceparent", "00-a-b-01")]),
            message(
                superseded,
                "text/plain; charset=utf-8",
                &[("b", "1"), ("a", ""), ("b", "2: x")],
            ),
            message(Kind::Payload, "x", &[("a", "1"), ("a", "2"), ("b", "ü")]),
            Message {
                reply_to: Some("questions.to/me;ü".into()),
                expects_reply: true,
                expires_at: Some(Timestamp(7)),
                receipts: Some("".into()),
                ..message(Kind::Payload, DEFAULT, &[("a", "1")])
            },
        ] {
            assert_eq!(travelled(&sent), sent);
        }
    }

    #[test]
    fn an_ordinary_message_has_one_header() {
        let headers = encode(&message(Kind::Payload, DEFAULT, &[])).unwrap();
        assert_eq!(headers.len(), 1);
        let summary = "v=1;id=00000000000000000000000000000007;at=-5";
        assert_eq!(headers.get(MULTICAST).unwrap().as_str(), summary);
    }

    #[test]
    fn headers_that_would_change_or_do_harm_are_refused() {
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a:b", "x"),
            ("a,b", "x"),
            ("ä", "x"),
            ("a", "x\ny"),
            ("a", " x"),
            ("a", "x\u{a0}"),
            ("Nats-Trace-Only", "true"),
            ("prism-multicast", "v=1"),
            ("CONTENT-TYPE", "x"),
        ] {
            assert!(
                encode(&message(Kind::Payload, "x", &[(name, value)])).is_err(),
                "{name}: {value}"
            );
        }
        assert!(encode(&message(Kind::Payload, "text/plain\r\nNats-TTL: 1", &[])).is_err());
    }

    #[test]
    fn what_others_published_is_told_apart() {
        let payload = Bytes::new();
        assert_eq!(decode(received(None, &payload)), Err(Unreadable::Foreign));
        assert_eq!(
            decode(received(Some(HeaderMap::new()), &payload)),
            Err(Unreadable::Foreign)
        );
        let with = |name: HeaderName, value: &str| {
            let sent = message(Kind::Payload, "x", &[("b", "1"), ("a", "2")]);
            let mut headers = encode(&sent).unwrap();
            headers.insert(name, value);
            decode(received(Some(headers), &payload))
        };
        assert_eq!(with(MULTICAST, "v=2;id=?"), Err(Unreadable::Newer("2".into())));
        assert_eq!(
            with(MULTICAST, "v=1"),
            Err(Unreadable::Malformed("Prism-Multicast"))
        );
        assert_eq!(
            with(ORDER, "b,a,a"),
            Err(Unreadable::Malformed("Prism-Header-Order"))
        );
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_arrives(
            headers in proptest::collection::vec(("[a-c!~-]{0,3}", "\\PC{0,6}"), 0..6),
            content_type in "\\PC{0,10}",
        ) {
            let mut sent = message(Kind::Payload, &content_type, &[]);
            sent.headers = headers;
            if encode(&sent).is_ok() {
                prop_assert_eq!(travelled(&sent), sent);
            }
        }
    }
}
