//! The server's side of tracing: each request in a span, with its parent from the headers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};
use tracing::{Instrument, Span};

use super::request_span;

/// A tower layer that runs each request, and the body of its response, inside [`request_span`].
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

/// What [`TraceLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct Traced<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: 'static,
{
    type Response = Response<TracedBody<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (span, _) = request_span(request.uri().path(), request.headers());
        let answer = span.in_scope(|| self.inner.call(request));
        let body_span = span.clone();
        let call = async move {
            Ok(answer.await?.map(|inner| TracedBody {
                inner,
                span: body_span,
            }))
        };
        Box::pin(call.instrument(span))
    }
}

/// A response body that is produced inside the span of its request.
#[derive(Debug)]
pub struct TracedBody<R> {
    inner: R,
    span: Span,
}

impl<R: Body + Unpin> Body for TracedBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let this = &mut *self;
        let entered = this.span.enter();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        drop(entered);
        if frame.is_none() {
            // The call is over, even if the connection holds on to the body.
            this.span = Span::none();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
