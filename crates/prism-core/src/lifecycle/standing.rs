//! Where one namespace of one plugin stands, and by which rule a configuration is taken or refused.
//!
//! Several proxies may push to one plugin, late and out of order. The rule that makes them agree: a
//! higher version wins, an equal digest changes nothing, and one version cannot mean two contents.

use crate::id::Digest;

/// A version of a configuration, and which content it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Orders the configurations of one namespace; 0 where its sender does not count.
    pub version: i64,
    /// Of the content.
    pub digest: Digest,
}

/// A configuration that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its version; `None` when only the digest is known, from a plugin that reconnected.
    pub version: Option<i64>,
    /// Of its content.
    pub digest: Digest,
}

/// What a namespace runs, what it last refused, and when it was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    applied: Option<Mark>,
    refused: Option<Refused>,
    removed: Option<i64>,
}

/// What to do with an offered configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it.
    Apply,
    /// It serves already.
    Serves,
    /// The same version of the same content was refused: so it is again.
    Refused,
    /// It contradicts what is known: refuse it.
    Conflict(Conflict),
}

/// Why an offered configuration cannot be taken whatever it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A newer one was taken before.
    #[error("configuration version `{offered}` is older than `{current}`, push a higher version")]
    Older {
        /// The version that came.
        offered: i64,
        /// The version that holds.
        current: i64,
    },
    /// Another content has the same version.
    #[error("configuration version `{version}` already has other content, push it as a higher version")]
    SameVersion {
        /// The version of both.
        version: i64,
    },
}

impl Standing {
    /// Judges an offered configuration, at the plugin's end.
    ///
    /// A content that was refused is tried again under a later version, or where versions are not
    /// counted: what made it fail may have been repaired.
    pub fn judge(&self, offered: &Mark) -> Verdict {
        if let Some(applied) = &self.applied {
            if applied.digest == offered.digest {
                return Verdict::Serves;
            }
            if offered.version < applied.version {
                return conflict_older(offered.version, applied.version);
            }
            if offered.version == applied.version && offered.version != 0 {
                return Verdict::Conflict(Conflict::SameVersion {
                    version: offered.version,
                });
            }
        }
        if let Some(refused) = &self.refused
            && offered.version != 0
            && refused.version == Some(offered.version)
        {
            return match refused.digest == offered.digest {
                true => Verdict::Refused,
                false => Verdict::Conflict(Conflict::SameVersion {
                    version: offered.version,
                }),
            };
        }
        match self.removed {
            Some(removed) if offered.version != 0 && offered.version < removed => {
                conflict_older(offered.version, removed)
            }
            _ => Verdict::Apply,
        }
    }

    /// Judges a removal, at the plugin's end. An equal version may remove: it is how a proxy moves a
    /// namespace from one plugin to another.
    ///
    /// # Errors
    /// When a newer configuration serves.
    pub fn judge_removal(&self, version: i64) -> Result<(), Conflict> {
        match &self.applied {
            Some(applied) if version != 0 && version < applied.version => Err(Conflict::Older {
                offered: version,
                current: applied.version,
            }),
            _ => Ok(()),
        }
    }

    /// Whether a plugin that stands here should be sent a configuration, at the proxy's end: it does
    /// not run it, and has not refused it in this version.
    pub fn lacks(&self, wanted: &Mark) -> bool {
        !self.runs(wanted) && !self.has_refused(wanted)
    }

    /// Whether it serves this content.
    pub fn runs(&self, wanted: &Mark) -> bool {
        self.applied
            .as_ref()
            .is_some_and(|applied| applied.digest == wanted.digest)
    }

    /// Whether it refused this content, in this version or a later one.
    pub fn has_refused(&self, wanted: &Mark) -> bool {
        self.refused.as_ref().is_some_and(|refused| {
            refused.digest == wanted.digest && refused.version.is_none_or(|version| wanted.version <= version)
        })
    }

    /// Records that a configuration serves now. Its version never falls, so that a late duplicate of
    /// the same content cannot open the way for an older one.
    pub fn accept(&mut self, mark: Mark) {
        let version = match &self.applied {
            Some(applied) if applied.digest == mark.digest => applied.version.max(mark.version),
            _ => mark.version,
        };
        self.applied = Some(Mark { version, ..mark });
        self.removed = None;
    }

    /// Records that a configuration was refused; what served before still does.
    pub fn refuse(&mut self, mark: Mark) {
        self.refused = Some(Refused {
            version: Some(mark.version),
            digest: mark.digest,
        });
    }

    /// Records that the namespace was taken away.
    pub fn remove(&mut self, version: i64) {
        *self = Self {
            removed: (version != 0).then_some(version.max(self.removed.unwrap_or(version))),
            ..Self::default()
        };
    }

    /// Takes over what a reconnecting plugin says about itself. What is known about the same refusal
    /// is kept, as the plugin tells only its digest.
    pub fn report(&mut self, applied: Option<Digest>, refused: Option<Digest>) {
        self.applied = applied.map(|digest| Mark {
            version: match &self.applied {
                Some(known) if known.digest == digest => known.version,
                _ => 0,
            },
            digest,
        });
        if self.refused.as_ref().map(|known| &known.digest) != refused.as_ref() {
            self.refused = refused.map(|digest| Refused {
                version: None,
                digest,
            });
        }
    }

