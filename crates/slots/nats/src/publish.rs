//! Publishing one message to many identities over one connection.

use std::collections::VecDeque;

use async_nats::{HeaderMap, PublishError, Subject};
use bytes::{Bytes, BytesMut};
use prism_slot::{Identity, Message, MulticastId, Outcome, PostSink};
use tokio::{
    sync::{SemaphorePermit, watch},
    time::{Instant, sleep_until},
};

use crate::{
    address::Prefix,
    answers::Asked,
    codec,
    link::{self, Link, Mark},
    replies::Expectation,
};

/// How many groups are under way at a time: while one is confirmed, the next is sent.
const GROUPS: usize = 2;

/// A message as it is sent to every target.
#[derive(Debug)]
pub(crate) struct Parcel {
    headers: HeaderMap,
    payload: Bytes,
    /// Whose it is, and where answers go if somebody wants them.
    answers: Option<(MulticastId, PostSink)>,
}

impl Parcel {
    /// # Errors
    /// What of the message NATS cannot carry.
    pub(crate) fn new(message: &Message, answers: Option<PostSink>) -> Result<Self, String> {
        Ok(Self {
            headers: codec::encode(message)?,
            payload: message.payload.clone(),
            answers: answers.map(|post| (message.multicast, post)),
        })
    }

    fn ask(&self, targets: &[&Identity]) -> Option<Asked> {
        let (multicast, post) = self.answers.as_ref()?;
        Some(Asked {
            multicast: *multicast,
            identities: targets.iter().copied().cloned().collect(),
            post: post.clone(),
        })
    }
}

/// Sends and waits for confirmation, in groups of at most `window`; one outcome for each target.
pub(crate) async fn publish(
    link: &Link,
    prefix: &Prefix,
    targets: &[&Identity],
    parcel: &Parcel,
    window: usize,
    deadline: Instant,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(targets.len());
    let mut under_way = VecDeque::with_capacity(GROUPS);
    let mut rest = targets.chunks(window);
    let mut stopped = None;
    let mut next = rest.next();
    while stopped.is_none()
        && let Some(part) = next
    {
        let room = if under_way.len() == GROUPS {
            None
        } else {
            link.room(part.len())
        };
        // Whoever has something under way must not wait for those who wait for it.
        if room.is_none()
            && let Some(oldest) = under_way.pop_front()
        {
            settle(oldest, deadline, &mut outcomes).await;
            continue;
        }
        match Group::open(link, part.len(), || parcel.ask(part), room, deadline).await {
            Ok(mut group) => {
                let subject = |index: usize, buffer: &mut BytesMut| prefix.write_subject(part[index], buffer);
                group.send(subject, parcel, deadline).await;
                stopped.clone_from(&group.stopped);
                under_way.push_back(group);
            }
            Err(why) => stopped = Some(why),
        }
        next = rest.next();
    }
    for group in under_way {
        settle(group, deadline, &mut outcomes).await;
    }
    let unsent = Outcome::NotSent(stopped.unwrap_or_default());
    outcomes.resize(targets.len(), unsent);
    outcomes
}

/// Sends a note to a subject and waits for confirmation.
pub(crate) async fn send(link: &Link, subject: &str, note: Bytes, deadline: Instant) -> Outcome {
    let parcel = Parcel {
        headers: HeaderMap::new(),
        payload: note,
        answers: None,
    };
    let mut group = match Group::open(link, 1, || None, None, deadline).await {
        Ok(group) => group,
        Err(why) => return Outcome::NotSent(why),
    };
    let write_subject = |_, buffer: &mut BytesMut| buffer.extend_from_slice(subject.as_bytes());
    group.send(write_subject, &parcel, deadline).await;
    let outcome = group.settle(deadline).await.pop();
    outcome.unwrap_or_else(|| Outcome::Unknown("nothing is known".to_owned()))
}

async fn settle(group: Group<'_>, deadline: Instant, outcomes: &mut Vec<Outcome>) {
    outcomes.extend(group.settle(deadline).await);
}

