//! One trace from end to end, and log lines that say which.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer as _, ServiceExt};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

mod export;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has a subscriber hear what this thread says, for as long as what is returned lives.
///
/// As long as there is only one subscriber, `tracing` asks that of the thread which comes to a line of the log, or
/// to a span, first whether anybody wants it, once for all; and in another test there is none. So there are two.
fn listen(subscriber: impl tracing::Subscriber + Send + Sync + 'static) -> impl Sized {
    let other = tracing::Dispatch::new(Registry::default());
    (tracing::subscriber::set_default(subscriber), other)
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, PARENT.parse().unwrap());
    headers
}

#[test]
fn a_context_survives_headers_and_pairs() {
    let context = TraceContext::parse(PARENT).unwrap();
    assert_eq!(context.to_string(), PARENT);
    assert_eq!(context.trace_id().to_string(), TRACE);
    let mut headers = HeaderMap::new();
    context.inject(&mut headers);
    assert_eq!(TraceContext::extract(&headers), Some(context));
    let (name, value) = context.to_pair();
    assert_eq!(
        TraceContext::extract_pairs([("a", "b"), (&name, &value)]),
        Some(context)
    );
    let root = TraceContext::new_root();
    assert_eq!(TraceContext::parse(&root.to_string()), Some(root));
}

#[test]
fn a_malformed_context_is_ignored() {
    let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
    let zero_span = format!("00-{TRACE}-{}-01", "0".repeat(16));
    let upper = PARENT.to_uppercase();
    let long = format!("{PARENT}-00");
    let forbidden = PARENT.replacen("00", "ff", 1);
    for text in [
        "",
        "00",
        &PARENT[1..],
        &zero_trace,
        &zero_span,
        &upper,
        &long,
        &forbidden,
        "ü".repeat(40).as_str(),
    ] {
        assert_eq!(TraceContext::parse(text), None, "{text}");
    }
    let future = format!("{}-more", PARENT.replacen("00", "cc", 1));
    assert_eq!(
        TraceContext::parse(&future).unwrap().trace_id().to_string(),
        TRACE
    );
}

#[test]
fn outside_of_a_call_there_is_no_context_but_a_new_one_can_be_had() {
    assert_eq!(TraceContext::current(), None);
    assert_ne!(TraceContext::current_or_new(), TraceContext::current_or_new());
}

#[tokio::test]
async fn a_request_and_its_body_run_in_the_callers_trace() {
    let subscriber = Registry::default();
    let _listening = listen(subscriber);
    let service = tower::service_fn(|_: Request<()>| async {
        let seen = TraceContext::current().unwrap().to_string();
        Ok::<_, Infallible>(Response::new(Full::new(axum::body::Bytes::from(seen))))
    });
    let mut request = Request::new(());
    *request.headers_mut() = headers();
    let response = TraceLayer.layer(service).oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    // Nothing is exported here, so the caller's span stays the parent of what follows.
    assert_eq!(body, PARENT.as_bytes());
}

/// Tests run side by side: what one listens for, another one may say first.
#[test]
fn a_line_that_another_thread_came_to_first_is_heard() {
    fn say() {
        tracing::info!("said by whoever comes");
    }
    let lines = Lines::default();
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone());
    let _listening = listen(Registry::default().with(layer));
    std::thread::spawn(say).join().unwrap();
    say();
    assert_eq!(lines.text().matches("said by whoever comes").count(), 1);
}

#[test]
fn nested_spans_find_the_context_of_their_call() {
    let _listening = listen(Registry::default());
    let (call, context) = request_span("/a.B/C", &headers());
    call.in_scope(|| {
        tracing::info_span!("inner").in_scope(|| assert_eq!(TraceContext::current(), Some(context)));
    });
    let (fresh, context) = request_span("/a.B/C", &HeaderMap::new());
    fresh.in_scope(|| assert_eq!(TraceContext::current(), Some(context)));
}

