//! Whether a data endpoint still serves, when its runner's control stream is gone.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Asks for `grpc.health.v1`. A runner that does not have it serves if it answers at all; one that has
/// it and is not serving is another process on the same port, or about to end.
pub(super) async fn serves(endpoint: String, within: Duration) -> bool {
    timeout(within, ask(endpoint)).await.unwrap_or(false)
}

async fn ask(endpoint: String) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{endpoint}")) else {
        return false;
    };
    let Ok(channel) = endpoint.connect().await else {
        return false;
    };
    match HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
    {
        Ok(answer) => answer.into_inner().status() == ServingStatus::Serving,
        Err(status) => status.code() == Code::Unimplemented,
    }
}
