//! A session that is opened again when it is lost.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use prism_core::failure::Reason;
use prism_proto::pattern::{
    Position, SubscribeResponse, subscribe_request,
    subscribe_response::{Gap, Message},
};
use tokio::time::sleep;
use tonic::Code;

use super::{Raw, recovery::Recovery, session::Session};
use crate::{Error, Result, wire::CONNECTION_LOST};

/// The messages of one identity, across as many sessions as it takes.
///
/// When a session is lost with its connection, or because the service is about to end, another one is
/// opened, after a pause, for as long as it takes; `opened` and a gap with the reason `CONNECTION_LOST`
/// then say where messages may be missing. The stream ends with the error that makes another attempt
/// useless: the registration is gone, a newer session took over, the request was refused. A clean end
/// does not exist.
///
/// Dropping it ends the session. A dropped `next` loses nothing.
#[must_use = "dropping a subscription ends its session"]
pub struct Subscription {
    answers: BoxStream<'static, Result<SubscribeResponse>>,
}

impl Subscription {
    pub(super) async fn open(
        raw: Raw,
        open: subscribe_request::Open,
        claim: Option<Box<dyn Claim>>,
    ) -> Result<Self> {
        let (session, opened) = Session::open(&raw, &open).await?;
        let policy = raw.backoff();
        let claim = claim.unwrap_or_else(|| {
            // "Whichever registration is there" means the one that was there now: a later one may be
            // somebody else's, and its session is not ours to take.
            Box::new(Pinned(generation(&opened)))
        });
        let feed = Feed {
            raw,
            open,
            claim,
            session: Some(session),
            waiting: VecDeque::from([opened]),
            recovery: Recovery::new(policy),
            ended: false,
        };
        let answers = stream::unfold(feed, |mut feed| async move {
            let answer = feed.step().await?;
            Some((answer, feed))
        });
        Ok(Self {
            answers: answers.boxed(),
        })
    }

    /// The next message; `None` after the error that ended the stream. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<SubscribeResponse>> {
        self.answers.next().await
    }
}

impl Stream for Subscription {
    type Item = Result<SubscribeResponse>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.poll_next_unpin(cx)
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// The registration that a subscription listens for.
pub(crate) trait Claim: Send {
    /// Its generation, as far as is known.
    fn generation(&self) -> Option<Position>;

    /// Called when the service says that the registration is not there any more. Returns once it is
    /// again, or fails when that will not be.
    fn regained(&mut self, lost: Error) -> BoxFuture<'_, Result<()>>;
}

/// A registration that nobody keeps: lost is lost.
struct Pinned(Option<Position>);

impl Claim for Pinned {
    fn generation(&self) -> Option<Position> {
        self.0
    }

    fn regained(&mut self, lost: Error) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(lost) })
    }
}

struct Feed {
    raw: Raw,
    open: subscribe_request::Open,
    claim: Box<dyn Claim>,
    session: Option<Session>,
    waiting: VecDeque<SubscribeResponse>,
    recovery: Recovery,
    ended: bool,
}

impl Feed {
    async fn step(&mut self) -> Option<Result<SubscribeResponse>> {
        if self.ended {
            return None;
        }
        let answer = self.answer().await;
        self.ended = answer.is_err();
        Some(answer)
    }

    async fn answer(&mut self) -> Result<SubscribeResponse> {
        loop {
            if let Some(answer) = self.waiting.pop_front() {
                return Ok(answer);
            }
            let error = match &mut self.session {
                Some(session) => match session.next().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                },
                None => match self.reopen().await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            self.session = None;
            self.recover(error).await?;
        }
    }

    async fn reopen(&mut self) -> Result<()> {
        self.open.generation = self.claim.generation();
        let (session, opened) = Session::open(&self.raw, &self.open).await?;
        self.recovery.opened();
        self.session = Some(session);
        self.waiting.extend([opened, gap()]);
        Ok(())
    }

    async fn recover(&mut self, error: Error) -> Result<()> {
        let identity = &self.open.identity;
        let pause = self.recovery.pause().max(error.retry_after().unwrap_or_default());
        match Verdict::on(&error) {
            Verdict::Final => return Err(error),
            Verdict::RegistrationLost => {
                tracing::warn!(%identity, %error, "session lost with its registration");
                self.claim.regained(error).await?;
            }
            Verdict::ServiceLost => {
                tracing::warn!(%identity, %error, ?pause, "session lost, opening another one")
            }
        }
        sleep(pause).await;
        Ok(())
    }
}

/// Says that messages may be missing because the session was lost.
fn gap() -> SubscribeResponse {
    SubscribeResponse {
        message: Some(Message::Gap(Gap {
            dropped: 0,
            reason: CONNECTION_LOST.to_owned(),
        })),
    }
}

fn generation(opened: &SubscribeResponse) -> Option<Position> {
    match &opened.message {
        Some(Message::Opened(opened)) => opened.generation,
        _ => None,
    }
}

/// What the end of a session, or a failure to open one, calls for.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Another attempt.
    ServiceLost,
    /// Another attempt once the identity is registered again.
    RegistrationLost,
    /// Nothing.
    Final,
}

impl Verdict {
    fn on(error: &Error) -> Self {
        match error.reason() {
            Some(Reason::Superseded) => return Self::Final,
            Some(
                Reason::NotRegistered | Reason::StaleGeneration | Reason::EpochChanged | Reason::Unregistered,
            ) => {
                return Self::RegistrationLost;
            }
            _ => {}
        }
        match error.code() {
            // What proxies on the way, other than ours, say when they end a long stream.
            Code::Unknown | Code::Cancelled | Code::Aborted | Code::DeadlineExceeded => Self::ServiceLost,
            Code::ResourceExhausted | Code::Unavailable => Self::ServiceLost,
            _ => Self::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use prism_core::failure::Failure;

    use super::*;

    #[test]
    fn only_what_another_attempt_can_heal_gets_one() {
        for (reason, verdict) in [
            (Reason::Draining, Verdict::ServiceLost),
            (Reason::RunnerLost, Verdict::ServiceLost),
            (Reason::BackendUnavailable, Verdict::ServiceLost),
            (Reason::Overloaded, Verdict::ServiceLost),
            (Reason::Unregistered, Verdict::RegistrationLost),
            (Reason::NotRegistered, Verdict::RegistrationLost),
            (Reason::StaleGeneration, Verdict::RegistrationLost),
            (Reason::EpochChanged, Verdict::RegistrationLost),
            (Reason::Superseded, Verdict::Final),
            (Reason::InvalidIdentity, Verdict::Final),
            (Reason::UnknownNamespace, Verdict::Final),
            (Reason::NotImplemented, Verdict::Final),
        ] {
            assert_eq!(
                Verdict::on(&Failure::new(reason, "x").into()),
                verdict,
                "{reason:?}"
            );
        }
    }
}
