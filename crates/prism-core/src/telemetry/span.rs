//! The spans of calls, which carry the trace context whether or not they are exported.

use http::HeaderMap;
use tracing::{Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{CALLS, TraceContext};

/// Opens the span of a call that is answered here and says what its trace context is: continued from
/// the headers, or new.
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
    carry(span, given)
}

/// Opens the span of a call that is made here and says what its trace context is: that of the code which
/// makes it, or new. It is to be sent along.
pub fn call_span(method: &str) -> (Span, TraceContext) {
    let given = TraceContext::current();
    let span = tracing::error_span!(
        target: CALLS, "call", trace_id = Empty, rpc.method = method, otel.name = method, otel.kind = "client",
    );
    carry(span, given)
}

fn carry(span: Span, given: Option<TraceContext>) -> (Span, TraceContext) {
    let context = TraceContext::exported(&span)
        .or(given)
        .unwrap_or_else(TraceContext::new_root);
    context.keep_on(&span);
    span.record("trace_id", tracing::field::display(context.trace_id()));
    (span, context)
}
