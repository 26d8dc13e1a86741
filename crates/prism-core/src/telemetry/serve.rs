//! The server's side of tracing: a span for each request, with its parent from the headers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};
use tracing::{Instrument, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{CALLS, TraceContext};

/// Opens the span of a call and says what its trace context is: continued from the headers, or new.
///
/// `method` is the path of the request, e.g. `/prism.pattern.MulticastRegistryPattern/Register`.
pub fn request_span(method: &str, headers: &HeaderMap) -> (Span, TraceContext) {
    let name = method.trim_start_matches('/');
    let span = tracing::error_span!(
        target: CALLS, "call", trace_id = Empty, rpc.method = name, otel.name = name, otel.kind = "server",
    );
    let given = TraceContext::extract(headers);
    if let Some(given) = given {
        // Fails only where nothing is exported, and there it does not matter.
        let _ = span.set_parent(given.as_parent());
    }
    let context = TraceContext::exported(&span)
        .or(given)
        .unwrap_or_else(TraceContext::new_root);
    context.keep_on(&span);
    span.record("trace_id", tracing::field::display(context.trace_id()));
    (span, context)
}

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
