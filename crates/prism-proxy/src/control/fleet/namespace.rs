//! What is wanted of one namespace, and how it is being brought about.

use prism_core::lifecycle::{Configuration, Mark, wire};

use super::RunnerId;
use crate::{control::DesiredNamespace, route::Target};

#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) desired: DesiredNamespace,
    /// In its canonical spelling.
    pub(super) pattern: String,
    pub(super) mark: Mark,
    /// The runner that serves it alone, or that is asked first while the scope is unknown.
    pub(super) owner: Option<RunnerId>,
    /// Its data moves elsewhere: nobody is routed to until all runners have changed over.
    pub(super) moving: bool,
    /// Where calls are routed to; `None` before that was first said.
    pub(super) routed: Option<Vec<Target>>,
    /// Whether calls wait instead.
    pub(super) held: bool,
}

impl Namespace {
    pub(super) fn new(desired: DesiredNamespace) -> Self {
        Self {
            pattern: wire::canonical_pattern(&desired.pattern),
            mark: mark(&desired),
            desired,
            owner: None,
            moving: false,
            routed: None,
            held: false,
        }
    }

    /// Takes over another configuration.
    pub(super) fn changed(mut self, desired: DesiredNamespace) -> Self {
        let (pattern, mark) = (wire::canonical_pattern(&desired.pattern), mark(&desired));
        if mark.digest != self.mark.digest {
            tracing::info!(
                namespace = desired.name,
                version = mark.version,
                "another configuration"
            );
            self.moving = desired.discard_on_move;
        }
        if pattern != self.pattern {
            self.owner = None;
        }
        self.pattern = pattern;
        self.mark = mark;
        self.desired = desired;
        self
    }

    /// What a runner is sent.
    pub(super) fn configuration(&self) -> Configuration {
        Configuration {
            namespace: self.desired.name.clone(),
            pattern_version: self.desired.pattern_version.clone(),
            config: self.desired.config.clone(),
            mark: self.mark.clone(),
        }
    }
}

fn mark(desired: &DesiredNamespace) -> Mark {
    Mark {
        version: desired.version,
        digest: desired.digest.clone(),
    }
}
