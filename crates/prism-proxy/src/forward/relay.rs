//! The response body on its way to the client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use prism_core::failure::{Failure, Reason};
use tokio::time::{Instant, Sleep};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::AbortOnDropHandle,
};
use tonic::{Code, Status};

use super::{account::Account, framing::TooLarge, headers, local::Local};
use crate::patience;

/// What a call is answered with.
#[derive(Debug)]
pub enum Answer {
    /// By a runner.
    Relayed(Box<Relay>),
    /// By a service of the proxy itself.
    Local(Box<Local>),
    /// A status alone, or a word over plain HTTP.
    Whole(Option<Bytes>),
}

impl Default for Answer {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl Answer {
    /// A failed call that no runner answers.
    pub(crate) fn refused(failure: Failure) -> Response<Self> {
        Status::from(failure).into_http()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match self.get_mut() {
            Self::Relayed(relay) => relay.poll_frame(cx).map(|frame| frame.map(Ok)),
            Self::Local(local) => local.poll_frame(cx),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Relayed(relay) => relay.is_end_stream(),
            Self::Local(local) => local.is_end_stream(),
            Self::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Relayed(_) | Self::Local(_) => http_body::SizeHint::default(),
            Self::Whole(bytes) => {
                let size = bytes.as_ref().map_or(0, Bytes::len);
                http_body::SizeHint::with_exact(size as u64)
            }
        }
    }
}

/// A runner's response body. Whatever goes wrong with it becomes trailers with a status, never a broken
/// stream.
#[derive(Debug)]
pub struct Relay {
    stream: RecvStream,
    stage: Stage,
    account: Account,
    bounds: RelayBounds,
    /// Sends the rest of the request, where there is one.
    upload: Option<Rest>,
}

/// Sends what is left of a request, unless a message of it is too large.
pub(crate) type Rest = AbortOnDropHandle<Result<(), TooLarge>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Over,
}

/// What ends a response that does not end by itself. The futures exist only while something is waited
/// for: most responses are there at once.
#[derive(Debug)]
pub(crate) struct RelayBounds {
    pub(crate) end: Option<Instant>,
    pub(crate) cut: Option<CancellationToken>,
    pub(crate) sleep: Option<Pin<Box<Sleep>>>,
    pub(crate) cutting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl RelayBounds {
    pub(crate) fn new(end: Option<Instant>, cut: Option<CancellationToken>) -> Self {
        Self {
            end,
            cut,
            sleep: None,
            cutting: None,
        }
    }

    /// For a look in passing, which arranges for no other.
    fn reached(&self) -> Option<Failure> {
        if self.end.is_some_and(|end| end <= Instant::now()) {
            return Some(deadline_exceeded().maybe_applied());
        }
        let cut = self.cut.as_ref()?.is_cancelled();
        cut.then(|| draining().maybe_applied())
    }

    pub(crate) fn poll_reached(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        if let Some(end) = self.end {
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(deadline_exceeded().maybe_applied());
            }
        }
        if let Some(cut) = &self.cut {
            let cutting = self
                .cutting
                .get_or_insert_with(|| Box::pin(cut.clone().cancelled_owned()));
            if cutting.as_mut().poll(cx).is_ready() {
                return Poll::Ready(draining().maybe_applied());
            }
        }
        Poll::Pending
    }
}

impl Relay {
    /// Takes over a response whose headers are there. `headers` are looked at for a status, which
    /// stands there when there is no body.
    pub(crate) fn new(
        stream: RecvStream,
        headers: &HeaderMap,
        mut account: Account,
        bounds: RelayBounds,
        upload: Option<Rest>,
    ) -> Self {
        patience::answer_by(bounds.end, bounds.cut.clone());
        let mut stage = Stage::Data;
        if let Some(code) = status_code(headers) {
            account.answered(code);
            if stream.is_end_stream() {
                stage = Stage::Over;
            }
        }
        Self {
            stream,
            stage,
            account,
            bounds,
            upload,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.stage == Stage::Over {
            return Poll::Ready(None);
        }
        // Looked at before the runner, which always has more for a client that is the slower of both. Where
        // only the trailers are missing, they say more.
        if self.stage == Stage::Data
            && let Some(failure) = self.bounds.reached()
        {
            return Poll::Ready(Some(self.fail(failure)));
        }
        match self.poll_runner(cx) {
            Poll::Ready(Ok(frame)) => Poll::Ready(frame),
            Poll::Ready(Err(failure)) => Poll::Ready(Some(self.fail(failure))),
            Poll::Pending => {
                let failure = match self.poll_upload(cx) {
                    Poll::Ready(too_large) => too_large.failure().maybe_applied(),
                    Poll::Pending => ready!(self.bounds.poll_reached(cx)),
                };
                Poll::Ready(Some(self.fail(failure)))
            }
        }
    }

    /// Ready when a message of the request is too large: the runner waits for it in vain.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<TooLarge> {
        let Some(upload) = &mut self.upload else {
            return Poll::Pending;
        };
        let ended = ready!(Pin::new(upload).poll(cx));
        self.upload = None;
        match ended {
            Ok(Err(too_large)) => Poll::Ready(too_large),
            Ok(Ok(())) | Err(_) => Poll::Pending,
        }
    }

    fn poll_runner(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Failure>> {
        if self.stage == Stage::Data {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // The client's own window bounds how much is taken before it has been passed on.
                    let released = self.stream.flow_control().release_capacity(bytes.len());
                    released.map_err(|error| lost_midway(&error))?;
                    return Poll::Ready(Ok(Some(Frame::data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Err(lost_midway(&error))),
                None => self.stage = Stage::Trailers,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(|error| lost_midway(&error))?;
        self.stage = Stage::Over;
        match trailers {
            Some(mut trailers) => {
                headers::for_client(&mut trailers);
                self.account
                    .answered(status_code(&trailers).unwrap_or(Code::Unknown));
                Poll::Ready(Ok(Some(Frame::trailers(trailers))))
            }
            None if self.account.is_answered() => Poll::Ready(Ok(None)),
            None => Poll::Ready(Err(without_status())),
        }
    }

    fn fail(&mut self, failure: Failure) -> Frame<Bytes> {
        self.stage = Stage::Over;
        tracing::warn!(
            reason = failure.reason.as_str(),
            "a response was cut short: {}",
            failure.message
        );
        let status = Status::from(failure);
        self.account.answered(status.code());
        let mut trailers = HeaderMap::new();
        // Fails only for metadata that is no header, and ours is.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Over
    }
}

/// The status in headers or trailers.
pub(crate) fn status_code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|value| Code::from_bytes(value.as_bytes()))
}

pub(crate) fn deadline_exceeded() -> Failure {
    Failure::new(
        Reason::DeadlineExceeded,
        "the call's deadline passed before its answer was complete",
    )
}

pub(crate) fn draining() -> Failure {
    Failure::new(
        Reason::Draining,
        "the proxy is about to end, connect again and resume",
    )
    .retry_after(std::time::Duration::from_millis(100))
}

fn lost_midway(error: &h2::Error) -> Failure {
    let message = format!("the runner was lost while it answered: {error}");
    Failure::new(Reason::RunnerLost, message).maybe_applied()
}

fn without_status() -> Failure {
    Failure::new(Reason::RunnerLost, "the runner ended its answer without a status").maybe_applied()
}
