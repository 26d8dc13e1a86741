//! Finds what is wrong with a document.

use prism_filter::{Document, ObjectRef, ValueRef};
use serde_json::{Value, json};

use super::{Fields, Schema, Shape, Type, Violation};

/// Checks a whole document.
pub(super) fn all(schema: &Schema, identity: &str, document: &Document, most: usize) -> Vec<Violation> {
    let mut findings = Findings {
        found: Vec::new(),
        most,
    };
    let root = Trail::root();
    if let Some(key) = &schema.primary_key {
        let problem = match document.get(key) {
            Some(ValueRef::String(same)) if same == identity => None,
            Some(_) => Some("is the primary key and must repeat the identity"),
            None => Some("is the primary key and is missing"),
        };
        if let Some(problem) = problem {
            findings.add(&root.then(Step::Keys(key.keys())), problem);
        }
    }
    findings.object(&schema.inside, document.root(), &root);
    findings.found
}

/// Checks one value that is not stored yet, such as a default.
pub(super) fn value(shape: &Shape, value: &Value) -> Result<(), String> {
    let document = Document::from_value(&json!({ "value": value })).map_err(|error| error.to_string())?;
    let mut findings = Findings {
        found: Vec::new(),
        most: 1,
    };
    if let Some(found) = document.root().get("value") {
        findings.value(shape, found, &Trail::root());
    }
    match findings.found.pop() {
        Some(violation) if violation.field.is_empty() => Err(violation.problem),
        Some(violation) => Err(format!("is wrong: {violation}")),
        None => Ok(()),
    }
}

/// The value that keys lead to.
pub(super) fn lookup<'a>(object: ObjectRef<'a>, keys: &[Box<str>]) -> Option<ValueRef<'a>> {
    let mut at = ValueRef::Object(object);
    for key in keys {
        let ValueRef::Object(object) = at else { return None };
        at = object.get(key)?;
    }
    Some(at)
}

/// How a value was reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trail<'a> {
    before: Option<&'a Trail<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Keys(&'a [Box<str>]),
    Names(&'a [&'a str]),
    Index(usize),
}

impl<'a> Trail<'a> {
    pub(super) fn root() -> Self {
        Self {
            before: None,
            step: Step::Keys(&[]),
        }
    }

    pub(super) fn then(&'a self, step: Step<'a>) -> Self {
        let before = Some(self);
        Self { before, step }
    }

    pub(super) fn violation(&self, problem: impl Into<String>) -> Violation {
        let mut field = String::new();
        self.write(&mut field);
        Violation {
            field,
            problem: problem.into(),
        }
    }