#[test]
fn each_json_line_inside_a_call_carries_its_trace() {
    let lines = Lines::default();
    let layer = tracing_subscriber::fmt::layer()
        .event_format(format::Json)
        .with_writer(lines.clone());
    let _listening = listen(Registry::default().with(layer));
    tracing::info!(answer = 42, level = "mine", "before");
    let (call, _) = request_span("/a.B/C", &headers());
    call.in_scope(|| tracing::info_span!("inner").in_scope(|| tracing::warn!(ok = true, "inside `x`")));

    let text = lines.text();
    let parsed: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(parsed[0]["message"], "before");
    assert_eq!(parsed[0]["answer"], 42);
    assert_eq!(
        (&parsed[0]["level"], &parsed[0]["field.level"]),
        (&"INFO".into(), &"mine".into())
    );
    assert!(parsed[0].get("trace_id").is_none());
    assert_eq!(parsed[1]["trace_id"], TRACE);
    assert_eq!(parsed[1]["span"], "inner");
    assert_eq!(parsed[1]["message"], "inside `x`");
}

#[test]
fn a_call_that_is_made_continues_the_trace_or_begins_one() {
    let lines = Lines::default();
    let layer = tracing_subscriber::fmt::layer()
        .event_format(format::Json)
        .with_writer(lines.clone());
    let _listening = listen(Registry::default().with(layer));
    let (request, given) = request_span("/a.B/C", &headers());
    let (_, continued) = request.in_scope(|| call_span("Get"));
    assert_eq!(continued, given);
    let (call, context) = call_span("Get");
    assert_ne!(context, given);
    call.in_scope(|| tracing::warn!("inside"));
    let line: serde_json::Value = serde_json::from_str(&lines.text()).unwrap();
    assert_eq!(line["trace_id"], context.trace_id().to_string());
}

/// As the bridge from the crate `log` words it.
#[test]
fn what_a_library_logs_stands_under_its_own_target() {
    let lines = Lines::default();
    let layer = tracing_subscriber::fmt::layer()
        .event_format(format::Json)
        .with_writer(lines.clone());
    let _listening = listen(Registry::default().with(layer));
    tracing::info!({ "log.target" = "fred::router", "log.file" = "x.rs", "log.line" = 7 }, "said");
    let line: serde_json::Value = serde_json::from_str(&lines.text()).unwrap();
    assert_eq!(
        (&line["target"], &line["message"]),
        (&"fred::router".into(), &"said".into())
    );
    assert!(
        line.get("log.file").is_none() && line.get("log.line").is_none(),
        "{line}"
    );
}

#[test]
fn each_readable_line_inside_a_call_carries_its_trace_and_nothing_else_of_it() {
    let readable = |ansi: bool| {
        let lines = Lines::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(ansi)
            .event_format(format::Readable)
            .with_writer(lines.clone());
        let _listening = listen(Registry::default().with(layer));
        let (call, _) = request_span("/a.B/C", &headers());
        call.in_scope(|| tracing::warn!(answer = 42, "inside"));
        lines.text()
    };
    let line = readable(false);
    let (_, said) = line.split_once("Z  WARN ").unwrap();
    assert_eq!(said, format!("inside answer=42 trace_id={TRACE}\n"));
    assert!(readable(true).contains("\u{1b}[33m WARN\u{1b}[0m inside"));
}

#[test]
fn the_context_outlives_any_log_filter() {
    let filter = calls_too(EnvFilter::new("off")).unwrap();
    let layer = tracing_subscriber::fmt::layer().with_filter(filter);
    let _listening = listen(Registry::default().with(layer));
    let (call, context) = request_span("/a.B/C", &headers());
    call.in_scope(|| assert_eq!(TraceContext::current(), Some(context)));
}

#[test]
fn verbosity_raises_us_before_the_libraries() {
    assert!(default_directives(0).starts_with("info,async_nats=warn,fred=warn,"));
    assert!(default_directives(1).starts_with("debug,async_nats=info,fred=info,"));
    assert!(default_directives(9).starts_with("trace,async_nats=debug,fred=debug,"));
    for verbosity in 0..3 {
        EnvFilter::try_new(default_directives(verbosity)).unwrap();
    }
}
