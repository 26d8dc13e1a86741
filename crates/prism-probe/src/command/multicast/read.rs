//! Commands that read the registry.

use prism_client::raw::Raw;
use prism_proto::pattern::{EnumerateRequest, EnumerateResponse, GetRequest, Identity, Pagination};
use serde_json::Value;

use super::{conclude, time, write::position};
use crate::{
    cli::multicast::Enumerate,
    exit::Exit,
    fault::Stop,
    output::{Format, Output, Shown, Style, Table, metadata_text, printable, scalar_text, tree},
};

pub(super) async fn get(raw: &Raw, identity: &str, output: &mut Output) -> Result<Exit, Stop> {
    let request = GetRequest {
        identity: identity.to_owned(),
    };
    let answer = raw.get(request).await?;
    let shown = Shown {
        tree: tree(&answer)?,
        ..one(answer.identity.as_ref())?
    };
    conclude(output, &shown, None)
}

/// One identity for people; the tree is the caller's.
pub(super) fn one(found: Option<&Identity>) -> Result<Shown, Stop> {
    let nobody = Identity::default();
    let found = found.unwrap_or(&nobody);
    Ok(Shown {
        tree: Value::Null,
        table: Table::facts([
            ("IDENTITY", found.identity.clone()),
            ("REGISTERED", time(found.registered_at.as_ref())),
            ("UPDATED", time(found.updated_at.as_ref())),
            ("EXPIRES", time(found.expires_at.as_ref())),
            ("GENERATION", position(found.generation)),
            ("REVISION", found.revision.to_string()),
            ("METADATA", metadata_text(&found.metadata)?),
        ]),
        names: vec![found.identity.clone()],
    })
}

pub(super) async fn enumerate(raw: &Raw, enumerate: &Enumerate, output: &mut Output) -> Result<Exit, Stop> {
    let request = EnumerateRequest {
        filter: enumerate.filter.clone(),
        pagination: Some(Pagination {
            limit: enumerate.limit.unwrap_or_default(),
            offset: 0,
            cursor: enumerate.cursor.clone().unwrap_or_default(),
        }),
        include_metadata: Some(output.format() != Format::Name),
        sort_by: enumerate.sort.clone(),
        fields: enumerate.field.clone(),
        count_only: enumerate.count,
        facets: enumerate.facet.clone(),
        ..Default::default()
    };
    let answer = raw.enumerate(request).await?;
    if enumerate.count || !enumerate.facet.is_empty() {
        return counts(&answer, enumerate.count, output);
    }
    let mut table = Table::new(["IDENTITY", "REGISTERED", "EXPIRES", "METADATA"]);
    for found in &answer.identities {
        let (registered, expires) = (
            time(found.registered_at.as_ref()),
            time(found.expires_at.as_ref()),
        );
        let metadata = metadata_text(&found.metadata)?;
        table.row([found.identity.clone(), registered, expires, metadata].map(Into::into));
    }
    let shown = Shown {
        tree: tree(&answer)?,
        table,
        names: answer
            .identities
            .iter()
            .map(|found| found.identity.clone())
            .collect(),
    };
    let exit = conclude(output, &shown, None)?;
    if matches!(output.format(), Format::Table | Format::Name) {
        talk(&answer);
    }
    Ok(exit)
}

/// How many there are, and how often each value occurs.
fn counts(answer: &EnumerateResponse, alone: bool, output: &mut Output) -> Result<Exit, Stop> {
    let mut table = Table::new(["FIELD", "VALUE", "COUNT"]);
    for facet in &answer.facets {
        let mut row = |value: String, count: String| {
            table.row([facet.field.clone(), value, count].map(Into::into));
        };
        for bucket in &facet.buckets {
            let value = bucket.value.as_ref().map(scalar_text).unwrap_or_default();
            row(value, bucket.count.to_string());
        }
        let unshown = facet.value_count - facet.buckets.len() as i64;
        if unshown > 0 {
            row(format!("({unshown} more values)"), String::new());
        }
        for (name, count) in [("(other)", facet.other_count), ("(missing)", facet.missing_count)] {
            if count > 0 {
                row(name.to_owned(), count.to_string());
            }
        }
    }
    if answer.facets.is_empty() {
        table = Table::facts([("TOTAL", answer.total_count.to_string())]);
    }
    let shown = Shown {
        tree: tree(answer)?,
        table,
        names: answer
            .identities
            .iter()
            .map(|found| found.identity.clone())
            .collect(),
    };
    let exit = conclude(output, &shown, None)?;
    if matches!(output.format(), Format::Table) && !(alone && answer.facets.is_empty()) {
        Style::talk(&format!("{} match", answer.total_count));
    }
    Ok(exit)
}

/// What the table does not say.
fn talk(answer: &EnumerateResponse) {
    let (shown, total) = (answer.identities.len(), answer.total_count);
    match answer.next_cursor.as_deref().filter(|cursor| !cursor.is_empty()) {
        Some(cursor) => Style::talk(&format!(
            "{shown} of {total}, continue with --cursor {}",
            printable(cursor)
        )),
        None => Style::talk(&format!("{shown} of {total}")),
    }
}
