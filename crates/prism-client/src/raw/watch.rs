//! A watch that goes on where it was lost.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use prism_core::{
    failure::Reason,
    telemetry::{self, TraceContext},
};
use prism_proto::pattern::{Position, WatchRequest, WatchResponse};
use tokio::time::sleep;
use tonic::{Code, Streaming};
use tracing::Instrument;

use super::{Line, Raw, recovery::Recovery};
use crate::{
    Applied, Error, Result,
    call::{self, Repeat},
    transport::Lane,
};

/// What a watch yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// As the service says it.
    Told(Box<WatchResponse>),
    /// What happened meanwhile is not known any more: whatever was told before is void, and everything
    /// that matches now follows, as at the beginning.
    Restarted,
}

/// The changes to the set that matches, across as many streams as it takes.
///
/// A stream that is lost is opened again, after a pause, for as long as it takes, and goes on after the last
/// position that was told: nothing is left out and nothing is told twice. Where the service cannot do that,
/// because it does not reach back so far or history began anew, [`Watched::Restarted`] says so. The stream ends
/// with the error that makes another attempt useless. A clean end does not exist.
///
/// Dropping it ends the watch. A dropped `next` loses nothing.
#[must_use = "dropping a watch ends it"]
pub struct Watch {
    answers: BoxStream<'static, Result<Watched>>,
}

impl Watch {
    pub(super) async fn open(raw: Raw, request: WatchRequest) -> Result<Self> {
        let live = Live::open(&raw, &request).await?;
        let feed = Feed {
            recovery: Recovery::new(raw.backoff()),
            at: request.resume_from,
            // Whoever resumes was told before.
            told: request.resume_from.is_some(),
            raw,
            request,
            live: Some(live),
            lost: false,
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

    /// What comes next; `None` after the error that ended the stream. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Watched>> {
        self.answers.next().await
    }
}

impl Stream for Watch {
    type Item = Result<Watched>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.poll_next_unpin(cx)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// One open stream.
struct Live {
    answers: Streaming<WatchResponse>,
    raw: Raw,
    /// Keeps the connection open.
    _lane: Arc<Lane>,
}

impl Live {
    /// Opens a stream within the call's deadline.
    async fn open(raw: &Raw, request: &WatchRequest) -> Result<Self> {
        let plan = raw.plan("Watch", Repeat::Harmless);
        let (span, trace) = telemetry::call_span(plan.method);
        call::run(plan, |_| Self::attempt(raw, request.clone(), trace))
            .instrument(span)
            .await
    }

    async fn attempt(raw: &Raw, request: WatchRequest, trace: TraceContext) -> Result<Self> {
        let (mut stub, lane) = raw.shared.connections.for_session();
        // No deadline travels with it, as it would end the watch and not just its opening.
        let request = raw.headers.request(request, trace, None);
        let answers = stub.watch(request).await;
        Ok(Self {
            answers: answers
                .map_err(|status| Error::from_status(&status, raw.timeout))?
                .into_inner(),
            raw: raw.clone(),
            _lane: lane,
        })
    }

    /// The next answer. An end without an error is one too: nobody asked for it. Cancel safe.
    async fn next(&mut self) -> Result<WatchResponse> {
        match self.answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Error::ConnectionLost {
                message: "the service ended the watch without saying why".to_owned(),
                applied: Applied::No,
            }),
            Err(status) => Err(Error::from_status(&status, self.raw.timeout)),
        }
    }
}

struct Feed {
    raw: Raw,
    request: WatchRequest,
    live: Option<Live>,
    /// The position of the last answer; `None` in a snapshot, which begins again when it is lost.
    at: Option<Position>,
    /// The connection was lost, and that was told.
    lost: bool,
    /// Something was told that a new snapshot makes void.
    told: bool,
    recovery: Recovery,
    ended: bool,
}

impl Feed {
    async fn step(&mut self) -> Option<Result<Watched>> {
        if self.ended {
            return None;
        }
        let answer = self.answer().await;
        self.ended = answer.is_err();
        Some(answer)
    }

    async fn answer(&mut self) -> Result<Watched> {
        loop {
            let error = match &mut self.live {
                Some(live) => match live.next().await {
                    Ok(answer) => {
                        self.told = true;
                        self.at = answer.position.or(self.at);
                        return Ok(Watched::Told(Box::new(answer)));
                    }
                    Err(error) => error,
                },
                None => {
                    self.request.resume_from = self.at;
                    match Live::open(&self.raw, &self.request).await {
                        Ok(live) => {
                            self.recovery.opened();
                            self.live = Some(live);
                            if std::mem::take(&mut self.lost) {
                                self.raw.tell(Line::Regained);
                            }
                            if self.at.is_none() && std::mem::take(&mut self.told) {
                                return Ok(Watched::Restarted);
                            }
                            continue;
                        }
                        Err(error) => error,
                    }
                }
            };
            self.live = None;
            match Verdict::on(&error) {
                Verdict::Final => return Err(error),
                Verdict::Lost => self.at = None,
                Verdict::Resume if self.lost => {}
                Verdict::Resume => {
                    self.lost = true;
                    self.raw.tell(Line::Lost(&error));
                }
            }
            let pause = self.recovery.pause().max(error.retry_after().unwrap_or_default());
            tracing::warn!(%error, ?pause, "watch lost, opening another one");
            sleep(pause).await;
        }
    }
}

/// What the end of a stream, or a failure to open one, calls for.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Another stream that goes on after the last position.
    Resume,
    /// Another one that begins anew.
    Lost,
    /// Nothing.
    Final,
}

impl Verdict {
    fn on(error: &Error) -> Self {
        if let Some(Reason::Compacted | Reason::EpochChanged) = error.reason() {
            return Self::Lost;
        }
        match error.code() {
            // What proxies on the way, other than ours, say when they end a long stream.
            Code::Unknown | Code::Cancelled | Code::Aborted | Code::DeadlineExceeded => Self::Resume,
            Code::ResourceExhausted | Code::Unavailable => Self::Resume,
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
            (Reason::Draining, Verdict::Resume),
            (Reason::RunnerLost, Verdict::Resume),
            (Reason::SlowConsumer, Verdict::Resume),
            (Reason::Overloaded, Verdict::Resume),
            (Reason::NotReady, Verdict::Resume),
            (Reason::Compacted, Verdict::Lost),
            (Reason::EpochChanged, Verdict::Lost),
            (Reason::InvalidFilter, Verdict::Final),
            (Reason::UnknownNamespace, Verdict::Final),
        ] {
            assert_eq!(
                Verdict::on(&Failure::new(reason, "x").into()),
                verdict,
                "{reason:?}"
            );
        }
    }
}
