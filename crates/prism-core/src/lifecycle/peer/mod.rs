//! The proxy's end: what to send next to one runner, and what its answers mean.

mod answers;
mod space;

use std::{collections::BTreeMap, time::Duration};

pub use self::space::{Assignment, Space};
use super::{Command, Configuration, Health, Kind, Mark, NamespaceReport, Stage};
use crate::id::CorrelationIds;

/// How many namespaces are configured at a time at one runner. A proxy with a thousand of them must not
/// flood a runner that just came.
const MAX_UNDER_WAY: usize = 16;

/// A command as the proxy keeps it until it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Push a configuration.
    Initialize {
        /// Of which namespace.
        namespace: String,
        /// Which configuration.
        mark: Mark,
    },
    /// Take a namespace away.
    Remove {
        /// Which.
        namespace: String,
        /// Of the configuration that lacks it, or gives it to another runner.
        version: i64,
    },
    /// Begin serving.
    Start,
    /// Report health.
    HealthCheck,
    /// Finish what is under way.
    Drain {
        /// The hard limit.
        within: Duration,
        /// For the runner's log.
        reason: String,
    },
    /// Drain, stop, exit.
    Shutdown {
        /// The hard limit.
        within: Duration,
        /// For the runner's log.
        reason: String,
    },
}

impl Request {
    /// The command to send; `configuration` gives the content of an `Initialize`.
    pub fn into_command(self, configuration: impl FnOnce(&str) -> Option<Configuration>) -> Option<Command> {
        Some(match self {
            Self::Initialize { namespace, mark } => {
                let configuration = configuration(&namespace)?;
                Command::Initialize(Configuration {
                    mark,
                    ..configuration
                })
            }
            Self::Remove { namespace, version } => Command::Remove { namespace, version },
            Self::Start => Command::Start,
            Self::HealthCheck => Command::HealthCheck,
            Self::Drain { within, reason } => Command::Drain {
                within: Some(within),
                reason,
            },
            Self::Shutdown { within, reason } => Command::Shutdown {
                within: Some(within),
                reason,
            },
        })
    }
}

/// A command to send now. It is either answered, or declared [`expired`](Peer::expired).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Under which the answer comes.
    pub correlation: String,
    /// What is asked.
    pub request: Request,
}

/// What an answer, or its absence, changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing: it was late, a duplicate, or nobody asked.
    None,
    /// A namespace now runs another configuration, or refused one, or is gone.
    Configured {
        /// Which.
        namespace: String,
        /// Why not, as the runner says.
        error: Option<String>,
    },
    /// The runner serves, or why it does not.
    Started(Result<(), String>),
    /// It reported its health; `None` when it answered something else, which proves it alive.
    Health(Option<Health>),
    /// It did not answer a health check in time.
    Silent,
    /// Nothing is under way there any more, as far as is known.
    Drained,
    /// It said that it stopped, or had the time for it.
    Stopped,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    /// Its time passed. The answer is still taken if it comes.
    overdue: bool,
}

/// The proxy's belief about one runner.
///
/// A foreign runner answers some commands with an empty message, or not at all. Neither stalls
/// anything: an `Initialize` without a proper answer counts as refused, a `Drain` as done, a health
/// check as a sign of life if any message came.
#[derive(Debug)]
pub struct Peer {
    stage: Stage,
    /// Whether it understands what this project added to the protocol.
    extended: bool,
    spaces: BTreeMap<String, Space>,
    pending: BTreeMap<String, Pending>,
    endpoint: Option<String>,
    start_error: Option<String>,
    ids: CorrelationIds,
}

impl Peer {
    /// A runner that just registered. `extended` says that it knows this project's additions to the
    /// protocol, removal among them.
    pub fn new(extended: bool, ids: CorrelationIds) -> Self {
        Self {
            stage: Stage::Idle,
            extended,
            spaces: BTreeMap::new(),
            pending: BTreeMap::new(),
            endpoint: None,
            start_error: None,
            ids,
        }
    }

    /// Takes over what the runner says it runs and has refused, when it registers. What was asked of it
    /// before is void: the answers went down with the old stream, and the report tells what came of it.
    pub fn registered(&mut self, reports: Vec<NamespaceReport>) {
        self.pending.clear();
        self.stage = match self.stage {
            Stage::Starting => Stage::Idle,
            Stage::Draining => Stage::Leaving,
            stage => stage,
        };
        let mut reports: BTreeMap<_, _> = reports
            .into_iter()
            .map(|report| (report.namespace.clone(), report))
            .collect();
        for (name, space) in &mut self.spaces {
            space.report(reports.remove(name));
        }
        for (name, report) in reports {
            self.spaces.entry(name).or_default().report(Some(report));
        }
        self.spaces.retain(|_, space| !space.is_blank());
    }

