//! Explanations.

use std::time::Duration;

use prism_proto::pattern::{ExplainResponse, explain_response};

use super::answer::{count, missing, optional_millis, position};
use crate::{Error, Explanation, Result, Verdict, Why};

pub(crate) fn explanation(answer: ExplainResponse) -> Result<Explanation> {
    let plan = answer.plan.ok_or_else(|| missing("plan"))?;
    Ok(Explanation {
        steps: plan.steps,
        indexes: plan.indexes,
        unindexed: plan.unindexed,
        residual: plan.residual,
        exact: plan.exact,
        estimated_count: count("plan.estimated_count", plan.estimated_count)?,
        candidate_count: count("plan.candidate_count", plan.candidate_count)?,
        asked_count: count("plan.asked_count", plan.asked_count)?,
        match_count: count("plan.match_count", plan.match_count)?,
        registered_count: count("plan.registered_count", plan.registered_count)?,
        elapsed: Duration::from_micros(count("plan.elapsed_us", plan.elapsed_us)?),
        position: position("position", answer.position)?,
        view_age: optional_millis("view_age_ms", answer.view_age_ms)?,
        text: answer.explanation,
    })
}

pub(crate) fn why(answer: ExplainResponse) -> Result<Why> {
    let why = answer.why.ok_or_else(|| missing("why"))?;
    let verdicts = why.verdicts.into_iter().enumerate();
    Ok(Why {
        matches: why.matches,
        verdicts: verdicts
            .map(|(index, found)| verdict(index, found))
            .collect::<Result<_>>()?,
        position: position("position", answer.position)?,
        view_age: optional_millis("view_age_ms", answer.view_age_ms)?,
        text: answer.explanation,
    })
}

fn verdict(index: usize, verdict: explain_response::Verdict) -> Result<Verdict> {
    let depth = usize::try_from(verdict.depth);
    Ok(Verdict {
        depth: depth.map_err(|_| {
            let field = format_args!("why.verdicts[{index}].depth");
            Error::malformed(field, format!("is {}", verdict.depth))
        })?,
        part: verdict.part,
        holds: verdict.holds,
        value: verdict.value,
    })
}
