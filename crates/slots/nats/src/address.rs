//! Subjects: `<topic prefix>.<namespace>.<identity>`, the last two as one token each.
//!
//! A token keeps ASCII letters and digits and `-`, `_`, `:`, `@` as they are, so that ordinary identities
//! read the same in the broker's tools. Every other byte of the UTF-8 text becomes `%` and two upper case
//! hexadecimal digits. So a token is never empty, holds no separator or wildcard, begins with neither `$`
//! nor a reserved word of the broker, has at most three times the identity's length, and belongs to one
//! identity only.

use std::fmt;

use bytes::{BufMut, BytesMut};
use prism_slot::Identity;

use crate::percent;

/// The longest topic prefix, and the longest token of a namespace, in bytes: with the longest identity and a
/// reply subject behind them, a subject stays below the 4 KiB that a server takes for a line of the protocol.
const MAX_PREFIX: usize = 1_024;

/// How a token begins that stands for no identity: no escaped text has a `-` behind a `%`.
const UNUSED: &str = "%-";

/// The token that stands for `text` in a subject.
pub fn escape(text: &str) -> String {
    let mut token = BytesMut::with_capacity(text.len());
    write_escaped(text, &mut token);
    // Only ASCII has been written.
    String::from_utf8_lossy(&token).into_owned()
}

/// The text for which [`escape`] returns `token`; `None` for a token that it never returns.
pub fn unescape(token: &str) -> Option<String> {
    percent::read(token, is_plain)
}

fn write_escaped(text: &str, token: &mut BytesMut) {
    percent::write(text, is_plain, token);
}

pub(crate) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':' | b'@')
}

/// What the subjects of one namespace begin with.
#[derive(Debug, Clone)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// Of the namespace's subjects. One trailing dot of the topic prefix is ignored.
    pub(crate) fn new(topic_prefix: &str, namespace: &str) -> Result<Self, InvalidPrefix> {
        let text = topic_prefix.strip_suffix('.').unwrap_or(topic_prefix);
        let invalid = |why| {
            Err(InvalidPrefix {
                prefix: text.to_owned(),
                why,
            })
        };
        if text.is_empty() {
            return invalid("it must not be empty");
        }
        if text.len() > MAX_PREFIX {
            return invalid("it has more than 1024 bytes");
        }
        if text.split('.').any(str::is_empty) {
            return invalid("there must be something between two dots");
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>') {
            return invalid("it must have no spaces, control characters, `*` or `>`");
        }
        if text.starts_with('$') || text == "_INBOX" || text.starts_with("_INBOX.") {
            return invalid("`$…` and `_INBOX` belong to the broker");
        }
        let token = escape(namespace);
        if token.is_empty() || token.len() > MAX_PREFIX {
            return invalid("a namespace behind it must not be empty or longer than 1024 bytes");
        }
        Ok(Self(format!("{text}.{token}.")))
    }

    /// Where messages for `identity` go.
    pub(crate) fn subject(&self, identity: &Identity) -> String {
        format!("{}{}", self.0, escape(identity.as_str()))
    }

    /// Appends the same to a buffer.
    pub(crate) fn write_subject(&self, identity: &Identity, buffer: &mut BytesMut) {
        buffer.put_slice(self.0.as_bytes());
        write_escaped(identity.as_str(), buffer);
    }

    /// What all subjects of the namespace match.
    pub(crate) fn all(&self) -> String {
        format!("{}*", self.0)
    }

    /// A subject in this prefix that stands for no identity, and that nobody else uses or guesses.
    pub(crate) fn unused_subject(&self) -> String {
        format!("{}{UNUSED}{:032x}", self.0, rand::random::<u128>())
    }

    /// What every post of the namespace listens to; no identity's either. It can be guessed.
    pub(crate) fn subject_of_all_posts(&self) -> String {
        format!("{}{UNUSED}all", self.0)
    }

    /// Whether [`unused_subject`](Self::unused_subject) may have returned `subject`.
    pub(crate) fn is_unused_subject(&self, subject: &str) -> bool {
        let token = subject.strip_prefix(&self.0);
        let digits = token.and_then(|token| token.strip_prefix(UNUSED));
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        digits.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(is_digit))
    }
}

/// With the trailing dot.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text cannot begin a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the prefix `{prefix}` is no beginning of a subject: {why}")]
pub(crate) struct InvalidPrefix {
    prefix: String,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_identities_stay_readable() {
        for plain in ["user-alice-session-1", "device_7", "urn:x:1", "a@b", "_", "0"] {
            assert_eq!(escape(plain), plain);
        }
        assert_eq!(escape("a.b *>%$é"), "a%2Eb%20%2A%3E%25%24%C3%A9");
    }

