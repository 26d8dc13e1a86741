//! A multicast that is followed as it is sent.

use std::time::Duration;

use prism_core::telemetry;
use prism_proto::pattern::{MulticastRequest, MulticastStreamResponse, multicast_stream_response::Message};
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;
use tracing::Instrument;

use super::Raw;
use crate::{Applied, Error, Result, call};

/// What is told of one multicast, within the deadline that it was made with. Dropping this does not stop it.
#[derive(Debug)]
pub struct Progress {
    answers: Streaming<MulticastStreamResponse>,
    deadline: Instant,
    timeout: Duration,
    ended: bool,
}

impl Progress {
    pub(super) async fn open(raw: &Raw, request: MulticastRequest) -> Result<Self> {
        let plan = raw.multicast_plan("MulticastStream", &request);
        let (span, trace) = telemetry::call_span(plan.method);
        call::run(plan, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            let request = raw.headers.request(request.clone(), trace, Some(left));
            let mut stub = raw.shared.connections.for_calls();
            async move {
                let answers = stub.multicast_stream(request).await;
                let answers = answers.map_err(|status| Error::from_status(&status, plan.timeout))?;
                Ok(Self {
                    answers: answers.into_inner(),
                    deadline,
                    timeout: plan.timeout,
                    ended: false,
                })
            }
        })
        .instrument(span)
        .await
    }

    /// What is told next; `None` after the summary, and after an error, which says nothing about whether the
    /// multicast goes on. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<MulticastStreamResponse>> {
        if self.ended {
            return None;
        }
        let answer = match timeout_at(self.deadline, self.answers.message()).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(Error::ConnectionLost {
                message: "the service ended the stream before the multicast was over".to_owned(),
                applied: Applied::Unknown,
            }),
            Ok(Err(status)) => Err(Error::from_status(&status, self.timeout)),
            Err(_) => Err(Error::timed_out(self.timeout)),
        };
        let is_last = |answer: &MulticastStreamResponse| matches!(answer.message, Some(Message::Summary(_)));
        self.ended = answer.as_ref().map_or(true, is_last);
        // Whatever went wrong, the multicast was begun.
        Some(answer.map_err(Error::maybe_applied))
    }
}
