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
    cli::Global,
    command::{client, connect_timeout},
    exit::Exit,
    fault::Stop,
};

/// Looks at each endpoint, and through all of them at the namespace. Returns the endpoints.
pub(super) async fn look(global: &Global, report: &mut Report) -> Result<Vec<String>, Stop> {
    let client = client(global)?;
    let raw = client.registry.raw();
    for endpoint in raw.endpoints() {
        look_at(endpoint, global.deadline, report).await?;
    }
    look_through(raw, report).await;
    Ok(raw.endpoints().to_vec())
}

async fn look_at(endpoint: &str, deadline: Duration, report: &mut Report) -> Result<(), Stop> {
    let builder = Client::builder()
        .endpoint(endpoint)
        .timeout(deadline)
        .connect_timeout(connect_timeout(deadline));
    // To look once is the point.
    let client = builder.attempts(1).connect_lazy()?;
    let health = client
        .registry
        .raw()
        .call_other(HealthCheckRequest::default(), |channel, request| async move {
            HealthClient::new(channel).check(request).await
        });
    let check = format!("endpoint {endpoint}");
    match health.await.map(|answer| answer.status()) {
        Ok(ServingStatus::Serving) => report.fine(check, "serving"),
        Ok(status) => report.bad(check, Exit::Unavailable, status.as_str_name().to_lowercase()),
        Err(error) if error.code() == Code::Unimplemented => {
            report.fine(check, "answers, without a health service")
        }
        Err(error) => report.bad(check, Exit::of(&error), describe(&error)),
    }
    Ok(())
}

/// A small read reaches everything that a namespace needs for answers.
async fn look_through(raw: &Raw, report: &mut Report) {
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
}

fn describe(error: &Error) -> String {
    match error.reason_text() {
        "" => error.to_string(),
        reason => format!("{error} ({reason})"),
    }
}
