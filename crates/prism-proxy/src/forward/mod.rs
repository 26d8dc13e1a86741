//! The way of one call through the proxy.

mod account;
mod call;
mod deadline;
mod framing;
mod headers;
pub mod lane;
mod local;
pub mod method;
mod relay;
mod retry;
mod upload;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::{Request, Response};
use prism_core::{
    failure::{Failure, Reason},
    overload::Gate,
    telemetry,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use deadline::Bounds;
pub use headers::NAMESPACE;
pub use local::Local;
pub use relay::{Answer, Relay};

use crate::route::Table;
use account::{Account, Admission};
use call::Call;
use method::Shape;

/// What bounds calls. Takes effect with the next call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many calls may be under way, streams not counted.
    pub calls: usize,
    /// How many streams may be open.
    pub streams: usize,
    /// How many bytes the headers of a request may have, as HTTP/2 counts them.
    pub headers: usize,
    /// How many bytes a request message may have.
    pub message: usize,
    /// How much of a request is kept to be sent again; a longer one has no second attempt.
    pub replay: usize,
    /// How long calls may take.
    pub bounds: Bounds,
    /// How long a call waits while the runners of its namespace change over.
    pub hold: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 10_000,
            streams: 50_000,
            headers: 32 << 10,
            message: 4 << 20,
            replay: 64 << 10,
            bounds: Bounds::default(),
            hold: Duration::from_secs(5),
        }
    }
}

/// The data path.
#[derive(Debug)]
pub struct Forward {
    table: Arc<Table>,
    limits: ArcSwap<Limits>,
    calls: Arc<Admission>,
    streams: Arc<Admission>,
    /// Of the proxy's own health.
    checks: Arc<Admission>,
    gate: Gate,
    budget: retry::Budget,
    /// Cancelled when streams must come to an end.
    cut: CancellationToken,
}

impl Forward {
    /// Forwards what the table has a route for.
    pub fn new(table: Arc<Table>, limits: Limits) -> Self {
        Self {
            table,
            limits: ArcSwap::from_pointee(limits),
            calls: Arc::default(),
            streams: Arc::default(),
            checks: Arc::default(),
            gate: Gate::default(),
            budget: retry::Budget::default(),
            cut: CancellationToken::new(),
        }
    }

    /// New limits, from the next call on.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Refuses calls of which there are more than this process can forward.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// How many calls are under way, streams counted.
    pub fn under_way(&self) -> usize {
        let all = [&self.calls, &self.streams, &self.checks];
        all.map(|places| places.under_way()).into_iter().sum()
    }

    /// Ends all streams, now and from now on, with `DRAINING`, and whatever the proxy itself is yet to be
    /// asked. Unary calls go on.
    pub fn cut_streams(&self) {
        self.cut.cancel();
    }

    /// Ends with [`Self::cut_streams`].
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Answers one request. Dropping the future gives the call up, at the runner as well.
    pub async fn call<B>(&self, request: Request<B>) -> Response<Answer>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    {
        if let Err(not) = headers::check_grpc(&request) {
            let answer = Answer::Whole(Some(bytes::Bytes::from_static(not.message.as_bytes())));
            let mut response = Response::new(answer);
            *response.status_mut() = not.status;
            return response;
        }
        let (span, context) = telemetry::request_span(request.uri().path(), request.headers());
        let mut request = request;
        if telemetry::TraceContext::extract(request.headers()) != Some(context) {
            context.inject(request.headers_mut());
        }
        // Boxed once here: the future is large, and would be moved whole with every layer around it.
        Box::pin(self.forward(request).instrument(span)).await
    }

    async fn forward<B>(&self, request: Request<B>) -> Response<Answer>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    {
        let began = Instant::now();
        let method = method::find(request.uri().path());
        let limits = self.limits.load_full();
        self.budget.deposit();
        let named = headers::namespace(request.headers());
        let route = named
            .as_ref()
            .ok()
            .and_then(|namespace| self.table.find(namespace));
        let series = route
            .as_ref()
            .map_or_else(|| self.table.nowhere(), |route| &route.series)
            .clone();
        let (admission, limit) = match method.shape() {
            Shape::Streaming => (&self.streams, limits.streams),
            Shape::Unary | Shape::Unknown => (&self.calls, limits.calls),
        };
        let place = admission.enter(limit);
        let overloaded = place.is_none();
        let mut account = Account::open(series, method, began, place);

        let checked = if overloaded {
            Err(too_many(method.shape(), limit))
        } else if method::is_internal(request.uri().path()) {
            Err(not_for_clients(request.uri().path()))
        } else {
            headers::check_size(request.headers(), limits.headers)
                .and(named)
                .and_then(|namespace| route.ok_or_else(|| unknown(namespace)))
        };
        // Until it is answered, or a stream is open.
        let admitted = checked.and_then(|route| {
            let admitted = self.gate.admit().inspect_err(|_| account.shed())?;
            Ok((route, admitted))
        });
        let deadline = deadline::Deadline::of(request.headers(), method.shape(), limits.bounds, began);
        match admitted.and_then(|(route, admitted)| Ok((route, admitted, deadline?))) {
            Ok((route, _admitted, deadline)) => {
                let mut call = Call::new(self, route.standing, method, deadline, limits, account, request);
                let outcome = call.run().await;
                call.answer(outcome)
            }
            Err(failure) => {
                account.answered(failure.reason.code());
                tracing::debug!(reason = failure.reason.as_str(), "refused: {}", failure.message);
                Answer::refused(failure)
            }
        }
    }
}

fn unknown(namespace: &str) -> Failure {
    let message = format!("the namespace `{namespace}` is not configured here");
    Failure::new(Reason::UnknownNamespace, message)
        .with("namespace", namespace)
        .not_applied()
}

fn not_for_clients(path: &str) -> Failure {
    let message = format!("`{path}` is spoken between proxies and runners, not with clients");
    Failure::new(Reason::NotImplemented, message).not_applied()
}

fn too_many(shape: Shape, limit: usize) -> Failure {
    let streams = matches!(shape, Shape::Streaming);
    let what = if streams {
        "streams are open"
    } else {
        "calls are under way"
    };
    let failure = Failure::new(Reason::Overloaded, format!("`{limit}` {what}, try again later"))
        .with("limit", limit)
        .retry_after(Duration::from_millis(200))
        .not_applied();
    // Where only streams are too many, calls are taken as ever.
    if streams { failure } else { failure.hold_back() }
}
