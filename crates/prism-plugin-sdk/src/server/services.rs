//! What stands beside the pattern's own services.

use prism_proto::interfaces::lifecycle_interface_server::LifecycleInterfaceServer;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{DataServer, Readiness, calls};
use crate::{Plugin, lifecycle_service::LifecycleService};

const LIFECYCLE: &str = "prism.interfaces.LifecycleInterface";

/// The routes, and the task that keeps health up to date.
pub(crate) struct Services {
    pub(crate) routes: Routes,
    pub(crate) health: HealthUpdates,
}

/// Puts the pattern's services together with health, reflection and the lifecycle.
///
/// # Errors
/// When the plugin's descriptors cannot be read.
pub(crate) fn services<P: Plugin>(
    plugin: &P,
    server: &DataServer,
    lifecycle: LifecycleService,
) -> Result<Services, tonic_reflection::server::Error> {
    let description = plugin.description();
    let (reporter, health) = tonic_health::server::health_reporter();
    let patterns: Vec<String> = description
        .interfaces
        .into_iter()
        .map(|interface| interface.name)
        .collect();
    let reflection = || {
        let names = patterns
            .iter()
            .map(String::as_str)
            .chain([LIFECYCLE, "grpc.health.v1.Health"]);
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(prism_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(plugin.descriptors());
        names.fold(builder, |builder, name| builder.with_service_name(name))
    };
    let routes = calls::received(
        plugin.routes(),
        server.shared.calls.clone(),
        server.proofs().clone(),
    )
    .add_service(LifecycleInterfaceServer::new(lifecycle))
    .add_service(health)
    .add_service(reflection().build_v1()?)
    .add_service(reflection().build_v1alpha()?)
    .prepare();
    let health = HealthUpdates {
        reporter,
        names: patterns,
        server: server.clone(),
    };
    Ok(Services { routes, health })
}

/// Carries the endpoint's readiness into `grpc.health.v1`.
pub(crate) struct HealthUpdates {
    reporter: HealthReporter,
    names: Vec<String>,
    server: DataServer,
}

impl HealthUpdates {
    /// Never ends. Drop it with the endpoint.
    pub(crate) async fn run(self) {
        let mut readiness = self.server.readiness();
        loop {
            let status = match *readiness.borrow_and_update() {
                Readiness::Ready => ServingStatus::Serving,
                Readiness::NotYet | Readiness::Leaving => ServingStatus::NotServing,
            };
            for name in self.names.iter().map(String::as_str).chain([""]) {
                self.reporter.set_service_status(name, status).await;
            }
            if readiness.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
