//! The inbox of one connection: which published messages found nobody, when the broker is through, and what receivers
//! answer.
//!
//! Everything arrives at one wildcard subscription. A group of messages has a number; message `i` of group
//! `n` carries the reply subject `<inbox>.n.i`, to which the broker answers at once with the status "no
//! responders" when nobody is subscribed. After the group goes a message to `<inbox>.<secret>.n`: the
//! broker handles one connection's messages in order, so its arrival back here, the *echo*, proves that the
//! broker is through with the group, and every "no responders" of the group has arrived before it.
//!
//! Where [answers](crate::answers) are wanted the reply subject is `<inbox>.n.i-<tag>`, and whatever else comes there is
//! one. Receivers see the reply subjects; they do not see the secret, so they cannot forge an echo.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use async_nats::StatusCode;
use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use crate::answers::{Answers, Asked};

/// Sorts what arrives at one connection's inbox.
#[derive(Debug)]
pub(crate) struct Replies {
    /// With a trailing dot.
    prefix: String,
    secret: String,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
    pub(crate) answers: Answers,
}

#[derive(Debug)]
struct Waiting {
    /// The messages that found nobody.
    refused: Vec<u32>,
    echo: oneshot::Sender<Vec<u32>>,
}

impl Replies {
    /// Those of an inbox that nobody else uses, with answers for at most so many targets.
    pub(crate) fn new(most_targets: usize) -> Self {
        Self {
            prefix: format!("_INBOX.{:032x}.", rand::random::<u128>()),
            secret: format!("{:032x}", rand::random::<u128>()),
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            answers: Answers::new(most_targets),
        }
    }

    /// What to subscribe to.
    pub(crate) fn wildcard(&self) -> String {
        format!("{}>", self.prefix)
    }

    /// Opens a group, whose receivers may be asked for answers.
    pub(crate) fn expect(&self, asked: Option<Asked>) -> Expectation<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, echo) = oneshot::channel();
        let waiting = Waiting {
            refused: Vec::new(),
            echo: sender,
        };
        self.waiting.lock().insert(number, waiting);
        let is_asked = asked.is_some();
        if let Some(asked) = asked {
            self.answers.keep(number, asked, Instant::now());
        }
        Expectation {
            replies: self,
            number,
            is_asked,
            echo,
        }
    }

    /// Takes what arrived. What belongs to a group that is no longer waited for, nor remembered, is ignored.
    pub(crate) fn take(&self, message: async_nats::Message) {
        let Some((first, second)) = message
            .subject
            .strip_prefix(&*self.prefix)
            .and_then(|rest| rest.split_once('.'))
        else {
            return;
        };
        if first == self.secret {
            self.take_echo(second);
            return;
        }
        let Some((group, index, tag)) = numbers(first, second) else {
            return;
        };
        match (message.status, tag) {
            (Some(StatusCode::NO_RESPONDERS), _) => self.take_refusal(group, index, tag),
            (None, Some(tag)) => self
                .answers
                .take(group, index, tag, message.payload, Instant::now()),
            _ => {}
        }
    }

    fn take_echo(&self, group: &str) {
        let number = group.parse().ok();
        let group = number.and_then(|number: u64| self.waiting.lock().remove(&number));
        if let Some(group) = group {
            // Fails when nobody waits any more.
            let _ = group.echo.send(group.refused);
        }
    }

    /// Whoever knows the reply subject can speak like the broker; with a tag, only of the message that it was given.
    fn take_refusal(&self, group: u64, index: u32, tag: Option<u32>) {
        if tag.is_some_and(|tag| tag != self.answers.tag(group, index)) {
            return;
        }
        if let Some(group) = self.waiting.lock().get_mut(&group) {
            group.refused.push(index);
        }
    }
}

/// Of a reply subject: the group, the message in it, and the tag if there is one.
fn numbers(group: &str, message: &str) -> Option<(u64, u32, Option<u32>)> {
    let group = group.parse().ok()?;
    match message.split_once('-') {
        None => Some((group, message.parse().ok()?, None)),
        Some((index, tag)) => Some((
            group,
            index.parse().ok()?,
            Some(u32::from_str_radix(tag, 16).ok()?),
        )),
    }
}

/// A group under way. Forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Expectation<'a> {
    replies: &'a Replies,
    number: u64,
    is_asked: bool,
    echo: oneshot::Receiver<Vec<u32>>,
}

