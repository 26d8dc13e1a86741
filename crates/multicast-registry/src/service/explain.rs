//! Explanations on the wire.

use std::time::Duration;

use prism_proto::pattern::{
    ExplainResponse,
    explain_response::{self as proto, Plan},
};

use super::wire::to_position;
use crate::coordinator::{Access, Explanation, Verdict, Why};

pub(super) fn to_plan_response(explanation: Explanation) -> ExplainResponse {
    ExplainResponse {
        explanation: explanation.to_string(),
        position: Some(to_position(explanation.position)),
        view_age_ms: explanation.age.map(millis),
        plan: Some(to_plan(explanation)),
        why: None,
    }
}

fn to_plan(explanation: Explanation) -> Plan {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Plan {
        access: access(explanation.access).into(),
        steps: explanation.steps,
        indexes: explanation.indexes,
        unindexed: explanation.unindexed,
        residual: explanation.residual,
        exact: explanation.exact,
        estimated_count: count(explanation.estimated),
        candidate_count: count(explanation.candidates),
        asked_count: count(explanation.asked),
        match_count: count(explanation.matches),
        registered_count: count(explanation.registered),
        elapsed_us: i64::try_from(explanation.elapsed.as_micros()).unwrap_or(i64::MAX),
    }
}

fn access(access: Access) -> proto::plan::Access {
    match access {
        Access::View => proto::plan::Access::View,
        Access::Query => proto::plan::Access::Query,
        Access::Scan => proto::plan::Access::Scan,
    }
}

pub(super) fn to_why_response(why: Why) -> ExplainResponse {
    ExplainResponse {
        explanation: why.to_string(),
        position: Some(to_position(why.position)),
        view_age_ms: why.age.map(millis),
        plan: None,
        why: Some(proto::Why {
            matches: why.matches,
            verdicts: why.verdicts.into_iter().map(to_verdict).collect(),
        }),
    }
}

fn to_verdict(verdict: Verdict) -> proto::Verdict {
    proto::Verdict {
        depth: i32::try_from(verdict.depth).unwrap_or(i32::MAX),
        part: verdict.part,
        holds: verdict.holds,
        value: verdict.value,
    }
}

fn millis(age: Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}
