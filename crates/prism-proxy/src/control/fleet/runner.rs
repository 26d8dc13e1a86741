//! What is known about one runner.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use prism_core::{
    caller::Proof,
    id::{CorrelationIds, InstanceId, SessionToken},
    lifecycle::{HealthStatus, Mark, Peer, Stage},
};
use tokio::time::Instant;

use super::{RunnerId, SessionId};
use crate::{
    control::{endpoint, wire::Registration},
    route::Target,
};

#[derive(Debug)]
pub(super) struct Runner {
    pub(super) id: RunnerId,
    pub(super) instance: InstanceId,
    pub(super) token: SessionToken,
    pub(super) pattern: String,
    pub(super) version: String,
    pub(super) process_id: i32,
    pub(super) extended: bool,
    many: bool,
    idempotent: Arc<HashSet<String>>,
    pub(super) peer_address: Option<SocketAddr>,
    /// Its stream, while it has one.
    pub(super) session: Option<SessionId>,
    /// What it should do and does.
    pub(super) peer: Peer,
    /// The one namespace of a runner that takes no more.
    pub(super) only: Option<String>,
    /// Where to send calls.
    pub(super) endpoint: Option<String>,
    pub(super) endpoint_error: Option<String>,
    pub(super) health: HealthStatus,
    pub(super) health_message: String,
    pub(super) health_details: BTreeMap<String, String>,
    unhealthy_since: Option<Instant>,
    pub(super) last_heartbeat: Option<SystemTime>,
    /// Health checks in a row without an answer.
    pub(super) silences: u32,
    /// Since when it has no stream.
    pub(super) lost_at: Option<Instant>,
    /// It said that it is about to end, and keeps its routes until then or until another took over.
    pub(super) leaving_until: Option<Instant>,
    /// What it is called at every proxy; absent where it serves only this one.
    pub(super) everywhere: Option<String>,
    /// It has no data, and another one may: it came back from the proxy before this, or serves another one, too.
    pub(super) may_lack_data: bool,
}

impl Runner {
    pub(super) fn new(
        id: RunnerId,
        session: SessionId,
        registration: Registration,
        peer_address: Option<SocketAddr>,
    ) -> Self {
        let mut runner = Self {
            id,
            instance: InstanceId::generate(&registration.pattern, registration.process_id),
            token: SessionToken::generate(),
            pattern: String::new(),
            version: String::new(),
            process_id: 0,
            extended: registration.extended,
            many: false,
            idempotent: Arc::default(),
            peer_address: None,
            session: None,
            peer: Peer::new(registration.extended, CorrelationIds::new()),
            only: None,
            endpoint: None,
            endpoint_error: None,
            health: HealthStatus::Healthy,
            health_message: String::new(),
            health_details: BTreeMap::new(),
            unhealthy_since: None,
            last_heartbeat: None,
            silences: 0,
            lost_at: None,
            leaving_until: None,
            may_lack_data: (registration.token.is_some() || registration.everywhere.is_some())
                && registration.reports.iter().all(|report| report.applied.is_none()),
            everywhere: registration.everywhere.clone(),
        };
        runner.rejoin(session, registration, peer_address);
        runner
    }

    /// Takes over what it says when it registers, for the first time or again.
    pub(super) fn rejoin(
        &mut self,
        session: SessionId,
        registration: Registration,
        peer_address: Option<SocketAddr>,
    ) {
        self.session = Some(session);
        self.pattern = registration.pattern;
        self.version = registration.version;
        self.process_id = registration.process_id;
        self.many = registration.many;
        self.idempotent = registration.idempotent;
        self.peer_address = peer_address;
        self.silences = 0;
        self.lost_at = None;
        if let [report] = registration.reports.as_slice()
            && !self.many
        {
            self.only.get_or_insert_with(|| report.namespace.clone());
        }
        self.peer.registered(registration.reports);
    }

    /// Whether it cannot be started or reached.
    pub(super) fn is_unusable(&self) -> bool {
        self.peer.start_error().is_some() || self.endpoint_error.is_some()
    }

    /// Whether it is about to end.
    pub(super) fn leaves(&self) -> bool {
        self.leaving_until.is_some() || self.peer.stage() >= Stage::Leaving
    }

    /// Whether it could be given this namespace.
    pub(super) fn takes(&self, namespace: &str) -> bool {
        self.many || self.only.as_deref().is_none_or(|only| only == namespace)
    }

    /// Notes that it was given a namespace: one that takes only one takes no other from now on.
    pub(super) fn dedicate(&mut self, namespace: &str) {
        if !self.many {
            self.only = Some(namespace.to_owned());
        }
    }

    /// Whether commands can be sent to it, and are obeyed.
    pub(super) fn is_commandable(&self) -> bool {
        self.session.is_some() && !self.leaves()
    }

    /// Whether it is worth asking to serve this.
    pub(super) fn may_serve(&self, namespace: &str, mark: &Mark) -> bool {
        let Some(space) = self.peer.space(namespace) else {
            return true;
        };
        space.is_applied() || !space.standing().has_refused(mark)
    }

    pub(super) fn has_applied(&self, namespace: &str) -> bool {
        self.peer.space(namespace).is_some_and(|space| space.is_applied())
    }

    pub(super) fn runs(&self, namespace: &str, mark: &Mark) -> bool {
        self.peer
            .space(namespace)
            .is_some_and(|space| space.standing().runs(mark))
    }

    /// Whether calls for the namespace can be sent there.
    pub(super) fn serves(&self, namespace: &str) -> bool {
        self.endpoint.is_some() && self.peer.serves(namespace)
    }

    pub(super) fn target(&self) -> Option<Target> {
        Some(Target {
            instance_id: self.instance.clone(),
            endpoint: self.endpoint.clone()?,
            idempotent: self.idempotent.clone(),
            proof: self.extended.then(|| Proof::of(&self.token)),
        })
    }

    pub(super) fn beat(&mut self) {
        self.last_heartbeat = Some(SystemTime::now());
    }

    /// Returns whether that is news.
    pub(super) fn note_health(
        &mut self,
        now: Instant,
        status: HealthStatus,
        message: Option<String>,
    ) -> bool {
        if let Some(message) = message {
            self.health_message = message;
        }
        if status == HealthStatus::Unhealthy {
            self.unhealthy_since.get_or_insert(now);
        } else {
            self.unhealthy_since = None;
        }
        std::mem::replace(&mut self.health, status) != status
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.health != HealthStatus::Unhealthy
    }

    pub(super) fn unhealthy_since(&self) -> Option<Instant> {
        self.unhealthy_since
    }

    /// Works out where to reach it from what it answered to `start`.
    pub(super) fn resolve_endpoint(&mut self) {
        let said = self.peer.endpoint().unwrap_or_default();
        match endpoint::resolve(said, endpoint::host(self.peer_address)) {
            Ok(endpoint) => {
                tracing::info!(instance = %self.instance, endpoint, "started");
                self.endpoint = Some(endpoint);
                self.endpoint_error = None;
            }
            Err(error) => {
                tracing::error!(instance = %self.instance, %error, "cannot be reached");
                self.endpoint = None;
                self.endpoint_error = Some(error.to_string());
            }
        }
    }
}
