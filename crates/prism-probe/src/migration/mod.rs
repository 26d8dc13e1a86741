//! What a migration does to the metadata of one registration. Doing it twice does no more than once.

mod convert;
mod place;

#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use prism_filter::Path;
use serde_json::{Map, Value};

pub(crate) use convert::Conversion;
use place::{diff, get, put, take};

/// A field that gets another name.
#[derive(Debug, Clone)]
pub(crate) struct Rename {
    from: Path,
    to: Path,
}

/// A field that gets another type.
#[derive(Debug, Clone)]
pub(crate) struct Retype {
    field: Path,
    conversion: Conversion,
}

/// A field that is written where it is missing.
#[derive(Debug, Clone)]
pub(crate) struct Fill {
    field: Path,
    value: Value,
}

/// What is done, in this order.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    renames: Vec<Rename>,
    retypes: Vec<Retype>,
    fills: Vec<Fill>,
}

/// Why a registration is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) field: String,
    pub(crate) problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the field `{}` {}", self.field, self.problem)
    }
}

fn problem(field: &Path, problem: impl Into<String>) -> Problem {
    Problem {
        field: field.to_string(),
        problem: problem.into(),
    }
}

impl Plan {
    /// Refuses what would not be the same done twice.
    pub(crate) fn new(renames: Vec<Rename>, retypes: Vec<Retype>, fills: Vec<Fill>) -> Result<Self, String> {
        if renames.is_empty() && retypes.is_empty() && fills.is_empty() {
            return Err("there is nothing to do: give --rename, --retype or --default".to_owned());
        }
        let renamed: Vec<&Path> = renames
            .iter()
            .flat_map(|rename| [&rename.from, &rename.to])
            .collect();
        apart(&renamed, &renamed)?;
        let old: Vec<&Path> = renames.iter().map(|rename| &rename.from).collect();
        let retyped: Vec<&Path> = retypes.iter().map(|retype| &retype.field).collect();
        let filled: Vec<&Path> = fills.iter().map(|fill| &fill.field).collect();
        apart(&retyped, &retyped)?;
        once(&filled)?;
        apart(&old, &[&retyped[..], &filled].concat())?;
        for Fill { field, value } in &fills {
            for retype in retypes.iter().filter(|retype| overlap(&retype.field, field)) {
                let stays = retype.field == *field && retype.conversion.apply(value).as_ref() == Ok(value);
                if !stays {
                    return Err(in_the_way(field, &retype.field));
                }
            }
        }
        Ok(Self {
            renames,
            retypes,
            fills,
        })
    }

    /// The merge patch that brings metadata to where it should be; `None` where it is there already.
    pub(crate) fn patch(&self, metadata: &Map<String, Value>) -> Result<Option<Value>, Problem> {
        let mut wanted = metadata.clone();
        for Rename { from, to } in &self.renames {
            rename(&mut wanted, from, to)?;
        }
        for Retype { field, conversion } in &self.retypes {
            if let Some(value) = get(&wanted, field.keys()) {
                let converted = conversion.apply(value).map_err(|why| problem(field, why))?;
                put(&mut wanted, field, converted)?;
            }
        }
        for Fill { field, value } in &self.fills {
            if get(&wanted, field.keys()).is_none() {
                put(&mut wanted, field, value.clone())?;
            }
        }
        if wanted == *metadata {
            return Ok(None);
        }
        Ok(Some(Value::Object(diff(metadata, &wanted))))
    }
}

/// Whether a merge patch would take away a part of this value instead of writing it.
fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().any(holds_null),
        // Lists are written as they are.
        _ => false,
    }
}

fn rename(metadata: &mut Map<String, Value>, from: &Path, to: &Path) -> Result<(), Problem> {
    let Some(value) = get(metadata, from.keys()).cloned() else {
        return Ok(());
    };
    if holds_null(&value) {
        return Err(problem(to, "would hold a null, which an update cannot write"));
    }
    match get(metadata, to.keys()) {
        // The work of somebody who writes both, for a while.
        Some(same) if *same == value => {}
        Some(_) => {
            let why = format!("is there beside `{from}`, and holds something else");
            return Err(problem(to, why));
        }
        None => put(metadata, to, value)?,
    }
    take(metadata, from.keys());
    Ok(())
}

/// Refuses paths of which one leads to, or through, the other; a path of both lists counts once.
fn apart(some: &[&Path], others: &[&Path]) -> Result<(), String> {
    once(some)?;
    for one in some {
        let mut all = others.iter().filter(|other| !std::ptr::eq(**other, *one));
        if let Some(other) = all.find(|other| overlap(one, other)) {
            return Err(in_the_way(one, other));
        }
    }
    Ok(())
}

fn once(paths: &[&Path]) -> Result<(), String> {
    let mut given = paths.iter().enumerate();
    match given.find(|(index, path)| paths[..*index].contains(path)) {
        Some((_, path)) => Err(format!("`{path}` is given twice")),
        None => Ok(()),
    }
}

fn in_the_way(one: &Path, other: &Path) -> String {
    format!("what is done to `{one}` and to `{other}` is in each other's way, do one after the other")
}

/// Whether one leads to, or through, the other.
fn overlap(one: &Path, other: &Path) -> bool {
    one.keys().starts_with(other.keys()) || other.keys().starts_with(one.keys())
}

fn path(text: &str) -> Result<Path, String> {
    let path = Path::parse(text.trim()).map_err(|error| error.to_string())?;
    match path.system() {
        None => Ok(path),
        Some(_) => Err(format!("`{path}` is no field of the metadata")),
    }
}

fn halves<'a>(text: &'a str, form: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once('=')
        .ok_or_else(|| format!("expected {form}, there is no `=` in `{text}`"))
}

impl FromStr for Rename {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = halves(text, "OLD=NEW")?;
        Ok(Self {
            from: path(from)?,
            to: path(to)?,
        })
    }
}

impl FromStr for Retype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, conversion) = halves(text, "FIELD=FROM:TO")?;
        Ok(Self {
            field: path(field)?,
            conversion: conversion.parse()?,
        })
    }
}

impl FromStr for Fill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, value) = halves(text, "FIELD=JSON")?;
        let value: Value = serde_json::from_str(value)
            .map_err(|error| format!("expected JSON, with a text in quotes: {error}"))?;
        if holds_null(&value) {
            return Err("null is no value to write, it takes a field away".to_owned());
        }
        Ok(Self {
            field: path(field)?,
            value,
        })
    }
}
