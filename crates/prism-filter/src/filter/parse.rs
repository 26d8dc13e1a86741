//! From the JSON form to the tree.

use super::{Clause, Filter, Node, check::Budget};
use crate::{
    Document, DocumentError, Error, Limits, ObjectRef, Operand, Operator, Path, ValueRef,
    document::{Bounds, Encoder, encode_text, encode_value},
    location::Location,
    path::abbreviate,
};

/// See [`Filter::parse_str`].
pub(super) fn text(json: &str, limits: &Limits) -> Result<Filter, Error> {
    document(limits, |encoder| encode_text(encoder, json.as_bytes())).and_then(|json| read(&json, limits))
}

/// See [`Filter::parse_json`].
pub(super) fn value(json: &serde_json::Value, limits: &Limits) -> Result<Filter, Error> {
    document(limits, |encoder| encode_value(encoder, json)).and_then(|json| read(&json, limits))
}

/// Takes a JSON form over as a document. That bounds its depth and size and refuses repeated keys, of
/// which all but one would be lost.
pub(crate) fn document(
    limits: &Limits,
    write: impl FnOnce(&mut Encoder) -> Result<(), DocumentError>,
) -> Result<Document, Error> {
    // A combination is an object in an array in an object.
    let depth = 2 * limits.max_depth + 2 + Document::MAX_DEPTH;
    let bounds = Bounds {
        depth,
        bytes: limits.max_bytes,
    };
    Document::encode_within(bounds, 256, write).map_err(|source| Error::Unreadable { source })
}

fn read(json: &Document, limits: &Limits) -> Result<Filter, Error> {
    let node = Parser::new(limits).object(json.root(), 0, &Location::Root)?;
    let filter = Filter::of(node);
    filter.check(limits)?;
    Ok(filter)
}

/// Reads objects of the JSON form, counting what it finds.
pub(crate) struct Parser<'l> {
    pub(crate) budget: Budget<'l>,
}

impl<'l> Parser<'l> {
    pub(crate) fn new(limits: &'l Limits) -> Self {
        Self {
            budget: Budget::new(limits),
        }
    }

    /// The condition that `object` expresses, `depth` combinations inside the filter.
    pub(crate) fn object(
        &mut self,
        object: ObjectRef<'_>,
        depth: usize,
        at: &Location<'_>,
    ) -> Result<Node, Error> {
        if object.is_empty() {
            self.budget.clause(at)?;
        }
        let mut nodes = Vec::new();
        for (key, value) in object.iter() {
            match key {
                "$and" => nodes.push(Node::all(self.list("$and", value, depth, at)?)),
                "$or" => nodes.push(Node::any(self.list("$or", value, depth, at)?)),
                "$not" => nodes.push(self.not(value, depth, at)?),
                _ => self.clauses(key, value, at, &mut nodes)?,
            }
        }
        Ok(Node::all(nodes))
    }

    fn list(
        &mut self,
        name: &'static str,
        value: ValueRef<'_>,
        depth: usize,
        at: &Location<'_>,
    ) -> Result<Vec<Node>, Error> {
        let inside = at.inside(name);
        self.budget.depth(depth + 1, &inside)?;
        let ValueRef::Array(members) = value else {
            return Err(malformed(&inside, "it takes an array of filters"));
        };
        if members.is_empty() {
            self.budget.clause(&inside)?;
        }
        let mut nodes = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let at = at.member(name, index);
            let ValueRef::Object(member) = member else {
                return Err(malformed(&at, "a filter is an object"));
            };
            nodes.push(self.object(member, depth + 1, &at)?);
        }
        Ok(nodes)
    }

    fn not(&mut self, value: ValueRef<'_>, depth: usize, at: &Location<'_>) -> Result<Node, Error> {
        let inside = at.inside("$not");
        self.budget.depth(depth + 1, &inside)?;
        let ValueRef::Object(object) = value else {
            return Err(malformed(&inside, "it takes one filter, an object"));
        };
        Ok(Node::Not(Box::new(self.object(object, depth + 1, &inside)?)))
    }

    /// Adds what one member says that is not a combination.
    fn clauses(
        &mut self,
        key: &str,
        value: ValueRef<'_>,
        at: &Location<'_>,
        nodes: &mut Vec<Node>,
    ) -> Result<(), Error> {
        let inside = at.inside(key);
        if let Some(operators) = operators(value, &inside)? {
            let path = Path::parse(key).map_err(|source| Error::Path {
                clause: inside.to_string(),
                source,
            })?;
            for (name, operand) in operators.iter() {
                self.budget.clause(&inside)?;
                let operator = operator(name, &inside)?;
                let operand = Operand::of(operand);
                nodes.push(Node::Clause(Clause::new(path.clone(), operator, operand, at)?));
            }
            return Ok(());
        }
        self.budget.clause(&inside)?;
        nodes.push(Node::Clause(dotted(key, value, at, &inside)?));
        Ok(())
    }
}

/// A member whose key may end in an operator.
fn dotted(key: &str, value: ValueRef<'_>, at: &Location<'_>, inside: &Location<'_>) -> Result<Clause, Error> {
    let path_error = |source| Error::Path {
        clause: inside.to_string(),
        source,
    };
    if key == "metadata.exists" {
        let ValueRef::String(field) = value else {
            return Err(malformed(
                inside,
                "it takes the path of a field; ask for `exists` after a path",
            ));
        };
        return Ok(Clause::exists(Path::parse(field).map_err(path_error)?, true));
    }
    if key
        .strip_prefix('$')
        .is_some_and(|name| Operator::parse(name).is_some())
    {
        return Err(malformed(
            inside,
            "an operator belongs inside a field: `{\"field\": {\"$lt\": 3}}`",
        ));
    }
    let (path, operator) = Path::parse_with_operator(key).map_err(path_error)?;
    let operator = operator.unwrap_or(Operator::Eq);
    let operand = Operand::of(value);
    match operator {
        Operator::Eq | Operator::Ne if operand.is_wildcard() => {
            Ok(Clause::exists(path, operator == Operator::Eq))
        }
        _ => Clause::new(path, operator, operand, at),
    }
}

/// The value as an object of operators, if it is one.
fn operators<'a>(value: ValueRef<'a>, at: &Location<'_>) -> Result<Option<ObjectRef<'a>>, Error> {
    let ValueRef::Object(object) = value else {
        return Ok(None);
    };
    let count = object.iter().filter(|(key, _)| key.starts_with('$')).count();
    if count == 0 {
        return Ok(None);
    }
    if count < object.len() {
        return Err(malformed(
            at,
            "operators and plain keys are mixed; compare with an object by `$eq`",
        ));
    }
    Ok(Some(object))
}

fn operator(name: &str, at: &Location<'_>) -> Result<Operator, Error> {
    let operator = name.strip_prefix('$').and_then(Operator::parse);
    operator.ok_or_else(|| Error::UnknownOperator {
        clause: at.to_string(),
        operator: abbreviate(name).into_owned(),
    })
}

fn malformed(at: &Location<'_>, problem: &'static str) -> Error {
    Error::Malformed {
        clause: at.to_string(),
        problem,
    }
}