    /// Ties a refusal of unknown version to the version under which its content is wanted now, so that
    /// a later version may try again.
    pub fn date_refusal(&mut self, wanted: &Mark) {
        if let Some(refused) = &mut self.refused
            && refused.digest == wanted.digest
        {
            refused.version.get_or_insert(wanted.version);
        }
    }

    /// What serves.
    pub fn applied(&self) -> Option<&Mark> {
        self.applied.as_ref()
    }

    /// What was refused last.
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// Whether nothing is known about the namespace.
    pub fn is_blank(&self) -> bool {
        *self == Self::default()
    }
}

fn conflict_older(offered: i64, current: i64) -> Verdict {
    Verdict::Conflict(Conflict::Older { offered, current })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(version: i64, content: &str) -> Mark {
        Mark {
            version,
            digest: Digest::from_wire(content).unwrap(),
        }
    }

    fn running(version: i64, content: &str) -> Standing {
        let mut standing = Standing::default();
        standing.accept(mark(version, content));
        standing
    }

    const SAME_VERSION: fn(i64) -> Verdict = |version| Verdict::Conflict(Conflict::SameVersion { version });

    #[test]
    fn a_higher_version_wins_and_an_equal_digest_changes_nothing() {
        let standing = running(5, "a");
        assert_eq!(standing.judge(&mark(6, "b")), Verdict::Apply);
        assert_eq!(standing.judge(&mark(5, "b")), SAME_VERSION(5));
        assert_eq!(standing.judge(&mark(4, "b")), conflict_older(4, 5));
        for version in [0, 4, 5, 6] {
            assert_eq!(standing.judge(&mark(version, "a")), Verdict::Serves);
        }
    }

    #[test]
    fn proxies_that_do_not_count_replace_each_other_but_never_one_that_does() {
        assert_eq!(running(0, "a").judge(&mark(0, "b")), Verdict::Apply);
        assert_eq!(running(0, "a").judge(&mark(1, "b")), Verdict::Apply);
        assert_eq!(running(1, "a").judge(&mark(0, "b")), conflict_older(0, 1));
    }

    #[test]
    fn a_refused_version_cannot_change_its_content() {
        let mut standing = running(5, "a");
        standing.refuse(mark(6, "bad"));
        assert_eq!(standing.judge(&mark(6, "good")), SAME_VERSION(6));
        assert_eq!(standing.judge(&mark(6, "bad")), Verdict::Refused);
        assert_eq!(
            standing.judge(&mark(7, "bad")),
            Verdict::Apply,
            "a repaired backend may be tried"
        );
        assert_eq!(standing.judge(&mark(7, "good")), Verdict::Apply);
    }

    #[test]
    fn a_proxy_that_does_not_count_may_offer_a_refused_content_again() {
        let mut standing = Standing::default();
        standing.refuse(mark(0, "bad"));
        assert_eq!(standing.judge(&mark(0, "bad")), Verdict::Apply);
    }

    #[test]
    fn the_version_of_a_content_never_falls() {
        let mut standing = running(5, "a");
        standing.accept(mark(3, "a"));
        assert_eq!(standing.judge(&mark(4, "b")), conflict_older(4, 5));
        standing.accept(mark(8, "a"));
        assert_eq!(standing.judge(&mark(7, "b")), conflict_older(7, 8));
    }

    #[test]
    fn a_removed_namespace_stays_removed_for_what_is_older() {
        let mut standing = running(5, "a");
        assert!(standing.judge_removal(4).is_err());
        assert!(standing.judge_removal(5).is_ok());
        standing.remove(6);
        assert_eq!(standing.judge(&mark(5, "a")), conflict_older(5, 6));
        assert_eq!(standing.judge(&mark(6, "a")), Verdict::Apply);
        assert_eq!(standing.judge(&mark(0, "a")), Verdict::Apply);
    }

    #[test]
    fn a_refusal_holds_for_its_version_and_yields_to_a_later_one() {
        let mut standing = running(5, "a");
        standing.refuse(mark(6, "bad"));
        assert!(!standing.lacks(&mark(6, "bad")));
        assert!(standing.lacks(&mark(7, "bad")));
        assert!(!standing.lacks(&mark(9, "a")));
    }

    #[test]
    fn a_refusal_told_by_a_reconnecting_plugin_holds_until_the_content_gets_another_version() {
        let mut standing = Standing::default();
        standing.report(Digest::from_wire("a"), Digest::from_wire("bad"));
        assert!(!standing.lacks(&mark(100, "bad")));
        standing.date_refusal(&mark(100, "bad"));
        assert!(!standing.lacks(&mark(100, "bad")));
        assert!(standing.lacks(&mark(101, "bad")));
        assert!(standing.lacks(&mark(101, "b")));
    }
}
