//! The header `Prism-Multicast`: what is to be known of a message besides its content.
//!
//! `v=1;id=<multicast id>;at=<time>`, and where they apply, in this order:
//!
//! | word | meaning |
//! |---|---|
//! | `superseded=<n>` | no data: a word between runners that session `n` is the newest |
//! | `to=<text>` | where the sender takes answers of its own protocol |
//! | `reply=1` | the sender waits for an answer to this very message |
//! | `until=<time>` | the message is of no use after that |
//! | `receipts=<text>` | where runners send word of the message's way |
//! | `again=1` | an inbox may have had it before |
//! | `holder=<digits>` | of a stored message: for whom it was stored |
//!
//! `v` comes first and is the version; a reader refuses another major one. `id` has up to 32 hexadecimal digits, times
//! count milliseconds since the Unix epoch by the sender's clock, and texts are percent-encoded except for visible ASCII
//! other than `%` and `;`. A reader ignores a word with `=` that it does not know, and refuses one without: what must
//! not be taken for data by a reader that does not know it is such a word.

use std::{fmt::Write, sync::Arc};

use bytes::BytesMut;
use prism_slot::{Kind, Message, MulticastId, Timestamp};

use crate::{codec::Unreadable, percent};

const VERSION: &str = "1";
/// The header's name.
pub(crate) const NAME: &str = "Prism-Multicast";

/// The header for a message.
pub(crate) fn write(message: &Message) -> String {
    let mut text = format!(
        "v={VERSION};id={};at={}",
        message.multicast, message.published_at.0
    );
    // Writing to a text does not fail.
    let _ = match message.kind {
        Kind::Payload => Ok(()),
        Kind::Superseded { session_seq } => write!(text, ";superseded={session_seq}"),
    };
    write_text("to", message.reply_to.as_deref(), &mut text);
    if message.expects_reply {
        text.push_str(";reply=1");
    }
    if let Some(until) = message.expires_at {
        let _ = write!(text, ";until={}", until.0);
    }
    write_text("receipts", message.receipts.as_deref(), &mut text);
    if message.again {
        text.push_str(";again=1");
    }
    text
}

fn write_text(key: &str, value: Option<&str>, text: &mut String) {
    let Some(value) = value else {
        return;
    };
    let mut encoded = BytesMut::with_capacity(value.len());
    percent::write(value, is_plain, &mut encoded);
    // Only ASCII has been written.
    let _ = write!(text, ";{key}={}", String::from_utf8_lossy(&encoded));
}

fn read_text(encoded: &str) -> Option<Arc<str>> {
    percent::read(encoded, is_plain).map(Into::into)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'%' | b';')
}

/// What the header says.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    multicast: Option<MulticastId>,
    published_at: Option<Timestamp>,
    kind: Option<Kind>,
    reply_to: Option<Arc<str>>,
    expects_reply: Option<bool>,
    expires_at: Option<Timestamp>,
    receipts: Option<Arc<str>>,
    again: Option<bool>,
}

impl Summary {
    /// # Errors
    /// A header that no version of ours has written, or a newer one.
    pub(crate) fn read(text: &str) -> Result<Self, Unreadable> {
        let mut words = text.split(';');
        match words.next().and_then(|word| word.split_once('=')) {
            Some(("v", version)) if version.split('.').next() == Some(VERSION) => {}
            Some(("v", version)) => return Err(Unreadable::Newer(version.to_owned())),
            _ => return Err(Unreadable::Malformed(NAME)),
        }
        let mut summary = Self::default();
        words
            .try_for_each(|word| summary.take(word))
            .ok_or(Unreadable::Malformed(NAME))?;
        Ok(summary)
    }

    /// The message, with everything that is not said here still to be filled in.
    ///
    /// # Errors
    /// Without a multicast and a time it is no message.
    pub(crate) fn into_message(self) -> Result<Message, Unreadable> {
        let (Some(multicast), Some(published_at)) = (self.multicast, self.published_at) else {
            return Err(Unreadable::Malformed(NAME));
        };
        Ok(Message {
            kind: self.kind.unwrap_or_default(),
            published_at,
            reply_to: self.reply_to,
            expects_reply: self.expects_reply.unwrap_or_default(),
            expires_at: self.expires_at,
            receipts: self.receipts,
            again: self.again.unwrap_or_default(),
            ..Message::new(multicast, "")
        })
    }