    fn write(&self, out: &mut String) {
        if let Some(before) = self.before {
            before.write(out);
        }
        match self.step {
            Step::Keys(keys) => keys.iter().for_each(|key| write_key(out, key)),
            Step::Names(names) => names.iter().for_each(|name| write_key(out, name)),
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
}

/// As in a path.
fn write_key(out: &mut String, key: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    for letter in key.chars() {
        if matches!(letter, '.' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
}

/// What was found to be wrong, up to a bound.
struct Findings {
    found: Vec<Violation>,
    most: usize,
}

impl Findings {
    fn add(&mut self, trail: &Trail<'_>, problem: impl Into<String>) {
        if !self.is_full() {
            self.found.push(trail.violation(problem));
        }
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.most
    }

    fn object(&mut self, inside: &Fields, object: ObjectRef<'_>, trail: &Trail<'_>) {
        for field in &inside.fields {
            if self.is_full() {
                return;
            }
            let trail = trail.then(Step::Keys(&field.keys));
            match lookup(object, &field.keys) {
                None if field.required => self.add(&trail, "is required and missing"),
                None => {}
                Some(found) => self.value(&field.shape, found, &trail),
            }
        }
        if !inside.additional {
            self.foreign(inside, object, trail, &mut Vec::new());
        }
    }

    /// What is there and not in the schema.
    fn foreign<'a>(
        &mut self,
        inside: &Fields,
        object: ObjectRef<'a>,
        trail: &Trail<'_>,
        at: &mut Vec<&'a str>,
    ) {
        for (key, value) in object.iter() {
            if self.is_full() {
                return;
            }
            at.push(key);
            match (inside.knows(at), value) {
                (Known::Itself, _) => {}
                (Known::Above, ValueRef::Object(below)) => self.foreign(inside, below, trail, at),
                (Known::Above, _) => self.add(
                    &trail.then(Step::Names(at)),
                    "must be an object, the schema has fields in it",
                ),
                (Known::Not, _) => self.add(&trail.then(Step::Names(at)), "is not in the schema"),
            }
            at.pop();
        }
    }

    fn value(&mut self, shape: &Shape, found: ValueRef<'_>, trail: &Trail<'_>) {
        match (&shape.kind, found) {
            (Type::Array(Some(items)), ValueRef::Array(found)) => {
                for (index, item) in found.iter().enumerate() {
                    if self.is_full() {
                        return;
                    }
                    self.value(items, item, &trail.then(Step::Index(index)));
                }
            }
            (Type::Object(Some(inside)), ValueRef::Object(found)) => self.object(inside, found, trail),
            (kind, found) if !fits(kind, found) => {
                self.add(trail, format!("is no {kind}: {}", shown(found)));
                return;
            }
            _ => {}
        }
        self.length(shape, found, trail);
    }

    fn length(&mut self, shape: &Shape, found: ValueRef<'_>, trail: &Trail<'_>) {
        let Some(most) = shape.max_length else { return };
        let length = match found {
            ValueRef::String(text) => text.chars().count(),
            ValueRef::Array(items) => items.len(),
            _ => 0,
        };
        if length > most {
            self.add(
                trail,
                format!("has a length of {length}, the schema allows {most}"),
            );
        }
    }
}

/// What a schema says about a place.
enum Known {
    /// It is a field.
    Itself,
    /// Fields are in it.
    Above,
    /// Nothing.
    Not,
}

impl Fields {
    fn knows(&self, at: &[&str]) -> Known {
        let keys = |index: usize| self.fields.get(index).map(|field| &*field.keys);
        let names = || at.iter().copied();
        // Whatever begins with a path stands right after it.
        let first = self
            .fields
            .partition_point(|field| field.keys.iter().map(|key| &**key).lt(names()));
        match keys(first) {
            Some(keys) if keys.iter().map(|key| &**key).eq(names()) => Known::Itself,
            Some(keys) if keys.iter().map(|key| &**key).take(at.len()).eq(names()) => Known::Above,
            _ => Known::Not,
        }
    }
}

/// Whether a value is of a type, as far as can be told without looking into it.
fn fits(kind: &Type, found: ValueRef<'_>) -> bool {
    match (kind, found) {
        (Type::String, ValueRef::String(_))
        | (Type::Float, ValueRef::Number(_))
        | (Type::Boolean, ValueRef::Bool(_))
        | (Type::Object(_), ValueRef::Object(_))
        | (Type::Array(_), ValueRef::Array(_)) => true,
        (Type::Int | Type::Timestamp, ValueRef::Number(number)) => number.fract() == 0.0,
        (Type::Timestamp, ValueRef::String(text)) => text.parse::<jiff::Timestamp>().is_ok(),
        (Type::Enum(values), ValueRef::String(text)) => values.iter().any(|value| value == text),
        (Type::GeoPoint, ValueRef::Object(point)) => {
            let within = |key: &str, most: f64| matches!(point.get(key), Some(ValueRef::Number(degrees)) if degrees.abs() <= most);
            within("lat", 90.0) && within("lon", 180.0)
        }
        _ => false,
    }
}

/// The value as an error shows it, cut short.
fn shown(value: ValueRef<'_>) -> String {
    let text = value.to_value().to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}
