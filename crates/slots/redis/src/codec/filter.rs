//! A filter as the function `query` takes it: each part an argument of its own, in prefix order.
//!
//! What the function cannot decide is sent as undecided. It must never decide otherwise than the filter
//! would: see `functions/filters.lua` for what it makes of metadata.

use bytes::{BufMut, Bytes};
use prism_filter::{Clause, Compiled, Node, Operator, SystemField, ValueRef, notation::instant};

/// How many parts one filter is sent in, and how many operands of lists: each costs Redis time.
const MOST_PARTS: usize = 64;
const MOST_OPERANDS: usize = 512;
/// How many bytes of operands and keys are sent with every call.
const MOST_BYTES: usize = 32 << 10;

/// A filter in parts.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) arguments: Vec<Bytes>,
    /// How many combinations and clauses there are.
    pub(crate) parts: u64,
    pub(crate) reads_metadata: bool,
}

impl Program {
    /// Nothing where the function could pass no record over.
    pub(crate) fn of(filter: Option<&Compiled>) -> Self {
        let Some(filter) = filter else {
            return Self::default();
        };
        let mut writer = Writer {
            program: Self::default(),
            now: filter.now(),
            operands: 0,
            bytes: 0,
        };
        let outcomes = writer.node(filter.filter().node());
        match outcomes.no {
            true => writer.program,
            false => Self::default(),
        }
    }
}

/// What a part may answer, beside that it cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcomes {
    yes: bool,
    no: bool,
}

const UNDECIDED: Outcomes = Outcomes {
    yes: false,
    no: false,
};
const EITHER: Outcomes = Outcomes { yes: true, no: true };

struct Writer {
    program: Program,
    now: Option<i64>,
    operands: usize,
    bytes: usize,
}

impl Writer {
    fn node(&mut self, node: &Node) -> Outcomes {
        if self.program.parts as usize >= MOST_PARTS {
            return self.undecided();
        }
        self.program.parts += 1;
        match node {
            Node::And(nodes) => {
                let members = self.combination(b'&', nodes);
                Outcomes {
                    yes: members.iter().all(|member| member.yes),
                    no: members.iter().any(|member| member.no),
                }
            }
            Node::Or(nodes) => {
                let members = self.combination(b'|', nodes);
                Outcomes {
                    yes: members.iter().any(|member| member.yes),
                    no: members.iter().all(|member| member.no),
                }
            }
            Node::Not(node) => self.opposite(|writer| writer.node(node)),
            Node::Clause(clause) => self.clause(clause),
        }
    }

    /// Members for which there is no room are left out together.
    fn combination(&mut self, tag: u8, nodes: &[Node]) -> Vec<Outcomes> {
        let room = MOST_PARTS.saturating_sub(self.program.parts as usize);
        let (sent, left) = nodes.split_at(nodes.len().min(room));
        let count = sent.len() + usize::from(!left.is_empty());
        // At most one more than there is room for.
        self.argument([&[tag][..], &(count as u16).to_be_bytes()].concat());
        let mut members: Vec<Outcomes> = sent.iter().map(|node| self.node(node)).collect();
        if !left.is_empty() {
            members.push(self.undecided());
        }
        members
    }

    fn opposite(&mut self, write: impl FnOnce(&mut Self) -> Outcomes) -> Outcomes {
        self.argument(vec![b'!']);
        let Outcomes { yes, no } = write(self);
        Outcomes { yes: no, no: yes }
    }

    fn undecided(&mut self) -> Outcomes {
        self.argument(vec![b'?']);
        UNDECIDED
    }

    fn clause(&mut self, clause: &Clause) -> Outcomes {
        match clause.operator() {
            Operator::Ne | Operator::Nin => self.opposite(|writer| writer.positive(clause)),
            Operator::Exists if clause.operand().view() == ValueRef::Bool(false) => {
                self.opposite(|writer| writer.positive(clause))
            }
            _ => self.positive(clause),
        }
    }

