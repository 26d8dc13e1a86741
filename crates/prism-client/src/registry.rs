//! The calls, with types of ours.

mod delivery;

use std::{fmt, sync::Arc, time::Duration};

use futures::{Stream, TryStreamExt, stream};
use prism_proto::pattern;

use crate::{
    CheckSchemaRequest, EnumerateRequest, Error, Explanation, Filter, Found, Identity, Lease, Page,
    RegisterRequest, Registration, RegistrationHandle, Renewal, Result, SchemaCheck, SessionId,
    SubscribeRequest, Subscription, UnregisterRequest, Unregistered, UpdateRequest, Watch, WatchRequest, Why,
    raw::Raw, renewal::Keepers, wire,
};

/// The multicast registry of one namespace.
///
/// Every call ends within its timeout. A call that failed because the service was away, busy ending or
/// not there yet is tried again within it where that is safe: a read, a registration, a renewal, a multicast with an
/// idempotency key; any other call only when it is known to have changed nothing. Where a store or broker was away, the service
/// has tried again by itself, and that is told at once. Every call may be dropped at any time; a mutation
/// may then be carried out or not.
#[derive(Clone)]
pub struct Registry {
    raw: Raw,
    session: SessionId,
    keepers: Arc<Keepers>,
}

impl Registry {
    pub(crate) fn new(raw: Raw) -> Self {
        Self {
            raw,
            session: SessionId::random(),
            keepers: Arc::default(),
        }
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> Result<Self> {
        Ok(Self {
            raw: self.raw.in_namespace(namespace)?,
            ..self.clone()
        })
    }

    /// The same with another timeout for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            raw: self.raw.with_timeout(timeout),
            ..self.clone()
        }
    }

    /// The calls over the generated messages.
    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    pub(crate) fn keepers(&self) -> &Keepers {
        &self.keepers
    }

    /// Registers an identity, once. With a lease it expires unless it is renewed; see
    /// [`register_handle`](Self::register_handle) for a registration that renews itself.
    ///
    /// Registering again through the same client renews the registration, and writes the metadata if it
    /// differs.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` when somebody else holds the identity and `replace` is not set.
    pub async fn register(&self, request: RegisterRequest) -> Result<Registration> {
        let identity = request.identity.clone();
        let request = wire::register(request, self.session)?;
        wire::registration(identity, self.raw.register(request).await?)
    }

    /// Registers many identities, at most 10,000, in one call; results in the order of `requests`. One that is
    /// refused does not keep the others from being registered.
    pub async fn register_many(
        &self,
        requests: impl IntoIterator<Item = RegisterRequest>,
    ) -> Result<Vec<Result<Registration>>> {
        let (mut identities, mut messages) = (Vec::new(), Vec::new());
        for request in requests {
            identities.push(request.identity.clone());
            messages.push(wire::register(request, self.session)?);
        }
        wire::registrations(identities, self.raw.register_many(messages).await?)
    }

    /// Registers an identity and keeps it registered for as long as the handle lives.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub async fn register_handle(&self, request: RegisterRequest) -> Result<RegistrationHandle> {
        RegistrationHandle::register(self.clone(), request).await
    }

    /// Renews leases, in one call; results in the order of `leases`. Never creates a registration.
    pub async fn renew<L: Into<Lease>>(&self, leases: impl IntoIterator<Item = L>) -> Result<Vec<Renewal>> {
        let leases: Vec<_> = leases
            .into_iter()
            .map(|lease| wire::lease(lease.into()))
            .collect();
        let identities = leases.iter().map(|lease| lease.identity.clone()).collect();
        let answer = self.raw.renew(pattern::RenewRequest { leases }).await?;
        wire::renewals(identities, answer)
    }

    /// Changes metadata by a merge patch; returns the identity as it is then.
    ///
    /// # Errors
    /// `NOT_FOUND`; `STALE_GENERATION` or `CONFLICT` when a condition of the request does not hold.
    pub async fn update(&self, request: UpdateRequest) -> Result<Found> {
        wire::updated(self.raw.update(wire::update(request)?).await?)
    }

    /// Reads one identity from the registry itself.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn get(&self, identity: impl Into<String>) -> Result<Found> {
        let identity = identity.into();
        wire::found(self.raw.get(pattern::GetRequest { identity }).await?)
    }

    /// Lists the identities that match, one page.
    ///
    /// # Errors
    /// `INVALID_FILTER` naming the clause; `INVALID_CURSOR`; `COMPACTED` for a cursor that is too old.
    pub async fn enumerate(&self, request: EnumerateRequest) -> Result<Page> {
        wire::page(self.raw.enumerate(wire::enumerate(request)?).await?)
    }

    /// Lists the identities that match, all pages as one stream. The next page is asked for when the one
    /// before has been read. After an error the stream ends.
    pub fn enumerate_all(
        &self,
        request: EnumerateRequest,
    ) -> impl Stream<Item = Result<Identity>> + Send + use<> {
        let registry = self.clone();
        let pages = stream::try_unfold(Some(request), move |next| {
            let registry = registry.clone();
            async move {
                let Some(mut request) = next else {
                    return Ok::<_, Error>(None);
                };
                let page = registry.enumerate(request.clone()).await?;
                // An offset counts from the beginning, and the cursor is past it.
                request.offset = 0;
                request.cursor = page.next_cursor;
                let next = request.cursor.is_some().then_some(request);
                Ok(Some((stream::iter(page.identities.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten()
    }

    /// Answers a filter, or with `None` one that matches everything, and says how that is done: through
    /// which indexes, and how many registrations have to be asked. As expensive as an enumeration.
    ///
    /// # Errors
    /// `INVALID_FILTER` naming the clause.
    pub async fn explain(&self, filter: Option<&Filter>) -> Result<Explanation> {
        let request = pattern::ExplainRequest {
            filter: filter.map(wire::filter).transpose()?,
            identity: None,
        };
        wire::explanation(self.raw.explain(request).await?)
    }

    /// Says of every part of a filter whether it holds for one identity.
    ///
    /// # Errors
    /// `NOT_FOUND` when it is not registered; `INVALID_FILTER` naming the clause.
    pub async fn explain_why(&self, identity: impl Into<String>, filter: Option<&Filter>) -> Result<Why> {
        let request = pattern::ExplainRequest {
            filter: filter.map(wire::filter).transpose()?,
            identity: Some(identity.into()),
        };
        wire::why(self.raw.explain(request).await?)
    }

    /// Removes an identity. Succeeds when it is absent.
    ///
    /// # Errors
    /// `STALE_GENERATION` when the request names another registration than the one that is there.
    pub async fn unregister(&self, request: impl Into<UnregisterRequest>) -> Result<Unregistered> {
        let request = request.into();
        let request = pattern::UnregisterRequest {
            identity: request.identity,
            generation: request.generation.map(wire::position),
        };
        wire::unregistered(self.raw.unregister(request).await?)
    }

    /// Checks which registrations violate the namespace's schema, or one that is to come. Returns once the check
    /// has begun; each of its messages has the timeout of a call.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a schema that makes no sense; `UNSUPPORTED` where there is none to check by.
    pub async fn check_schema(&self, request: CheckSchemaRequest) -> Result<SchemaCheck> {
        let check = self.raw.check_schema(wire::check_schema(request)?).await?;
        Ok(SchemaCheck::new(check))
    }

    /// Listens for the messages of an identity; returns once a multicast to it reaches this session.
    ///
    /// # Errors
    /// `NOT_FOUND` when it is not registered.
    pub async fn subscribe(&self, request: impl Into<SubscribeRequest>) -> Result<Subscription> {
        let listen = wire::listen(request.into());
        Ok(Subscription::new(self.raw.subscribe(listen).await?))
    }

    /// Watches the identities that match: those that do now, and then each change to that.
    ///
    /// # Errors
    /// `INVALID_FILTER`; `COMPACTED` or `EPOCH_CHANGED` when the request resumes from where the service
    /// cannot go on.
    pub async fn watch(&self, request: WatchRequest) -> Result<Watch> {
        Ok(Watch::new(self.raw.watch(wire::watch(request)?).await?))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("raw", &self.raw)
            .finish_non_exhaustive()
    }
}
