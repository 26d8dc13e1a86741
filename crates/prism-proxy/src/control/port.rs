//! The control port.

use std::time::Duration;

use prism_core::incoming;
use prism_proto::interfaces::proxy_control_plane_server::ProxyControlPlaneServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::{ControlService, Settings};

/// For streams that were told to end to do so.
const GRACE: Duration = Duration::from_secs(1);

/// Serves until `closing`, and then breaks what does not close by itself.
///
/// No HTTP/2 pings: what they would find out, the health checks and the kernel do.
pub(super) async fn serve(
    listener: TcpListener,
    service: ProxyControlPlaneServer<ControlService>,
    settings: Settings,
    closing: CancellationToken,
) {
    let cut = CancellationToken::new();
    let limits = incoming::Limits {
        // Twice as many as there may be runners: those that reconnect, and those that get to hear why
        // there is no room.
        connections: settings.runners.saturating_mul(2),
        handshake_within: settings.register_within,
        unacknowledged: settings.health_within * 2,
    };
    let incoming = incoming::accept(listener, limits, closing.clone(), cut.clone());
    let _cut = cut.drop_guard();
    let server = Server::builder()
        .max_concurrent_streams(64)
        .http2_max_header_list_size(16 * 1024)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, closing.cancelled());
    let limited = async {
        closing.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => if let Err(error) = served {
            tracing::error!(%error, "the control port failed");
        },
        () = limited => {}
    }
}