    /// The clause without its negation.
    fn positive(&mut self, clause: &Clause) -> Outcomes {
        let (Some(question), Some(field)) = (self.question(clause), field(clause)) else {
            return self.undecided();
        };
        let keys = clause.path().keys();
        let texts = question.operands.iter().map(Vec::len);
        let bytes = texts.chain(keys.iter().map(|key| key.len())).sum::<usize>();
        let (key_count, count) = (u16::try_from(keys.len()), u16::try_from(question.operands.len()));
        let (Ok(key_count), Ok(count)) = (key_count, count) else {
            return self.undecided();
        };
        if self.bytes + bytes > MOST_BYTES || self.operands + usize::from(count) > MOST_OPERANDS {
            return self.undecided();
        }
        self.bytes += bytes;
        self.operands += usize::from(count);
        self.program.reads_metadata |= field == b'm';
        let mut head = vec![b'c', question.operator, field];
        head.put_u16(key_count);
        head.put_u16(count);
        self.argument(head);
        for key in keys {
            self.argument(key.as_bytes().to_vec());
        }
        for operand in question.operands {
            self.argument(operand);
        }
        question.outcomes
    }

    fn question(&self, clause: &Clause) -> Option<Question> {
        use Operator::{
            Contains, EndsWith, Eq, Exists, Gt, Gte, In, Lt, Lte, Ne, Nin, StartsWith, Type, Within,
        };
        let value = clause.operand().view();
        let plain = |operator| Some(Question::new(operator, vec![operand(value)], EITHER));
        if let Some(time) = clause.relative_time() {
            let bound = operand(ValueRef::Number(time.at(self.now?) as f64));
            let operator = match clause.operator() {
                Lt => b'l',
                Lte => b'L',
                Gt => b'g',
                _ => b'G',
            };
            return Some(Question::new(operator, vec![bound], EITHER));
        }
        if clause.path().system().is_some_and(SystemField::is_time) {
            return of_time(clause);
        }
        match clause.operator() {
            Eq | Ne => plain(b'='),
            Lt => plain(b'<'),
            Lte => plain(b'{'),
            Gt => plain(b'>'),
            Gte => plain(b'}'),
            In | Nin => Some(Question::new(
                b'@',
                elements(value).map(operand).collect(),
                EITHER,
            )),
            Contains => plain(b'*'),
            StartsWith => plain(b'^'),
            EndsWith => plain(b'$'),
            Type => plain(b'k'),
            Exists => Some(Question::new(b'e', Vec::new(), EITHER)),
            Within => Some(Question::new(b'o', Vec::new(), NEVER_YES)),
            // Regular expressions, versions, networks: of texts only.
            _ => Some(Question::new(b'x', Vec::new(), NEVER_YES)),
        }
    }

    fn argument(&mut self, bytes: Vec<u8>) {
        self.program.arguments.push(bytes.into());
    }
}

const NEVER_YES: Outcomes = Outcomes { yes: false, no: true };

/// What is asked of a value that is there.
struct Question {
    operator: u8,
    operands: Vec<Vec<u8>>,
    outcomes: Outcomes,
}

impl Question {
    fn new(operator: u8, operands: Vec<Vec<u8>>, outcomes: Outcomes) -> Self {
        Self {
            operator,
            operands,
            outcomes,
        }
    }
}

/// Where a clause looks; a lease may have been renewed since, and its end is left to the caller.
fn field(clause: &Clause) -> Option<u8> {
    match clause.path().system() {
        None => Some(b'm'),
        Some(SystemField::Identity) => Some(b'i'),
        Some(SystemField::RegisteredAt) => Some(b'r'),
        Some(SystemField::UpdatedAt) => Some(b'u'),
        Some(SystemField::ExpiresAt) => None,
    }
}

/// A question about when a record was written, unless it compares with a part of a millisecond.
fn of_time(clause: &Clause) -> Option<Question> {
    use Operator::{Eq, Exists, Gt, Gte, In, Lt, Lte, Ne, Nin};
    let value = clause.operand().view();
    let operator = match clause.operator() {
        Eq | Ne => b'=',
        Lt => b'<',
        Lte => b'{',
        Gt => b'>',
        Gte => b'}',
        In | Nin => b'@',
        Exists => return Some(Question::new(b'e', Vec::new(), EITHER)),
        _ => return None,
    };
    let operands = match value {
        ValueRef::Array(_) => elements(value).map(millis).collect::<Option<Vec<_>>>()?,
        single => vec![millis(single)?],
    };
    Some(Question::new(operator, operands, EITHER))
}