    #[test]
    fn only_what_was_escaped_is_unescaped() {
        for foreign in ["%", "%2", "%2e", "%41", "a.b", "a b", "%C3", "%-", "é", "%zz"] {
            assert_eq!(unescape(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_prefix_may_end_in_a_dot() {
        let identity = Identity::new("a").unwrap();
        for text in ["prism.multicast", "prism.multicast."] {
            let prefix = Prefix::new(text, "fleet").unwrap();
            assert_eq!(prefix.subject(&identity), "prism.multicast.fleet.a");
            let mut buffer = BytesMut::new();
            prefix.write_subject(&identity, &mut buffer);
            assert_eq!(&buffer[..], b"prism.multicast.fleet.a");
        }
    }

    #[test]
    fn no_two_namespaces_share_a_subject() {
        let all = [
            ("p", "a"),
            ("p", "a.b"),
            ("p.a", "b"),
            ("p.a", "b.c"),
            ("p", "a%2Eb"),
            ("p", "*"),
            ("p", ">"),
        ];
        let names = ["x", "b", "b.x", "a.b.x", "*"].map(|name| Identity::new(name).unwrap());
        let subjects = all.iter().flat_map(|(prefix, namespace)| {
            let prefix = Prefix::new(prefix, namespace).unwrap();
            names
                .iter()
                .map(move |identity| prefix.subject(identity))
                .collect::<Vec<_>>()
        });
        let subjects: Vec<String> = subjects.collect();
        let distinct: std::collections::HashSet<_> = subjects.iter().collect();
        assert_eq!(distinct.len(), all.len() * names.len(), "{subjects:?}");
        assert!(
            subjects.iter().all(|subject| !subject.contains(['*', '>'])),
            "{subjects:?}"
        );
    }

    #[test]
    fn a_prefix_that_is_no_subject_is_refused() {
        for text in [
            "", ".", "a..b", ".a", "a..", "a b", "a.*", "a.>", "$SYS.x", "_INBOX", "_INBOX.a", "a\n",
        ] {
            assert!(Prefix::new(text, "n").is_err(), "{text:?}");
        }
        assert!(Prefix::new(&"p".repeat(MAX_PREFIX + 1), "n").is_err());
        assert!(Prefix::new("p", "").is_err());
        assert!(Prefix::new("p", &".".repeat(342)).is_err());
        assert!(Prefix::new("_INBOXES.a", "n").is_ok());
    }

    #[test]
    fn the_unused_subject_stands_for_no_identity() {
        let subject = Prefix::new("p", "n").unwrap().unused_subject();
        assert_eq!(unescape(subject.strip_prefix("p.n.").unwrap()), None);
    }

    #[test]
    fn other_subjects_are_not_taken_for_an_unused_one() {
        let prefix = Prefix::new("p", "n").unwrap();
        let unused = prefix.unused_subject();
        assert!(prefix.is_unused_subject(&unused));
        let other = Prefix::new("p", "m").unwrap().unused_subject();
        let identity = prefix.subject(&Identity::new(unused.clone()).unwrap());
        let longer = format!("{unused}0");
        for subject in [
            "",
            "p.n.",
            "p.n.a",
            "$JS.API.INFO",
            &other,
            &identity,
            &longer,
            &unused.to_uppercase(),
        ] {
            assert!(!prefix.is_unused_subject(subject), "{subject}");
        }
    }

    fn identities() -> impl Strategy<Value = Identity> {
        let hostile = "[.*>%$_ a\u{e9}\u{1F600}0-]{1,20}";
        prop_oneof![hostile, "\\PC{1,60}"].prop_filter_map("an identity", |text| Identity::new(text).ok())
    }

    proptest! {
        #[test]
        fn escaping_is_reversible_and_one_token(identity in identities()) {
            let token = escape(identity.as_str());
            prop_assert_eq!(unescape(&token), Some(identity.as_str().to_owned()));
            prop_assert!(!token.is_empty() && token.len() <= 3 * identity.as_str().len());
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(!token.contains(['.', '*', '>', '$']));
        }

        #[test]
        fn different_identities_have_different_tokens(one in identities(), other in identities()) {
            prop_assert_eq!(one == other, escape(one.as_str()) == escape(other.as_str()));
        }

        #[test]
        fn unescaping_accepts_nothing_else(token in "[%0-9A-Fa-f.zé]{0,12}") {
            if let Some(text) = unescape(&token) {
                prop_assert_eq!(escape(&text), token);
            }
        }
    }
}
