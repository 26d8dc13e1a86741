//! The words of JetStream: what is asked of its API, and how it answers.

use async_nats::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use prism_slot::{Applied, Error};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{BACKEND, misconfigured, unavailable_after},
    jetstream::requests::{Reply, Request, Silence},
};

pub(crate) const MESSAGE_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
pub(crate) const TTL: HeaderName = HeaderName::from_static("Nats-TTL");
pub(crate) const EXPECTED: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence");
/// Of the last message of the stream. No id of ours has a `%-`.
const EXPECTED_ID: HeaderName = HeaderName::from_static("Nats-Expected-Last-Msg-Id");

/// Codes of errors that mean something here.
pub(crate) mod code {
    /// No message: none with that subject, and none with that sequence.
    pub(crate) const NO_MESSAGE: [u16; 2] = [10_037, 10_043];
    pub(crate) const DELETE_FAILED: u16 = 10_057;
    pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u16 = 10_039;
    pub(crate) const NOT_ENABLED: u16 = 10_076;
    pub(crate) const NAME_IN_USE: u16 = 10_058;
    pub(crate) const NO_STREAM: u16 = 10_059;
    pub(crate) const STORE_FAILED: u16 = 10_077;
    /// Not what was expected to be the last: its sequence, or its id.
    pub(crate) const WRONG_LAST: [u16; 3] = [10_071, 10_164, 10_070];
    /// The same message is under way already.
    pub(crate) const DUPLICATE_IN_PROCESS: u16 = 10_158;
}

/// Why a request has not brought what was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Certainly not sent.
    Unsent(Silence),
    /// It may have been carried out.
    Lost(Silence),
    /// JetStream does not do it.
    Refused(Refusal),
    /// Nobody is there to answer: JetStream is off, or the stream is gone.
    Nobody,
    /// The answer makes no sense.
    Unreadable(String),
}

/// An error of the API.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Refusal {
    /// As in HTTP.
    #[serde(default, rename = "code")]
    pub(crate) status: u16,
    #[serde(default, rename = "err_code")]
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) description: String,
}

impl Refusal {
    /// Whether it may be other in a moment: a cluster without a leader, for one.
    pub(crate) fn is_for_now(&self) -> bool {
        self.status == 503
    }
}

impl Failure {
    /// Whether the stream is not there.
    pub(crate) fn is_missing_stream(&self) -> bool {
        match self {
            Self::Nobody => true,
            Self::Refused(refusal) => refusal.code == code::NO_STREAM,
            _ => false,
        }
    }

    /// Whether somebody else has written first.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(refusal) if code::WRONG_LAST.contains(&refusal.code))
    }

    /// Whether there is no such message.
    pub(crate) fn is_missing_message(&self) -> bool {
        match self {
            // Removing what is not there any more fails in one of these words.
            Self::Refused(refusal) if refusal.code == code::DELETE_FAILED => {
                ["no message found", "deleted message", "stream store EOF"].contains(&&*refusal.description)
            }
            Self::Refused(refusal) => code::NO_MESSAGE.contains(&refusal.code),
            _ => false,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (silence, applied) = match failure {
            Failure::Unsent(silence) => (silence, Applied::No),
            Failure::Lost(silence) => (silence, Applied::Unknown),
            Failure::Refused(refusal) if refusal.code == code::NOT_ENABLED_FOR_ACCOUNT => {
                return misconfigured(
                    "JetStream is not enabled for this login's account; give it some storage",
                );
            }
            Failure::Refused(refusal) => return unavailable_after(refusal.description, Applied::No),
            Failure::Nobody => {
                return unavailable_after("JetStream does not answer, or a stream is gone", Applied::No);
            }
            Failure::Unreadable(message) => {
                return Self::Unreadable {
                    backend: BACKEND,
                    message,
                };
            }
        };
        match silence {
            Silence::Late => Self::Timeout {
                backend: BACKEND,
                applied,
            },
            Silence::Disconnected(why) => unavailable_after(why, applied),
        }
    }
}

/// What a stream says to a message that it was given.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    #[serde(default)]
    pub(crate) duplicate: bool,
}

