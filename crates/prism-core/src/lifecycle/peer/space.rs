//! One namespace at one runner, as the proxy believes it to be.

use super::Request;
use crate::lifecycle::{Initialized, Mark, NamespaceReport, Scope, Standing};

/// What a runner should do about a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// Run this configuration.
    Serve(Mark),
    /// Let go of it.
    Release {
        /// Of the configuration that lacks the namespace, or gives it to another runner.
        version: i64,
    },
}

/// What is known about one namespace at one runner.
#[derive(Debug, Default)]
pub struct Space {
    assignment: Option<Assignment>,
    standing: Standing,
    scope: Scope,
    error: Option<String>,
    /// The last command about it, and whether its answer is still awaited.
    last: String,
    under_way: bool,
    release_failed: bool,
}

impl Space {
    /// What it runs and has refused.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// How far its data reaches, as the runner said.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Why the last command about it failed.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether a configuration serves.
    pub fn is_applied(&self) -> bool {
        self.standing.applied().is_some()
    }

    /// Whether the outcome of a command about it is awaited.
    pub fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Whether it still has to change over to what it is assigned.
    pub fn is_changing_over(&self) -> bool {
        matches!(&self.assignment, Some(Assignment::Serve(wanted)) if self.standing.lacks(wanted))
    }

    /// Whether it is meant to serve.
    pub fn is_assigned(&self) -> bool {
        matches!(self.assignment, Some(Assignment::Serve(_)))
    }

    pub(super) fn is_blank(&self) -> bool {
        let idle = !self.under_way && self.standing.is_blank();
        idle && matches!(self.assignment, None | Some(Assignment::Release { .. }))
    }

    pub(super) fn assign(&mut self, assignment: Assignment) {
        if let Assignment::Serve(wanted) = &assignment {
            self.standing.date_refusal(wanted);
        }
        if self.assignment.as_ref() != Some(&assignment) {
            self.release_failed = false;
            self.assignment = Some(assignment);
        }
    }

    pub(super) fn due(&self, name: &str, extended: bool) -> Option<Request> {
        let namespace = name.to_owned();
        match self.assignment.as_ref().filter(|_| !self.under_way)? {
            Assignment::Serve(mark) => self.standing.lacks(mark).then(|| Request::Initialize {
                namespace,
                mark: mark.clone(),
            }),
            // A runner that does not know the `remove` field would take it for an empty configuration.
            Assignment::Release { version } => (extended && self.is_applied() && !self.release_failed)
                .then_some(Request::Remove {
                    namespace,
                    version: *version,
                }),
        }
    }

    pub(super) fn sent(&mut self, correlation: &str) {
        correlation.clone_into(&mut self.last);
        self.under_way = true;
    }

    /// Whether an answer under this correlation id still says how things are.
    pub(super) fn is_last(&self, correlation: &str) -> bool {
        self.last == correlation
    }

    pub(super) fn accepted(&mut self, name: &str, mark: Mark, offer: &Initialized) {
        self.under_way = false;
        self.error = None;
        self.scope = offer.scope_of(name);
        self.standing.accept(mark);
    }

    pub(super) fn refused(&mut self, mark: Mark, error: String) {
        self.under_way = false;
        self.error = Some(error);
        self.standing.refuse(mark);
    }

    pub(super) fn removed(&mut self, outcome: Result<(), String>) {
        self.under_way = false;
        self.release_failed = outcome.is_err();
        if outcome.is_ok() {
            self.standing = Standing::default();
        }
        self.error = outcome.err();
    }

    /// Takes over what a registering runner says, or does not say, about the namespace.
    pub(super) fn report(&mut self, report: Option<NamespaceReport>) {
        self.under_way = false;
        self.last.clear();
        let (applied, refused, scope) = match report {
            Some(report) => (report.applied, report.refused, report.scope),
            None => (None, None, None),
        };
        let known = self.standing.refused().map(|known| &known.digest);
        if refused.is_some() && known != refused.as_ref() {
            self.error = Some("refused while the control stream was down".to_owned());
        }
        self.standing.report(applied, refused);
        self.scope = scope.unwrap_or_default();
        if let Some(Assignment::Serve(wanted)) = &self.assignment {
            self.standing.date_refusal(wanted);
        }
    }
}
