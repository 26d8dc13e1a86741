//! The wire as it is, for tools that show or forward it: the same connections, deadlines, retries and
//! errors as the typed interface, over the generated messages.

mod acks;
mod check;
mod progress;
mod recovery;
mod refused;
mod session;
mod subscription;
mod watch;

use std::{future::Future, sync::Arc, time::Duration};

use futures::stream;
use prism_core::{
    backoff::Policy,
    overload::Throttle,
    telemetry::{self, TraceContext},
};
use prism_proto::pattern::{
    CancelMulticastRequest, CheckSchemaRequest, EnumerateRequest, EnumerateResponse, ExplainRequest,
    ExplainResponse, GetMulticastRequest, GetRequest, GetResponse, ListDeadLettersRequest,
    ListDeadLettersResponse, MulticastRequest, MulticastResponse, RedriveDeadLettersRequest,
    RedriveDeadLettersResponse, RegisterManyResponse, RegisterRequest, RegisterResponse, RenewRequest,
    RenewResponse, UnregisterRequest, UnregisterResponse, UpdateRequest, UpdateResponse, WatchRequest,
    multicast_registry_pattern_client::MulticastRegistryPatternClient,
};
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, transport::Channel};
use tracing::Instrument;

pub use acks::{Acks, Said};
pub use check::SchemaCheck;
pub use progress::Progress;
pub(crate) use subscription::Claim;
pub use subscription::{Listen, Subscription};
pub use watch::{Watch, Watched};

use crate::{
    Error, Result,
    by_namespace::ByNamespace,
    call::{self, Plan, Repeat},
    headers::Headers,
    transport::Connections,
};

/// No call waits longer, whatever it was given: what a day does not answer is not answered.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// What a multicast's own timeout leaves for the way there and back.
const ROUND_TRIP: Duration = Duration::from_secs(1);

type Stub = MulticastRegistryPatternClient<Channel>;

/// The service's calls over the generated messages, in one namespace. Cheap to clone.
#[derive(Clone)]
pub struct Raw {
    shared: Arc<Shared>,
    /// Holds calls back while the service refuses many. Of the namespace alone: another one may be served by a runner that
    /// has nothing to do.
    throttle: Arc<Throttle>,
    headers: Headers,
    timeout: Duration,
    observer: Option<Arc<Observer>>,
}

/// What becomes of the connection of a subscription, or of a watch, that goes on by itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum Line<'a> {
    /// It was lost, and is being made again for as long as it takes.
    Lost(&'a Error),
    /// It is there again. Of a subscription `opened` says so.
    Regained,
}

