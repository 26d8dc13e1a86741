//! Where in a configuration tree something is.

use std::fmt;

/// One step from a node to a child.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Into a mapping.
    Key(String),
    /// Into a list, counted from zero.
    Index(usize),
}

/// The way from the root of a tree to a node, displayed as `namespaces[0].slots.registry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Path(Vec<Segment>);

impl Path {
    /// The root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The child of this node under a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.push(Segment::Key(key.into()));
        self
    }

    /// The child of this node at a place in a list.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.0.push(Segment::Index(index));
        self
    }

    /// This path, continued by another one.
    #[must_use]
    pub fn join(mut self, rest: &Self) -> Self {
        self.0.extend(rest.0.iter().cloned());
        self
    }

    /// The node above, `None` at the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(Self(above.to_vec()))
    }

    /// The steps from the root.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&serde_path_to_error::Path> for Path {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment as Theirs;
        let segments = path.iter().filter_map(|segment| match segment {
            Theirs::Seq { index } => Some(Segment::Index(*index)),
            Theirs::Map { key } => Some(Segment::Key(key.clone())),
            // A variant's content stands under the variant's name.
            Theirs::Enum { variant } => Some(Segment::Key(variant.clone())),
            Theirs::Unknown => None,
        });
        Self(segments.collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if key.is_empty() || key.contains(['.', '[', ' ']) => {
                    write!(f, "[{key:?}]")?;
                }
                Segment::Key(key) if position == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_an_expression() {
        let path = Path::root().key("namespaces").index(0).key("a.b").key("type");
        assert_eq!(path.to_string(), "namespaces[0][\"a.b\"].type");
        assert_eq!(path.parent().unwrap().to_string(), "namespaces[0][\"a.b\"]");
        assert_eq!(Path::root().parent(), None);
    }
}
