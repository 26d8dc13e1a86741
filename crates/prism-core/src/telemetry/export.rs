//! Export of spans over OTLP, as the standard `OTEL_*` variables say.

use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};

use super::collector::Reported;

const DEFAULT_ENDPOINT: &str = "http://localhost:4317";

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The collector's gRPC address.
    pub endpoint: String,
    /// `OTEL_SERVICE_NAME`.
    pub service: Option<String>,
}

/// What the `OTEL_*` variables ask for and cannot have.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Only gRPC is built in.
    #[error("`OTEL_EXPORTER_OTLP_PROTOCOL` is `{0}`, only `grpc` is supported")]
    Protocol(String),
    /// Only OTLP is built in.
    #[error("`OTEL_TRACES_EXPORTER` is `{0}`, only `otlp` and `none` are supported")]
    Exporter(String),
    /// The exporter refused its settings.
    #[error("spans cannot be exported to `{endpoint}`: {message}")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// What the exporter said.
        message: String,
    },
}

impl Export {
    /// Reads the variables: nothing is exported unless an endpoint is given or `OTEL_TRACES_EXPORTER` is
    /// `otlp`, and nothing when `OTEL_SDK_DISABLED` is `true` or the exporter is `none`. Sampling,
    /// batching, headers and timeouts are read from their variables by the exporter itself.
    ///
    /// # Errors
    /// An exporter or a protocol that is not built in.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ExportError> {
        let get = |name: &str| {
            get(name)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let endpoint =
            get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| get("OTEL_EXPORTER_OTLP_ENDPOINT"));
        match get("OTEL_TRACES_EXPORTER").as_deref() {
            Some("none") => return Ok(None),
            Some("otlp") => {}
            None if endpoint.is_some() => {}
            None => return Ok(None),
            Some(other) => return Err(ExportError::Exporter(other.to_owned())),
        }
        let protocol =
            get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| get("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if let Some(other) = protocol.filter(|protocol| protocol != "grpc") {
            return Err(ExportError::Protocol(other));
        }
        Ok(Some(Self {
            endpoint: endpoint.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            service: get("OTEL_SERVICE_NAME"),
        }))
    }

    /// The span pipeline. Inside a runtime only.
    ///
    /// # Errors
    /// An endpoint that is no address.
    pub fn provider(&self, service: &'static str) -> Result<SdkTracerProvider, ExportError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(self.endpoint.clone())
            .build()
            .map_err(|error| ExportError::Endpoint {
                endpoint: self.endpoint.clone(),
                message: error.to_string(),
            })?;
        let service = self.service.clone().unwrap_or_else(|| service.to_owned());
        let resource = Resource::builder().with_service_name(service).build();
        Ok(SdkTracerProvider::builder()
            .with_batch_exporter(Reported::new(exporter, self.endpoint.clone()))
            .with_resource(resource)
            .build())
    }
}
