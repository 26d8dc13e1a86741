//! Reading what is stored.

use async_nats::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::jetstream::{
    api::{self, Failure},
    client::JetStream,
    requests::Reply,
    streams::Stream,
};

/// A stored message, as the leader of its stream has it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) sequence: u64,
    pub(crate) body: Bytes,
}

impl JetStream {
    /// The last messages with these subjects, as the streams' leaders have them.
    pub(crate) async fn last(
        &self,
        stream: &Stream,
        subjects: impl ExactSizeIterator<Item = String> + Send,
        deadline: Instant,
    ) -> Vec<Result<Option<Kept>, Failure>> {
        // Where there is one replica, it is the leader, and says so with less ado.
        let way = if self.has_replicas { "STREAM.MSG" } else { "DIRECT" };
        let at = format!("$JS.API.{way}.GET.{}", stream.name);
        let requests = subjects.map(|subject| api::request(at.clone(), &json!({ "last_by_subj": subject })));
        let read = |reply| match self.has_replicas {
            true => told(reply),
            false => direct(reply).map(|found| found.map(Kept::from)),
        };
        let read = |reply| self.noted(stream, read(reply));
        self.requests.all(requests, deadline, read).await
    }

    /// Single messages by sequence, from whoever has them.
    pub(crate) async fn by_sequence(
        &self,
        stream: &Stream,
        sequences: &[u64],
        deadline: Instant,
    ) -> Result<Vec<Option<async_nats::Message>>, Failure> {
        let at = format!("$JS.API.DIRECT.GET.{}", stream.name);
        let requests = sequences
            .iter()
            .map(|seq| api::request(at.clone(), &json!({ "seq": seq })));
        let read = |reply| self.noted(stream, direct(reply));
        let found = self.requests.all(requests, deadline, read).await;
        found.into_iter().collect()
    }

    /// The next messages that match a subject, from a sequence on, from whoever has them; and how many there are beyond.
    pub(crate) async fn next(
        &self,
        stream: &Stream,
        next: &Next,
        deadline: Instant,
    ) -> Result<(Vec<async_nats::Message>, u64), Failure> {
        let request = api::request(format!("$JS.API.DIRECT.GET.{}", stream.name), next);
        let series = self.requests.series(request, next.batch, deadline).await;
        let mut messages = series.map_err(Failure::Lost)?;
        let read = match messages.pop() {
            Some(end) if end.status == Some(StatusCode::NOT_FOUND) => Ok((messages, 0)),
            Some(end) if end.status.is_some_and(|status| status.as_u16() == END_OF_BATCH) => {
                whole(messages, &end)
            }
            Some(end) if end.status == Some(StatusCode::NO_RESPONDERS) => Err(Failure::Nobody),
            Some(end) => Err(unexpected(&end)),
            None => Err(Failure::Unreadable("no answer of JetStream".to_owned())),
        };
        self.noted(stream, read)
    }
}

/// What to read on from a sequence.
#[derive(Debug, Serialize)]
pub(crate) struct Next {
    pub(crate) seq: u64,
    #[serde(rename = "next_by_subj")]
    pub(crate) subject: String,
    pub(crate) batch: usize,
    /// At least one comes.
    pub(crate) max_bytes: usize,
}

/// The status behind the last message of many.
const END_OF_BATCH: u16 = 204;

/// Makes sure that no message of a series was dropped on the way: each names the one before it.
fn whole(
    messages: Vec<async_nats::Message>,
    end: &async_nats::Message,
) -> Result<(Vec<async_nats::Message>, u64), Failure> {
    let mut last = 0;
    for message in &messages {
        if number(message, "Nats-Last-Sequence") != Some(last) {
            return Err(Failure::Unreadable(
                "an answer of JetStream has lost a part".to_owned(),
            ));
        }
        last = number(message, "Nats-Sequence").unwrap_or_default();
    }
    match number(end, "Nats-Num-Pending") {
        Some(pending) if number(end, "Nats-Last-Sequence") == Some(last) => Ok((messages, pending)),
        _ => Err(Failure::Unreadable(
            "an answer of JetStream has lost its end".to_owned(),
        )),
    }
}

/// A message that was asked for by itself.
fn direct(reply: Reply) -> Result<Option<async_nats::Message>, Failure> {
    match api::answer(reply)? {
        found if found.status.is_none() => Ok(Some(found)),
        missing if missing.status == Some(StatusCode::NOT_FOUND) => Ok(None),
        other => Err(unexpected(&other)),
    }
}

/// The same, as a leader tells it.
fn told(reply: Reply) -> Result<Option<Kept>, Failure> {
    match api::read::<Found>(reply) {
        Ok(Found { message }) => message.kept().map(Some),
        Err(failure) if failure.is_missing_message() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// A header that is a number.
pub(crate) fn number(message: &async_nats::Message, name: &str) -> Option<u64> {
    message.headers.as_ref()?.get(name)?.as_str().parse().ok()
}

fn unexpected(answer: &async_nats::Message) -> Failure {
    let (status, why) = (answer.status, answer.description.as_deref().unwrap_or_default());
    Failure::Unreadable(format!("JetStream answers {status:?} {why}"))
}

#[derive(Deserialize)]
struct Found {
    message: Raw,
}

#[derive(Deserialize)]
struct Raw {
    seq: u64,
    #[serde(default)]
    data: String,
}

impl From<async_nats::Message> for Kept {
    fn from(message: async_nats::Message) -> Self {
        Self {
            sequence: number(&message, "Nats-Sequence").unwrap_or_default(),
            body: message.payload,
        }
    }
}

impl Raw {
    fn kept(self) -> Result<Kept, Failure> {
        let body = STANDARD.decode(self.data);
        let body = body.map_err(|error| Failure::Unreadable(format!("an answer of JetStream: {error}")))?;
        Ok(Kept {
            sequence: self.seq,
            body: body.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(headers: &[(&str, &str)]) -> async_nats::Message {
        let headers = headers.iter().map(|(name, value)| {
            let name: async_nats::HeaderName = name.parse().unwrap();
            (name, async_nats::HeaderValue::from(*value))
        });
        async_nats::Message {
            subject: "s".into(),
            reply: None,
            payload: Bytes::new(),
            headers: Some(headers.collect()),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn a_series_with_a_part_missing_is_no_answer() {
        let first = || part(&[("Nats-Last-Sequence", "0"), ("Nats-Sequence", "3")]);
        let second = || part(&[("Nats-Last-Sequence", "3"), ("Nats-Sequence", "7")]);
        let end = part(&[("Nats-Last-Sequence", "7"), ("Nats-Num-Pending", "2")]);
        let (messages, pending) = whole(vec![first(), second()], &end).unwrap();
        assert_eq!((messages.len(), pending), (2, 2));
        for damaged in [vec![second()], vec![first()], vec![], vec![second(), first()]] {
            assert!(whole(damaged, &end).is_err());
        }
    }
}
