//! `grpc.health.v1` on the data port: for the whole, for each compiled-in service, for each namespace.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::{
    forward::method,
    readiness::{Conditions, Readiness},
    route::{Standing, Table},
};

/// Answers what the table and the readiness say at the moment of the question.
#[derive(Debug, Clone)]
pub struct HealthService {
    table: Arc<Table>,
    readiness: Arc<Readiness>,
    /// Watches end with it.
    cut: CancellationToken,
}

impl HealthService {
    /// The gRPC service. Watches end when `cut` is cancelled.
    pub fn server(
        table: Arc<Table>,
        readiness: Arc<Readiness>,
        cut: CancellationToken,
    ) -> HealthServer<Self> {
        HealthServer::new(Self {
            table,
            readiness,
            cut,
        })
    }

    /// The name is empty for the whole, a service's, or a namespace's.
    fn status(&self, name: &str) -> Option<ServingStatus> {
        let serving = |yes: bool| {
            if yes {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            }
        };
        let ready = self.readiness.is_ready();
        if name.is_empty() || method::services().any(|service| service == name) {
            return Some(serving(ready));
        }
        let route = self.table.find(name)?;
        Some(serving(ready && matches!(route.standing, Standing::Served(_))))
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let status = self.status(&name).ok_or_else(|| {
            Status::not_found(format!(
                "`{name}` is neither a service nor a namespace that is configured here"
            ))
        })?;
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        let mut routes = self.table.watch();
        // The first answer is what is, not what changes.
        routes.mark_changed();
        let watcher = Watcher {
            service: self.clone(),
            name,
            last: None,
            routes,
            readiness: self.readiness.watch(),
        };
        let changes = stream::unfold(watcher, |mut watcher| async move {
            let status = watcher.next().await?;
            Some((
                Ok(HealthCheckResponse {
                    status: status.into(),
                }),
                watcher,
            ))
        });
        let cut = self.cut.clone();
        Ok(Response::new(changes.take_until(cut.cancelled_owned()).boxed()))
    }
}

struct Watcher {
    service: HealthService,
    name: String,
    last: Option<ServingStatus>,
    routes: watch::Receiver<u64>,
    readiness: watch::Receiver<Conditions>,
}

impl Watcher {
    /// The next status that differs from the last; `None` when nothing changes any more.
    async fn next(&mut self) -> Option<ServingStatus> {
        loop {
            tokio::select! {
                changed = self.routes.changed() => changed.ok()?,
                changed = self.readiness.changed() => changed.ok()?,
            }
            let status = self
                .service
                .status(&self.name)
                .unwrap_or(ServingStatus::ServiceUnknown);
            if self.last.replace(status) != Some(status) {
                return Some(status);
            }
        }
    }
}
