//! Where everything is: the streams of one namespace, and their subjects.
//!
//! | stream | subjects | what |
//! |---|---|---|
//! | `<p>%-<n>%-messages` | `<prefix>.<n>.m.<identity>.<priority>` | messages that wait |
//! | `<p>%-<n>%-sessions` | `<prefix>.<n>.s.<identity>` | who works on an inbox, and what is out |
//! | | `<prefix>.<n>.s.%-<generation>-<sequence>` | that a dead letter may have gone back |
//! | `<p>%-<n>%-dead` | `<prefix>.<n>.d.<identity>` | dead letters |
//! | `<p>%-<n>%-ledger` | `<prefix>.<n>.l.<key>` | the ledger |
//!
//! `<n>`, `<identity>` and `<key>` are [escaped](crate::escape) to one token each, `<p>` is the escaped prefix; nothing
//! escaped has a `%-` in it, so no two namespaces share a stream or a subject. A priority is a digit, 0 for the most
//! urgent, so that the stream itself bounds each priority of each inbox.

use bytes::BytesMut;
use prism_slot::{Identity, Priority, Result};

use crate::{
    address::{Prefix, escape, is_plain, unescape},
    error::misconfigured,
    percent,
};

/// The longest name of a stream that a server takes.
const MAX_NAME: usize = 255;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Messages,
    Sessions,
    Dead,
    Ledger,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Sessions => "sessions",
            Self::Dead => "dead",
            Self::Ledger => "ledger",
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Messages => 'm',
            Self::Sessions => 's',
            Self::Dead => 'd',
            Self::Ledger => 'l',
        }
    }
}

/// The most urgent first.
pub(crate) const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

/// The place of a priority in [`PRIORITIES`].
pub(crate) fn rank(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

/// The names of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    prefix: Prefix,
    streams: String,
}

impl Layout {
    /// # Errors
    /// A prefix that is none, or together with the namespace too long.
    pub(crate) fn new(queue_prefix: &str, namespace: &str) -> Result<Self> {
        let prefix = Prefix::new(queue_prefix, namespace)?;
        let text = queue_prefix.strip_suffix('.').unwrap_or(queue_prefix);
        let streams = format!("{}%-{}%-", escape(text), escape(namespace));
        let layout = Self { prefix, streams };
        if layout.stream(Kind::Messages).len() > MAX_NAME {
            return Err(misconfigured(format!(
                "`queue_prefix` and the namespace make the name of a stream longer than {MAX_NAME} bytes; shorten one"
            )));
        }
        Ok(layout)
    }

    /// The name of a stream.
    pub(crate) fn stream(&self, kind: Kind) -> String {
        format!("{}{}", self.streams, kind.name())
    }

    /// What all subjects of a stream match.
    pub(crate) fn all(&self, kind: Kind) -> String {
        match kind {
            Kind::Messages => format!("{}m.*.*", self.prefix),
            _ => self.subject(kind, "*"),
        }
    }

    /// Where the messages of an inbox with this priority are.
    pub(crate) fn messages(&self, identity: &Identity, rank: usize) -> String {
        let mut subject = format!("{}m.", self.prefix);
        push_escaped(identity, &mut subject);
        subject.push('.');
        subject.push(char::from(b'0' + rank as u8));
        subject
    }

    /// What the subjects of all messages of an inbox match.
    pub(crate) fn inbox(&self, identity: &Identity) -> String {
        format!("{}m.{}.*", self.prefix, escape(identity.as_str()))
    }

    /// Where there is one subject for each name.
    pub(crate) fn named(&self, kind: Kind, name: &str) -> String {
        self.subject(kind, &escape(name))
    }

    /// A subject in a stream at which nothing ever is.
    pub(crate) fn unused(&self, kind: Kind) -> String {
        match kind {
            Kind::Messages => format!("{}m.%-.0", self.prefix),
            _ => self.subject(kind, "%-"),
        }
    }

    /// Where it is noted that a dead letter is on its way back. Nobody's name has a `%-`.
    pub(crate) fn way_back(&self, generation: u64, sequence: u64) -> String {
        self.subject(Kind::Sessions, &format!("%-{generation}-{sequence}"))
    }

    /// What all subjects begin with, with a trailing dot.
    pub(crate) fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The name that a subject stands for.
    pub(crate) fn name(&self, kind: Kind, subject: &str) -> Option<String> {
        let token = subject.strip_prefix(&self.subject(kind, ""))?;
        unescape(token)
    }

    /// The priority that a subject of a message stands for.
    pub(crate) fn rank(subject: &str) -> Option<usize> {
        let rank = subject.rsplit_once('.')?.1.parse().ok()?;
        (rank < PRIORITIES.len()).then_some(rank)
    }

    fn subject(&self, kind: Kind, token: &str) -> String {
        format!("{}{}.{token}", self.prefix, kind.letter())
    }
}

fn push_escaped(identity: &Identity, text: &mut String) {
    let name = identity.as_str();
    if name.bytes().all(is_plain) {
        text.push_str(name);
        return;
    }
    let mut token = BytesMut::with_capacity(3 * name.len());
    percent::write(name, is_plain, &mut token);
    // Only ASCII has been written.
    text.push_str(&String::from_utf8_lossy(&token));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_its_place() {
        let layout = Layout::new("prism.queue.", "fleet.1").unwrap();
        let identity = Identity::new("a.b *").unwrap();
        assert_eq!(
            layout.messages(&identity, 1),
            "prism.queue.fleet%2E1.m.a%2Eb%20%2A.1"
        );
        assert_eq!(layout.inbox(&identity), "prism.queue.fleet%2E1.m.a%2Eb%20%2A.*");
        assert_eq!(layout.all(Kind::Messages), "prism.queue.fleet%2E1.m.*.*");
        assert_eq!(layout.all(Kind::Dead), "prism.queue.fleet%2E1.d.*");
        assert_eq!(
            layout.stream(Kind::Sessions),
            "prism%2Equeue%-fleet%2E1%-sessions"
        );
        let subject = layout.named(Kind::Ledger, "open/1");
        assert_eq!(subject, "prism.queue.fleet%2E1.l.open%2F1");
        assert_eq!(layout.name(Kind::Ledger, &subject).as_deref(), Some("open/1"));
        assert_eq!(layout.name(Kind::Dead, &subject), None);
        assert_eq!(Layout::rank("a.m.b.2"), Some(2));
        assert_eq!(Layout::rank("a.m.b.3"), None);
        for (rank_, priority) in PRIORITIES.into_iter().enumerate() {
            assert_eq!(rank(priority), rank_);
        }
    }

    #[test]
    fn no_two_namespaces_share_a_stream() {
        let pairs = [
            ("p", "a"),
            ("p.a", "a"),
            ("p", "a%-a"),
            ("p%-a", "a"),
            ("p-a", "a"),
            ("p", "a-a"),
        ];
        let names =
            pairs.map(|(prefix, namespace)| Layout::new(prefix, namespace).unwrap().stream(Kind::Messages));
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), pairs.len(), "{names:?}");
        assert!(names.iter().all(|name| !name.contains(['.', '*', '>', ' ', '/'])));
        assert!(Layout::new("p", &"n".repeat(250)).is_err());
    }
}
