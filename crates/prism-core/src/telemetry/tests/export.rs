//! What reaches a collector, and what happens where there is none.

use super::*;

fn export(vars: &[(&str, &str)]) -> Result<Option<Export>, ExportError> {
    Export::from_env(|name| {
        vars.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn nothing_is_exported_unless_the_environment_asks() {
    assert_eq!(export(&[]).unwrap(), None);
    assert_eq!(export(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap(), None);
    assert_eq!(
        export(&[
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "x")
        ])
        .unwrap(),
        None
    );
    assert_eq!(
        export(&[("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "otlp")]).unwrap(),
        None
    );
    let asked = export(&[("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_SERVICE_NAME", "mine")])
        .unwrap()
        .unwrap();
    assert_eq!(
        (asked.endpoint.as_str(), asked.service.as_deref()),
        ("http://localhost:4317", Some("mine"))
    );
    let asked = export(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1")])
        .unwrap()
        .unwrap();
    assert_eq!(asked.endpoint, "http://c:1");
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let error = export(&[("OTEL_TRACES_EXPORTER", "zipkin")]).unwrap_err();
    assert!(error.to_string().contains("`zipkin`"));
    let error = export(&[
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ])
    .unwrap_err();
    assert!(error.to_string().contains("`http/json`"));
}

/// A collector that remembers what it was sent.
async fn collector() -> (
    String,
    tokio::sync::mpsc::Receiver<Vec<u8>>,
    tokio::task::AbortHandle,
) {
    let (sent, received) = tokio::sync::mpsc::channel(8);
    let app = axum::Router::new().route(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        axum::routing::post(move |body: axum::body::Bytes| {
            let sent = sent.clone();
            async move {
                sent.send(body.to_vec()).await.unwrap();
                let trailers: HeaderMap =
                    [(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]
                        .into_iter()
                        .collect();
                let message = Full::new(axum::body::Bytes::from_static(&[0; 5]));
                let body = message.with_trailers(async move { Some(Ok(trailers)) });
                (
                    [("content-type", "application/grpc")],
                    axum::body::Body::new(body),
                )
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (endpoint, received, server.abort_handle())
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exporting_process_puts_its_own_span_into_the_trace() {
    let (endpoint, mut received, server) = collector().await;
    let provider = Export {
        endpoint,
        service: Some("mine".to_owned()),
    }
    .provider("default")
    .unwrap();
    let context = {
        let subscriber = Registry::default().with(span_layer(&provider, "mine"));
        let _listening = listen(subscriber);
        let (call, context) = request_span("/a.B/Exported", &headers());
        assert_eq!(context.trace_id().to_string(), TRACE);
        assert_ne!(
            context.to_string(),
            PARENT,
            "the parent of what follows is the exported span"
        );
        call.in_scope(|| assert_eq!(TraceContext::current(), Some(context)));
        context
    };
    Guard {
        provider: Some(provider),
    }
    .shutdown(Duration::from_secs(5))
    .await;

    let sent = received.recv().await.unwrap();
    server.abort();
    let span = u64::from_str_radix(&context.to_string()[36..52], 16)
        .unwrap()
        .to_be_bytes();
    assert!(holds(&sent, b"a.B/Exported") && holds(&sent, b"mine") && holds(&sent, &span));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mute_collector_does_not_hold_up_the_end() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", mute.local_addr().unwrap());
    let provider = Export {
        endpoint,
        service: None,
    }
    .provider("mine")
    .unwrap();
    {
        let subscriber = Registry::default().with(span_layer(&provider, "mine"));
        let _listening = listen(subscriber);
        drop(request_span("/a.B/C", &HeaderMap::new()));
    }
    let began = std::time::Instant::now();
    Guard {
        provider: Some(provider),
    }
    .shutdown(Duration::from_millis(300))
    .await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Takes spans or not, as it is told.
#[derive(Debug, Default)]
struct Fickle(std::sync::atomic::AtomicBool);

impl opentelemetry_sdk::trace::SpanExporter for &Fickle {
    async fn export(
        &self,
        _: Vec<opentelemetry_sdk::trace::SpanData>,
    ) -> opentelemetry_sdk::error::OTelSdkResult {
        match self.0.load(std::sync::atomic::Ordering::Relaxed) {
            true => Ok(()),
            false => Err(opentelemetry_sdk::error::OTelSdkError::InternalFailure(
                "nobody there".to_owned(),
            )),
        }
    }
}

#[tokio::test]
async fn a_collector_that_is_away_is_reported_once_and_so_is_its_return() {
    use opentelemetry_sdk::trace::SpanExporter as _;
    let lines = Lines::default();
    let layer = tracing_subscriber::fmt::layer()
        .event_format(format::Json)
        .with_writer(lines.clone());
    let _listening = listen(Registry::default().with(layer));
    let inner = Fickle::default();
    let exporter = collector::Reported::new(&inner, "http://c:1".to_owned());
    for takes in [true, false, false, true, true, false] {
        inner.0.store(takes, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(exporter.export(Vec::new()).await.is_ok(), takes);
    }
    let levels: Vec<_> = lines
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| (line["level"].clone(), line["collector"].clone()))
        .collect();
    let expected = ["WARN", "INFO", "WARN"].map(|level| (level.into(), "http://c:1".into()));
    assert_eq!(levels, expected);
}