/// Some messages and the echo after them.
struct Group<'a> {
    link: &'a Link,
    expectation: Expectation<'a>,
    mark: Mark,
    losses: watch::Receiver<u64>,
    size: usize,
    /// How many messages async-nats has taken; the others were certainly not sent.
    taken: usize,
    /// Why not all were taken, or no echo was asked for.
    stopped: Option<String>,
    _budget: SemaphorePermit<'a>,
}

impl<'a> Group<'a> {
    /// # Errors
    /// Why nothing can be sent now.
    async fn open(
        link: &'a Link,
        size: usize,
        asked: impl FnOnce() -> Option<Asked>,
        room: Option<SemaphorePermit<'a>>,
        deadline: Instant,
    ) -> Result<Self, String> {
        // Before the connection is looked at, so that no loss in between goes unnoticed.
        let losses = link.health.losses();
        let budget = match room {
            Some(room) => room,
            None => tokio::select! {
                biased;
                room = link.budget.acquire_many(link::share(size)) => room.map_err(|_| "the slot is closed")?,
                () = sleep_until(deadline) => return Err("too many messages are under way".to_owned()),
            },
        };
        let mark = link.mark().ok_or_else(|| link.not_connected().to_string())?;
        Ok(Self {
            link,
            expectation: link.replies.expect(asked()),
            mark,
            losses,
            size,
            taken: 0,
            stopped: None,
            _budget: budget,
        })
    }

    /// Hands everything to async-nats, which blocks while its queue is full.
    async fn send(
        &mut self,
        write_subject: impl Fn(usize, &mut BytesMut),
        parcel: &Parcel,
        deadline: Instant,
    ) {
        let (client, expectation, taken) = (&self.link.client, &self.expectation, &mut self.taken);
        let size = self.size;
        let sending = async {
            let mut buffer = BytesMut::with_capacity(size * 128);
            for (index, number) in (0..size).zip(0_u32..) {
                write_subject(index, &mut buffer);
                let subject = take_subject(&mut buffer)?;
                expectation.write_reply(number, &mut buffer);
                let reply = take_subject(&mut buffer)?;
                let (headers, payload) = (parcel.headers.clone(), parcel.payload.clone());
                let sent = client
                    .publish_with_reply_and_headers(subject, reply, headers, payload)
                    .await;
                sent.map_err(|error: PublishError| error.to_string())?;
                *taken += 1;
            }
            let echo = client.publish(expectation.echo_subject(), Bytes::new()).await;
            echo.map_err(|error| error.to_string())
        };
        let sent = tokio::select! {
            biased;
            sent = sending => sent,
            _ = self.losses.changed() => Err(self.link.not_connected().to_string()),
            () = sleep_until(deadline) => Err("nats took no more messages before the deadline".to_owned()),
        };
        self.stopped = sent.err();
    }

    /// Waits for the echo, unless none was asked for.
    async fn settle(mut self, deadline: Instant) -> Vec<Outcome> {
        let echo = match self.stopped.take() {
            Some(why) => Err(why),
            None => tokio::select! {
                biased;
                refused = self.expectation.echoed() => Ok(refused),
                _ = self.losses.changed() => Err("the connection to nats was lost".to_owned()),
                () = sleep_until(deadline) => Err("nats did not confirm before the deadline".to_owned()),
            },
        };
        if echo.is_ok() {
            self.link.health.catch_up().await;
        }
        let (refused, verdict) = match echo {
            Ok(refused) if self.link.holds(self.mark) => (refused, Outcome::Accepted),
            Ok(refused) => (refused, Outcome::Unknown(self.link.doubt(self.mark))),
            Err(why) => return self.unconfirmed(why),
        };
        outcomes(self.size, self.taken, &refused, verdict, String::new())
    }

    fn unconfirmed(self, why: String) -> Vec<Outcome> {
        let refused = self.expectation.refused_so_far();
        outcomes(
            self.size,
            self.taken,
            &refused,
            Outcome::Unknown(why.clone()),
            why,
        )
    }
}

