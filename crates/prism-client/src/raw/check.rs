//! A check of a namespace against a schema, as it is made.

use std::time::Duration;

use prism_core::telemetry;
use prism_proto::pattern::{CheckSchemaRequest, CheckSchemaResponse};
use tokio::time::timeout;
use tonic::Streaming;
use tracing::Instrument;

use super::Raw;
use crate::{
    Applied, Error, Result,
    call::{self, Repeat},
};

/// The messages of one check. The service goes on with it as they are read; dropping this ends it.
#[derive(Debug)]
pub struct SchemaCheck {
    answers: Streaming<CheckSchemaResponse>,
    /// For each message: the service says something all the time.
    patience: Duration,
    ended: bool,
}

impl SchemaCheck {
    pub(super) async fn open(raw: &Raw, request: &CheckSchemaRequest) -> Result<Self> {
        let plan = raw.plan("CheckSchema", Repeat::Harmless);
        let (span, trace) = telemetry::call_span(plan.method);
        call::run(plan, |_| async {
            // No deadline travels with it, as it would end the check and not just its beginning.
            let request = raw.headers.request(request.clone(), trace, None);
            let mut stub = raw.shared.connections.for_calls();
            let answers = stub.check_schema(request).await;
            let answers = answers.map_err(|status| Error::from_status(&status, raw.timeout))?;
            Ok(Self {
                answers: answers.into_inner(),
                patience: raw.timeout,
                ended: false,
            })
        })
        .instrument(span)
        .await
    }

    /// The next message; `None` after the last, which says that everything was looked at, and after an
    /// error.
    pub async fn next(&mut self) -> Option<Result<CheckSchemaResponse>> {
        if self.ended {
            return None;
        }
        let answer = match timeout(self.patience, self.answers.message()).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(Error::ConnectionLost {
                message: "the service ended the check before it was done".to_owned(),
                applied: Applied::No,
            }),
            Ok(Err(status)) => Err(Error::from_status(&status, self.patience)),
            Err(_) => Err(Error::timed_out(self.patience)),
        };
        let is_last = |answer: &CheckSchemaResponse| answer.progress.is_some_and(|progress| progress.done);
        self.ended = answer.as_ref().map_or(true, is_last);
        Some(answer)
    }
}
