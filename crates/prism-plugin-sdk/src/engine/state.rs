//! What the rest of the runner may know about the engine.

use prism_core::lifecycle::{Health, NamespaceReport, Stage};

/// A snapshot, published whenever it changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub(crate) stage: Stage,
    pub(crate) health: Health,
    pub(crate) reports: Vec<NamespaceReport>,
}

impl State {
    /// Whether the process was told to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.stage >= Stage::Leaving
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            stage: Stage::Idle,
            health: Health::healthy(),
            reports: Vec::new(),
        }
    }
}
