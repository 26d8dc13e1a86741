//! The data port: does it answer, and is the namespace served?

use std::time::Duration;

use prism_client::{Client, Error, raw::Raw};
use prism_proto::pattern::{EnumerateRequest, Pagination};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::report::Report;
use crate::{
    command::connect_timeout,
    exit::Exit,
    fault::{DATA_PORT, Stop, is_of_another_service},
};

/// A client of one endpoint alone.
pub(super) struct Direct {
    endpoint: String,
    client: Client,
}

/// One for each endpoint.
pub(super) fn direct(endpoints: &[String], deadline: Duration) -> Result<Vec<Direct>, Stop> {
    let direct = endpoints.iter().map(|endpoint| {
        let builder = Client::builder()
            .endpoint(endpoint)
            .timeout(deadline)
            .connect_timeout(connect_timeout(deadline));
        Ok(Direct {
            endpoint: endpoint.clone(),
            // To look once is the point.
            client: builder.attempts(1).connect_lazy()?,
        })
    });
    direct.collect()
}

/// Looks at one endpoint.
pub(super) async fn look_at(direct: &Direct) -> Report {
    let mut report = Report::default();
    let health = direct
        .client
        .registry
        .raw()
        .call_other(HealthCheckRequest::default(), |channel, request| async move {
            HealthClient::new(channel).check(request).await
        });
    let check = format!("endpoint {}", direct.endpoint);
    match health.await.map(|answer| answer.status()) {
        Ok(ServingStatus::Serving) => report.fine(check, "serving"),
        Ok(status) => report.bad(check, Exit::Unavailable, status.as_str_name().to_lowercase()),
        Err(error) if error.code() == Code::Unimplemented && is_grpc(&error) => {
            report.fine(check, "answers, without a health service")
        }
        Err(error) => report.bad(check, Exit::of(&error), describe(&error)),
    }
    report
}

/// Looks at the namespace through all endpoints. A small read reaches everything that it needs for answers.
pub(super) async fn look_through(raw: &Raw) -> Report {
    let mut report = Report::default();
    let check = format!("namespace {}", raw.namespace());
    let request = EnumerateRequest {
        pagination: Some(Pagination {
            limit: 1,
            ..Default::default()
        }),
        include_metadata: Some(false),
        ..Default::default()
    };
    match raw.enumerate(request).await {
        Ok(answer) => report.fine(check, format!("served, {} identities", answer.total_count)),
        Err(error) => report.bad(check, Exit::of(&error), describe(&error)),
    }
    report
}

/// Whether a service said so, and not a server that knows no such path.
fn is_grpc(error: &Error) -> bool {
    !error.to_string().starts_with("grpc-status header missing")
}

fn describe(error: &Error) -> String {
    match error.reason_text() {
        "" if is_of_another_service(error) => format!("{error}, {DATA_PORT}"),
        "" => error.to_string(),
        reason => format!("{error} ({reason})"),
    }
}
