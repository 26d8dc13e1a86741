//! Messages as they are stored: the ticket first, which the functions give back when a message ends by itself.

use std::{
    hash::{DefaultHasher, Hasher},
    sync::Arc,
};

use bytes::{BufMut, Bytes};
use prism_slot::{Error, Kind, Message, MulticastId, Ticket, Timestamp};

use crate::{
    codec::{FORMAT, Malformed, Reader},
    error::unreadable,
};

/// How many characters name a multicast and a body of it.
pub(super) const REFERENCE: usize = 49;
/// How many of them name the multicast.
pub(super) const MULTICAST: usize = 32;
/// The size of an address that is none.
const NO_RECEIPTS: u16 = u16::MAX;

const EXPECTS_REPLY: u8 = 1;
const HAS_REPLY_TO: u8 = 2;
const EXPIRES: u8 = 4;
const AGAIN: u8 = 8;

/// A message as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// Names the multicast, and this body of it.
    pub(super) reference: String,
    /// How many bytes of payload it has.
    pub(super) payload: u32,
    /// How many of its first bytes are the ticket.
    pub(super) ticket: u16,
}

impl Body {
    /// # Errors
    /// What is too large to be stored.
    pub(super) fn of(message: &Message) -> Result<Self, &'static str> {
        let mut bytes = Vec::with_capacity(128 + message.payload.len());
        bytes.put_u8(FORMAT);
        put_receipts(&mut bytes, message.receipts.as_deref())?;
        let ticket = u16::try_from(bytes.len()).map_err(|_| "the address for receipts is too long")?;
        put_rest(&mut bytes, message)?;
        let mut digest = DefaultHasher::new();
        digest.write(&bytes);
        Ok(Self {
            bytes: bytes.into(),
            reference: format!("{}-{:016x}", message.multicast, digest.finish()),
            payload: u32::try_from(message.payload.len()).map_err(|_| "the payload is too large")?,
            ticket,
        })
    }
}

fn put_receipts(bytes: &mut Vec<u8>, receipts: Option<&str>) -> Result<(), &'static str> {
    let Some(address) = receipts else {
        bytes.put_u16(NO_RECEIPTS);
        return Ok(());
    };
    let size = u16::try_from(address.len())
        .ok()
        .filter(|size| *size < NO_RECEIPTS);
    bytes.put_u16(size.ok_or("the address for receipts is too long")?);
    bytes.put_slice(address.as_bytes());
    Ok(())
}

fn put_rest(bytes: &mut Vec<u8>, message: &Message) -> Result<(), &'static str> {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    bytes.put_u8(
        flag(message.expects_reply, EXPECTS_REPLY)
            | flag(message.reply_to.is_some(), HAS_REPLY_TO)
            | flag(message.expires_at.is_some(), EXPIRES)
            | flag(message.again, AGAIN),
    );
    let (kind, number) = match message.kind {
        Kind::Payload => (0, 0),
        Kind::Superseded { session_seq } => (1, session_seq),
    };
    bytes.put_u8(kind);
    bytes.put_u64(number);
    bytes.put_i64(message.published_at.0);
    bytes.put_i64(message.expires_at.map_or(0, |at| at.0));
    put_text(bytes, &message.content_type)?;
    put_text(bytes, message.reply_to.as_deref().unwrap_or_default())?;
    bytes.put_u32(u32::try_from(message.headers.len()).map_err(|_| "there are too many headers")?);
    for (name, value) in &message.headers {
        put_text(bytes, name)?;
        put_text(bytes, value)?;
    }
    bytes.put_slice(&message.payload);
    Ok(())
}

fn put_text(bytes: &mut Vec<u8>, text: &str) -> Result<(), &'static str> {
    bytes.put_u32(u32::try_from(text.len()).map_err(|_| "a header is too long")?);
    bytes.put_slice(text.as_bytes());
    Ok(())
}

/// Reads the multicast that a reference begins with.
pub(super) fn multicast(reference: &[u8]) -> Result<MulticastId, Malformed> {
    let name = reference
        .get(..MULTICAST)
        .and_then(|name| std::str::from_utf8(name).ok());
    name.and_then(|name| name.parse().ok())
        .ok_or(Malformed("it does not name its multicast"))
}

/// Reads a message.
pub(super) fn message(multicast: MulticastId, bytes: Bytes) -> Result<Arc<Message>, Error> {
    read(multicast, Reader(bytes)).map(Arc::new).map_err(|malformed| {
        unreadable(format!(
            "the message of multicast `{multicast}` cannot be used, {malformed}"
        ))
    })
}

