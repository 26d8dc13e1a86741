//! Calls that the proxy answers by itself, `grpc.health.v1` and reflection: within the same bounds as those
//! that it forwards.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use prism_core::failure::{Failure, Reason};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Status, service::Routes};
use tower::ServiceExt;

use super::{
    Answer, Forward, account::Place, deadline::Deadline, method::Shape, relay::RelayBounds, too_many,
};
use crate::patience;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// How many health checks may be under way. They have places of their own, because a probe has to be
/// answered when calls are refused: it asks whether this process works, and one that has much to do
/// works. Were it restarted for that, the others would get its load as well. A check is over in a moment,
/// so that this is more than probes can need. What stays open, a watch or a reflection, has its place among
/// the streams.
const CHECKS: usize = 1_024;

impl Forward {
    /// Answers one request by a service of the proxy itself.
    pub(crate) async fn local<B>(&self, request: Request<B>, services: Routes) -> Response<Answer>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match Box::pin(self.answer(request, services)).await {
            Ok(response) => response,
            Err(failure) => {
                tracing::debug!(reason = failure.reason.as_str(), "refused: {}", failure.message);
                // Whatever it asked for, it changed nothing.
                Answer::refused(failure.not_applied())
            }
        }
    }

    async fn answer<B>(&self, request: Request<B>, services: Routes) -> Result<Response<Answer>, Failure>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let limits = self.limits.load();
        let place = if request.uri().path() == CHECK {
            self.checks.enter(CHECKS).ok_or_else(too_many_checks)
        } else {
            let place = self.streams.enter(limits.streams);
            place.ok_or_else(|| too_many(Shape::Streaming, limits.streams))
        }?;
        let deadline = Deadline::of(request.headers(), Shape::Unknown, limits.bounds, Instant::now())?;
        drop(limits);
        let bounds = |end| RelayBounds::new(end, Some(self.cut.clone()));
        let over = CancellationToken::new();
        let request = request.map(|body| Asked {
            body,
            over: Box::pin(over.clone().cancelled_owned()),
        });
        let over = over.drop_guard();
        // The services wait for the request's message, for as long as that takes.
        let (mut answering, mut begun) = (pin!(services.oneshot(request)), bounds(deadline.begin));
        let answered = poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => begun.poll_reached(cx).map(Err),
        });
        let response = answered.await?;
        patience::answer_by(deadline.end, Some(self.cut.clone()));
        Ok(response.map(|body| {
            Answer::Local(Box::new(Local {
                body,
                bounds: bounds(deadline.end),
                cut_short: false,
                _over: over,
                _place: place,
            }))
        }))
    }
}

fn too_many_checks() -> Failure {
    let message = format!("`{CHECKS}` health checks are under way, ask again later");
    Failure::new(Reason::Overloaded, message)
        .with("limit", CHECKS)
        .retry_after(Duration::from_millis(200))
}

/// The answer of a service of the proxy itself. Where it does not end in time, it ends with a status.
#[derive(Debug)]
pub struct Local {
    body: tonic::body::Body,
    bounds: RelayBounds,
    cut_short: bool,
    _over: DropGuard,
    _place: Place,
}

impl Local {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.cut_short {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let failure = ready!(self.bounds.poll_reached(cx)).not_applied();
        self.cut_short = true;
        let mut trailers = HeaderMap::new();
        // Fails only for metadata that is no header, and ours is.
        let _ = Status::from(failure).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.cut_short || self.body.is_end_stream()
    }
}

/// The request to a service of the proxy itself. It ends with the answer: reflection would read on, and the
/// stream stay open for it.
struct Asked<B> {
    body: B,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<B: Body + Unpin> Body for Asked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.over.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
