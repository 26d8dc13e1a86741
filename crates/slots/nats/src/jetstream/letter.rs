//! Messages as they are stored: as they are published, with further headers.
//!
//! | header | content |
//! |---|---|
//! | `Prism-Multicast` | has `;holder=` behind it, and 32 hexadecimal digits: for whom it was stored |
//! | `Prism-Dead` | of a dead letter, `attempts=<n>;reason=` and `max-deliver`, `other-holder` or `terminated:<text>` |
//! | `Nats-Msg-Id` | what is stored once: `<multicast>.<escaped identity>` |
//! | `Nats-TTL` | after how many seconds it is gone |

use std::sync::Arc;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::BytesMut;
use prism_slot::{DeadId, DeadLetter, DeadReason, Error, Holder, Identity, Message, MulticastId, Timestamp};

use crate::{
    address::escape,
    codec,
    error::BACKEND,
    jetstream::{
        api::MESSAGE_ID,
        layout::{Kind, Layout},
        read::number,
        time,
    },
    percent, summary,
};

const MULTICAST: HeaderName = HeaderName::from_static(summary::NAME);
/// The word in `Prism-Multicast`. Another header would cost each message more than these few bytes.
const HOLDER: &str = ";holder=";
const DEAD: HeaderName = HeaderName::from_static("Prism-Dead");
const STORED_AT: &str = "Nats-Time-Stamp";
const SEQUENCE: &str = "Nats-Sequence";
const SUBJECT: &str = "Nats-Subject";

/// A message in an inbox.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) holder: Holder,
    pub(crate) stored_at: Timestamp,
    pub(crate) message: Arc<Message>,
}

/// What was found in an inbox.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) sequence: u64,
    pub(crate) rank: usize,
    /// `None` for what no version of ours has stored, or a newer one.
    pub(crate) letter: Option<Letter>,
}

/// The headers of a message for one inbox, beside those that are the same for all.
pub(crate) fn address(
    shared: &HeaderMap,
    holder: Holder,
    multicast: MulticastId,
    identity: &Identity,
) -> HeaderMap {
    let mut headers = held(shared, holder);
    headers.insert(MESSAGE_ID, format!("{multicast}.{}", escape(identity.as_str())));
    headers
}

fn held(shared: &HeaderMap, holder: Holder) -> HeaderMap {
    let mut headers = shared.clone();
    let about = shared.get(MULTICAST).map_or("", HeaderValue::as_str);
    headers.insert(MULTICAST, format!("{about}{HOLDER}{}", holder_text(holder)));
    headers
}

/// The headers of a message that comes back from the dead letters.
pub(crate) fn redriven(shared: &HeaderMap, holder: Holder, generation: u64, id: DeadId) -> HeaderMap {
    let mut headers = held(shared, holder);
    // Trying again after a lost answer does not bring it back twice.
    headers.insert(MESSAGE_ID, format!("redrive.{generation}.{}", id.0));
    headers
}

/// What was read from the stream of messages. `None` for what is no message of it.
pub(crate) fn read(received: async_nats::Message) -> Option<Found> {
    let sequence = number(&received, SEQUENCE)?;
    let rank = Layout::rank(header(&received, SUBJECT)?)?;
    let letter = letter(received);
    if letter.is_none() {
        tracing::warn!(
            sequence,
            "an inbox held what no version of this slot has stored; it is removed"
        );
    }
    Some(Found {
        sequence,
        rank,
        letter,
    })
}

fn letter(received: async_nats::Message) -> Option<Letter> {
    Some(Letter {
        holder: read_holder(header(&received, summary::NAME)?)?,
        stored_at: time::parse(header(&received, STORED_AT)?)?,
        message: Arc::new(codec::decode(received).ok()?),
    })
}

/// A dead letter to be stored; `None` where NATS does not carry what it carried before.
pub(crate) fn bury(
    message: &Message,
    reason: &DeadReason,
    attempts: u32,
    generation: u64,
    sequence: u64,
) -> Option<HeaderMap> {
    let mut headers = codec::encode(message).ok()?;
    headers.insert(
        DEAD,
        format!("attempts={attempts};reason={}", reason_text(reason)),
    );
    // Whoever finds the intent again buries it no second time.
    headers.insert(MESSAGE_ID, format!("{generation}.{sequence}"));
    Some(headers)
}