/// Reads what is told of a message that ended by itself. A message that is lost has no more to say.
pub(super) fn ticket(multicast: MulticastId, bytes: Bytes) -> Result<Ticket, Malformed> {
    let mut reader = Reader(bytes);
    let receipts = if reader.0.is_empty() {
        None
    } else {
        receipts(&mut reader)?
    };
    Ok(Ticket { multicast, receipts })
}

fn read(multicast: MulticastId, mut reader: Reader) -> Result<Message, Malformed> {
    let receipts = receipts(&mut reader)?;
    let (flags, kind, number) = (reader.byte()?, reader.byte()?, reader.long()?);
    let (published_at, expires_at) = (time(&mut reader)?, time(&mut reader)?);
    let (content_type, reply_to) = (text(&mut reader)?, text(&mut reader)?);
    let mut headers = Vec::new();
    for _ in 0..reader.word()? {
        headers.push((text(&mut reader)?, text(&mut reader)?));
    }
    Ok(Message {
        multicast,
        kind: match kind {
            0 => Kind::Payload,
            1 => Kind::Superseded { session_seq: number },
            _ => return Err(Malformed("it is of an unknown kind")),
        },
        payload: reader.0,
        content_type: content_type.into(),
        published_at,
        headers,
        reply_to: (flags & HAS_REPLY_TO != 0).then(|| reply_to.into()),
        expects_reply: flags & EXPECTS_REPLY != 0,
        expires_at: (flags & EXPIRES != 0).then_some(expires_at),
        receipts,
        again: flags & AGAIN != 0,
    })
}

/// The version, and where word of the message is welcome.
fn receipts(reader: &mut Reader) -> Result<Option<Arc<str>>, Malformed> {
    match reader.byte()? {
        FORMAT => {}
        later if later > FORMAT => return Err(Malformed("a later version wrote it; upgrade this runner")),
        _ => return Err(Malformed("it has an unknown version")),
    }
    match reader.short()? {
        NO_RECEIPTS => Ok(None),
        size => Ok(Some(utf8(&reader.bytes(size.into())?)?.into())),
    }
}

#[allow(clippy::cast_possible_wrap)] // as it was written
fn time(reader: &mut Reader) -> Result<Timestamp, Malformed> {
    Ok(Timestamp(reader.long()? as i64))
}

fn text(reader: &mut Reader) -> Result<String, Malformed> {
    let size = reader.word()?;
    Ok(utf8(&reader.bytes(size as usize)?)?.to_owned())
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("it has a text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Message {
        Message {
            kind: Kind::Superseded {
                session_seq: u64::MAX,
            },
            content_type: "text/plain; charset=utf-8".into(),
            published_at: Timestamp(-1),
            headers: vec![
                ("traceparent".into(), "00".into()),
                ("ключ".into(), String::new()),
            ],
            reply_to: Some("".into()),
            expects_reply: true,
            expires_at: Some(Timestamp(i64::MAX)),
            receipts: Some("here".into()),
            again: true,
            ..Message::new(MulticastId(7), (0..=255).collect::<Vec<u8>>())
        }
    }

    #[test]
    fn a_message_is_read_back_as_it_was() {
        for original in [full(), Message::new(MulticastId::random(), "")] {
            let body = Body::of(&original).unwrap();
            let named = multicast(body.reference.as_bytes()).unwrap();
            assert_eq!(*message(named, body.bytes.clone()).unwrap(), original);
            let its_ticket = ticket(named, body.bytes.slice(..usize::from(body.ticket))).unwrap();
            assert_eq!(its_ticket, Ticket::from(&original));
            assert_eq!(
                (body.reference.len(), body.payload as usize),
                (REFERENCE, original.payload.len())
            );
        }
    }

    #[test]
    fn what_says_something_else_has_another_name() {
        let other = Message {
            receipts: Some("there".into()),
            ..full()
        };
        let (one, other) = (Body::of(&full()).unwrap(), Body::of(&other).unwrap());
        assert_ne!(one.reference, other.reference);
        assert_eq!(one.reference[..MULTICAST], other.reference[..MULTICAST]);
    }

    #[test]
    fn a_later_version_is_refused_and_so_is_every_beginning() {
        let body = Body::of(&full()).unwrap();
        let mut later = body.bytes.to_vec();
        later[0] = FORMAT + 1;
        let refused = message(MulticastId(7), later.into()).unwrap_err();
        assert!(matches!(refused, Error::Unreadable { .. }), "{refused:?}");
        assert!(refused.to_string().contains("upgrade this runner"), "{refused}");
        let header = body.bytes.len() - 256;
        for end in 0..header {
            assert!(message(MulticastId(7), body.bytes.slice(..end)).is_err(), "{end}");
        }
    }

    #[test]
    fn an_address_that_is_too_long_is_said() {
        let long = Message {
            receipts: Some("x".repeat(1 << 16).into()),
            ..full()
        };
        assert!(Body::of(&long).is_err());
    }
}
