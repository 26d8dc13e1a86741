//! What a consumer says about messages.

use std::{fmt, sync::Arc, time::Duration};

use prism_proto::pattern::subscribe_request::Answer;
use tokio::sync::oneshot;

use super::subscription::{Shared, Spoken, Word};
use crate::{Error, Result, Settled};

/// The longest time after which a message may be wanted again.
const MAX_DELAY: Duration = Duration::from_secs(366 * 86_400);
/// The longest reason of a refusal, in bytes.
const MAX_REASON: usize = 256;
/// The largest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Says what becomes of the messages of one subscription. Clones may be used in other tasks.
///
/// Every word is said in the current session and, until it is confirmed, again in each that follows. Words wait,
/// once very many are not confirmed, and fail with what ended the subscription. They are cancel safe: dropped before
/// they return, nothing was said.
///
/// A delivery that was not to this subscription's identity ends the subscription, with `INVALID_REQUEST`.
#[derive(Clone)]
pub struct Acks(Arc<Shared>);

impl Acks {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// The message is done with, and does not come again.
    ///
    /// # Errors
    /// What ended the subscription.
    pub async fn ack(&self, delivery_id: impl Into<Arc<str>>) -> Result<Said> {
        self.say(delivery_id.into(), Word::Ack).await
    }

    /// The message is to come again, after `delay`.
    ///
    /// # Errors
    /// What ended the subscription; [`Error::Invalid`] for more than a year.
    pub async fn nack(&self, delivery_id: impl Into<Arc<str>>, delay: Duration) -> Result<Said> {
        let delay_ms = i64::try_from(delay.as_millis())
            .ok()
            .filter(|_| delay <= MAX_DELAY);
        let delay_ms = delay_ms.ok_or_else(|| {
            Error::invalid(
                "delay",
                format!("{delay:?} is too long, a message comes again within a year"),
            )
        })?;
        self.say(delivery_id.into(), Word::Nack { delay_ms }).await
    }

    /// The message is not to come again: it goes to the dead letters.
    ///
    /// # Errors
    /// What ended the subscription; [`Error::Invalid`] for a reason of more than 256 bytes.
    pub async fn term(&self, delivery_id: impl Into<Arc<str>>, reason: impl Into<String>) -> Result<Said> {
        let reason = reason.into();
        if reason.len() > MAX_REASON {
            let message = format!(
                "the reason has {} bytes, at most {MAX_REASON} are kept",
                reason.len()
            );
            return Err(Error::invalid("reason", message));
        }
        self.say(delivery_id.into(), Word::Term { reason }).await
    }

    /// Answers a message, which acknowledges it.
    ///
    /// # Errors
    /// What ended the subscription; [`Error::Invalid`] for one of more than 1 MiB, or with headers that cannot be
    /// sent.
    pub async fn answer(&self, answer: Answer) -> Result<Said> {
        let size = answer.payload.len();
        if size > MAX_ANSWER {
            let message = format!("the answer has {size} bytes, at most {MAX_ANSWER} are possible");
            return Err(Error::invalid("payload", message));
        }
        for (name, value) in &answer.headers {
            check_header(name, value)?;
        }
        let delivery_id = answer.delivery_id.as_str().into();
        self.say(delivery_id, Word::Answer(Box::new(answer))).await
    }

    /// Waits until everything that was said before is confirmed. Cancel safe.
    ///
    /// # Errors
    /// What ended the subscription before that.
    pub async fn settled(&self) -> Result<()> {
        self.0.settled().await
    }

    /// How many words are not confirmed.
    pub fn unsettled(&self) -> usize {
        self.0.unsettled()
    }

    async fn say(&self, delivery_id: Arc<str>, word: Word) -> Result<Said> {
        let room = self.0.room(&word).await?;
        let (confirm, settled) = oneshot::channel();
        self.0.say(Spoken {
            delivery_id,
            word,
            confirm: Some(confirm),
            _room: Some(room),
        })?;
        Ok(Said {
            settled,
            acks: self.clone(),
        })
    }
}

impl PartialEq for Acks {
    /// Of the same subscription.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acks")
            .field("unsettled", &self.unsettled())
            .finish_non_exhaustive()
    }
}

/// A word about a message that is said. It need not be waited for.
#[derive(Debug)]
pub struct Said {
    settled: oneshot::Receiver<Result<Settled>>,
    acks: Acks,
}

impl Said {
    /// Waits until the service says what became of it. Cancel safe in that the word stays said.
    ///
    /// # Errors
    /// What ended the subscription before that.
    pub async fn settled(self) -> Result<Settled> {
        match self.settled.await {
            Ok(settled) => settled,
            Err(_) => Err(self.acks.0.end()),
        }
    }
}

/// The service ends a session over a header that cannot be sent, so it is found here.
fn check_header(name: &str, value: &str) -> Result<()> {
    let lower = name.to_ascii_lowercase();
    let is_taken = lower.starts_with("prism-")
        || lower.starts_with("nats-")
        || matches!(&*lower, "content-type" | "traceparent");
    let is_name = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b',');
    let problem = if is_taken {
        "has a name that is taken, use another one"
    } else if name.is_empty() || !name.bytes().all(is_name) {
        "has a name that is not visible ASCII without `:` and `,`"
    } else if value.contains(['\r', '\n', '\0']) || value.trim() != value {
        "has a value with line breaks, or with spaces around it"
    } else {
        return Ok(());
    };
    Err(Error::invalid(
        "headers",
        format!("the header `{name}` {problem}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_would_end_the_session_are_found() {
        assert!(check_header("X-Trace", "a b").is_ok());
        for (name, value) in [
            ("", "x"),
            ("a:b", "x"),
            ("ü", "x"),
            ("Prism-Kind", "x"),
            ("nats-x", "x"),
            ("Content-Type", "x"),
            ("traceparent", "x"),
            ("a", "x\ny"),
            ("a", " x"),
        ] {
            assert!(check_header(name, value).is_err(), "{name}: {value}");
        }
    }
}