/// # Errors
/// For what no version of ours has buried, or a newer one.
pub(crate) fn exhume(layout: &Layout, received: async_nats::Message) -> Result<DeadLetter, Error> {
    let read = || {
        let identity = layout.name(Kind::Dead, header(&received, SUBJECT)?)?;
        let (attempts, reason) = read_death(header(&received, "Prism-Dead")?)?;
        Some(DeadLetter {
            id: DeadId(number(&received, SEQUENCE)?),
            identity: Identity::new(identity).ok()?,
            reason,
            attempts,
            died_at: time::parse(header(&received, STORED_AT)?)?,
            message: Arc::new(codec::decode(received.clone()).ok()?),
        })
    };
    read().ok_or_else(|| Error::Unreadable {
        backend: BACKEND,
        message: format!(
            "the dead letter {}",
            number(&received, SEQUENCE).unwrap_or_default()
        ),
    })
}

fn header<'a>(received: &'a async_nats::Message, name: &str) -> Option<&'a str> {
    Some(received.headers.as_ref()?.get(name)?.as_str())
}

fn holder_text(holder: Holder) -> String {
    format!("{:032x}", u128::from_be_bytes(holder.0))
}

/// From what is said about a message.
fn read_holder(about: &str) -> Option<Holder> {
    let (_, word) = about.split_once(HOLDER)?;
    let digits = word.split(';').next().filter(|digits| digits.len() == 32)?;
    let holder = u128::from_str_radix(digits, 16).ok()?;
    Some(Holder(holder.to_be_bytes()))
}

fn reason_text(reason: &DeadReason) -> String {
    match reason {
        DeadReason::MaxDeliver => "max-deliver".to_owned(),
        DeadReason::OtherHolder => "other-holder".to_owned(),
        DeadReason::Terminated(why) => {
            let mut text = BytesMut::from(&b"terminated:"[..]);
            percent::write(why, is_plain, &mut text);
            // Only ASCII has been written.
            String::from_utf8_lossy(&text).into_owned()
        }
    }
}

fn read_death(text: &str) -> Option<(u32, DeadReason)> {
    let (attempts, reason) = text.strip_prefix("attempts=")?.split_once(";reason=")?;
    let reason = match reason.split_once(':') {
        None if reason == "max-deliver" => DeadReason::MaxDeliver,
        None if reason == "other-holder" => DeadReason::OtherHolder,
        Some(("terminated", why)) => DeadReason::Terminated(percent::read(why, is_plain)?),
        _ => return None,
    };
    Some((attempts.parse().ok()?, reason))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_as_they_were_written() {
        for reason in [
            DeadReason::MaxDeliver,
            DeadReason::OtherHolder,
            DeadReason::Terminated(String::new()),
            DeadReason::Terminated("a: %\r\nb;é ".to_owned()),
        ] {
            let text = format!("attempts=7;reason={}", reason_text(&reason));
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert_eq!(read_death(&text), Some((7, reason)));
        }
        for text in [
            "",
            "attempts=7",
            "attempts=x;reason=max-deliver",
            "attempts=7;reason=age",
        ] {
            assert_eq!(read_death(text), None, "{text}");
        }
    }

    #[test]
    fn holders_are_read_as_they_were_written() {
        for holder in [Holder([0; 16]), Holder([255; 16]), Holder([7; 16])] {
            for behind in ["", ";to=x"] {
                let about = format!("v=1;id=7{HOLDER}{}{behind}", holder_text(holder));
                assert_eq!(read_holder(&about), Some(holder));
            }
        }
        for about in [
            "",
            "v=1",
            ";holder=",
            ";holder=7",
            "holder=00000000000000000000000000000007",
        ] {
            assert_eq!(read_holder(about), None, "{about}");
        }
    }
}
