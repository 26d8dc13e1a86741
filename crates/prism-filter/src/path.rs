//! Where in a record a clause looks.

use std::{borrow::Cow, fmt, str::FromStr};

use crate::operator::{Operator, VERSIONS};

/// The prefix that may precede a metadata path.
const METADATA: &str = "metadata";

/// The longest part of somebody else's text that an error repeats.
const SHOWN: usize = 64;

/// A field of the record itself rather than of its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemField {
    /// `$identity`: the record's name, a string.
    Identity,
    /// `$registered_at`: when the registration was made.
    RegisteredAt,
    /// `$updated_at`: when the metadata was last written.
    UpdatedAt,
    /// `$expires_at`: when the lease ends; missing on a registration without a lease.
    ExpiresAt,
}

impl SystemField {
    /// Every system field.
    pub const ALL: [Self; 4] = [
        Self::Identity,
        Self::RegisteredAt,
        Self::UpdatedAt,
        Self::ExpiresAt,
    ];

    /// As in filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "$identity",
            Self::RegisteredAt => "$registered_at",
            Self::UpdatedAt => "$updated_at",
            Self::ExpiresAt => "$expires_at",
        }
    }

    /// Whether it is a point in time rather than a string.
    pub fn is_time(self) -> bool {
        self != Self::Identity
    }
}

/// The place of a value: a [system field](SystemField), or the keys that lead into the metadata.
///
/// In text the keys are joined by dots; a dot or backslash inside a key has a backslash before it. A
/// leading `metadata.` is stripped. A first key that begins with `$` is a system field; one in the
/// metadata is reached as `metadata.$key`, and a metadata field that is itself called `metadata` as
/// `metadata.metadata.key`. Paths lead through objects only, not into arrays.
///
/// ```
/// # use prism_filter::{Path, SystemField};
/// let path: Path = r"metadata.labels.example\.org/zone".parse()?;
/// assert_eq!(path.keys(), ["labels".into(), "example.org/zone".into()]);
/// assert_eq!(path.to_string(), r"labels.example\.org/zone");
/// assert_eq!(Path::parse("$identity")?.system(), Some(SystemField::Identity));
/// # Ok::<(), prism_filter::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    system: Option<SystemField>,
    keys: Box<[Box<str>]>,
}

impl Path {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        Segments::parse(text)?.into_path()
    }

    /// Reads a path that may end in an operator after at least one segment of its own.
    pub(crate) fn parse_with_operator(text: &str) -> Result<(Self, Option<Operator>), PathError> {
        let mut segments = Segments::parse(text)?;
        let operator = match &*segments.keys {
            [_, end @ ..] => Operator::at_end_of(end),
            [] => None,
        };
        if let Some((_, count)) = operator {
            segments.keys.truncate(segments.keys.len() - count);
        }
        match (&*segments.keys, operator) {
            // Taken for an operator on a field called `semver`, it would hold for everything.
            ([_, .., last], Some((operator, 1))) if &**last == VERSIONS => {
                Err(PathError::NoVersionOperator {
                    operator: format!("{VERSIONS}.{operator}"),
                })
            }
            _ => Ok((segments.into_path()?, operator.map(|(operator, _)| operator))),
        }
    }

    /// The system field, if it is one.
    pub fn system(&self) -> Option<SystemField> {
        self.system
    }

    /// The keys that lead into the metadata, outermost first; none for a system field.
    pub fn keys(&self) -> &[Box<str>] {
        &self.keys
    }

    /// Whether the text of this path would be read as ending in an operator.
    pub(crate) fn ends_in_operator(&self) -> bool {
        matches!(&*self.keys, [_, end @ ..] if Operator::at_end_of(end).is_some())
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(system) = self.system {
            return f.write_str(system.as_str());
        }
        let mistakable = match &*self.keys {
            [first, ..] if first.starts_with('$') => true,
            [first, _, ..] => &**first == METADATA,
            _ => false,
        };
        if mistakable {
            write!(f, "{METADATA}.")?;
        }
        for (index, key) in self.keys.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(f, "{dot}{}", escape(key))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing between two dots, before the first or after the last.
    #[error("the path `{path}` has an empty key, remove the extra dot or write `\\.` for a dot in a key")]
    EmptyKey {
        /// The path.
        path: String,
    },
    /// A backslash before something that needs none.
    #[error("the path `{path}` has a stray backslash, only `\\.` and `\\\\` are escapes")]
    StrayBackslash {
        /// The path.
        path: String,
    },
    /// A dollar name that is not one of ours.
    #[error(
        "there is no system field `{name}`, there are `$identity`, `$registered_at`, `$updated_at` and \
         `$expires_at`; a metadata field of that name is `metadata.{name}`, and conditions are combined by \
         `$and`, `$or` and `$not`"
    )]
    UnknownSystemField {
        /// The name.
        name: String,
    },
    /// An operator on versions that there is not.
    #[error(
        "there is no operator `{operator}`, versions are compared by `semver.lt`, `semver.lte`, `semver.gt`, \
         `semver.gte` and `semver.eq`, and negated by `$not`; a field that is called `semver` is asked about in \
         the form `{{\"a.semver\": {{\"$ne\": …}}}}`"
    )]
    NoVersionOperator {
        /// As it was written.
        operator: String,
    },
    /// System fields have nothing inside.
    #[error("`{path}` goes into a system field, which has no fields of its own")]
    InsideSystemField {
        /// The path.
        path: String,
    },
}

