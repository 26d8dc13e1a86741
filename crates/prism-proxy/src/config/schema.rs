//! Checks a namespace's configuration against the JSON Schema of its plugin, so that a slip is found where
//! it was made, with its line, before any runner sees it.
//!
//! Read are the keywords that describe configurations: `$ref`, `type`, `properties`, `required`,
//! `additionalProperties`, `unevaluatedProperties`, `items`, `enum`, `const`, `allOf`, `anyOf`, `oneOf` (as
//! `anyOf`), and the bounds of numbers, texts and lists. Other keywords are ignored: the runner has the
//! last word.

use prism_core::config::{Error, Path, nearest};
use serde_json::{Map, Value};

/// A schema that refers to itself without consuming anything.
const MAX_DEPTH: usize = 64;

/// Checks `config`, which stands at `at`. Of the keys in `beside` the schema need not know.
pub(super) fn check(
    schema: &Value,
    config: &Map<String, Value>,
    at: &Path,
    beside: &[&str],
) -> Result<(), Error> {
    let mut config = config.clone();
    // A schema that describes them may also require them; they have been checked already.
    config.retain(|key, _| !beside.contains(&key.as_str()));
    let checker = Checker {
        root: schema,
        at,
        beside,
    };
    checker
        .value(schema, &Value::Object(config), at, 0)
        .map_err(|problem| problem.error)
}

struct Checker<'a> {
    root: &'a Value,
    /// Where the configuration itself stands.
    at: &'a Path,
    beside: &'a [&'a str],
}

/// An error, and what it says about whether the alternative that it comes from was meant.
struct Problem {
    error: Error,
    clue: Clue,
}

/// The less likely alternatives first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Clue {
    /// A text in place of a mapping, or the like.
    OtherType,
    /// The value that tells alternatives apart is another one.
    OtherTag,
    /// Anything else.
    Content,
}

type Checked = Result<(), Problem>;

fn problem(at: &Path, message: String) -> Problem {
    Problem {
        error: Error::new(at.clone(), message),
        clue: Clue::Content,
    }
}

impl Checker<'_> {
    fn value(&self, schema: &Value, value: &Value, at: &Path, depth: usize) -> Checked {
        let schema = match schema {
            Value::Object(schema) => schema,
            Value::Bool(false) => return Err(problem(at, "nothing is allowed here".to_owned())),
            _ => return Ok(()),
        };
        if depth > MAX_DEPTH {
            return Ok(());
        }
        if let Some(target) = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|name| self.resolve(name))
        {
            self.value(target, value, at, depth + 1)?;
        }
        for part in list(schema, "allOf") {
            self.value(part, value, at, depth + 1)?;
        }
        for keyword in ["anyOf", "oneOf"] {
            self.alternatives(list(schema, keyword), value, at, depth)?;
        }
        kind(schema, value, at)?;
        one_of(schema, value, at)?;
        match value {
            Value::Object(object) => self.object(schema, object, at, depth),
            Value::Array(items) => self.items(schema, items, at, depth),
            Value::Number(number) => number_bounds(schema, number.as_f64().unwrap_or_default(), at),
            Value::String(text) => length_bounds(schema, "minLength", "maxLength", text.chars().count(), at),
            Value::Null | Value::Bool(_) => Ok(()),
        }
    }

    fn resolve(&self, reference: &str) -> Option<&Value> {
        self.root.pointer(reference.strip_prefix('#')?)
    }

    fn alternatives(&self, schemas: &[Value], value: &Value, at: &Path, depth: usize) -> Checked {
        let mut problems = Vec::new();
        for schema in schemas {
            match self.value(schema, value, at, depth + 1) {
                Ok(()) => return Ok(()),
                Err(problem) => problems.push(problem),
            }
        }
        // The alternative that got furthest is most likely the one that was meant.
        let steps = at.segments().len();
        let further = |problem: &Problem| {
            let length = problem.error.path.segments().len();
            // Below its beginning an alternative has been entered, whatever went wrong there.
            let clue = match problem.clue {
                Clue::OtherType if length == steps => Clue::OtherType,
                Clue::OtherTag if length == steps + 1 => Clue::OtherTag,
                _ => Clue::Content,
            };
            (clue, length)
        };
        let furthest = problems.iter().map(further).max();
        let mut meant: Vec<_> = problems
            .into_iter()
            .filter(|problem| Some(further(problem)) == furthest)
            .collect();
        match meant.len() {
            0 => Ok(()),
            1 => Err(meant.remove(0)),
            _ => Err(merged(meant)),
        }
    }

    fn object(
        &self,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        at: &Path,
        depth: usize,
    ) -> Checked {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in object {
            if let Some(property) = properties.and_then(|properties| properties.get(key)) {
                self.value(property, value, &at.clone().key(key), depth + 1)?;
            }
        }
        self.further_keys(schema, object, at, depth)?;
        for key in list(schema, "required").iter().filter_map(Value::as_str) {
            let read_elsewhere = at == self.at && self.beside.contains(&key);
            if !object.contains_key(key) && !read_elsewhere {
                return Err(problem(at, format!("missing key `{key}`")));
            }
        }
        Ok(())
    }

    fn further_keys(
        &self,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        at: &Path,
        depth: usize,
    ) -> Checked {
        let closed = |keyword: &str| schema.get(keyword) == Some(&Value::Bool(false));
        let mut known = Vec::new();
        if closed("unevaluatedProperties") {
            self.collect_keys(schema, &mut known, depth);
        } else {
            known.extend(keys(schema));
        }
        for (key, value) in object.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            if closed("additionalProperties") || closed("unevaluatedProperties") {
                return Err(unknown_key(key, &known, at));
            }
            if let Some(further) = schema.get("additionalProperties") {
                self.value(further, value, &at.clone().key(key), depth + 1)?;
            }
        }
        Ok(())
    }

    /// The keys that a schema and all its parts describe.
    fn collect_keys<'s>(&'s self, schema: &'s Map<String, Value>, known: &mut Vec<&'s str>, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        known.extend(keys(schema));
        let parts = ["allOf", "anyOf", "oneOf"]
            .into_iter()
            .flat_map(|keyword| list(schema, keyword));
        let target = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|name| self.resolve(name));
        for part in parts.chain(target).filter_map(Value::as_object) {
            self.collect_keys(part, known, depth + 1);
        }
    }

    fn items(&self, schema: &Map<String, Value>, items: &[Value], at: &Path, depth: usize) -> Checked {
        length_bounds(schema, "minItems", "maxItems", items.len(), at)?;
        if let Some(each) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.value(each, item, &at.clone().index(index), depth + 1)?;
            }
        }
        Ok(())
    }
}

