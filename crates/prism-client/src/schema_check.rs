//! A check of a namespace against a schema.

use crate::{Result, SchemaFinding, raw, wire};

/// What a check finds, as it finds it. The service goes on with it as it is read; dropping this ends the check.
#[derive(Debug)]
pub struct SchemaCheck {
    answers: raw::SchemaCheck,
}

impl SchemaCheck {
    pub(crate) fn new(answers: raw::SchemaCheck) -> Self {
        Self { answers }
    }

    /// What is found next; `None` after the progress that is done, and after an error.
    pub async fn next(&mut self) -> Option<Result<SchemaFinding>> {
        let answer = self.answers.next().await?;
        Some(answer.and_then(wire::schema_finding))
    }
}
