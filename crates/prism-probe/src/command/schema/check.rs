//! Which registrations violate a schema.

use std::{fs, path::Path};

use prism_filter::Document;
use prism_proto::pattern::{CheckSchemaRequest, CheckSchemaResponse, check_schema_response};
use prost_types::Struct;
use serde_json::Value;

use crate::{
    cli::{Global, schema::Check},
    command::client,
    exit::Exit,
    fault::{Fault, Stop},
    output::{Format, Output, Progress, Shown, Style, Table, tree},
};

pub(super) async fn check(check: &Check, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    let schema = check.schema.as_deref().map(|file| read(file, &global.namespace));
    let request = CheckSchemaRequest {
        schema: schema.transpose()?,
        limit: check.limit.unwrap_or_default(),
    };
    let registry = client(global)?.registry;
    let mut answers = registry.raw().check_schema(request).await?;
    let bar = Progress::new(output.format(), "checking");
    let mut last = check_schema_response::Progress::default();
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        if let Some(progress) = answer.progress {
            bar.at(progress.checked, progress.total);
            last = progress;
        }
        let is_news = answer
            .progress
            .is_none_or(|progress| progress.done && is_for_programs(output));
        if is_news {
            bar.aside(|| output.event(&shown(&answer)?))?;
        }
    }
    bar.end();
    let (count, checked) = (last.nonconforming, last.checked);
    if count > 0 {
        let message = format!("{count} of {checked} registrations violate the schema");
        return Err(Fault::partial(Exit::Error, "SCHEMA_VIOLATED", message).into());
    }
    if !is_for_programs(output) {
        Style::talk(&format!("all {checked} registrations satisfy the schema"));
    }
    Ok(Exit::Ok)
}

fn is_for_programs(output: &Output) -> bool {
    matches!(output.format(), Format::Json | Format::Yaml)
}

fn shown(answer: &CheckSchemaResponse) -> Result<Shown, Stop> {
    let mut table = Table::default();
    // The violation names the field.
    table.row([answer.identity.as_str().into(), answer.violation.as_str().into()]);
    Ok(Shown {
        tree: tree(answer)?,
        table,
        names: vec![answer.identity.clone()],
    })
}

/// The schema in a file: by itself, or in a configuration.
fn read(file: &Path, namespace: &str) -> Result<Struct, Stop> {
    let fault = |message: String| Fault::usage("schema", format!("{}: {message}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| fault(format!("cannot be read: {error}")))?;
    let tree: Value = serde_saphyr::from_str(&text).map_err(|error| fault(error.to_string()))?;
    let schema = find(&tree, namespace).ok_or_else(|| {
        fault(format!(
            "has namespaces, but none called `{namespace}` with an `identity_schema`"
        ))
    })?;
    let document = Document::from_value(schema).map_err(|error| fault(error.to_string()))?;
    Ok(Struct {
        fields: document.to_proto(),
    })
}

fn find<'a>(tree: &'a Value, namespace: &str) -> Option<&'a Value> {
    let Some(listed) = tree.get("namespaces").and_then(Value::as_array) else {
        return Some(tree.get("identity_schema").unwrap_or(tree));
    };
    let named = |tree: &&Value| tree.get("name").is_some_and(|name| name == namespace);
    listed.iter().find(named)?.get("identity_schema")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_found_by_itself_and_in_configurations() {
        let schema = json!({ "status": "string" });
        let configured = json!({ "name": "a", "identity_schema": schema });
        let listed = json!({ "namespaces": [{ "name": "b" }, configured] });
        for tree in [&schema, &configured, &listed] {
            assert_eq!(find(tree, "a"), Some(&schema), "{tree}");
        }
        assert_eq!(find(&listed, "b"), None);
        assert_eq!(find(&listed, "c"), None);
    }
}
