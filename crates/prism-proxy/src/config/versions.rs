//! Numbers for configurations: a runner takes the higher one of two.

use std::collections::HashMap;

use prism_core::id::Digest;

/// One configuration of a namespace among all that it ever had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Higher wins.
    pub number: i64,
    /// Equal means nothing has changed.
    pub digest: Digest,
}

/// The versions in effect.
#[derive(Debug, Default)]
pub struct Versions {
    current: HashMap<String, Version>,
}

impl Versions {
    /// The version of a namespace whose content is `digest`: the one before if the content is, and
    /// otherwise a higher one. It is made from the time of day, so that a proxy which remembers nothing
    /// still counts on from where the one before it was.
    pub fn next(&mut self, namespace: &str, digest: &Digest, unix_ms: i64) -> Version {
        let before = self.current.get(namespace);
        if let Some(version) = before.filter(|version| version.digest == *digest) {
            return version.clone();
        }
        let number = before.map_or(unix_ms, |before| unix_ms.max(before.number + 1));
        let version = Version {
            number,
            digest: digest.clone(),
        };
        self.current.insert(namespace.to_owned(), version.clone());
        version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::from_wire(text).unwrap()
    }

    #[test]
    fn a_version_changes_with_its_content_and_only_upwards() {
        let mut versions = Versions::default();
        assert_eq!(versions.next("a", &digest("x"), 1_000).number, 1_000);
        assert_eq!(
            versions.next("a", &digest("x"), 2_000).number,
            1_000,
            "nothing has changed"
        );
        assert_eq!(versions.next("a", &digest("y"), 2_000).number, 2_000);
        assert_eq!(
            versions.next("a", &digest("x"), 500).number,
            2_001,
            "the clock went back"
        );
        assert_eq!(versions.next("b", &digest("x"), 500).number, 500);
    }
}
