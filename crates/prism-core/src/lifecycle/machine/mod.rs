//! The plugin's end: what to do about each command and each thing that happens.

mod ending;
mod namespace;

use std::{collections::BTreeMap, time::Duration};

pub use self::namespace::NamespaceReport;
use self::namespace::{Namespace, Work};
use super::{Answer, Command, Configuration, Drained, Initialized, Stage};

/// How many namespaces one plugin takes.
const MAX_NAMESPACES: usize = 4_096;

/// What has to be done. Nothing here waits for anything; what takes time is reported back as an
/// [`Event`].
#[derive(Debug, PartialEq)]
pub enum Decision<W> {
    /// Answer a command. Each command gets exactly one of this and [`Health`](Self::Health).
    Answer {
        /// Who asked.
        to: W,
        /// What to say.
        answer: Answer,
    },
    /// Answer with a health report.
    Health {
        /// Who asked.
        to: W,
        /// What to tell besides the plugin's own report.
        note: Option<String>,
    },
    /// Apply a configuration, then report [`Event::Initialized`].
    Initialize(Configuration),
    /// Take a namespace away, then report [`Event::Removed`].
    Remove(String),
    /// Begin serving, then report [`Event::Started`].
    Start,
    /// Give up every `Initialize`, `Remove` and `Start` that is under way; each is still reported.
    Cancel,
    /// Tell every proxy that this process ends, then report [`Event::Announced`].
    Announce,
    /// Finish what is under way, then report [`Event::Drained`].
    Drain {
        /// How long the sender waits for it; `None` when it does not say.
        within: Option<Duration>,
    },
    /// Release everything, then report [`Event::Stopped`].
    Stop {
        /// How long the sender waits for it, drain included; `None` when it does not say.
        within: Option<Duration>,
    },
    /// End the process.
    Exit(ExitStatus),
}

/// Something that happened. An event that nothing waits for is ignored.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A namespace was configured, or not.
    Initialized {
        /// Which.
        namespace: String,
        /// The refusal's text names slot and key.
        outcome: Result<Initialized, String>,
    },
    /// A namespace was taken away, or not.
    Removed {
        /// Which.
        namespace: String,
        /// Why not.
        outcome: Result<(), String>,
    },
    /// Serving began, on this data endpoint, or did not.
    Started(Result<String, String>),
    /// The process was told to end by its operating system.
    Leave,
    /// The proxies know, or had their time.
    Announced,
    /// Nothing is under way any more.
    Drained {
        /// What became of it.
        counts: Drained,
        /// Whether the deadline passed first.
        overran: bool,
        /// Why not all of it ended well.
        error: Option<String>,
    },
    /// Everything is released, or failed to be.
    Stopped(Result<(), String>),
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// As it should: code 0.
    Clean,
    /// With errors while stopping: code 1.
    Failed,
    /// With work cut off at the drain deadline: code 2.
    DrainOverran,
}

impl ExitStatus {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::DrainOverran => 2,
        }
    }
}

/// The state of one plugin process. `W` is a handle to whoever waits for an answer; it is moved out
/// exactly once.
#[derive(Debug)]
pub struct Machine<W> {
    stage: Stage,
    namespaces: BTreeMap<String, Namespace<W>>,
    endpoint: String,
    start_under_way: bool,
    starting: Vec<W>,
    draining: Vec<W>,
    stopping: Vec<W>,
    /// Set when draining leads on to stopping.
    end: Option<Within>,
    /// Set while a drain waits until nothing is being configured any more.
    drain_due: Option<Within>,
    drained: Option<(Drained, Option<String>)>,
    overran: bool,
    stopped: Result<(), String>,
}

type Decisions<W> = Vec<Decision<W>>;

/// How long a sender waits, if it says so.
type Within = Option<Duration>;

impl<W> Machine<W> {
    /// A plugin without namespaces, not started.
    pub fn new() -> Self {
        Self {
            stage: Stage::Idle,
            namespaces: BTreeMap::new(),
            endpoint: String::new(),
            start_under_way: false,
            starting: Vec::new(),
            draining: Vec::new(),
            stopping: Vec::new(),
            end: None,
            drain_due: None,
            drained: None,
            overran: false,
            stopped: Ok(()),
        }
    }

    /// How far the plugin is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Where every namespace stands, for a register message.
    pub fn report(&self) -> Vec<NamespaceReport> {
        self.namespaces
            .iter()
            .filter_map(|(name, namespace)| namespace.report(name))
            .collect()
    }

    /// Takes a command from whoever waits for its answer.
    pub fn command(&mut self, from: W, command: Command) -> Decisions<W> {
        let mut out = Vec::new();
        if let Err(reason) = self.stage.admits(command.kind()) {
            out.push(refusal(from, &command, reason));
            return out;
        }
        match command {
            Command::Initialize(configuration) => {
                self.configure(from, Work::Initialize(configuration), &mut out)
            }
            Command::Remove { namespace, version } => {
                self.configure(from, Work::Remove { namespace, version }, &mut out);
            }
            Command::Invalid(error) => out.push(answer(from, Answer::Initialized(Err(error)))),
            Command::Start => self.ask_start(from, &mut out),
            Command::HealthCheck => out.push(Decision::Health { to: from, note: None }),
            Command::Unknown => out.push(Decision::Health {
                to: from,
                note: Some("this plugin does not know the command".to_owned()),
            }),
            Command::Drain { within, .. } => self.ask_drain(from, within, &mut out),
            Command::Stop { within } | Command::Shutdown { within, .. } => {
                self.ask_stop(from, within, &mut out)
            }
        }
        out
    }

