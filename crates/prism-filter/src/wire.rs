//! The protobuf forms. Whatever is not set, not known or too deep is refused, never guessed.

use prism_proto::pattern::{Clause as ClauseMessage, Filter as FilterMessage, FilterList, clause, filter};
use prost_types::{ListValue, NullValue, Struct, Value, value};

use crate::{
    Clause, Document, DocumentError, Error, Filter, Limits, Node, Operand, Operator, Path, ValueRef,
    document::{Encoder, array, object},
    filter::{Parser, document},
    location::Location,
};

impl Document {
    /// Takes over metadata as a request carries it: a map from keys to values.
    pub fn from_proto<'a>(
        fields: impl IntoIterator<Item = (&'a String, &'a Value)>,
    ) -> Result<Self, DocumentError> {
        Self::encode(256, |encoder| object(encoder, fields, write))
    }

    /// Metadata as a response carries it.
    pub fn to_proto<M: FromIterator<(String, Value)>>(&self) -> M {
        self.root()
            .iter()
            .map(|(key, value)| (key.to_owned(), to_proto(value)))
            .collect()
    }
}

impl Operand {
    /// Takes over an operand, unless it takes more than `bytes` in memory.
    fn from_proto(operand: &Value, bytes: usize) -> Result<Self, DocumentError> {
        Self::encode_within(bytes, |encoder| write(encoder, operand))
    }
}

impl Filter {
    /// Reads the protobuf form. A message that is not set matches everything, but only as a whole: as a
    /// member of a combination it is refused.
    pub fn from_proto(message: &FilterMessage, limits: &Limits) -> Result<Self, Error> {
        if message.node.is_none() {
            return Ok(Self::new());
        }
        let node = Parser::new(limits).message(message, 0, &Location::Root)?;
        let filter = Self::of(node);
        filter.check(limits)?;
        Ok(filter)
    }

    /// The protobuf form, which reads back as the same tree.
    ///
    /// # Errors
    /// The mistake of a filter that was [built](Filter) with one.
    pub fn to_proto(&self) -> Result<FilterMessage, Error> {
        match self.mistake() {
            Some(mistake) => Err(mistake.clone()),
            None => Ok(node_to_proto(self.node())),
        }
    }
}

impl Parser<'_> {
    /// The condition that `message` expresses, `depth` combinations inside the filter.
    fn message(&mut self, message: &FilterMessage, depth: usize, at: &Location<'_>) -> Result<Node, Error> {
        match &message.node {
            None => Err(Error::Unset {
                clause: at.to_string(),
                part: "condition",
            }),
            Some(filter::Node::Clause(clause)) => self.clause(clause, at).map(Node::Clause),
            Some(filter::Node::And(list)) => Ok(Node::all(self.messages("$and", list, depth + 1, at)?)),
            Some(filter::Node::Or(list)) => Ok(Node::any(self.messages("$or", list, depth + 1, at)?)),
            Some(filter::Node::Not(message)) => {
                let at = at.inside("$not");
                self.budget.depth(depth + 1, &at)?;
                Ok(Node::Not(Box::new(self.message(message, depth + 1, &at)?)))
            }
            Some(filter::Node::Expression(json)) => {
                let json = document(self.budget.limits, |encoder| object(encoder, &json.fields, write))?;
                self.object(json.root(), depth, at)
            }
        }
    }

    fn messages(
        &mut self,
        name: &'static str,
        list: &FilterList,
        depth: usize,
        at: &Location<'_>,
    ) -> Result<Vec<Node>, Error> {
        self.budget.depth(depth, &at.inside(name))?;
        if list.filters.is_empty() {
            self.budget.clause(&at.inside(name))?;
        }
        let member = |(index, filter)| self.message(filter, depth, &at.member(name, index));
        list.filters.iter().enumerate().map(member).collect()
    }

    fn clause(&mut self, message: &ClauseMessage, at: &Location<'_>) -> Result<Clause, Error> {
        let inside = at.inside(&message.field);
        self.budget.clause(&inside)?;
        let name = || inside.to_string();
        let path = Path::parse(&message.field).map_err(|source| Error::Path {
            clause: name(),
            source,
        })?;
        let operator = operator_from_proto(message.operator).map_err(|known| match known {
            true => Error::Unset {
                clause: name(),
                part: "operator",
            },
            false => Error::UnknownOperator {
                clause: name(),
                operator: message.operator.to_string(),
            },
        })?;
        let operand = message.operand.as_ref();
        let operand = operand.ok_or_else(|| Error::Unset {
            clause: name(),
            part: "operand",
        })?;
        let operand = Operand::from_proto(operand, self.budget.limits.max_operand_bytes)
            .map_err(|source| Error::of_operand(name(), source))?;
        Clause::new(path, operator, operand, at)
    }
}

