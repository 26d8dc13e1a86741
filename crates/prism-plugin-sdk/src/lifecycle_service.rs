//! The lifecycle as unary calls on the data endpoint, for proxies of the older style, which dial the
//! plugin. The same state machine answers.

use std::{net::IpAddr, sync::Arc};

use prism_core::lifecycle::{Answer, Command, wire};
use prism_proto::interfaces::{
    DrainRequest, DrainResponse, HealthCheckRequest, HealthCheckResponse, InitializeRequest,
    InitializeResponse, PatternMetadata, StartRequest, StartResponse, StopRequest, StopResponse,
    lifecycle_interface_server::LifecycleInterface,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, transport::server::TcpConnectInfo};

use crate::{
    engine::{Input, Reply, localized},
    server::DataServer,
};

pub(crate) struct LifecycleService {
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) metadata: Arc<PatternMetadata>,
    pub(crate) server: DataServer,
}

impl LifecycleService {
    /// Every command is answered within limits that the engine keeps.
    async fn ask(&self, command: Command) -> Result<Answer, Status> {
        ask(&self.inputs, command)
            .await
            .ok_or_else(|| Status::unavailable("this process is about to end, use another instance"))
    }
}

/// Asks the engine from within this process. `None` when it ended.
pub(crate) async fn ask(inputs: &mpsc::Sender<Input>, command: Command) -> Option<Answer> {
    let (sender, answer) = oneshot::channel();
    let from = Reply::Call(sender);
    inputs.send(Input::Command { from, command }).await.ok()?;
    answer.await.ok()
}

/// The machine answers each command in the words that belong to it.
fn mismatch() -> Status {
    Status::internal("the command was answered with something else")
}

#[tonic::async_trait]
impl LifecycleInterface for LifecycleService {
    async fn initialize(
        &self,
        request: Request<InitializeRequest>,
    ) -> Result<Response<InitializeResponse>, Status> {
        self.server.steered();
        match self.ask(wire::initialize(request.into_inner())).await? {
            Answer::Initialized(outcome) => {
                Ok(Response::new(wire::initialize_response(outcome, &self.metadata)))
            }
            _ => Err(mismatch()),
        }
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartResponse>, Status> {
        let host = local_address(&request).unwrap_or_else(|| self.server.address().ip());
        match localized(self.ask(Command::Start).await?, host) {
            Answer::Started(outcome) => Ok(Response::new(wire::start_response(outcome))),
            _ => Err(mismatch()),
        }
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        self.server.steered();
        match self.ask(wire::drain(request.into_inner())).await? {
            Answer::Drained { counts, error } => Ok(Response::new(wire::drain_response(counts, error))),
            _ => Err(mismatch()),
        }
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        self.server.steered();
        match self.ask(wire::stop(request.into_inner())).await? {
            Answer::Stopped(outcome) => Ok(Response::new(wire::stop_response(outcome))),
            _ => Err(mismatch()),
        }
    }

    async fn health_check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.ask(Command::HealthCheck).await? {
            Answer::Health(health) => Ok(Response::new(wire::health_response(health))),
            _ => Err(mismatch()),
        }
    }
}

fn local_address<T>(request: &Request<T>) -> Option<IpAddr> {
    let info = request.extensions().get::<TcpConnectInfo>()?;
    info.local_addr.map(|address| address.ip())
}
