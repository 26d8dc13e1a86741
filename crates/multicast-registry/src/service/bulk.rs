//! `RegisterMany`: a stream of registrations with one answer.

use futures::StreamExt;
use prism_core::failure::{Failure, Reason};
use prism_proto::pattern as proto;
use tokio::time::Instant;
use tonic::Streaming;

use super::wire;
use crate::coordinator::{Coordinator, Register};

/// How many registrations a stream carries at most: its one answer has to fit a message.
const MOST: usize = 10_000;
/// How many are registered together at most. What came meanwhile waits, and so does the sender.
const TOGETHER: usize = 1_024;

/// Registers as they come.
pub(super) async fn register(
    coordinator: Coordinator,
    requests: Streaming<proto::RegisterRequest>,
    deadline: Instant,
) -> Result<proto::RegisterManyResponse, Failure> {
    let mut results = Vec::new();
    let mut parts = requests.ready_chunks(TOGETHER);
    while let Some(part) = parts.next().await {
        // A stream that broke has registered what came before, and nobody is there to be told.
        let part: Vec<_> = part.into_iter().collect::<Result<_, _>>().map_err(broken)?;
        if results.len() + part.len() > MOST {
            let message =
                format!("one stream carries at most {MOST} registrations, open another one for the rest");
            return Err(wire::invalid(Reason::InvalidRequest, "requests", message)
                .with("limit", MOST)
                .maybe_applied());
        }
        results.extend(register_part(&coordinator, part, deadline).await);
    }
    Ok(proto::RegisterManyResponse { results })
}

fn broken(status: tonic::Status) -> Failure {
    let message = format!("the stream of registrations broke: {}", status.message());
    Failure::new(Reason::InvalidRequest, message).maybe_applied()
}

async fn register_part(
    coordinator: &Coordinator,
    part: Vec<proto::RegisterRequest>,
    deadline: Instant,
) -> Vec<proto::RegisterResponse> {
    let mut asked = Vec::with_capacity(part.len());
    let mut requests: Vec<Register> = Vec::with_capacity(part.len());
    for request in part {
        let in_millis = request.ttl_ms.is_some();
        asked.push(wire::register(request).map(|request| {
            requests.push(request);
            in_millis
        }));
    }
    let mut held = coordinator.register_many(requests, deadline).await.into_iter();
    let answer = |asked: Result<bool, Failure>| match asked {
        Err(refused) => refused_one(refused),
        Ok(in_millis) => match held.next() {
            Some(Ok(held)) => wire::to_register_response(&held),
            Some(Err(error)) => refused_one(wire::register_failure(error, in_millis)),
            None => refused_one(Failure::new(Reason::Internal, "a registration has no result")),
        },
    };
    asked.into_iter().map(answer).collect()
}

fn refused_one(failure: Failure) -> proto::RegisterResponse {
    proto::RegisterResponse {
        success: false,
        reason: failure.reason.as_str().to_owned(),
        maybe_applied: failure.applied != Some(false),
        error: Some(failure.message),
        ..Default::default()
    }
}
