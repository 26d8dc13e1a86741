//! `RegisterMany`: a stream of registrations with one answer.
//!
//! Each of them is a write of its caller. Where those are limited the stream is read as fast as the caller may
//! write, for as long as there is time.

use std::time::Duration;

use futures::StreamExt;
use prism_core::failure::{Failure, Reason};
use prism_proto::pattern as proto;
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

use super::wire;
use crate::{
    coordinator::{Coordinator, Register},
    limits::{Caller, Exceeded, Kind},
};

/// How many registrations a stream carries at most: its one answer has to fit a message.
const MOST: usize = 10_000;
/// How many are registered together at most. What came meanwhile waits, and so does the sender.
const TOGETHER: usize = 1_024;
/// What is left of a call's time for a registration that had to wait for its turn.
const LEAST: Duration = Duration::from_millis(100);

/// Registers as they come.
pub(super) async fn register(
    coordinator: Coordinator,
    caller: Option<Caller>,
    requests: Streaming<proto::RegisterRequest>,
    deadline: Instant,
) -> Result<proto::RegisterManyResponse, Failure> {
    let mut turns = Turns {
        coordinator: coordinator.clone(),
        caller,
        // The call itself was counted.
        ahead: 1,
        deadline,
    };
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
        let mut together = Vec::with_capacity(part.len());
        for request in part {
            if !turns.is_now() {
                // Those before it do not wait with it.
                let before = std::mem::take(&mut together);
                results.extend(register_part(&coordinator, before, deadline).await);
                if let Err(refused) = turns.wait().await {
                    results.push(refused_one(refused));
                    continue;
                }
            }
            together.push(request);
        }
        results.extend(register_part(&coordinator, together, deadline).await);
    }
    Ok(proto::RegisterManyResponse { results })
}

/// When the next registration of one caller has its turn.
struct Turns {
    coordinator: Coordinator,
    /// `None` where nothing is limited.
    caller: Option<Caller>,
    /// How many turns were counted before.
    ahead: usize,
    deadline: Instant,
}

impl Turns {
    /// Whether it is now; it is counted then.
    fn is_now(&mut self) -> bool {
        if self.ahead > 0 {
            self.ahead -= 1;
            return true;
        }
        self.count().is_ok()
    }

    /// Waits for it, unless there is not so much time.
    async fn wait(&self) -> Result<(), Failure> {
        loop {
            let Err(exceeded) = self.count() else {
                return Ok(());
            };
            let until = exceeded.retry_after.map(|pause| Instant::now() + pause);
            match until.filter(|until| *until + LEAST < self.deadline) {
                Some(until) => sleep_until(until).await,
                None => return Err(self.coordinator.too_often(exceeded).into()),
            }
        }
    }

    fn count(&self) -> Result<(), Exceeded> {
        match (self.coordinator.limits(), &self.caller) {
            (Some(limits), Some(caller)) => limits.admit(Kind::Write, caller),
            _ => Ok(()),
        }
    }
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
        // A millisecond too late is better than one too early.
        retry_after_ms: failure
            .retry_after
            .and_then(|pause| i64::try_from(pause.as_millis() + 1).ok()),
        ..Default::default()
    }
}