/// A point in time that a double holds, in whole milliseconds.
fn millis(time: ValueRef<'_>) -> Option<Vec<u8>> {
    const NANOS: i128 = 1_000_000;
    const LARGEST: i128 = 1 << 53;
    let millis = match time {
        ValueRef::Number(millis) => millis,
        ValueRef::String(text) => {
            let nanos = instant(text).filter(|nanos| nanos % NANOS == 0)?;
            Some(nanos / NANOS).filter(|millis| millis.abs() < LARGEST)? as f64
        }
        _ => return None,
    };
    Some(operand(ValueRef::Number(millis)))
}

fn elements(list: ValueRef<'_>) -> impl Iterator<Item = ValueRef<'_>> {
    let list = match list {
        ValueRef::Array(list) => Some(list),
        _ => None,
    };
    list.into_iter().flat_map(|list| list.iter().collect::<Vec<_>>())
}

fn operand(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Null => vec![b'z'],
        ValueRef::Bool(true) => vec![b't'],
        ValueRef::Bool(false) => vec![b'f'],
        ValueRef::Number(number) => {
            let mut bytes = vec![b'n'];
            bytes.put_f64(number);
            bytes
        }
        ValueRef::String(text) => [b"s", text.as_bytes()].concat(),
        ValueRef::Array(_) | ValueRef::Object(_) => vec![b'c'],
    }
}

#[cfg(test)]
mod tests {
    use prism_filter::{Filter, Limits};

    use super::*;

    fn program(json: &str) -> Program {
        let limits = Limits {
            max_clauses: 1_000,
            ..Limits::default()
        };
        let filter = Filter::parse_str(json, &limits).unwrap();
        Program::of(Some(&filter.compile_at(5, &limits).unwrap()))
    }

    #[test]
    fn a_filter_is_sent_in_prefix_order() {
        let program = program(r#"{"a.b": "x", "c": {"$gte": 1}}"#);
        let expected: [&[u8]; 7] = [
            b"&\0\x02",
            b"c=m\0\x02\0\x01",
            b"a",
            b"b",
            b"sx",
            b"c}m\0\x01\0\x01",
            b"c",
        ];
        assert_eq!(program.arguments[..7], expected);
        assert_eq!(program.arguments[7], b"n\x3f\xf0\0\0\0\0\0\0"[..]);
        assert_eq!(
            (program.arguments.len(), program.parts, program.reads_metadata),
            (8, 3, true)
        );
    }

    /// Where nothing can be passed over, nothing is read for it.
    #[test]
    fn what_cannot_be_decided_is_not_sent() {
        for json in [
            "{}",
            r#"{"$expires_at.lt": "now"}"#,
            r#"{"$not": {"a.regex": "x"}}"#,
            r#"{"$or": [{"a": 1}, {"$expires_at.exists": true}]}"#,
            r#"{"$registered_at.gt": "2026-01-01T00:00:00.0005Z"}"#,
        ] {
            assert_eq!(program(json).arguments.len(), 0, "{json}");
        }
        assert_eq!(program(r#"{"a.regex": "x"}"#).arguments.len(), 2);
    }

    #[test]
    fn a_filter_takes_a_bounded_part_of_a_call() {
        let clauses = |count: usize| {
            let clauses: Vec<String> = (0..count).map(|at| format!(r#"{{"f{at}": 1}}"#)).collect();
            program(&format!(r#"{{"$and": [{}]}}"#, clauses.join(",")))
        };
        assert_eq!(clauses(500).parts as usize, MOST_PARTS);
        let list = (0..MOST_OPERANDS + 1)
            .map(|at| at.to_string())
            .collect::<Vec<_>>();
        let most = program(&format!(r#"{{"a.in": [{}]}}"#, list[1..].join(",")));
        assert_eq!(most.arguments.len(), MOST_OPERANDS + 2);
        assert_eq!(
            program(&format!(r#"{{"a.in": [{}]}}"#, list.join(",")))
                .arguments
                .len(),
            0
        );
        let long = "x".repeat(MOST_BYTES);
        assert_eq!(program(&format!(r#"{{"a": "{long}"}}"#)).arguments.len(), 0);
    }
}
