//! The namespaces that this process serves.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use prism_core::failure::{Failure, Reason};

use crate::coordinator::Coordinator;

/// When to try again while namespaces are being configured.
const SOON: Duration = Duration::from_millis(200);

/// The namespaces that this process serves, by name. Clones share them.
#[derive(Clone, Default)]
pub struct Namespaces {
    serving: Arc<RwLock<HashMap<String, Coordinator>>>,
    /// Until it is set, a namespace that is not there may be on its way.
    complete: Arc<AtomicBool>,
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

    /// All namespaces that there will be for now are there.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
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
            Some(name) => serving.get(name).cloned().ok_or_else(|| self.absent(name)),
            None if serving.len() == 1 => serving.values().next().cloned().ok_or_else(|| self.absent("")),
            None if serving.is_empty() => Err(self.absent("")),
            None => {
                let message =
                    "several namespaces are served here, name one in the metadata `x-prism-namespace`";
                Err(Failure::new(Reason::InvalidRequest, message)
                    .field("x-prism-namespace")
                    .not_applied())
            }
        }
    }

    fn absent(&self, name: &str) -> Failure {
        let failure = if self.complete.load(Ordering::Acquire) {
            let message = format!("the namespace `{name}` is not served here");
            Failure::new(Reason::UnknownNamespace, message)
        } else {
            let message = "the namespaces are being configured, try again";
            Failure::new(Reason::NotReady, message).retry_after(SOON)
        };
        failure.with("namespace", name).not_applied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A namespace that may be on its way is not called unknown.
    #[test]
    fn what_is_not_there_yet_may_still_come() {
        let namespaces = Namespaces::default();
        for name in [None, Some("n")] {
            let failure = namespaces.of_call(name).map(drop).unwrap_err();
            assert_eq!((failure.reason, failure.applied), (Reason::NotReady, Some(false)));
            assert!(failure.retry_after.is_some());
        }
        namespaces.set_complete();
        for name in [None, Some("n")] {
            let failure = namespaces.of_call(name).map(drop).unwrap_err();
            assert_eq!(
                (failure.reason, failure.applied),
                (Reason::UnknownNamespace, Some(false))
            );
        }
    }
}
