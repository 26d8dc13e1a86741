//! The inbox of one connection: which published messages found nobody, and when the broker is through.
//!
//! Everything arrives at one wildcard subscription. A group of messages has a number; message `i` of group
//! `n` carries the reply subject `<inbox>.n.i`, to which the broker answers at once with the status "no
//! responders" when nobody is subscribed. After the group goes a message to `<inbox>.<secret>.n`: the
//! broker handles one connection's messages in order, so its arrival back here, the *echo*, proves that the
//! broker is through with the group, and every "no responders" of the group has arrived before it.
//!
//! Receivers see the reply subjects and may use them, which means nothing here. They do not see the secret,
//! so they cannot forge an echo.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use async_nats::StatusCode;
use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Sorts what arrives at one connection's inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// With a trailing dot.
    prefix: String,
    secret: String,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    /// The messages that found nobody.
    refused: Vec<u32>,
    echo: oneshot::Sender<Vec<u32>>,
}

impl Inbox {
    /// One that nobody else uses.
    pub(crate) fn new() -> Self {
        Self {
            prefix: format!("_INBOX.{:032x}.", rand::random::<u128>()),
            secret: format!("{:032x}", rand::random::<u128>()),
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// What to subscribe to.
    pub(crate) fn wildcard(&self) -> String {
        format!("{}>", self.prefix)
    }

    /// Opens a group.
    pub(crate) fn expect(&self) -> Expectation<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, echo) = oneshot::channel();
        let waiting = Waiting {
            refused: Vec::new(),
            echo: sender,
        };
        self.waiting.lock().insert(number, waiting);
        Expectation {
            inbox: self,
            number,
            echo,
        }
    }

    /// Takes what arrived. Answers of receivers, and what belongs to a group that is no longer waited for,
    /// are ignored.
    pub(crate) fn take(&self, message: &async_nats::Message) {
        let Some((first, second)) = message
            .subject
            .strip_prefix(&*self.prefix)
            .and_then(|rest| rest.split_once('.'))
        else {
            return;
        };
        if first == self.secret {
            let group = second
                .parse()
                .ok()
                .and_then(|number| self.waiting.lock().remove(&number));
            if let Some(group) = group {
                // Fails when nobody waits any more.
                let _ = group.echo.send(group.refused);
            }
        } else if message.status == Some(StatusCode::NO_RESPONDERS)
            && let (Ok(number), Ok(index)) = (first.parse(), second.parse())
            && let Some(group) = self.waiting.lock().get_mut(&number)
        {
            group.refused.push(index);
        }
    }
}

/// A group under way. Forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Expectation<'a> {
    inbox: &'a Inbox,
    number: u64,
    echo: oneshot::Receiver<Vec<u32>>,
}

impl Expectation<'_> {
    /// Appends the reply subject of one message.
    pub(crate) fn write_reply(&self, index: usize, buffer: &mut BytesMut) {
        // Writing to a buffer that grows does not fail.
        let _ = write!(buffer, "{}{}.{index}", self.inbox.prefix, self.number);
    }

    /// Where the echo is to be sent.
    pub(crate) fn echo_subject(&self) -> String {
        format!("{}{}.{}", self.inbox.prefix, self.inbox.secret, self.number)
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
        let group = self.inbox.waiting.lock().remove(&self.number);
        group.map(|group| group.refused).unwrap_or_default()
    }
}

impl Drop for Expectation<'_> {
    fn drop(&mut self) {
        self.inbox.waiting.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

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

    fn reply(group: &Expectation<'_>, index: usize) -> String {
        let mut buffer = BytesMut::new();
        group.write_reply(index, &mut buffer);
        String::from_utf8(buffer.to_vec()).unwrap()
    }

    const NOBODY: Option<StatusCode> = Some(StatusCode::NO_RESPONDERS);

    #[test]
    fn an_echo_settles_its_group_only() {
        let inbox = Inbox::new();
        let (mut one, mut other) = (inbox.expect(), inbox.expect());
        inbox.take(&arrival(&reply(&one, 3), NOBODY));
        inbox.take(&arrival(&reply(&other, 4), NOBODY));
        assert_eq!(one.echoed().now_or_never(), None);
        inbox.take(&arrival(&one.echo_subject(), None));
        assert_eq!(one.echoed().now_or_never(), Some(vec![3]));
        assert_eq!(other.echoed().now_or_never(), None);
        assert_eq!(other.refused_so_far(), [4]);
    }

    #[test]
    fn answers_of_receivers_mean_nothing() {
        let inbox = Inbox::new();
        let mut group = inbox.expect();
        inbox.take(&arrival(&reply(&group, 0), None));
        inbox.take(&arrival(&reply(&group, 1), Some(StatusCode::OK)));
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
            inbox.take(&arrival(&forged, None));
            inbox.take(&arrival(&forged, NOBODY));
        }
        assert_eq!(group.echoed().now_or_never(), None);
        inbox.take(&arrival(&group.echo_subject(), None));
        assert_eq!(group.echoed().now_or_never(), Some(vec![]));
    }

    #[test]
    fn a_group_that_is_given_up_leaves_nothing_behind() {
        let inbox = Inbox::new();
        let group = inbox.expect();
        let (late, echo) = (reply(&group, 0), group.echo_subject());
        drop(group);
        inbox.take(&arrival(&late, NOBODY));
        inbox.take(&arrival(&echo, None));
        assert!(inbox.waiting.lock().is_empty());
    }
}
