//! Whether the proxy is to be sent traffic, and why not.

use tokio::sync::watch;

/// The conditions, as [`Readiness::checks`] names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    listening: bool,
    draining: bool,
}

/// One condition and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What is wrong; `None` when nothing is.
    pub problem: Option<&'static str>,
}

/// Whether the proxy is to be sent traffic. That a namespace has no runner is no reason against: its
/// callers are told so, clearly, which no load balancer could do.
#[derive(Debug, Default)]
pub struct Readiness(watch::Sender<Conditions>);

impl Readiness {
    /// All ports are open and a configuration is in effect.
    pub fn listening(&self) {
        self.0.send_modify(|conditions| conditions.listening = true);
    }

    /// The process is about to end.
    pub fn draining(&self) {
        self.0.send_modify(|conditions| conditions.draining = true);
    }

    /// Whether all is well.
    pub fn is_ready(&self) -> bool {
        self.checks().iter().all(|check| check.problem.is_none())
    }

    /// Every condition.
    pub fn checks(&self) -> [Check; 2] {
        let Conditions { listening, draining } = *self.0.borrow();
        [
            Check {
                name: "listening",
                problem: (!listening).then_some("the proxy is starting"),
            },
            Check {
                name: "not-draining",
                problem: draining.then_some("the proxy is about to end"),
            },
        ]
    }

    /// Changes whenever a condition does.
    pub(crate) fn watch(&self) -> watch::Receiver<Conditions> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_listening_and_not_draining() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        readiness.listening();
        assert!(readiness.is_ready());
        readiness.draining();
        assert!(!readiness.is_ready());
        let failing: Vec<_> = readiness
            .checks()
            .into_iter()
            .filter(|check| check.problem.is_some())
            .map(|check| check.name)
            .collect();
        assert_eq!(failing, ["not-draining"]);
    }
}
