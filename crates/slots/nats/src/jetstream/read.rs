//! Reading what is stored.

use async_nats::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use prism_slot::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::jetstream::{
    api::{self, Failure},
    client::JetStream,
    letter,
    requests::Reply,
    streams::Stream,
};

/// A stored message, as the leader of its stream has it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) sequence: u64,
    pub(crate) body: Bytes,
    pub(crate) expires_at: Timestamp,
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
            false => direct(reply),
        };
        let read = |reply| Ok(self.noted(stream, read(reply))?.map(Kept::from));
        self.requests.all(requests, deadline, read).await
    }

    /// Single messages by sequence, from whoever has them. What is missing is so at the leader.
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
        let mut found: Vec<Option<_>> = found.into_iter().collect::<Result<_, _>>()?;
        if self.has_replicas {
            let missing: Vec<usize> = (0..found.len()).filter(|at| found[*at].is_none()).collect();
            let asked = missing.iter().map(|at| json!({ "seq": sequences[*at] }));
            let told = self.told_by_leader(stream, asked, deadline).await;
            for (at, told) in missing.into_iter().zip(told) {
                found[at] = told?;
            }
        }
        Ok(found)
    }

    /// The next messages that match a subject, from a sequence on, from whoever has them; and how many there are beyond,
    /// as far as that is known: none only where the leader has none.
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
        let (mut messages, beyond) = self.noted(stream, read)?;
        if beyond > 0 || !self.has_replicas {
            return Ok((messages, beyond));
        }
        // A replica that lags has the first ones, and does not know of those that it lacks.
        let last = messages.last().and_then(|last| number(last, "Nats-Sequence"));
        let from = last.map_or(next.seq, |last| last + 1);
        let asked = json!({ "seq": from, "next_by_subj": next.subject });
        let told = self
            .told_by_leader(stream, std::iter::once(asked), deadline)
            .await;
        let Some(lacking) = told.into_iter().next().unwrap_or(Ok(None))? else {
            return Ok((messages, 0));
        };
        // It may be long until a replica has it.
        if messages.len() < next.batch {
            messages.push(lacking);
        }
        Ok((messages, 1))
    }

    async fn told_by_leader(
        &self,
        stream: &Stream,
        asked: impl ExactSizeIterator<Item = serde_json::Value> + Send,
        deadline: Instant,
    ) -> Vec<Result<Option<async_nats::Message>, Failure>> {
        let at = format!("$JS.API.STREAM.MSG.GET.{}", stream.name);
        let requests = asked.map(|asked| api::request(at.clone(), &asked));
        let read = |reply| self.noted(stream, told(reply));
        self.requests.all(requests, deadline, read).await
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
fn told(reply: Reply) -> Result<Option<async_nats::Message>, Failure> {
    match api::read::<Found>(reply) {
        Ok(Found { message }) => message.direct().map(Some),
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
    subject: String,
    seq: u64,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
    time: String,
}

impl From<async_nats::Message> for Kept {
    fn from(message: async_nats::Message) -> Self {
        Self {
            sequence: number(&message, "Nats-Sequence").unwrap_or_default(),
            expires_at: letter::expires_at(&message),
            body: message.payload,
        }
    }
}

impl Raw {
    /// As whoever has it would have answered.
    fn direct(self) -> Result<async_nats::Message, Failure> {
        let unreadable = |what: &str| Failure::Unreadable(format!("an answer of JetStream: {what}"));
        let decoded = |text: &str| {
            STANDARD
                .decode(text)
                .map_err(|error| unreadable(&error.to_string()))
        };
        let lines =
            String::from_utf8(decoded(&self.hdrs)?).map_err(|error| unreadable(&error.to_string()))?;
        let mut headers = headers(&lines).ok_or_else(|| unreadable("malformed headers"))?;
        headers.insert("Nats-Sequence", self.seq.to_string());
        headers.insert("Nats-Subject", &*self.subject);
        headers.insert("Nats-Time-Stamp", &*self.time);
        Ok(async_nats::Message {
            subject: self.subject.into(),
            reply: None,
            payload: decoded(&self.data)?.into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        })
    }
}

/// Headers as they are stored: a version, and then one a line.
fn headers(lines: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines.lines().skip(1).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let name: HeaderName = name.parse().ok()?;
        headers.append(name, value.trim().parse::<HeaderValue>().ok()?);
    }
    Some(headers)
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
    fn what_a_leader_tells_is_as_whoever_has_it_would_answer() {
        let hdrs = STANDARD.encode("NATS/1.0\r\na: 1\r\nb:  c:d \r\na: 2\r\n\r\n");
        let raw = |hdrs: String| Raw {
            subject: "s.0".to_owned(),
            seq: 7,
            data: STANDARD.encode("x"),
            hdrs,
            time: "2026-11-28T13:34:39.1Z".to_owned(),
        };
        let message = raw(hdrs).direct().unwrap();
        let headers = message.headers.as_ref().unwrap();
        let all: Vec<&str> = headers.get_all("a").map(HeaderValue::as_str).collect();
        assert_eq!(all, ["1", "2"]);
        assert_eq!(headers.get("b").map(HeaderValue::as_str), Some("c:d"));
        assert_eq!(number(&message, "Nats-Sequence"), Some(7));
        assert_eq!(headers.get("Nats-Subject").map(HeaderValue::as_str), Some("s.0"));
        assert_eq!(message.payload, "x");
        assert!(raw(String::new()).direct().is_ok());
        assert!(raw(STANDARD.encode("NATS/1.0\r\nnone\r\n")).direct().is_err());
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