fn list<'a>(schema: &'a Map<String, Value>, keyword: &str) -> &'a [Value] {
    schema
        .get(keyword)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn keys(schema: &Map<String, Value>) -> impl Iterator<Item = &str> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|map| map.keys())
        .map(String::as_str)
}

fn unknown_key(key: &str, known: &[&str], at: &Path) -> Problem {
    let suggestion = nearest(key, known.iter().copied());
    let message = match suggestion {
        None if !known.is_empty() => format!("unknown key `{key}`, expected one of `{}`", known.join("`, `")),
        _ => format!("unknown key `{key}`"),
    };
    Problem {
        error: Error::new(at.clone().key(key), message).suggest(suggestion),
        clue: Clue::Content,
    }
}

/// Several alternatives got equally far: what each expected, in one sentence.
fn merged(problems: Vec<Problem>) -> Problem {
    let clue = problems
        .iter()
        .map(|problem| problem.clue)
        .max()
        .unwrap_or(Clue::Content);
    let mut errors = problems.into_iter().map(|problem| problem.error);
    let Some(mut first) = errors.next() else {
        return problem(&Path::root(), String::new());
    };
    for error in errors {
        let Some((expected, found)) = first.message.rsplit_once(", found ") else {
            continue;
        };
        if let Some(more) = error.message.strip_suffix(&format!(", found {found}"))
            && error.path == first.path
            && !first.message.contains(more)
        {
            let more = more.strip_prefix("expected ").unwrap_or(more);
            first.message = format!("{expected} or {more}, found {found}");
            first.suggestion = first.suggestion.or(error.suggestion);
        }
    }
    Problem { error: first, clue }
}

fn kind(schema: &Map<String, Value>, value: &Value, at: &Path) -> Checked {
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let fits = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    };
    if kinds.iter().any(fits) {
        return Ok(());
    }
    let expected: Vec<_> = kinds
        .iter()
        .filter(|kind| **kind != "null")
        .map(|kind| described(kind))
        .collect();
    let message = format!("expected {}, found {}", expected.join(" or "), found(value));
    Err(Problem {
        error: Error::new(at.clone(), message),
        clue: Clue::OtherType,
    })
}

fn described(kind: &str) -> &str {
    match kind {
        "boolean" => "`true` or `false`",
        "string" => "a text",
        "array" => "a list",
        "object" => "a mapping",
        "number" => "a number",
        "integer" => "a whole number",
        other => other,
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        Value::String(text) => format!("`{text}`"),
        Value::Number(_) | Value::Bool(_) => format!("`{value}`"),
    }
}

fn one_of(schema: &Map<String, Value>, value: &Value, at: &Path) -> Checked {
    let only = schema.get("const").map(std::slice::from_ref);
    let allowed = only.unwrap_or_else(|| list(schema, "enum"));
    if allowed.is_empty() || allowed.contains(value) {
        return Ok(());
    }
    let words: Vec<_> = allowed
        .iter()
        .filter(|value| !value.is_null())
        .map(found)
        .collect();
    let message = format!("expected {}, found {}", words.join(" or "), found(value));
    let texts = allowed.iter().filter_map(Value::as_str);
    let suggestion = value.as_str().and_then(|text| nearest(text, texts));
    let error = Error::new(at.clone(), message).suggest(suggestion);
    let clue = if only.is_some() {
        Clue::OtherTag
    } else {
        Clue::Content
    };
    Err(Problem { error, clue })
}

fn number_bounds(schema: &Map<String, Value>, number: f64, at: &Path) -> Checked {
    for (keyword, words) in [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("exclusiveMinimum", "more than"),
        ("exclusiveMaximum", "less than"),
    ] {
        let Some(bound) = schema.get(keyword).and_then(Value::as_f64) else {
            continue;
        };
        let holds = match keyword {
            "minimum" => number >= bound,
            "maximum" => number <= bound,
            "exclusiveMinimum" => number > bound,
            _ => number < bound,
        };
        if !holds {
            return Err(problem(
                at,
                format!("expected {words} `{bound}`, found `{number}`"),
            ));
        }
    }
    Ok(())
}

fn length_bounds(schema: &Map<String, Value>, least: &str, most: &str, length: usize, at: &Path) -> Checked {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let length = length as u64;
    if let Some(least) = bound(least).filter(|least| length < *least) {
        return Err(problem(
            at,
            format!("expected a length of at least `{least}`, found `{length}`"),
        ));
    }
    if let Some(most) = bound(most).filter(|most| length > *most) {
        return Err(problem(
            at,
            format!("expected a length of at most `{most}`, found `{length}`"),
        ));
    }
    Ok(())
}
