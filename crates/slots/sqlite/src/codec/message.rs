//! Messages, as they are stored: without the multicast and the place for receipts, which have columns of their own.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prism_slot::{Kind, Message, MulticastId, Timestamp};

use super::{Malformed, Read, Reader, begin, put_long, put_optional};

/// What a message says yes to, one bit each. A version that knows only the first takes any of them for it.
const EXPECTS_REPLY: u8 = 1;
const AGAIN: u8 = 2;

pub(crate) fn write_message(message: &Message) -> Vec<u8> {
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 8)
        .sum();
    let mut bytes = begin(64 + headers + message.content_type.len() + message.payload.len());
    match message.kind {
        Kind::Payload => bytes.put_u8(0),
        Kind::Superseded { session_seq } => {
            bytes.put_u8(1);
            bytes.put_u64(session_seq);
        }
    }
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    bytes.put_u8(flag(message.expects_reply, EXPECTS_REPLY) | flag(message.again, AGAIN));
    bytes.put_i64(message.published_at.0);
    put_optional(&mut bytes, message.expires_at, |bytes, at| bytes.put_i64(at.0));
    put_optional(&mut bytes, message.reply_to.as_ref(), |bytes, to| {
        put_long(bytes, to.as_bytes())
    });
    put_long(&mut bytes, message.content_type.as_bytes());
    bytes.put_u32(u32::try_from(message.headers.len()).unwrap_or(u32::MAX));
    for (name, value) in &message.headers {
        put_long(&mut bytes, name.as_bytes());
        put_long(&mut bytes, value.as_bytes());
    }
    bytes.extend_from_slice(&message.payload);
    bytes
}

pub(crate) fn read_message(
    multicast: MulticastId,
    receipts: Option<Arc<str>>,
    bytes: Bytes,
) -> Read<Message> {
    let mut reader = Reader::begin(bytes)?;
    let kind = match reader.byte()? {
        0 => Kind::Payload,
        1 => Kind::Superseded {
            session_seq: reader.long()?,
        },
        _ => return Err(Malformed::new("it is of an unknown kind")),
    };
    let flags = reader.byte()?;
    let published_at = Timestamp(reader.signed()?);
    let expires_at = reader.optional(Reader::signed)?.map(Timestamp);
    let reply_to = reader.optional(Reader::text)?.map(Arc::from);
    let content_type = reader.text()?.into();
    let count = reader.word()?;
    let header = |_| Ok((reader.text()?, reader.text()?));
    let headers = (0..count).map(header).collect::<Read<_>>()?;
    Ok(Message {
        multicast,
        kind,
        payload: reader.0,
        content_type,
        published_at,
        headers,
        reply_to,
        expects_reply: flags & EXPECTS_REPLY != 0,
        expires_at,
        receipts,
        again: flags & AGAIN != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_written() {
        let multicast = MulticastId(u128::MAX);
        let plain = Message::new(multicast, "");
        let full = Message {
            kind: Kind::Superseded {
                session_seq: u64::MAX,
            },
            payload: Bytes::from_static(b"\0\xff"),
            headers: vec![("a".into(), String::new()), (String::new(), "\u{e9}".into())],
            reply_to: Some("there".into()),
            expects_reply: true,
            expires_at: Some(Timestamp(-1)),
            receipts: Some("here".into()),
            ..plain.clone()
        };
        let again = Message {
            again: true,
            ..plain.clone()
        };
        for message in [plain, full, again] {
            let bytes = write_message(&message);
            let read = read_message(multicast, message.receipts.clone(), bytes.into());
            assert_eq!(read, Ok(message));
        }
    }
}
