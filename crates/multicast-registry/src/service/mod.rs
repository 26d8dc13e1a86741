//! The data service: `prism.pattern.MulticastRegistryPattern` over the coordinators.

mod bulk;
mod call;
mod check_schema;
mod dead;
mod explain;
mod failure;
mod multicast;
mod page;
mod shaped;
mod subscribe;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use prism_core::overload::Gate;
use prism_core::{failure::Failure, telemetry::TraceContext};
use prism_proto::pattern::{
    self as proto,
    multicast_registry_pattern_server::{MulticastRegistryPattern, MulticastRegistryPatternServer},
};
use prism_slot::Error as SlotError;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    coordinator::{Coordinator, Error, Multicast},
    limits::{Caller, Kind},
    namespaces::Namespaces,
};
use call::Incoming;
use check_schema::Checking;
use multicast::Sending;
use page::Shown;
pub use shaped::Shaped;
use subscribe::Subscription;
use watch::Watching;

/// The largest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;

/// The data service. Clones share the namespaces.
#[derive(Clone)]
pub struct Service {
    namespaces: Namespaces,
    gate: Gate,
    /// Mutations run here, so that they are done even when their caller goes away.
    mutations: TaskTracker,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// A service over these namespaces.
    pub fn new(namespaces: Namespaces) -> Self {
        Self {
            namespaces,
            gate: Gate::default(),
            mutations: TaskTracker::new(),
        }
    }

    /// Takes only the calls that the gate lets in.
    #[must_use]
    pub fn behind(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// What is under way and must be waited for.
    pub fn mutations(&self) -> &TaskTracker {
        &self.mutations
    }

    /// As a service of a data endpoint.
    pub fn into_server(self) -> Shaped<MulticastRegistryPatternServer<Self>> {
        let server = MulticastRegistryPatternServer::new(self);
        Shaped(server.max_decoding_message_size(MAX_REQUEST_BYTES))
    }

    fn incoming<T>(&self, kind: Kind, request: Request<T>) -> Result<Incoming<T>, Failure> {
        Incoming::new(&self.namespaces, &self.gate, kind, request)
    }
}

#[tonic::async_trait]
impl MulticastRegistryPattern for Service {
    async fn register(&self, request: Request<proto::RegisterRequest>) -> Answer<proto::RegisterResponse> {
        let call = self.incoming(Kind::Write, request)?;
        call.mutate(&self.mutations, async |coordinator, request, deadline| {
            let in_millis = request.ttl_ms.is_some();
            let held = coordinator.register(wire::register(request)?, deadline).await;
            let held = held.map_err(|error| wire::register_failure(error, in_millis))?;
            Ok(wire::to_register_response(&held))
        })
        .await
    }

    async fn register_many(
        &self,
        request: Request<Streaming<proto::RegisterRequest>>,
    ) -> Answer<proto::RegisterManyResponse> {
        let call = self.incoming(Kind::Write, request)?;
        let caller = call.caller();
        call.mutate(&self.mutations, |coordinator, requests, deadline| {
            bulk::register(coordinator, caller, requests, deadline)
        })
        .await
    }

    async fn renew(&self, request: Request<proto::RenewRequest>) -> Answer<proto::RenewResponse> {
        let call = self.incoming(Kind::Write, request)?;
        call.mutate(&self.mutations, async |coordinator, request, deadline| {
            let batch = wire::renew(request)?;
            let results = coordinator.renew(batch.clone(), deadline).await?;
            let results = batch.iter().zip(results);
            let results = results.map(|(lease, result)| wire::to_renew_result(&lease.identity, result));
            Ok(proto::RenewResponse {
                results: results.collect(),
            })
        })
        .await
    }

    async fn update(&self, request: Request<proto::UpdateRequest>) -> Answer<proto::UpdateResponse> {
        let call = self.incoming(Kind::Write, request)?;
        call.mutate(&self.mutations, async |coordinator, request, deadline| {
            let updated = coordinator.update(wire::update(request)?, deadline).await?;
            let metadata = coordinator.stored_document(&updated.record)?;
            Ok(wire::to_update_response(&updated, &metadata))
        })
        .await
    }

    async fn get(&self, request: Request<proto::GetRequest>) -> Answer<proto::GetResponse> {
        let call = self.incoming(Kind::Read, request)?;
        call.read(async |coordinator, request, deadline| {
            let identity = wire::identity(&request.identity)?;
            let read = coordinator.get(identity.clone(), deadline).await?;
            let absent = || Error::from(SlotError::NotFound(identity));
            let record = read.record.ok_or_else(absent)?;
            let metadata = coordinator.stored_document(&record)?;
            Ok(wire::to_get_response(&record, &metadata, read.head))
        })
        .await
    }

    async fn enumerate(&self, request: Request<proto::EnumerateRequest>) -> Answer<proto::EnumerateResponse> {
        let call = self.incoming(Kind::Read, request)?;
        call.read(async |coordinator, request, deadline| {
            let shown = Shown::read(&request)?;
            let limits = coordinator.config().limits();
            let page = coordinator
                .enumerate(wire::enumerate(&limits, request)?, deadline)
                .await?;
            Ok(page::to_enumerate_response(page, &shown))
        })
        .await
    }

