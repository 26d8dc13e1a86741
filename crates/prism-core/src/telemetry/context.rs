//! The W3C trace context of a call: where it comes from, how it travels.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Registry, registry::LookupSpan};

/// The header, metadata key and message header that carries a [`TraceContext`].
pub const TRACEPARENT: &str = "traceparent";

const HEADER: HeaderName = HeaderName::from_static(TRACEPARENT);
const SAMPLED: u8 = 1;

/// A position in a trace, displayed as the value of a `traceparent` header.
///
/// Every participant hands it on: a server takes it from the request with [`Self::extract`] or lets
/// [`super::TraceLayer`] do so, code inside the call finds it with [`Self::current_or_new`], and
/// whoever calls out puts it into headers with [`Self::inject`]. A participant that exports spans hands on
/// its own span as the parent; one that does not hands on what it was given, so that a collector never
/// sees a parent that nobody reports. `tracestate` is not carried beyond the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceContext {
    /// The beginning of a trace that nobody has heard of.
    pub fn new_root() -> Self {
        // Zero is no identifier.
        let trace = rand::random_range(1..=u128::MAX);
        let span = rand::random_range(1..=u64::MAX);
        Self {
            trace,
            span,
            flags: SAMPLED,
        }
    }

    /// Reads a `traceparent` value; `None` when it is malformed or of the forbidden version `ff`.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.trim().as_bytes();
        let (version, rest) = (bytes.get(..2)?, bytes.get(55..)?);
        let dashes = [2, 35, 52].iter().all(|&at| bytes[at] == b'-');
        // Version 00 ends here; a later one may continue after a dash.
        let ends = rest.is_empty() || (version != b"00" && rest[0] == b'-');
        if !dashes || !ends || hex(version)? == 0xff {
            return None;
        }
        let trace = hex(&bytes[3..35])?;
        let span = u64::try_from(hex(&bytes[36..52])?).ok()?;
        let flags = u8::try_from(hex(&bytes[53..55])?).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// From the headers of a request.
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(HEADER)?.to_str().ok()?)
    }

    /// Into the headers of a request; replaces what is there.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            headers.insert(HEADER, value);
        }
    }

    /// From headers that are pairs of texts, such as those of a message.
    pub fn extract_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut pairs = pairs.into_iter();
        let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT))?;
        Self::parse(value)
    }

    /// As a header for a list of pairs.
    pub fn to_pair(&self) -> (String, String) {
        (TRACEPARENT.to_owned(), self.to_string())
    }

    /// Of the call that this code runs in: found on the current tracing span or the nearest one around
    /// it.
    pub fn current() -> Option<Self> {
        let span = Span::current();
        // An exporting process names its own, innermost span as the parent of what follows.
        Self::exported(&span).or_else(|| Self::kept(&span))
    }

    /// As [`Self::current`]; outside of any call, the beginning of a new trace.
    pub fn current_or_new() -> Self {
        Self::current().unwrap_or_else(Self::new_root)
    }

    /// The trace identifier, as logs show it.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        let trace = self.trace;
        fmt::from_fn(move |f| write!(f, "{trace:032x}"))
    }

    /// Keeps this context on a span, for [`Self::current`] and for log lines.
    pub(super) fn keep_on(self, span: &Span) {
        with_registry_span(span, |span| span.extensions_mut().replace(self));
    }

    pub(super) fn kept(span: &Span) -> Option<Self> {
        let nearest = |span: tracing_subscriber::registry::SpanRef<'_, Registry>| {
            span.scope()
                .find_map(|span| span.extensions().get::<Self>().copied())
        };
        with_registry_span(span, nearest).flatten()
    }

    /// The identity that the exporter gave to a span; `None` where nothing is exported.
    pub(super) fn exported(span: &Span) -> Option<Self> {
        let context = span.context();
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| Self {
            trace: u128::from_be_bytes(span.trace_id().to_bytes()),
            span: u64::from_be_bytes(span.span_id().to_bytes()),
            flags: span.trace_flags().to_u8(),
        })
    }

    /// As the remote parent of a span that is to be exported.
    pub(super) fn as_parent(self) -> opentelemetry::Context {
        opentelemetry::Context::new().with_remote_span_context(SpanContext::new(
            TraceId::from(self.trace),
            SpanId::from(self.span),
            TraceFlags::new(self.flags),
            true,
            TraceState::default(),
        ))
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

fn with_registry_span<T>(
    span: &Span,
    f: impl FnOnce(tracing_subscriber::registry::SpanRef<'_, Registry>) -> T,
) -> Option<T> {
    span.with_subscriber(|(id, dispatch)| dispatch.downcast_ref::<Registry>()?.span(id).map(f))
        .flatten()
}

/// Lower-case hexadecimal digits only, as the standard demands.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}
