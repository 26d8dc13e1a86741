//! How a filter is answered, and why.

use std::time::Duration;

use prism_client::raw::Raw;
use prism_proto::pattern::{
    ExplainRequest, ExplainResponse,
    explain_response::{Plan, Why},
};

use super::{conclude, write::position};
use crate::{
    cli::multicast::Explain,
    exit::Exit,
    fault::Stop,
    output::{Cell, Output, Shown, Table, tree},
};

pub(super) async fn explain(raw: &Raw, explain: &Explain, output: &mut Output) -> Result<Exit, Stop> {
    let request = ExplainRequest {
        filter: explain.filter.clone(),
        identity: explain.identity.clone(),
    };
    let answer = raw.explain(request).await?;
    let matching = answer.why.as_ref().is_some_and(|why| why.matches);
    let table = match (&answer.why, &explain.identity) {
        (Some(why), Some(identity)) => reasons(identity, why, &answer),
        _ => plan(&answer.plan.clone().unwrap_or_default(), &answer),
    };
    let shown = Shown {
        tree: tree(&answer)?,
        table,
        names: explain
            .identity
            .clone()
            .filter(|_| matching)
            .into_iter()
            .collect(),
    };
    conclude(output, &shown, None)
}

fn plan(plan: &Plan, answer: &ExplainResponse) -> Table {
    let steps = plan.steps.clone();
    let elapsed = Duration::from_micros(u64::try_from(plan.elapsed_us).unwrap_or_default());
    Table::facts([
        ("PLAN", steps.unwrap_or_else(|| "every registration".to_owned())),
        ("INDEXES", plan.indexes.join(", ")),
        ("NO INDEX ON", plan.unindexed.join(", ")),
        ("LEFT OVER", plan.residual.join(", ")),
        ("EXACT", yes_or_no(plan.exact).to_owned()),
        ("EXPECTED", plan.estimated_count.to_string()),
        ("CANDIDATES", plan.candidate_count.to_string()),
        ("ASKED", plan.asked_count.to_string()),
        ("MATCHES", plan.match_count.to_string()),
        ("REGISTERED", plan.registered_count.to_string()),
        ("TOOK", format!("{elapsed:?}")),
        ("POSITION", position(answer.position)),
        ("VIEW AGE", age(answer)),
    ])
}

fn reasons(identity: &str, why: &Why, answer: &ExplainResponse) -> Table {
    let mut table = Table::facts([
        ("IDENTITY", identity.to_owned()),
        ("MATCHES", yes_or_no(why.matches).to_owned()),
        ("POSITION", position(answer.position)),
        ("VIEW AGE", age(answer)),
    ]);
    let mut verdicts = Table::new(["HOLDS", "PART", "VALUE"]);
    for verdict in &why.verdicts {
        let holds = yes_or_no(verdict.holds);
        let depth = usize::try_from(verdict.depth).unwrap_or_default();
        verdicts.row([
            if verdict.holds {
                Cell::good(holds)
            } else {
                Cell::bad(holds)
            },
            format!("{:1$}{2}", "", 2 * depth, verdict.part).into(),
            verdict.value.clone().unwrap_or_default().into(),
        ]);
    }
    table.below(verdicts);
    table
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn age(answer: &ExplainResponse) -> String {
    answer
        .view_age_ms
        .map(|age| format!("{age} ms"))
        .unwrap_or_default()
}
