//! What the admin API lists, cut down to what people look for. Machines get all of it.

use serde_json::Value;

use crate::output::{Cell, Table};

/// The items of one page of the admin API.
#[derive(Debug)]
pub(super) struct Listing {
    kind: Kind,
    items: Vec<Value>,
}

/// Which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Namespaces,
    Runners,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Namespaces, Self::Runners];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Namespaces => "/api/v1/namespaces",
            Self::Runners => "/api/v1/runners",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Runners => "runners",
        }
    }

    fn columns(self) -> &'static [Column] {
        match self {
            Self::Namespaces => &[
                Column("NAMESPACE", |item| text(&item["name"])),
                Column("STATE", |item| text(&item["standing"])),
                Column("SCOPE", |item| text(&item["scope"])),
                Column("SERVED BY", |item| text(&item["serving"])),
                Column("STANDBY", |item| text(&item["standby"])),
                Column("PROBLEM", |item| text(&item["error"])),
            ],
            Self::Runners => &[
                Column("RUNNER", |item| text(&item["instance_id"])),
                Column("STATE", |item| text(&item["state"])),
                Column("HEALTH", |item| text(&item["health"])),
                Column("ENDPOINT", |item| text(&item["data_endpoint"])),
                Column("NAMESPACES", |item| roles(&item["namespaces"])),
                Column("PROBLEM", problem),
            ],
        }
    }
}

/// A heading, and what stands below it.
struct Column(&'static str, fn(&Value) -> String);

impl Listing {
    /// Reads a page: a list, or an object that holds one under the page's name.
    pub(super) fn read(kind: Kind, page: Value) -> Option<Self> {
        let list = match page {
            Value::Object(mut members) => members.remove(kind.name())?,
            other => other,
        };
        match list {
            Value::Array(items) => Some(Self { kind, items }),
            _ => None,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub(super) fn items(&self) -> &[Value] {
        &self.items
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.items.iter().filter_map(|item| item["name"].as_str())
    }

    /// Columns that nobody has anything to say in are left out.
    pub(super) fn table(&self) -> Table {
        let said = |column: &&Column| self.items.iter().any(|item| !column.1(item).is_empty());
        let columns: Vec<_> = self.kind.columns().iter().filter(said).collect();
        let mut table = Table::new(columns.iter().map(|column| column.0));
        for item in &self.items {
            table.row(columns.iter().map(|column| column.cell(item)));
        }
        table
    }
}

impl Column {
    fn cell(&self, item: &Value) -> Cell {
        let text = self.1(item);
        match (self.0, text.as_str()) {
            ("STATE", "served" | "running") | ("HEALTH", "healthy") => Cell::good(text),
            ("STATE", "unserved") | ("HEALTH", "unhealthy") => Cell::bad(text),
            ("STATE" | "HEALTH", _) => Cell::doubtful(text),
            ("PROBLEM", problem) if !problem.is_empty() => Cell::bad(text),
            _ => text.into(),
        }
    }
}

/// What a runner is to each of its namespaces: plain where it serves, which is the normal case.
fn roles(namespaces: &Value) -> String {
    let role = |item: &Value| match item["role"].as_str() {
        None | Some("serving") => text(&item["namespace"]),
        Some(role) => format!("{} ({role})", text(&item["namespace"])),
    };
    let roles: Vec<_> = namespaces.as_array().into_iter().flatten().map(role).collect();
    roles.join(", ")
}

/// Why it is not started, does not serve or is not healthy.
fn problem(runner: &Value) -> String {
    let mut problems = vec![text(&runner["error"]), text(&runner["health_message"])];
    for namespace in runner["namespaces"].as_array().into_iter().flatten() {
        problems.push(text(&namespace["error"]));
    }
    problems.retain(|problem| !problem.is_empty());
    problems.join("; ")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Style;

    fn rendered(kind: Kind, page: Value) -> String {
        Listing::read(kind, page).unwrap().table().render(&Style::plain())
    }

    #[test]
    fn namespaces_say_who_serves_them_and_what_is_wrong() {
        let page = json!({"generation": 5, "namespaces": [
            {"name": "presence", "standing": "served", "scope": "shared", "serving": ["r1", "r2"], "standby": [],
             "digest": "af3d", "error": null},
            {"name": "iot", "standing": "unserved", "scope": null, "serving": [], "standby": [], "error": "no port"},
        ]});
        let expected = "\
NAMESPACE  STATE     SCOPE   SERVED BY  PROBLEM
presence   served    shared  r1, r2     -
iot        unserved  -       -          no port
";
        assert_eq!(rendered(Kind::Namespaces, page), expected);
    }

    #[test]
    fn runners_say_what_they_serve_and_what_is_wrong() {
        let page = json!({"runners": [
            {"instance_id": "r1", "state": "running", "health": "unhealthy", "health_message": "redis is away",
             "data_endpoint": "a:1", "namespaces": [{"namespace": "presence", "role": "serving", "error": null}]},
            {"instance_id": "r2", "state": "running", "health": "healthy", "health_message": "",
             "data_endpoint": "b:1", "namespaces": [
                 {"namespace": "presence", "role": "standby"},
                 {"namespace": "iot", "role": "refusing", "error": "unknown key"}]},
        ]});
        let expected = "\
RUNNER  STATE    HEALTH     ENDPOINT  NAMESPACES                          PROBLEM
r1      running  unhealthy  a:1       presence                            redis is away
r2      running  healthy    b:1       presence (standby), iot (refusing)  unknown key
";
        assert_eq!(rendered(Kind::Runners, page), expected);
    }

    #[test]
    fn a_page_that_is_no_listing_is_not_read() {
        assert!(Listing::read(Kind::Runners, json!({"namespaces": []})).is_none());
        assert!(Listing::read(Kind::Runners, json!("nothing")).is_none());
        assert!(Listing::read(Kind::Runners, json!([])).is_some());
    }
}