/// The segments of a path between its dots, unescaped, without the leading `metadata`.
struct Segments<'a> {
    text: &'a str,
    keys: Vec<Box<str>>,
    below_metadata: bool,
}

impl<'a> Segments<'a> {
    fn parse(text: &'a str) -> Result<Self, PathError> {
        let mut keys: Vec<Box<str>> = Vec::new();
        let mut key = String::new();
        let mut characters = text.chars();
        loop {
            match characters.next() {
                Some('\\') => match characters.next() {
                    Some(escaped @ ('.' | '\\')) => key.push(escaped),
                    _ => {
                        return Err(PathError::StrayBackslash {
                            path: abbreviate(text).into_owned(),
                        });
                    }
                },
                Some('.') | None if key.is_empty() => {
                    return Err(PathError::EmptyKey {
                        path: abbreviate(text).into_owned(),
                    });
                }
                Some('.') => keys.push(std::mem::take(&mut key).into()),
                Some(other) => key.push(other),
                None => break,
            }
        }
        keys.push(key.into());
        let below_metadata = keys.len() > 1 && &*keys[0] == METADATA;
        if below_metadata {
            keys.remove(0);
        }
        Ok(Self {
            text,
            keys,
            below_metadata,
        })
    }

    fn into_path(self) -> Result<Path, PathError> {
        let first = &self.keys[0];
        if self.below_metadata || !first.starts_with('$') {
            return Ok(Path {
                system: None,
                keys: self.keys.into(),
            });
        }
        let Some(system) = SystemField::ALL
            .into_iter()
            .find(|system| system.as_str() == &**first)
        else {
            return Err(PathError::UnknownSystemField {
                name: abbreviate(first).into_owned(),
            });
        };
        if self.keys.len() > 1 {
            return Err(PathError::InsideSystemField {
                path: abbreviate(self.text).into_owned(),
            });
        }
        Ok(Path {
            system: Some(system),
            keys: Box::default(),
        })
    }
}

/// A key as it is written in a path.
pub(crate) fn escape(key: &str) -> Cow<'_, str> {
    if !key.contains(['.', '\\']) {
        return Cow::Borrowed(key);
    }
    Cow::Owned(key.replace('\\', r"\\").replace('.', r"\."))
}