/// Fails with whether the number is that of the unset operator.
fn operator_from_proto(number: i32) -> Result<Operator, bool> {
    use clause::Operator as Message;
    Ok(match Message::try_from(number).map_err(|_| false)? {
        Message::Unspecified => return Err(true),
        Message::Eq => Operator::Eq,
        Message::Ne => Operator::Ne,
        Message::Lt => Operator::Lt,
        Message::Lte => Operator::Lte,
        Message::Gt => Operator::Gt,
        Message::Gte => Operator::Gte,
        Message::In => Operator::In,
        Message::Nin => Operator::Nin,
        Message::Startswith => Operator::StartsWith,
        Message::Endswith => Operator::EndsWith,
        Message::Contains => Operator::Contains,
        Message::Regex => Operator::Regex,
        Message::Exists => Operator::Exists,
        Message::Type => Operator::Type,
        Message::SemverLt => Operator::SemverLt,
        Message::SemverLte => Operator::SemverLte,
        Message::SemverGt => Operator::SemverGt,
        Message::SemverGte => Operator::SemverGte,
        Message::SemverEq => Operator::SemverEq,
        Message::Within => Operator::Within,
        Message::Cidr => Operator::Cidr,
    })
}

fn operator_to_proto(operator: Operator) -> clause::Operator {
    use clause::Operator as Message;
    match operator {
        Operator::Eq => Message::Eq,
        Operator::Ne => Message::Ne,
        Operator::Lt => Message::Lt,
        Operator::Lte => Message::Lte,
        Operator::Gt => Message::Gt,
        Operator::Gte => Message::Gte,
        Operator::In => Message::In,
        Operator::Nin => Message::Nin,
        Operator::StartsWith => Message::Startswith,
        Operator::EndsWith => Message::Endswith,
        Operator::Contains => Message::Contains,
        Operator::Regex => Message::Regex,
        Operator::Exists => Message::Exists,
        Operator::Type => Message::Type,
        Operator::SemverLt => Message::SemverLt,
        Operator::SemverLte => Message::SemverLte,
        Operator::SemverGt => Message::SemverGt,
        Operator::SemverGte => Message::SemverGte,
        Operator::SemverEq => Message::SemverEq,
        Operator::Within => Message::Within,
        Operator::Cidr => Message::Cidr,
    }
}

fn node_to_proto(node: &Node) -> FilterMessage {
    let list = |nodes: &[Node]| FilterList {
        filters: nodes.iter().map(node_to_proto).collect(),
    };
    let node = match node {
        Node::And(nodes) => filter::Node::And(list(nodes)),
        Node::Or(nodes) => filter::Node::Or(list(nodes)),
        Node::Not(node) => filter::Node::Not(Box::new(node_to_proto(node))),
        Node::Clause(clause) => filter::Node::Clause(ClauseMessage {
            field: clause.path().to_string(),
            operator: operator_to_proto(clause.operator()).into(),
            operand: Some(to_proto(clause.operand().view())),
        }),
    };
    FilterMessage { node: Some(node) }
}

/// Encodes one value.
fn write(encoder: &mut Encoder, value: &Value) -> Result<(), DocumentError> {
    match &value.kind {
        None => return Err(DocumentError::Unset { path: String::new() }),
        Some(value::Kind::NullValue(_)) => encoder.null(),
        Some(value::Kind::BoolValue(value)) => encoder.boolean(*value),
        Some(value::Kind::NumberValue(number)) => return encoder.number(*number),
        Some(value::Kind::StringValue(text)) => encoder.string(text),
        Some(value::Kind::ListValue(list)) => return array(encoder, &list.values, write),
        Some(value::Kind::StructValue(fields)) => return object(encoder, &fields.fields, write),
    }
    Ok(())
}

fn to_proto(value: ValueRef<'_>) -> Value {
    let kind = match value {
        ValueRef::Null => value::Kind::NullValue(NullValue::NullValue.into()),
        ValueRef::Bool(value) => value::Kind::BoolValue(value),
        ValueRef::Number(number) => value::Kind::NumberValue(number),
        ValueRef::String(text) => value::Kind::StringValue(text.to_owned()),
        ValueRef::Array(array) => value::Kind::ListValue(ListValue {
            values: array.iter().map(to_proto).collect(),
        }),
        ValueRef::Object(object) => value::Kind::StructValue(Struct {
            fields: object
                .iter()
                .map(|(key, value)| (key.to_owned(), to_proto(value)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        to_proto(value)
    }
}