    /// Takes note of something that happened.
    pub fn event(&mut self, event: Event) -> Decisions<W> {
        let mut out = Vec::new();
        match event {
            Event::Initialized { namespace, outcome } => {
                let outcome = outcome.map(|offer| offer.with_scope_of(&namespace));
                self.configured(&namespace, |space, out| space.initialized(outcome, out), &mut out);
            }
            Event::Removed { namespace, outcome } => {
                self.configured(&namespace, |space, out| space.removed(outcome, out), &mut out);
            }
            Event::Started(outcome) => self.started(outcome, &mut out),
            Event::Leave => self.leave(None, &mut out),
            Event::Announced => self.announced(&mut out),
            Event::Drained {
                counts,
                overran,
                error,
            } => self.drained(counts, overran, error, &mut out),
            Event::Stopped(outcome) => self.ended(outcome, &mut out),
        }
        out
    }

    fn configure(&mut self, from: W, work: Work, out: &mut Decisions<W>) {
        let name = work.namespace().to_owned();
        if name.is_empty() {
            out.push(answer(
                from,
                not_initialized("the namespace has no name, set `name`"),
            ));
        } else if !self.namespaces.contains_key(&name) && !self.has_room() {
            let text =
                format!("this plugin takes no more than {MAX_NAMESPACES} namespaces, use another instance");
            out.push(answer(from, not_initialized(text)));
        } else {
            self.namespaces
                .entry(name.clone())
                .or_default()
                .offer(from, work, out);
            self.forget_blank(&name);
            self.advance(out);
        }
    }

    /// Whether another namespace fits. What is remembered of namespaces that are gone makes way.
    fn has_room(&mut self) -> bool {
        if self.namespaces.len() >= MAX_NAMESPACES {
            self.namespaces
                .retain(|_, namespace| namespace.is_busy() || namespace.standing.applied().is_some());
        }
        self.namespaces.len() < MAX_NAMESPACES
    }

    /// Hands an outcome to its namespace, and goes on with what waited for it.
    fn configured(
        &mut self,
        name: &str,
        conclude: impl FnOnce(&mut Namespace<W>, &mut Decisions<W>),
        out: &mut Decisions<W>,
    ) {
        if let Some(namespace) = self.namespaces.get_mut(name) {
            conclude(namespace, out);
            self.forget_blank(name);
            self.advance(out);
        }
    }

    fn forget_blank(&mut self, name: &str) {
        if self.namespaces.get(name).is_some_and(Namespace::is_blank) {
            self.namespaces.remove(name);
        }
    }

    fn ask_start(&mut self, from: W, out: &mut Decisions<W>) {
        if self.stage == Stage::Running {
            out.push(answer(from, Answer::Started(Ok(self.endpoint.clone()))));
        } else {
            self.starting.push(from);
            self.advance(out);
        }
    }

    /// Does what had to wait: a start for the first namespace, a drain until nothing is being
    /// configured any more.
    fn advance(&mut self, out: &mut Decisions<W>) {
        let configured = |namespace: &Namespace<W>| namespace.standing.applied().is_some();
        if self.stage == Stage::Idle && !self.starting.is_empty() {
            if self.namespaces.values().any(configured) {
                self.stage = Stage::Starting;
                self.start_under_way = true;
                out.push(Decision::Start);
            } else if !self.is_configuring() {
                let text = "no namespace is configured, send `initialize` first";
                self.answer_starting(&Err(text.to_owned()), out);
            }
        } else if !self.is_configuring()
            && let Some(within) = self.drain_due.take()
        {
            out.push(Decision::Drain { within });
        }
    }

    fn is_configuring(&self) -> bool {
        self.start_under_way || self.namespaces.values().any(Namespace::is_busy)
    }

    fn started(&mut self, outcome: Result<String, String>, out: &mut Decisions<W>) {
        if !std::mem::take(&mut self.start_under_way) {
            return;
        }
        if let Ok(endpoint) = &outcome {
            self.endpoint.clone_from(endpoint);
        }
        if self.stage == Stage::Starting {
            self.stage = if outcome.is_ok() {
                Stage::Running
            } else {
                Stage::Idle
            };
        }
        self.answer_starting(&outcome, out);
        self.advance(out);
    }

    fn answer_starting(&mut self, outcome: &Result<String, String>, out: &mut Decisions<W>) {
        let waiting = self.starting.drain(..);
        out.extend(waiting.map(|to| answer(to, Answer::Started(outcome.clone()))));
    }
}

impl<W> Default for Machine<W> {
    fn default() -> Self {
        Self::new()
    }
}

fn answer<W>(to: W, answer: Answer) -> Decision<W> {
    Decision::Answer { to, answer }
}

fn not_initialized(text: impl Into<String>) -> Answer {
    Answer::Initialized(Err(text.into()))
}

/// A refusal in the words of the command's own answer.
fn refusal<W>(to: W, command: &Command, reason: &str) -> Decision<W> {
    let text = reason.to_owned();
    match command {
        Command::Start => answer(to, Answer::Started(Err(text))),
        _ => answer(to, Answer::Initialized(Err(text))),
    }
}