type Observer = dyn Fn(Line<'_>) + Send + Sync;

/// What the clients of all namespaces share.
pub(crate) struct Shared {
    pub(crate) connections: Connections,
    pub(crate) throttles: ByNamespace<Throttle>,
    pub(crate) attempts: u32,
    pub(crate) backoff: Policy,
}

impl Raw {
    pub(crate) fn new(shared: Arc<Shared>, headers: Headers, timeout: Duration) -> Self {
        Self {
            throttle: shared.throttles.of(headers.namespace(), Throttle::default),
            shared,
            headers,
            timeout: timeout.min(LONGEST_TIMEOUT),
            observer: None,
        }
    }

    /// The same, telling what becomes of the connections of its subscriptions and watches as soon as that is known.
    #[must_use]
    pub fn observed(&self, observer: impl Fn(Line<'_>) + Send + Sync + 'static) -> Self {
        Self {
            observer: Some(Arc::new(observer)),
            ..self.clone()
        }
    }

    fn tell(&self, line: Line<'_>) {
        if let Some(observer) = &self.observer {
            observer(line);
        }
    }

    /// The namespace of the calls.
    pub fn namespace(&self) -> &str {
        self.headers.namespace()
    }

    /// The endpoints, as `http://host:port`.
    pub fn endpoints(&self) -> &[String] {
        self.shared.connections.endpoints()
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> Result<Self> {
        Ok(Self {
            headers: self.headers.in_namespace(namespace)?,
            throttle: self.shared.throttles.of(namespace, Throttle::default),
            ..self.clone()
        })
    }

    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout: timeout.min(LONGEST_TIMEOUT),
            ..self.clone()
        }
    }

    pub(crate) fn backoff(&self) -> Policy {
        self.shared.backoff
    }

    /// Adds or renews an identity. Retried when it carries a session, by which the service recognises
    /// it.
    pub async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse> {
        let repeat = if request.session.is_empty() {
            Repeat::Harmful
        } else {
            Repeat::Harmless
        };
        let plan = self.plan("Register", repeat);
        self.unary(plan, request, |mut stub, request| async move {
            stub.register(request).await
        })
        .await
    }

    /// Adds or renews many identities, at most 10,000. Retried when each of them carries a session.
    pub async fn register_many(&self, requests: Vec<RegisterRequest>) -> Result<RegisterManyResponse> {
        let repeat = if requests.iter().any(|request| request.session.is_empty()) {
            Repeat::Harmful
        } else {
            Repeat::Harmless
        };
        let plan = self.plan("RegisterMany", repeat);
        self.unary(plan, requests, |mut stub, request| async move {
            stub.register_many(request.map(stream::iter)).await
        })
        .await
    }

    /// Extends leases. Retried: a second renewal does what the first did.
    pub async fn renew(&self, request: RenewRequest) -> Result<RenewResponse> {
        let plan = self.plan("Renew", Repeat::Harmless);
        self.unary(plan, request, |mut stub, request| async move {
            stub.renew(request).await
        })
        .await
    }

    /// Changes metadata.
    pub async fn update(&self, request: UpdateRequest) -> Result<UpdateResponse> {
        let plan = self.plan("Update", Repeat::Harmful);
        self.unary(plan, request, |mut stub, request| async move {
            stub.update(request).await
        })
        .await
    }

    /// Reads one identity.
    pub async fn get(&self, request: GetRequest) -> Result<GetResponse> {
        let plan = self.plan("Get", Repeat::Harmless);
        self.unary(plan, request, |mut stub, request| async move {
            stub.get(request).await
        })
        .await
    }

    /// Lists identities.
    pub async fn enumerate(&self, request: EnumerateRequest) -> Result<EnumerateResponse> {
        let plan = self.plan("Enumerate", Repeat::Harmless);
        self.unary(plan, request, |mut stub, request| async move {
            stub.enumerate(request).await
        })
        .await
    }

    /// Explains how a filter is answered, or why an identity matches it or does not.
    pub async fn explain(&self, request: ExplainRequest) -> Result<ExplainResponse> {
        let plan = self.plan("Explain", Repeat::Harmless);
        self.unary(plan, request, |mut stub, request| async move {
            stub.explain(request).await
        })
        .await
    }

    /// Sends a message. The deadline is at least a second after the request's own `timeout_ms`, so that
    /// outcomes which are still open then come back as such. Retried when it carries an idempotency key, by which
    /// the service recognises it.
    pub async fn multicast(&self, request: MulticastRequest) -> Result<MulticastResponse> {
        let plan = self.multicast_plan("Multicast", &request);
        self.unary(plan, request, |mut stub, request| async move {
            stub.multicast(request).await
        })
        .await
    }

    /// As [`multicast`](Self::multicast), telling of each target as soon as something is known of it; returns once
    /// it has been begun. See [`Progress`].
    pub async fn multicast_stream(&self, request: MulticastRequest) -> Result<Progress> {
        Progress::open(self, request).await
    }

    /// Reads the receipts of an earlier multicast, one page.
    pub async fn get_multicast(&self, request: GetMulticastRequest) -> Result<MulticastResponse> {
        let plan = self.plan("GetMulticast", Repeat::Harmless);
        self.unary(plan, request, |mut stub, request| async move {
            stub.get_multicast(request).await
        })
        .await
    }

    /// Stops what a multicast has not handed over yet. Retried: it is stopped once.
    pub async fn cancel_multicast(&self, request: CancelMulticastRequest) -> Result<MulticastResponse> {
        let plan = self.plan("CancelMulticast", Repeat::Harmless);
        self.unary(plan, request, |mut stub, request| async move {
            stub.cancel_multicast(request).await
        })
        .await
    }

    /// Lists messages that could not be delivered, one page.
    pub async fn list_dead_letters(
        &self,
        request: ListDeadLettersRequest,
    ) -> Result<ListDeadLettersResponse> {
        let plan = self.plan("ListDeadLetters", Repeat::Harmless);
        self.unary(plan, request, |mut stub, request| async move {
            stub.list_dead_letters(request).await
        })
        .await
    }

    /// Puts dead letters back into their inboxes.
    pub async fn redrive_dead_letters(
        &self,
        request: RedriveDeadLettersRequest,
    ) -> Result<RedriveDeadLettersResponse> {
        let plan = self.plan("RedriveDeadLetters", Repeat::Harmful);
        self.unary(plan, request, |mut stub, request| async move {
            stub.redrive_dead_letters(request).await
        })
        .await
    }

    /// Removes an identity.
    pub async fn unregister(&self, request: UnregisterRequest) -> Result<UnregisterResponse> {
        let plan = self.plan("Unregister", Repeat::Harmful);
        self.unary(plan, request, |mut stub, request| async move {
            stub.unregister(request).await
        })
        .await
    }

    /// Begins to check which registrations violate a schema.
    pub async fn check_schema(&self, request: CheckSchemaRequest) -> Result<SchemaCheck> {
        SchemaCheck::open(self, &request).await
    }

    /// Opens a session; returns once it is open, with the message that says so as the first of the
    /// stream. See [`Subscription`].
    pub async fn subscribe(&self, listen: impl Into<Listen>) -> Result<Subscription> {
        Subscription::open(self.clone(), listen.into(), None).await
    }

    /// Watches a filter; returns once the service has taken it. See [`Watch`].
    pub async fn watch(&self, request: WatchRequest) -> Result<Watch> {
        Watch::open(self.clone(), request).await
    }

    /// As [`subscribe`](Self::subscribe), for a registration that somebody keeps alive.
    pub(crate) async fn subscribe_kept(&self, listen: Listen, claim: Box<dyn Claim>) -> Result<Subscription> {
        Subscription::open(self.clone(), listen, Some(claim)).await
    }

    /// Calls another service of the same server, such as `grpc.health.v1`: with the same connection,
    /// metadata, deadline and errors. Never retried.
    pub async fn call_other<Req, Res, F, Fut>(&self, message: Req, send: F) -> Result<Res>
    where
        F: FnOnce(Channel, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Res>, Status>>,
    {
        let request = self
            .headers
            .request(message, TraceContext::current_or_new(), Some(self.timeout));
        let answer = timeout(self.timeout, send(self.shared.connections.channel(), request)).await;
        let answer = answer.map_err(|_| Error::timed_out(self.timeout))?;
        answer
            .map(Response::into_inner)
            .map_err(|status| Error::from_status(&status, self.timeout))
    }

    fn plan(&self, method: &'static str, repeat: Repeat) -> Plan {
        Plan {
            method,
            timeout: self.timeout,
            repeat,
            attempts: self.shared.attempts,
            backoff: self.shared.backoff,
        }
    }

    /// How a multicast is made: with time for what it waits for, and again where the service would recognise it.
    fn multicast_plan(&self, method: &'static str, request: &MulticastRequest) -> Plan {
        let asked = request.timeout_ms.and_then(|millis| u64::try_from(millis).ok());
        let least = asked.map(|millis| Duration::from_millis(millis).saturating_add(ROUND_TRIP));
        let is_known = request.dry_run || !request.idempotency_key.is_empty();
        Plan {
            timeout: self.timeout.max(least.unwrap_or_default().min(LONGEST_TIMEOUT)),
            ..self.plan(
                method,
                if is_known {
                    Repeat::Harmless
                } else {
                    Repeat::Harmful
                },
            )
        }
    }

    async fn unary<Req, Res, F, Fut>(&self, plan: Plan, message: Req, send: F) -> Result<Res>
    where
        Req: Clone,
        F: Fn(Stub, Request<Req>) -> Fut,
        Fut: Future<Output = Result<Response<Res>, Status>>,
    {
        let (span, trace) = telemetry::call_span(plan.method);
        let call = call::run(plan, |deadline| {
            // Whoever calls on and on in an overload should pay next to nothing for what is held back: neither the request
            // nor the room for its whole way is made before.
            let sent = self.throttle.admit().map(|sent| {
                let left = deadline.saturating_duration_since(Instant::now());
                let request = self.headers.request(message.clone(), trace, Some(left));
                (sent, Box::pin(send(self.shared.connections.for_calls(), request)))
            });
            async move {
                let (sent, answer) = sent?;
                let answer = answer.await;
                if let Some(is_refused) = refused::refused(&answer) {
                    sent.answered(is_refused);
                }
                answer
                    .map(Response::into_inner)
                    .map_err(|status| Error::from_status(&status, plan.timeout))
            }
        });
        call.instrument(span).await
    }
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raw")
            .field("headers", &self.headers)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
