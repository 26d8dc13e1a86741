//! A YAML text as a tree that remembers positions.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
};

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Options, Spanned};

use super::{Error, Path, decode};

/// A configuration larger than this is refused unread.
pub const MAX_SOURCE_BYTES: usize = 4 * 1024 * 1024;

/// A place in a text: line and column, both counted from one.
pub type Mark = (u32, u32);

/// A configuration text, parsed.
///
/// Anchors, aliases and merge keys are expanded, within bounds; duplicate keys, several documents in
/// one text and numbers that are not finite are refused; only `true` and `false` are booleans. An
/// empty text is an empty mapping.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    value: Value,
    places: HashMap<Path, Place>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    key: Option<Mark>,
    value: Option<Mark>,
}

impl Source {
    /// Parses a text. `name` is what errors call it: a file's path as the user gave it.
    ///
    /// # Errors
    /// Text that is too large, is no YAML, or repeats a key; with line and column.
    pub fn parse(name: impl Into<String>, text: &str) -> Result<Self, Error> {
        let name = name.into();
        if text.len() > MAX_SOURCE_BYTES {
            let message = format!(
                "the file has {} bytes, more than `{MAX_SOURCE_BYTES}`",
                text.len()
            );
            return Err(named(Error::new(Path::root(), message), &name));
        }
        let root = serde_saphyr::from_str_with_options::<Option<Spanned<Node>>>(text, options())
            .map_err(|error| named(from_yaml(&error), &name))?;
        let mut places = HashMap::new();
        let value = match root {
            Some(root) if root.value != Node::Null => flatten(root, &mut places),
            _ => Value::Object(Map::new()),
        };
        Ok(Self { name, value, places })
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// As [`Self::parse`], and a file that cannot be read or is not UTF-8.
    pub fn load(path: &std::path::Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let text = read(path).map_err(|error| {
            let message = format!("the file cannot be read: {error}");
            named(Error::new(Path::root(), message), &name)
        })?;
        Self::parse(name, &text)
    }

    /// What errors call this text.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tree.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Where the value at `path` begins.
    pub fn locate(&self, path: &Path) -> Option<Mark> {
        self.places.get(path)?.value
    }

    /// Where the key of the node at `path` begins; `None` for list items and the root.
    pub fn locate_key(&self, path: &Path) -> Option<Mark> {
        self.places.get(path)?.key
    }

    /// Decodes the whole tree.
    ///
    /// # Errors
    /// The first unknown key, wrong type or value out of range, with line and column.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.decode_at(&Path::root())
    }

    /// Decodes the subtree at `path`; an absent one decodes like `null`.
    ///
    /// # Errors
    /// As [`Self::decode`]; paths in errors are those of the whole tree.
    pub fn decode_at<T: DeserializeOwned>(&self, path: &Path) -> Result<T, Error> {
        let value = self.at(path).unwrap_or(&Value::Null);
        decode::decode_value(value).map_err(|error| self.place(error.within(path)))
    }

    /// The subtree at `path`.
    pub fn at(&self, path: &Path) -> Option<&Value> {
        path.segments()
            .iter()
            .try_fold(&self.value, |value, segment| match segment {
                super::Segment::Key(key) => value.get(key),
                super::Segment::Index(index) => value.get(index),
            })
    }

    /// Gives an error about this tree its name and position: that of the key when the key is at fault
    /// (the error carries a suggestion or says `unknown key`), otherwise that of the value; for a node
    /// that is not there, of the nearest one above.
    #[must_use]
    pub fn place(&self, mut error: Error) -> Error {
        let key_first = error.message.starts_with("unknown key");
        let mut path = Some(error.path.clone());
        let mut mark = None;
        while let (None, Some(here)) = (mark, path) {
            let place = self.places.get(&here).copied().unwrap_or_default();
            mark = if key_first {
                place.key.or(place.value)
            } else {
                place.value.or(place.key)
            };
            path = here.parent();
        }
        error.line = mark.map(|(line, _)| line);
        error.column = mark.map(|(_, column)| column);
        named(error, &self.name)
    }
}

fn read(path: &std::path::Path) -> io::Result<String> {
    use io::Read;
    let limit = MAX_SOURCE_BYTES as u64 + 1;
    let mut text = String::new();
    std::fs::File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

fn named(mut error: Error, name: &str) -> Error {
    error.source_name = Some(name.to_owned());
    error
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 100_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_depth: 64,
            max_documents: 1,
            max_total_scalar_bytes: MAX_SOURCE_BYTES,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 8,
        },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn from_yaml(error: &serde_saphyr::Error) -> Error {
    let mark = error.location().and_then(mark);
    let text = error
        .without_snippet()
        .render_with_formatter(&serde_saphyr::UserMessageFormatter);
    // The position has its own place in our error.
    let end = text
        .find(" at line ")
        .or_else(|| text.find("\n"))
        .unwrap_or(text.len());
    let mut placed = Error::new(
        Path::root(),
        lower_first(text[..end].trim_end_matches(['.', ':'])),
    );
    placed.line = mark.map(|(line, _)| line);
    placed.column = mark.map(|(_, column)| column);
    placed
}

fn lower_first(text: &str) -> String {
    let mut rest = text.chars();
    rest.next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(rest).collect())
}

fn mark(location: Location) -> Option<Mark> {
    let line = u32::try_from(location.line()).ok()?;
    let column = u32::try_from(location.column()).ok()?;
    (line > 0).then_some((line, column))
}

/// A YAML node whose children know where they stand.
#[derive(Debug, PartialEq)]
enum Node {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Spanned<Node>>),
    Mapping(Vec<(Spanned<String>, Spanned<Node>)>),
}

/// Turns positioned nodes into a JSON tree and a table of places, breadth first so that a text that
/// nests deeply costs no stack here.
fn flatten(root: Spanned<Node>, places: &mut HashMap<Path, Place>) -> Value {
    let mut queue = VecDeque::from([(Path::root(), None, root)]);
    let mut value = Value::Null;
    while let Some((path, key, node)) = queue.pop_front() {
        let place = Place {
            key,
            value: mark(node.referenced),
        };
        let shell = match node.value {
            Node::Null => Value::Null,
            Node::Bool(bool) => Value::Bool(bool),
            Node::Number(number) => Value::Number(number),
            Node::String(text) => Value::String(text),
            Node::List(items) => {
                let shell = vec![Value::Null; items.len()];
                for (index, item) in items.into_iter().enumerate() {
                    queue.push_back((path.clone().index(index), None, item));
                }
                Value::Array(shell)
            }
            Node::Mapping(entries) => {
                for (key, item) in entries {
                    queue.push_back((path.clone().key(key.value), mark(key.referenced), item));
                }
                Value::Object(Map::new())
            }
        };
        insert(&mut value, &path, shell);
        places.insert(path, place);
    }
    value
}

fn insert(root: &mut Value, path: &Path, shell: Value) {
    let mut at = root;
    for segment in path.segments() {
        at = match (segment, at) {
            (super::Segment::Key(key), Value::Object(map)) => map.entry(key.clone()).or_insert(Value::Null),
            (super::Segment::Index(index), Value::Array(items)) if *index < items.len() => &mut items[*index],
            // Parents precede their children, so there is always a place.
            _ => return,
        };
    }
    *at = shell;
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("the number is not finite"))?;
        Ok(Node::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut mapping = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            mapping.push(entry);
        }
        Ok(Node::Mapping(mapping))
    }
}
