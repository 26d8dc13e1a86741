//! What a collector and a scraper are told.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use integration::{
    PATIENCE, Proxy, Runner, START_LIMIT, System, client_of, http_get, memory_namespace, shared_namespace,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value as AnyValue,
    trace::v1::{ResourceSpans, Span, span::SpanKind},
};
use prism_client::{EnumerateRequest, Event, MulticastRequest, RegisterRequest};
use prism_proto::pattern::{
    MulticastRequest as RawMulticast,
    multicast_registry_pattern_client::MulticastRegistryPatternClient as RawClient,
};
use prism_testkit::{NatsServer, Process, RedisServer, Signal, eventually, free_port};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::timeout,
};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Server, server::TcpIncoming},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const MULTICAST: &str = "prism.pattern.MulticastRegistryPattern/Multicast";

/// A collector that passes on what it is sent.
struct Collector(UnboundedSender<ResourceSpans>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for spans in request.into_inner().resource_spans {
            // The test may have seen enough.
            let _ = self.0.send(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A span, and the service that reports it.
#[derive(Debug, Clone)]
struct Seen {
    service: String,
    span: Span,
}

struct Collected {
    endpoint: String,
    spans: UnboundedReceiver<ResourceSpans>,
    seen: Vec<Seen>,
    _server: JoinSet<()>,
}

impl Collected {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (sent, spans) = unbounded_channel();
        let serve = Server::builder()
            .add_service(TraceServiceServer::new(Collector(sent)))
            .serve_with_incoming(TcpIncoming::from(listener));
        let mut server = JoinSet::new();
        server.spawn(async { serve.await.unwrap_or_default() });
        Ok(Self {
            endpoint,
            spans,
            seen: Vec::new(),
            _server: server,
        })
    }

    /// The server span of the multicast that a service reports.
    async fn multicast_of(&mut self, service: &str) -> Result<Span> {
        loop {
            let ours = |seen: &&Seen| seen.service == service && seen.span.name == MULTICAST;
            if let Some(found) = self.seen.iter().find(ours) {
                return Ok(found.span.clone());
            }
            let more = timeout(PATIENCE, self.spans.recv()).await;
            let more = more.with_context(|| format!("no span of {service} came, but {:#?}", self.seen))?;
            self.remember(more.context("the collector ended")?);
        }
    }

    fn remember(&mut self, spans: ResourceSpans) {
        let attributes = spans.resource.unwrap_or_default().attributes;
        let service = attributes
            .into_iter()
            .find(|attribute| attribute.key == "service.name");
        let service = match service.and_then(|attribute| attribute.value?.value) {
            Some(AnyValue::StringValue(service)) => service,
            _ => String::new(),
        };
        let spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        self.seen.extend(spans.map(|span| Seen {
            service: service.clone(),
            span,
        }));
    }
}

/// Sends spans there, and soon.
fn exporting(endpoint: &str) -> [(&str, &str); 2] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A multicast as somebody makes it who traces calls already.
async fn multicast_in_a_trace(proxy: SocketAddr) -> Result<()> {
    let channel = Channel::from_shared(format!("http://{proxy}"))?.connect().await?;
    let mut request = Request::new(RawMulticast::default());
    let metadata = request.metadata_mut();
    metadata.insert("x-prism-namespace", "test".parse()?);
    metadata.insert("traceparent", format!("00-{TRACE}-{CALLER}-01").parse()?);
    RawClient::new(channel).multicast(request).await?;
    Ok(())
}

#[tokio::test]
async fn a_collector_sees_caller_proxy_runner_and_message_in_one_trace() -> Result<()> {
    let mut collected = Collected::start().await?;
    let endpoint = collected.endpoint.clone();
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let config = json!({ "namespaces": [shared_namespace("test", &redis, &nats)] });
    let proxy = Proxy::start_in(&config, &[], &exporting(&endpoint)).await?;
    let control = proxy.control.to_string();
    let _runner = Runner::start(&["-proxy-addr", &control], &exporting(&endpoint)).await?;
    proxy.wait_for_runners("test", 1).await;

    let client = proxy.client("test")?;
    client.registry.register(RegisterRequest::new("a")).await?;
    let mut session = client.registry.subscribe("a").await?;
    assert!(matches!(session.next().await, Some(Ok(Event::Opened(_)))));
    multicast_in_a_trace(proxy.data).await?;

    let at_proxy = collected.multicast_of("prism-proxy").await?;
    let at_runner = collected.multicast_of("multicast-registry-runner").await?;
    for span in [&at_proxy, &at_runner] {
        assert_eq!(
            (hex(&span.trace_id).as_str(), span.kind()),
            (TRACE, SpanKind::Server)
        );
    }
    assert_eq!(hex(&at_proxy.parent_span_id), CALLER);
    assert_eq!(at_runner.parent_span_id, at_proxy.span_id);
    let Some(Ok(Event::Message(message))) = timeout(PATIENCE, session.next()).await? else {
        panic!("the message did not come")
    };
    let carried = &message.headers["traceparent"];
    assert_eq!(carried, &format!("00-{TRACE}-{}-01", hex(&at_runner.span_id)));
    Ok(())
}

/// One that refuses connections, and one that takes them and says nothing.
#[tokio::test]
async fn a_dead_collector_neither_fails_calls_nor_holds_up_the_end() -> Result<()> {
    let mute = TcpListener::bind("127.0.0.1:0").await?;
    let dead = format!("http://127.0.0.1:{}", free_port());
    for endpoint in [format!("http://{}", mute.local_addr()?), dead] {
        let environment = [
            &exporting(&endpoint)[..],
            &[("OTEL_EXPORTER_OTLP_TIMEOUT", "200")],
        ]
        .concat();
        let config = json!({ "namespaces": [memory_namespace("test")] });
        let mut proxy = Proxy::start_in(&config, &[], &environment).await?;
        let control = proxy.control.to_string();
        let mut runner = Runner::start(&["-proxy-addr", &control], &environment).await?;
        proxy.wait_for_runners("test", 1).await;
        // More spans than are kept for a collector.
        let registry = client_of(proxy.data, "test")?.registry;
        let mut calls = JoinSet::new();
        for worker in 0..20 {
            let registry = registry.with_timeout(Duration::from_secs(2));
            calls.spawn(async move {
                for number in 0..150 {
                    registry
                        .register(RegisterRequest::new(format!("{worker}-{number}")))
                        .await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(worker) = calls.join_next().await {
            worker??;
        }
        for process in [&mut runner.process, &mut proxy.process] {
            process
                .stderr_line("the collector does not take spans", PATIENCE)
                .await?;
            process.signal(Signal::TERM)?;
            assert!(process.wait(START_LIMIT).await?.success(), "{endpoint}");
        }
    }
    Ok(())
}

/// The value of a metric of the namespace `test`.
async fn metric(address: SocketAddr, name: &str) -> Option<f64> {
    let (_, page) = http_get(address, "/metrics").await.ok()?;
    let line = format!("{name}{{namespace=\"test\"}} ");
    page.lines()
        .find_map(|metric| metric.strip_prefix(&line))?
        .parse()
        .ok()
}

async fn eventually_counts(address: SocketAddr, name: &str, expected: f64) {
    let what = format!("`{name}` is {expected}");
    eventually(PATIENCE, &what, async || {
        metric(address, name).await == Some(expected)
    })
    .await;
}

#[tokio::test]
async fn metrics_count_what_happened() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let registry = system.client()?.registry;
    let short = RegisterRequest {
        ttl_ms: Some(50),
        ..RegisterRequest::new("gone soon")
    };
    registry.register(short).await?;
    let at = system.runners[0].health;
    eventually_counts(at, "multicast_registry_ttl_expiration_total", 1.0).await;

    for identity in ["a", "b", "c"] {
        registry.register(RegisterRequest::new(identity)).await?;
    }
    let mut session = registry.subscribe("a").await?;
    assert!(matches!(session.next().await, Some(Ok(Event::Opened(_)))));
    registry.enumerate(EnumerateRequest::default()).await?;
    let sent = registry.multicast(MulticastRequest::default()).await?;
    assert_eq!((sent.delivered_count, sent.target_count), (1, 3));

    for (name, expected) in [
        ("registered_identities", 3.0),
        ("sessions", 1.0),
        ("multicast_delivered_total_count", 1.0),
        ("multicast_delivered_total_sum", 1.0),
        ("delivery_failures_total", 2.0),
        ("enumerate_latency_seconds_count", 1.0),
    ] {
        eventually_counts(at, &format!("multicast_registry_{name}"), expected).await;
    }
    drop(session);
    eventually_counts(at, "multicast_registry_sessions", 0.0).await;
    Ok(())
}

/// Waits for a line with this message at this level, inside a call or outside of any.
async fn logged(process: &Process, message: &str, level: &str, inside: bool) {
    let what = format!("`{message}` is logged as {level}");
    eventually(PATIENCE, &what, async || {
        let lines = process.stderr();
        let mut lines = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.any(|line| {
            let trace = line["trace_id"].as_str();
            line["message"] == message && line["level"] == level && trace.is_some() == inside
        })
    })
    .await;
}

#[tokio::test]
async fn what_happens_is_logged_at_its_level_and_inside_its_trace() -> Result<()> {
    let mut system = System::on_redis_and_nats(1).await?;
    let registry = system.client()?.registry;
    let short = RegisterRequest {
        ttl_ms: Some(50),
        ..RegisterRequest::new("gone soon")
    };
    registry.register(short).await?;
    let runner = &system.runners[0].process;
    logged(runner, "expired", "DEBUG", false).await;
    registry.register(RegisterRequest::new("a")).await?;
    registry.multicast(MulticastRequest::default()).await?;
    registry.unregister("a").await?;
    drop(system.redis.take());
    registry.get("a").await.unwrap_err();
    for (message, level) in [
        ("registered", "DEBUG"),
        ("multicast", "INFO"),
        ("unregistered", "DEBUG"),
        ("the registry slot did not take a call, trying again", "WARN"),
        ("a call could not be served", "ERROR"),
    ] {
        logged(runner, message, level, true).await;
    }
    Ok(())
}