    /// Says what the runner should do about each namespace. One that is not mentioned is left as it is.
    pub fn assign(&mut self, namespace: &str, assignment: Assignment) {
        let space = self.spaces.entry(namespace.to_owned()).or_default();
        space.assign(assignment);
        if space.is_blank() {
            self.spaces.remove(namespace);
        }
    }

    /// What to send now to bring the runner closer to what is assigned.
    pub fn due(&mut self) -> Vec<Sent> {
        let mut requests = Vec::new();
        if self.stage.admits(Kind::Configure).is_ok() {
            let under_way = self.spaces.values().filter(|space| space.is_under_way()).count();
            let wanting = self
                .spaces
                .iter()
                .filter_map(|(name, space)| space.due(name, self.extended));
            requests.extend(wanting.take(MAX_UNDER_WAY.saturating_sub(under_way)));
        }
        let startable = self.stage == Stage::Idle && self.start_error.is_none();
        if startable && self.spaces.values().any(Space::is_applied) {
            self.stage = Stage::Starting;
            requests.push(Request::Start);
        }
        requests.into_iter().map(|request| self.send(request)).collect()
    }

    /// A health check, unless one is under way.
    pub fn check_health(&mut self) -> Option<Sent> {
        let checking = |pending: &Pending| pending.request == Request::HealthCheck;
        (!self.pending.values().any(checking)).then(|| self.send(Request::HealthCheck))
    }

    /// Asks it to finish what is under way. `None` when that was asked before.
    pub fn drain(&mut self, within: Duration, reason: &str) -> Option<Sent> {
        (self.stage < Stage::Draining).then(|| {
            self.stage = Stage::Draining;
            let reason = reason.to_owned();
            self.send(Request::Drain { within, reason })
        })
    }

    /// Asks it to end. `None` when that was asked before.
    pub fn shut_down(&mut self, within: Duration, reason: &str) -> Option<Sent> {
        (self.stage < Stage::Stopping).then(|| {
            self.stage = Stage::Stopping;
            let reason = reason.to_owned();
            self.send(Request::Shutdown { within, reason })
        })
    }

    /// Takes note that the runner said it is about to end.
    pub fn leaves(&mut self) {
        self.stage = self.stage.max(Stage::Leaving);
    }

    /// Lets a failed start be tried again.
    pub fn retry_start(&mut self) {
        self.start_error = None;
    }

    /// How far the runner is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Where it serves, as it said.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Why its last start failed.
    pub fn start_error(&self) -> Option<&str> {
        self.start_error.as_deref()
    }

    /// What is known about one namespace there.
    pub fn space(&self, namespace: &str) -> Option<&Space> {
        self.spaces.get(namespace)
    }

    /// What is known about every namespace there.
    pub fn spaces(&self) -> impl Iterator<Item = (&str, &Space)> {
        self.spaces.iter().map(|(name, space)| (name.as_str(), space))
    }

    /// Whether calls for the namespace can be sent there.
    pub fn serves(&self, namespace: &str) -> bool {
        self.stage.serves() && self.endpoint.is_some() && self.space(namespace).is_some_and(Space::is_applied)
    }

    /// Whether an answer to anything but a health check is awaited.
    pub fn is_busy(&self) -> bool {
        let busy = |pending: &Pending| !pending.overdue && pending.request != Request::HealthCheck;
        self.pending.values().any(busy)
    }

    /// How many answers would still be taken.
    #[cfg(test)]
    pub(super) fn awaited(&self) -> usize {
        self.pending.len()
    }

    fn send(&mut self, request: Request) -> Sent {
        let correlation = self.ids.next();
        if let Request::Initialize { namespace, .. } | Request::Remove { namespace, .. } = &request
            && let Some(space) = self.spaces.get_mut(namespace)
        {
            space.sent(&correlation);
        }
        // Whoever never answered the last one is not remembered for each.
        self.pending
            .retain(|_, pending| !pending.overdue || pending.request != request);
        let pending = Pending {
            request: request.clone(),
            overdue: false,
        };
        self.pending.insert(correlation.clone(), pending);
        Sent { correlation, request }
    }
}