/// `text`, or its beginning if it is too long to be repeated to a reader.
pub(crate) fn abbreviate(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(SHOWN);
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        Path::parse(text)
            .unwrap()
            .keys()
            .iter()
            .map(|key| key.to_string())
            .collect()
    }

    #[test]
    fn text_is_split_at_dots_that_are_not_escaped() {
        assert_eq!(keys("a"), ["a"]);
        assert_eq!(keys("a.b.c"), ["a", "b", "c"]);
        assert_eq!(keys(r"a\.b.c"), ["a.b", "c"]);
        assert_eq!(keys(r"a\\.b"), [r"a\", "b"]);
        assert_eq!(keys("schlüssel.ключ"), ["schlüssel", "ключ"]);
    }

    #[test]
    fn a_leading_metadata_is_stripped_once() {
        assert_eq!(keys("metadata.a"), ["a"]);
        assert_eq!(keys("metadata.metadata.a"), ["metadata", "a"]);
        assert_eq!(keys("metadata"), ["metadata"]);
        assert_eq!(keys("metadata.$identity"), ["$identity"]);
    }

    #[test]
    fn every_path_reads_back_from_its_text() {
        for text in [
            "a.b",
            r"a\.b\\",
            "metadata.metadata.a",
            "metadata.$x",
            "metadata.$x.y",
            "metadata",
            "$expires_at",
        ] {
            let path = Path::parse(text).unwrap();
            assert_eq!(path.to_string(), text);
            assert_eq!(text.parse(), Ok(path));
        }
        assert_eq!(format!("{:?}", Path::parse("metadata.a").unwrap()), "Path(a)");
    }

    #[test]
    fn system_fields_have_a_dollar_and_nothing_inside() {
        for field in SystemField::ALL {
            assert_eq!(Path::parse(field.as_str()).unwrap().system(), Some(field));
        }
        assert_eq!(
            Path::parse("$identity.x"),
            Err(PathError::InsideSystemField {
                path: "$identity.x".into()
            })
        );
        let unknown = Path::parse("$ttl").unwrap_err();
        assert!(unknown.to_string().contains("`metadata.$ttl`"), "{unknown}");
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "metadata."] {
            assert_eq!(
                Path::parse(text),
                Err(PathError::EmptyKey { path: text.into() }),
                "{text}"
            );
        }
        for text in [r"a\b", r"a\", r"\$a"] {
            assert_eq!(
                Path::parse(text),
                Err(PathError::StrayBackslash { path: text.into() }),
                "{text}"
            );
        }
    }

    #[test]
    fn an_operator_ends_a_path_but_is_not_all_of_it() {
        let split = |text| {
            let (path, operator) = Path::parse_with_operator(text).unwrap();
            (path.to_string(), operator)
        };
        assert_eq!(split("battery.lt"), ("battery".into(), Some(Operator::Lt)));
        assert_eq!(
            split("$identity.startswith"),
            ("$identity".into(), Some(Operator::StartsWith))
        );
        assert_eq!(split("type"), ("type".into(), None));
        assert_eq!(split("metadata.type"), ("type".into(), None));
        assert_eq!(split("a.lt.b"), ("a.lt.b".into(), None));
        assert_eq!(split("a.b.semver.gte"), ("a.b".into(), Some(Operator::SemverGte)));
        assert_eq!(split("semver.gte"), ("semver".into(), Some(Operator::Gte)));
        assert_eq!(
            split("metadata.semver.gte"),
            ("semver".into(), Some(Operator::Gte))
        );
        assert_eq!(split("a.semver.major"), ("a.semver.major".into(), None));
        assert_eq!(split("a.semver"), ("a.semver".into(), None));
        assert_eq!(split(r"a.semver\.gte"), (r"a.semver\.gte".into(), None));
        assert_eq!(split("a.within"), ("a".into(), Some(Operator::Within)));
        assert_eq!(
            Path::parse_with_operator("a.semver.ne"),
            Err(PathError::NoVersionOperator {
                operator: "semver.ne".into()
            })
        );
        assert!(Path::parse("a.lt").unwrap().ends_in_operator());
        assert!(Path::parse("a.semver.eq").unwrap().ends_in_operator());
        assert!(!Path::parse(r"a.semver\.eq").unwrap().ends_in_operator());
        assert!(!Path::parse("lt").unwrap().ends_in_operator());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "é".repeat(200);
        assert_eq!(abbreviate(&long), format!("{}…", "é".repeat(32)));
        assert_eq!(abbreviate("short"), "short");
    }
}