    fn take(&mut self, word: &str) -> Option<()> {
        let time = |text: &str| text.parse().ok().map(Timestamp);
        match word.split_once('=') {
            Some(("id", id)) => set(&mut self.multicast, id.parse().ok()),
            Some(("at", at)) => set(&mut self.published_at, time(at)),
            Some(("superseded", by)) => {
                let kind = by.parse().ok();
                set(
                    &mut self.kind,
                    kind.map(|session_seq| Kind::Superseded { session_seq }),
                )
            }
            Some(("to", to)) => set(&mut self.reply_to, read_text(to)),
            Some(("reply", expected)) => set(&mut self.expects_reply, yes(expected)),
            Some(("until", until)) => set(&mut self.expires_at, time(until)),
            Some(("receipts", at)) => set(&mut self.receipts, read_text(at)),
            Some(("again", again)) => set(&mut self.again, yes(again)),
            Some(_) => Some(()),
            None => None,
        }
    }
}

fn yes(text: &str) -> Option<bool> {
    (text == "1").then_some(true)
}

/// `None` for a value that cannot be read, or is given twice.
fn set<T>(place: &mut Option<T>, value: Option<T>) -> Option<()> {
    place.replace(value?).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> Message {
        Message {
            published_at: Timestamp(-5),
            ..Message::new(MulticastId(7), "")
        }
    }

    fn read(text: &str) -> Result<Message, Unreadable> {
        Summary::read(text)?.into_message()
    }

    #[test]
    fn what_does_not_apply_takes_no_room() {
        let id = "00000000000000000000000000000007";
        assert_eq!(write(&message()), format!("v=1;id={id};at=-5"));
        let full = Message {
            kind: Kind::Superseded { session_seq: 9 },
            reply_to: Some("a;b c".into()),
            expects_reply: true,
            expires_at: Some(Timestamp(8)),
            receipts: Some("p.n.%-1".into()),
            again: true,
            ..message()
        };
        let words = "superseded=9;to=a%3Bb%20c;reply=1;until=8;receipts=p.n.%25-1;again=1";
        assert_eq!(write(&full), format!("v=1;id={id};at=-5;{words}"));
        assert_eq!(read(&write(&full)), Ok(full));
    }

    #[test]
    fn later_words_are_ignored_and_later_kinds_are_not() {
        assert!(read("v=1.9;id=a;new=x;at=1").is_ok());
        assert_eq!(read("v=2;id=?"), Err(Unreadable::Newer("2".into())));
        for malformed in [
            "",
            "id=a;at=1",
            "v=1",
            "v=1;id=a",
            "v=1;at=1",
            "v=1;id=x;at=1",
            "v=1;id=a;at=now",
            "v=1;id=a;at=1;",
            "v=1;id=a;at=1;knock",
            "v=1;id=a;at=1;id=a",
            "v=1;id=a;at=1;superseded=1;superseded=1",
            "v=1;id=a;at=1;superseded=-1",
            "v=1;id=a;at=1;reply=2",
            "v=1;id=a;at=1;again=0",
            "v=1;id=a;at=1;until=",
            "v=1;id=a;at=1;to=%41",
            "v=1;id=a;at=1;to=a b",
            "v=1;id=a;at=1;receipts=%3b",
        ] {
            assert_eq!(read(malformed), Err(Unreadable::Malformed(NAME)), "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn texts_arrive_as_they_are(to in "\\PC{0,12}|[;%=\r\n\0 ]{0,4}", receipts in proptest::option::of("\\PC{0,12}")) {
            let sent = Message { reply_to: Some(to.into()), receipts: receipts.map(Into::into), ..message() };
            let header = write(&sent);
            prop_assert!(header.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(read(&header), Ok(sent));
        }
    }
}
