//! The namespaces that this process serves.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use prism_core::failure::{Failure, Reason};

use crate::coordinator::Coordinator;

/// The namespaces that this process serves, by name. Clones share them.
#[derive(Clone, Default)]
pub struct Namespaces {
    serving: Arc<RwLock<HashMap<String, Coordinator>>>,
}

impl Namespaces {
    /// Serves a namespace from now on.
    pub fn insert(&self, coordinator: Coordinator) {
        let name = coordinator.config().namespace.clone();
        self.serving.write().insert(name, coordinator);
    }

    /// Serves it no longer.
    pub fn remove(&self, name: &str) -> Option<Coordinator> {
        self.serving.write().remove(name)
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<Coordinator> {
        self.serving.read().get(name).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Coordinator> {
        self.serving.read().values().cloned().collect()
    }

    /// The one that a call means. A call that names none means the only one there is.
    ///
    /// # Errors
    /// `UNKNOWN_NAMESPACE`; `INVALID_REQUEST` where the call must say which.
    pub fn of_call(&self, name: Option<&str>) -> Result<Coordinator, Failure> {
        let serving = self.serving.read();
        match name {
            Some(name) => serving.get(name).cloned().ok_or_else(|| unknown(name)),
            None if serving.len() == 1 => serving.values().next().cloned().ok_or_else(|| unknown("")),
            None => {
                let message =
                    "several namespaces are served here, name one in the metadata `x-prism-namespace`";
                Err(Failure::new(Reason::InvalidRequest, message)
                    .field("x-prism-namespace")
                    .not_applied())
            }
        }
    }
}

fn unknown(name: &str) -> Failure {
    let message = format!("the namespace `{name}` is not served here");
    Failure::new(Reason::UnknownNamespace, message)
        .with("namespace", name)
        .not_applied()
}
