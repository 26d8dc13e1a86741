//! `CheckSchema`: a check as a stream, made as fast as it is read.

use std::collections::VecDeque;

use futures::{StreamExt, stream::BoxStream};
use prism_core::failure::{Failure, Reason};
use prism_proto::pattern::{self as proto, check_schema_response::Progress};
use tokio::time::Instant;
use tonic::Status;

use super::wire;
use crate::{
    coordinator::{Check, Coordinator, Nonconforming},
    schema::Schema,
};

/// The responses of one check. Dropping it ends the check.
pub(super) type Checking = BoxStream<'static, Result<proto::CheckSchemaResponse, Status>>;

pub(super) async fn open(
    coordinator: Coordinator,
    request: proto::CheckSchemaRequest,
    deadline: Instant,
) -> Result<Checking, Failure> {
    let schema = request.schema.map(read).transpose()?;
    let check = coordinator.check_schema(schema, deadline).await?;
    let run = Run {
        coordinator,
        check,
        left: match request.limit {
            0 => u64::MAX,
            limit => limit.into(),
        },
        waiting: VecDeque::new(),
        is_done: false,
    };
    Ok(futures::stream::unfold(run, |mut run| async move {
        let response = run.next().await?;
        Some((response.map_err(Status::from), run))
    })
    .boxed())
}

fn read(schema: prost_types::Struct) -> Result<Schema, Failure> {
    let document = wire::document("schema", &schema.fields.into_iter().collect())?;
    Schema::read(&document.to_value()).map_err(|error| {
        let failure = Failure::new(Reason::InvalidRequest, error.explanation());
        let path = error.path.to_string();
        failure
            .field(format!("schema.{path}").trim_end_matches('.'))
            .not_applied()
    })
}

struct Run {
    coordinator: Coordinator,
    check: Check,
    /// How many violations are still reported.
    left: u64,
    /// What one step found.
    waiting: VecDeque<proto::CheckSchemaResponse>,
    is_done: bool,
}

impl Run {
    async fn next(&mut self) -> Option<Result<proto::CheckSchemaResponse, Failure>> {
        loop {
            if let Some(response) = self.waiting.pop_front() {
                return Some(Ok(response));
            }
            if self.is_done {
                return None;
            }
            // Others have their turn between the steps.
            tokio::task::yield_now().await;
            if let Err(error) = self.step() {
                self.is_done = true;
                return Some(Err(error));
            }
        }
    }

    fn step(&mut self) -> Result<(), Failure> {
        self.coordinator.open_for_calls()?;
        match self.check.step()? {
            Some(found) => {
                for Nonconforming { identity, violations } in found {
                    for violation in violations
                        .into_iter()
                        .take(usize::try_from(self.left).unwrap_or(usize::MAX))
                    {
                        self.left -= 1;
                        self.waiting.push_back(proto::CheckSchemaResponse {
                            identity: identity.as_str().to_owned(),
                            violation: violation.to_string(),
                            field: violation.field,
                            progress: None,
                        });
                    }
                }
            }
            None => self.is_done = true,
        }
        self.waiting.push_back(self.progress());
        Ok(())
    }

    fn progress(&self) -> proto::CheckSchemaResponse {
        let progress = self.check.progress();
        proto::CheckSchemaResponse {
            progress: Some(Progress {
                checked: progress.checked,
                nonconforming: progress.nonconforming,
                total: progress.total,
                done: self.is_done,
                position: Some(wire::to_position(self.check.began())),
            }),
            ..Default::default()
        }
    }
}