/// A request of the API, with a body in JSON.
pub(crate) fn request(subject: impl Into<String>, body: &impl Serialize) -> Request {
    Request {
        subject: subject.into().into(),
        headers: HeaderMap::new(),
        // A structure of ours without maps does not fail to be written.
        body: serde_json::to_vec(body).unwrap_or_default().into(),
    }
}

/// A message to be stored.
pub(crate) fn message(subject: impl Into<String>, headers: HeaderMap, body: Bytes) -> Request {
    Request {
        subject: subject.into().into(),
        headers,
        body,
    }
}

/// Headers of a message to be stored only if the last one with its subject has this sequence.
pub(crate) fn expecting(sequence: u64) -> HeaderMap {
    [(EXPECTED, HeaderValue::from(sequence))].into_iter().collect()
}

/// Has a message not stored, whatever else, so that only whether it was stored before is told. A server looks at these
/// headers after it has looked for that; at the other one it does so only with replicas, and at this one only without.
pub(crate) fn never(headers: &mut HeaderMap, has_replicas: bool) {
    if has_replicas {
        headers.insert(EXPECTED, HeaderValue::from(u64::MAX));
    } else {
        headers.insert(EXPECTED_ID, "%-");
    }
}

/// The answer to a request of the API, or to a message that was to be stored.
///
/// # Errors
/// When there is none, or it is an error.
pub(crate) fn read<T: DeserializeOwned>(reply: Reply) -> Result<T, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Refusal>,
    }
    let message = answer(reply)?;
    let unreadable =
        |error: serde_json::Error| Failure::Unreadable(format!("an answer of JetStream: {error}"));
    match serde_json::from_slice::<T>(&message.payload) {
        Ok(read) if !has_error(&message.payload) => Ok(read),
        read => match serde_json::from_slice(&message.payload) {
            Ok(Answer { error: Some(refusal) }) => Err(Failure::Refused(refusal)),
            Ok(Answer { error: None }) => read.map_err(unreadable),
            Err(error) => Err(unreadable(error)),
        },
    }
}

/// Whether it is worth looking for an error.
fn has_error(answer: &[u8]) -> bool {
    answer.windows(7).any(|part| part == b"\"error\"")
}

/// What was answered, if anybody did.
pub(crate) fn answer(reply: Reply) -> Result<async_nats::Message, Failure> {
    match reply {
        Reply::Answer(message) if message.status == Some(StatusCode::NO_RESPONDERS) => Err(Failure::Nobody),
        Reply::Answer(message) => Ok(message),
        Reply::Unsent(silence) => Err(Failure::Unsent(silence)),
        Reply::Lost(silence) => Err(Failure::Lost(silence)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(text: &'static str) -> Reply {
        Reply::Answer(async_nats::Message {
            subject: "s".into(),
            reply: None,
            payload: text.into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        })
    }

    #[test]
    fn answers_and_errors_are_told_apart() {
        let stored: Stored = read(answered(r#"{"stream":"s","seq":7,"duplicate":true}"#)).unwrap();
        assert!(stored.seq == 7 && stored.duplicate);
        let stored: Stored = read(answered(r#"{"stream":"\"error\"","seq":8}"#)).unwrap();
        assert!(stored.seq == 8 && !stored.duplicate);
        let wrong = r#"{"error":{"code":400,"err_code":10071,"description":"wrong"},"stream":"s","seq":0}"#;
        assert!(read::<Stored>(answered(wrong)).unwrap_err().is_conflict());
        for none in [
            r#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#,
            r#"{"error":{"code":400,"err_code":10043,"description":"sequence 7 not found"}}"#,
            r#"{"error":{"code":500,"err_code":10057,"description":"no message found"}}"#,
        ] {
            let failure = read::<Stored>(answered(none)).unwrap_err();
            assert!(failure.is_missing_message(), "{none}");
        }
        let failed =
            r#"{"error":{"code":500,"err_code":10057,"description":"message delete not permitted"}}"#;
        let failure = read::<Stored>(answered(failed)).unwrap_err();
        assert!(!failure.is_missing_message());
        assert!(matches!(
            read::<Stored>(answered("{}")),
            Err(Failure::Unreadable(_))
        ));
        assert!(matches!(
            read::<Stored>(answered("")),
            Err(Failure::Unreadable(_))
        ));
    }
}