fn outcomes(size: usize, taken: usize, refused: &[u32], verdict: Outcome, unsent: String) -> Vec<Outcome> {
    let mut outcomes = vec![verdict; taken];
    for index in refused {
        if let Some(outcome) = outcomes.get_mut(*index as usize) {
            *outcome = Outcome::NoSubscriber;
        }
    }
    outcomes.resize(size, Outcome::NotSent(unsent));
    outcomes
}

/// Takes what was written to the buffer; the subjects of a group share its memory.
fn take_subject(buffer: &mut BytesMut) -> Result<Subject, String> {
    Subject::from_utf8(buffer.split().freeze()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering, time::Duration};

    use async_nats::{Event, ServerError};
    use prism_slot::Messaging;
    use prism_testkit::NatsServer;

    use super::*;
    use crate::{Config, NatsMessaging};

    /// Sends to nobody, lets `meanwhile` happen, and settles.
    async fn outcome_after(meanwhile: impl FnOnce(&Link)) -> Vec<Outcome> {
        let server = NatsServer::start().await.unwrap();
        let config = Config {
            servers: vec![server.url()],
            ..Config::default()
        };
        let slot = NatsMessaging::open("test", "test", config).await.unwrap();
        let (link, prefix) = (&slot.publishing[0], Prefix::new("test", "test").unwrap());
        let listened = Identity::new("listened").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let _listener = slot.listen(&listened, deadline).await.unwrap();
        let parcel = Parcel::new(&Message::new(MulticastId::random(), ""), None).unwrap();
        let nobody = Identity::new("nobody").unwrap();
        let mut group = Group::open(link, 2, || None, None, deadline).await.unwrap();
        let targets = [&listened, &nobody];
        let subject = |index: usize, buffer: &mut BytesMut| prefix.write_subject(targets[index], buffer);
        group.send(subject, &parcel, deadline).await;
        meanwhile(link);
        group.settle(deadline).await
    }

    #[tokio::test]
    async fn an_undisturbed_echo_confirms() {
        assert_eq!(
            outcome_after(|_| {}).await,
            [Outcome::Accepted, Outcome::NoSubscriber]
        );
    }

    /// The "no responders" that did arrive still says what it says.
    fn only_nobody_is_known(outcomes: &[Outcome]) -> bool {
        matches!(outcomes, [Outcome::Unknown(_), Outcome::NoSubscriber])
    }

    #[tokio::test]
    async fn an_echo_through_another_connection_does_not_confirm() {
        let outcomes = outcome_after(|link| {
            link.client.statistics().connects.fetch_add(1, Ordering::SeqCst);
        });
        let outcomes = outcomes.await;
        assert!(only_nobody_is_known(&outcomes), "{outcomes:?}");
    }

    #[tokio::test]
    async fn an_echo_after_a_complaint_does_not_confirm() {
        let outcomes = outcome_after(|link| {
            link.health
                .report(Event::ServerError(ServerError::Other("no permission".to_owned())));
        });
        let outcomes = outcomes.await;
        assert!(only_nobody_is_known(&outcomes), "{outcomes:?}");
    }

    #[tokio::test]
    async fn an_echo_does_not_confirm_when_answers_were_dropped() {
        let outcomes = outcome_after(|link| link.health.report(Event::SlowConsumer(link.health.inbox_id())));
        let outcomes = outcomes.await;
        assert!(only_nobody_is_known(&outcomes), "{outcomes:?}");
    }

    #[tokio::test]
    async fn a_loss_is_told_at_once() {
        // On this runtime nothing has arrived yet when the loss is reported.
        let outcomes = outcome_after(|link| link.health.report(Event::Disconnected)).await;
        assert!(
            matches!(&*outcomes, [Outcome::Unknown(_), Outcome::Unknown(_)]),
            "{outcomes:?}"
        );
    }
}
