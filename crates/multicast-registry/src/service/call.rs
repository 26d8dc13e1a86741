//! What every call has: a namespace, a deadline, and an outcome that is logged where it is our fault.

use std::time::Duration;

use prism_core::{
    failure::{Failure, Reason},
    overload::{Admitted, Gate},
};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};
use tracing::Instrument;

use crate::{
    config::MAX_CALL_TIMEOUT,
    coordinator::Coordinator,
    limits::{Caller, Kind},
    namespaces::Namespaces,
};

/// The request metadata that names the namespace, and its alias.
const NAMESPACE: [&str; 2] = ["x-prism-namespace", "x-namespace"];
/// How much of a call's time is kept for the answer to travel back, at most a tenth: a caller that is
/// told why learns more than one whose own timer fires.
const RESERVE: Duration = Duration::from_millis(20);

/// A call on its way in.
pub(super) struct Incoming<T> {
    coordinator: Coordinator,
    message: T,
    deadline: Instant,
    caller: Option<Caller>,
    /// Until it is answered, or a stream is open.
    _admitted: Admitted,
}

impl<T> Incoming<T> {
    pub(super) fn new(
        namespaces: &Namespaces,
        gate: &Gate,
        kind: Kind,
        request: Request<T>,
    ) -> Result<Self, Failure> {
        let named = NAMESPACE.iter().find_map(|key| request.metadata().get(*key));
        let name = named.map(|value| value.to_str()).transpose().map_err(|_| {
            Failure::new(Reason::InvalidRequest, "the namespace is not text")
                .field(NAMESPACE[0])
                .not_applied()
        })?;
        let coordinator = namespaces.of_call(name)?;
        let admitted = gate.admit().inspect_err(|_| coordinator.metrics().overloaded())?;
        let caller = coordinator.admit(kind, || Caller::of(request.metadata(), request.remote_addr()))?;
        let timeout = grpc_timeout(request.metadata());
        let timeout = timeout
            .unwrap_or(coordinator.config().behavior.call_timeout)
            .min(MAX_CALL_TIMEOUT);
        let deadline = Instant::now() + timeout - RESERVE.min(timeout / 10);
        Ok(Self {
            coordinator,
            message: request.into_inner(),
            deadline,
            caller,
            _admitted: admitted,
        })
    }

    /// Whose call it is, where calls are limited.
    pub(super) fn caller(&self) -> Option<Caller> {
        self.caller.clone()
    }

    /// Answers a call that changes nothing; it ends when its caller goes away.
    pub(super) async fn read<R>(
        self,
        work: impl AsyncFnOnce(Coordinator, T, Instant) -> Result<R, Failure>,
    ) -> Result<Response<R>, Status> {
        let deadline = self.deadline;
        let work = work(self.coordinator, self.message, deadline);
        match timeout_at(deadline, work).await {
            Ok(outcome) => answer(outcome),
            Err(_) => answer(Err(deadline_exceeded().not_applied())),
        }
    }

    /// Answers a call that changes something; that is done even when its caller goes away.
    pub(super) async fn mutate<R, F>(
        self,
        tasks: &TaskTracker,
        work: impl FnOnce(Coordinator, T, Instant) -> F + Send + 'static,
    ) -> Result<Response<R>, Status>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        let deadline = self.deadline;
        let work = work(self.coordinator, self.message, deadline);
        let task = tasks.spawn(work.instrument(tracing::Span::current()));
        match timeout_at(deadline, task).await {
            Ok(Ok(outcome)) => answer(outcome),
            Ok(Err(panic)) => answer(Err(
                Failure::new(Reason::Internal, panic.to_string()).maybe_applied()
            )),
            Err(_) => answer(Err(deadline_exceeded().maybe_applied())),
        }
    }
}

fn deadline_exceeded() -> Failure {
    Failure::new(
        Reason::DeadlineExceeded,
        "the deadline passed before the call was done",
    )
}

fn answer<R>(outcome: Result<R, Failure>) -> Result<Response<R>, Status> {
    outcome.map(Response::new).map_err(|failure| {
        match failure.reason.code() {
            Code::Internal | Code::DataLoss => tracing::error!(%failure, "a call failed"),
            Code::Unavailable | Code::DeadlineExceeded => {
                tracing::error!(%failure, "a call could not be served")
            }
            _ => tracing::debug!(%failure, "a call was refused"),
        }
        failure.into()
    })
}

/// The time that the caller gives the call: digits and a unit, as gRPC defines it.
fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the endpoint would break calls off with a status that says nothing.
    #[test]
    fn calls_end_before_the_endpoint_ends_them() {
        let endpoint = prism_plugin_sdk::Limits::default().call_within;
        assert!(MAX_CALL_TIMEOUT + Duration::from_secs(10) < endpoint);
    }

    #[test]
    fn timeouts_are_read_as_grpc_defines_them() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            grpc_timeout(&metadata)
        };
        assert_eq!(read("5S"), Some(Duration::from_secs(5)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for nonsense in ["", "5", "S", "5s", "-1S", "123456789S", "1.5S"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }
}
