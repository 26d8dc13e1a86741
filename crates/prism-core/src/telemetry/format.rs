//! Log lines: readable ones for terminals, and one JSON object each for machines.

use std::fmt;

use serde_json::{Value, json};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use super::TraceContext;

/// `<time> <LEVEL> <message> <field>=<value> … trace_id=<trace>`: what happened, without the span around
/// it, whose fields are for collectors.
pub(super) struct Readable;

impl<S, N> FormatEvent<S, N> for Readable
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let ansi = out.has_ansi_escapes();
        let dim = |text: String| {
            if ansi {
                format!("\u{1b}[2m{text}\u{1b}[0m")
            } else {
                text
            }
        };
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        write!(out, "{} {} ", dim(time), level(*event.metadata().level(), ansi))?;
        context.format_fields(out.by_ref(), event)?;
        if let Some(call) = call(context) {
            write!(out, " {}", dim(format!("trace_id={}", call.trace_id())))?;
        }
        writeln!(out)
    }
}

fn level(level: Level, ansi: bool) -> String {
    let colour = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    if ansi {
        format!("\u{1b}[{colour}m{level:>5}\u{1b}[0m")
    } else {
        format!("{level:>5}")
    }
}

/// The trace context of the call that an event belongs to.
fn call<S, N>(context: &FmtContext<'_, S, N>) -> Option<TraceContext>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    context
        .event_scope()?
        .find_map(|span| span.extensions().get::<TraceContext>().copied())
}

/// `{"timestamp", "level", "target", "message", "trace_id"?, "span"?, ...fields}`.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        // In the order in which people read.
        let mut line: Line = Vec::with_capacity(8);
        line.push(("timestamp".into(), timestamp.into()));
        line.push(("level".into(), metadata.level().as_str().into()));
        line.push(("target".into(), metadata.target().into()));
        if let Some(span) = context.lookup_current() {
            line.push(("span".into(), span.name().into()));
        }
        if let Some(call) = call(context) {
            line.push(("trace_id".into(), call.trace_id().to_string().into()));
        }
        event.record(&mut Fields(&mut line));
        let mut bytes = Vec::with_capacity(256);
        let mut serializer = serde_json::Serializer::new(&mut bytes);
        serde::Serializer::collect_map(&mut serializer, line).map_err(|_| fmt::Error)?;
        writeln!(out, "{}", String::from_utf8_lossy(&bytes))
    }
}

type Line = Vec<(String, Value)>;

struct Fields<'a>(&'a mut Line);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            // What a library that knows only the crate `log` says comes under a target of its own.
            "log.target" => return self.target(value),
            "log.module_path" | "log.file" | "log.line" => return,
            // A field must not pass for one of ours.
            name @ ("timestamp" | "level" | "target" | "trace_id" | "span") => format!("field.{name}"),
            name => name.to_owned(),
        };
        self.0.push((name, value));
    }

    fn target(&mut self, target: Value) {
        if let Some((_, place)) = self.0.iter_mut().find(|(name, _)| name == "target") {
            *place = target;
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into());
    }
}
