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
use prism_slot::{
    Address, DeadId, DeadLetter, DeadReason, Error, Holder, Identity, Message, MulticastId, Timestamp,
};

use crate::{
    address::escape,
    codec::{self, Unreadable},
    error::BACKEND,
    jetstream::{
        api::{Failure, MESSAGE_ID, TTL},
        layout::{Kind, Layout},
        read::number,
        read_ttl,
        state::{NEVER, later},
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
    pub(crate) expires_at: Timestamp,
    /// `None` for what no version of ours has stored.
    pub(crate) letter: Option<Letter>,
}

/// What is the same of a message in all inboxes.
#[derive(Debug)]
pub(crate) struct Envelope {
    about: String,
    headers: HeaderMap,
    multicast: MulticastId,
}

impl Envelope {
    /// # Errors
    /// What of the message NATS cannot carry.
    pub(crate) fn new(message: &Message, ttl: HeaderValue) -> Result<Self, String> {
        let all = codec::encode(message)?;
        let mut headers = HeaderMap::new();
        headers.insert(TTL, ttl);
        for (name, values) in all.iter().filter(|(name, _)| **name != MULTICAST) {
            values
                .iter()
                .for_each(|value| headers.append(name.clone(), value.clone()));
        }
        let about = all.get(MULTICAST);
        Ok(Self {
            about: about.map_or_else(String::new, |about| about.as_str().to_owned()),
            headers,
            multicast: message.multicast,
        })
    }

    /// The headers for one inbox.
    pub(crate) fn address(&self, to: &Address) -> HeaderMap {
        let id = format!("{}.{}", self.multicast, escape(to.identity.as_str()));
        self.held(to.holder, id)
    }

    /// Those of a message that comes back from the dead letters. Trying again after a lost answer does not bring it back
    /// twice.
    pub(crate) fn redriven(&self, to: &Address, generation: u64, id: DeadId) -> HeaderMap {
        self.held(to.holder, format!("redrive.{generation}.{}", id.0))
    }

    fn held(&self, holder: Holder, message_id: String) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(
            MULTICAST,
            format!("{}{HOLDER}{}", self.about, holder_text(holder)),
        );
        headers.insert(MESSAGE_ID, message_id);
        headers
    }
}

/// What was read from the stream of messages.
///
/// # Errors
/// For what a newer version has stored: that is not this one's to judge.
pub(crate) fn read(received: async_nats::Message) -> Result<Found, Failure> {
    let place = || {
        Some((
            number(&received, SEQUENCE)?,
            Layout::rank(header(&received, SUBJECT)?)?,
        ))
    };
    let place = place().ok_or_else(|| Failure::Unreadable("an answer of JetStream".to_owned()));
    let (sequence, rank) = place?;
    let expires_at = expires_at(&received);
    let letter = letter(received).map_err(|why| Failure::Unreadable(format!("message {sequence}: {why}")))?;
    if letter.is_none() {
        tracing::warn!(
            sequence,
            "an inbox held what no version of this slot has stored; it is removed"
        );
    }
    Ok(Found {
        sequence,
        rank,
        expires_at,
        letter,
    })
}

/// When a server removes by itself what was read.
pub(crate) fn expires_at(received: &async_nats::Message) -> Timestamp {
    let stored_at = header(received, STORED_AT).and_then(time::parse);
    let kept = header(received, "Nats-TTL").and_then(read_ttl);
    stored_at
        .zip(kept)
        .map_or(NEVER, |(stored_at, kept)| later(stored_at, kept))
}

fn letter(received: async_nats::Message) -> Result<Option<Letter>, Unreadable> {
    let holder = header(&received, summary::NAME).and_then(read_holder);
    let stored_at = header(&received, STORED_AT).and_then(time::parse);
    let message = match codec::decode(received) {
        Err(newer @ Unreadable::Newer(_)) => return Err(newer),
        message => message.ok(),
    };
    Ok(holder
        .zip(stored_at)
        .zip(message)
        .map(|((holder, stored_at), message)| Letter {
            holder,
            stored_at,
            message: Arc::new(message),
        }))
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
    headers.insert(MESSAGE_ID, grave(generation, sequence));
    Some(headers)
}

/// The name under which a message is buried.
pub(crate) fn grave(generation: u64, sequence: u64) -> String {
    format!("{generation}.{sequence}")
}

/// The name under which something was stored.
pub(crate) fn name(received: &async_nats::Message) -> Option<&str> {
    Some(received.headers.as_ref()?.get(MESSAGE_ID)?.as_str())
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