impl Expectation<'_> {
    /// Appends the reply subject of one message.
    pub(crate) fn write_reply(&self, index: u32, buffer: &mut BytesMut) {
        // Writing to a buffer that grows does not fail.
        let _ = write!(buffer, "{}{}.{index}", self.replies.prefix, self.number);
        if self.is_asked {
            let _ = write!(buffer, "-{:x}", self.replies.answers.tag(self.number, index));
        }
    }

    /// Where the echo is to be sent.
    pub(crate) fn echo_subject(&self) -> String {
        format!("{}{}.{}", self.replies.prefix, self.replies.secret, self.number)
    }

    /// Waits for the echo; which messages found nobody. Pending for ever without an echo. Cancel safe
    /// until it has returned.
    pub(crate) async fn echoed(&mut self) -> Vec<u32> {
        match (&mut self.echo).await {
            Ok(refused) => refused,
            // The sender is kept until the echo has come.
            Err(_) => std::future::pending().await,
        }
    }

    /// Which messages are known to have found nobody, when the echo is not waited for.
    pub(crate) fn refused_so_far(self) -> Vec<u32> {
        let group = self.replies.waiting.lock().remove(&self.number);
        group.map(|group| group.refused).unwrap_or_default()
    }
}

impl Drop for Expectation<'_> {
    fn drop(&mut self) {
        self.replies.waiting.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use prism_slot::{Arrival, Identity, MulticastId, post};

    use super::*;

    fn arrival(subject: &str, status: Option<StatusCode>) -> async_nats::Message {
        async_nats::Message {
            subject: subject.into(),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    fn reply(group: &Expectation<'_>, index: u32) -> String {
        let mut buffer = BytesMut::new();
        group.write_reply(index, &mut buffer);
        String::from_utf8(buffer.to_vec()).unwrap()
    }

    const NOBODY: Option<StatusCode> = Some(StatusCode::NO_RESPONDERS);

    #[test]
    fn an_echo_settles_its_group_only() {
        let replies = Replies::new(100);
        let (mut one, mut other) = (replies.expect(None), replies.expect(None));
        replies.take(arrival(&reply(&one, 3), NOBODY));
        replies.take(arrival(&reply(&other, 4), NOBODY));
        assert_eq!(one.echoed().now_or_never(), None);
        replies.take(arrival(&one.echo_subject(), None));
        assert_eq!(one.echoed().now_or_never(), Some(vec![3]));
        assert_eq!(other.echoed().now_or_never(), None);
        assert_eq!(other.refused_so_far(), [4]);
    }

    #[test]
    fn answers_that_nobody_asked_for_mean_nothing() {
        let replies = Replies::new(100);
        let mut group = replies.expect(None);
        replies.take(arrival(&reply(&group, 0), None));
        replies.take(arrival(&reply(&group, 1), Some(StatusCode::OK)));
        // As near to an echo as one gets without the secret.
        let (stem, _) = reply(&group, 0)
            .rsplit_once('.')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        for forged in [
            stem.clone(),
            format!("{stem}."),
            format!("{stem}.x"),
            format!("{stem}.0.0"),
        ] {
            replies.take(arrival(&forged, None));
            replies.take(arrival(&forged, NOBODY));
        }
        assert_eq!(group.echoed().now_or_never(), None);
        replies.take(arrival(&group.echo_subject(), None));
        assert_eq!(group.echoed().now_or_never(), Some(vec![]));
    }

    #[test]
    fn a_group_that_is_given_up_leaves_nothing_behind() {
        let replies = Replies::new(100);
        let group = replies.expect(None);
        let (late, echo) = (reply(&group, 0), group.echo_subject());
        drop(group);
        replies.take(arrival(&late, NOBODY));
        replies.take(arrival(&echo, None));
        assert!(replies.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn answers_reach_their_post_also_after_the_echo() {
        let replies = Replies::new(100);
        let (sink, mut post) = post("here", 10, ());
        let asked = Asked {
            multicast: MulticastId(1),
            identities: ["a", "b"].map(|name| Identity::new(name).unwrap()).into(),
            post: sink,
        };
        let mut group = replies.expect(Some(asked));
        let (a, b, echo) = (reply(&group, 0), reply(&group, 1), group.echo_subject());
        let (_, tag) = a.split_once('-').unwrap();
        let (b_untagged, _) = b.split_once('-').unwrap();
        replies.take(arrival(&a, None));
        for (subject, status) in [
            (b_untagged.to_owned(), None),
            (format!("{b_untagged}-{tag}"), None),
            (format!("{b_untagged}-{tag}"), NOBODY),
            (a.clone(), Some(StatusCode::OK)),
        ] {
            replies.take(arrival(&subject, status));
        }
        replies.take(arrival(&echo, None));
        assert_eq!(group.echoed().now_or_never(), Some(vec![]));
        drop(group);
        replies.take(arrival(&b, None));
        for name in ["a", "b"] {
            let answer = Arrival::Answer {
                multicast: MulticastId(1),
                identity: Identity::new(name).unwrap(),
                body: bytes::Bytes::new(),
            };
            assert_eq!(post.next().now_or_never(), Some(Some(answer)));
        }
        assert_eq!(post.next().now_or_never(), None);
    }
}