    async fn multicast(&self, request: Request<proto::MulticastRequest>) -> Answer<proto::MulticastResponse> {
        let call = self.incoming(Kind::Multicast, request)?;
        let caller = call.caller();
        call.mutate(&self.mutations, async |coordinator, request, deadline| {
            let dry_run = request.dry_run;
            let multicast = read_multicast(&coordinator, request, caller)?;
            if dry_run {
                let report = coordinator.dry_run(multicast, deadline).await?;
                return Ok(multicast::to_dry_response(report));
            }
            let report = coordinator.multicast(multicast, deadline).await?;
            Ok(multicast::to_response(report))
        })
        .await
    }

    type MulticastStreamStream = Sending;

    async fn multicast_stream(
        &self,
        request: Request<proto::MulticastRequest>,
    ) -> Answer<Self::MulticastStreamStream> {
        let call = self.incoming(Kind::Multicast, request)?;
        let caller = call.caller();
        call.mutate(&self.mutations, async |coordinator, request, deadline| {
            let dry_run = request.dry_run;
            let multicast = read_multicast(&coordinator, request, caller)?;
            if dry_run {
                let report = coordinator.dry_run(multicast, deadline).await?;
                return Ok(multicast::dry_stream(report));
            }
            multicast::stream(coordinator, multicast, deadline).await
        })
        .await
    }

    async fn get_multicast(
        &self,
        request: Request<proto::GetMulticastRequest>,
    ) -> Answer<proto::MulticastResponse> {
        let call = self.incoming(Kind::Read, request)?;
        call.read(async |coordinator, request, deadline| {
            let (id, pages) = (multicast::id(&request.multicast_id)?, multicast::pages(&request)?);
            let offset = pages.offset;
            let report = coordinator.get_multicast(id, pages, deadline).await?;
            Ok(multicast::to_page(report, offset))
        })
        .await
    }

    async fn cancel_multicast(
        &self,
        request: Request<proto::CancelMulticastRequest>,
    ) -> Answer<proto::MulticastResponse> {
        let call = self.incoming(Kind::Multicast, request)?;
        call.mutate(&self.mutations, async |coordinator, request, deadline| {
            let id = multicast::id(&request.multicast_id)?;
            let report = coordinator.cancel_multicast(id, deadline).await?;
            Ok(multicast::to_page(report, 0))
        })
        .await
    }

    async fn unregister(
        &self,
        request: Request<proto::UnregisterRequest>,
    ) -> Answer<proto::UnregisterResponse> {
        let call = self.incoming(Kind::Write, request)?;
        call.mutate(&self.mutations, async |coordinator, request, deadline| {
            let generation = wire::position("generation", request.generation)?;
            let removed = coordinator
                .unregister(request.identity.as_str(), generation, deadline)
                .await?;
            Ok(wire::to_unregister_response(removed))
        })
        .await
    }

    type SubscribeStream = Subscription;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::SubscribeRequest>>,
    ) -> Answer<Self::SubscribeStream> {
        let call = self.incoming(Kind::Write, request)?;
        call.read(async |coordinator, requests, deadline| {
            subscribe::open(coordinator, requests, deadline).await
        })
        .await
    }

    type WatchStream = Watching;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Answer<Self::WatchStream> {
        let call = self.incoming(Kind::Read, request)?;
        call.read(async |coordinator, request, deadline| watch::open(coordinator, request, deadline).await)
            .await
    }

    async fn explain(&self, request: Request<proto::ExplainRequest>) -> Answer<proto::ExplainResponse> {
        let call = self.incoming(Kind::Read, request)?;
        call.read(async |coordinator, request, deadline| {
            let filter = wire::filter(&coordinator.config().limits(), request.filter)?;
            let Some(identity) = request.identity else {
                let explanation = coordinator.explain(filter.as_ref(), deadline).await?;
                return Ok(explain::to_plan_response(explanation));
            };
            let identity = wire::identity(&identity)?;
            let why = coordinator
                .explain_why(identity, filter.as_ref(), deadline)
                .await?;
            Ok(explain::to_why_response(why))
        })
        .await
    }

    type CheckSchemaStream = Checking;

    async fn check_schema(
        &self,
        request: Request<proto::CheckSchemaRequest>,
    ) -> Answer<Self::CheckSchemaStream> {
        let call = self.incoming(Kind::Read, request)?;
        call.read(check_schema::open).await
    }

    async fn list_dead_letters(
        &self,
        request: Request<proto::ListDeadLettersRequest>,
    ) -> Answer<proto::ListDeadLettersResponse> {
        let call = self.incoming(Kind::Read, request)?;
        call.read(async |coordinator, request, deadline| {
            let page = coordinator.dead_letters(dead::query(request)?, deadline).await?;
            Ok(dead::to_list_response(page))
        })
        .await
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<proto::RedriveDeadLettersRequest>,
    ) -> Answer<proto::RedriveDeadLettersResponse> {
        let call = self.incoming(Kind::Write, request)?;
        call.mutate(&self.mutations, async |coordinator, request, deadline| {
            let report = coordinator.redrive(dead::redrive(request)?, deadline).await?;
            Ok(dead::to_redrive_response(report))
        })
        .await
    }
}

fn read_multicast(
    coordinator: &Coordinator,
    request: proto::MulticastRequest,
    caller: Option<Caller>,
) -> Result<Multicast, Failure> {
    let mut multicast = multicast::read(&coordinator.config().limits(), request)?;
    multicast.caller = caller;
    multicast
        .headers
        .extend(TraceContext::current().map(|context| context.to_pair()));
    Ok(multicast)
}
