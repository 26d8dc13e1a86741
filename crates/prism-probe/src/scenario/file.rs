//! A scenario as it is written, read strictly.

use std::time::Duration;

use prism_client::Filter;
use prism_core::config::{Error, Path, Source, optional_duration_ms};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::step::{
    Close, Dead, DeadLetters, Enumerate, Found, Listed, One, Opened, Publish, Published, Receive, Redrive,
    Redriven, Register, Registered, Removed, Renew, Renewed, Sent, Silence, Subscribe, Update,
};
use crate::cli;

/// How long something may take that has no time of its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is done, and what is to come of it.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

/// One thing that is done.
#[derive(Debug)]
pub(crate) struct Step {
    /// As it was named, or what it does.
    pub(crate) name: String,
    /// Where it stands.
    pub(crate) line: Option<u32>,
    pub(crate) action: Action,
    /// It is repeated until what is expected comes of it, for so long.
    pub(crate) within: Option<Duration>,
}

/// What is done, with what is to come of it.
#[derive(Debug)]
pub(crate) enum Action {
    Register(Register, Registered),
    Update(Update, Found),
    Get(One, Found),
    Renew(Renew, Renewed),
    Unregister(One, Removed),
    Enumerate(Enumerate, Option<Filter>, Listed),
    Publish(Box<Publish>, Option<Filter>, Published),
    Receipts(Sent, Published),
    Cancel(Sent, Published),
    DeadLetters(DeadLetters, Dead),
    Redrive(Redrive, Redriven),
    Subscribe(Subscribe, Opened),
    Receive(Receive),
    Silence(Silence),
    Close(Close),
    Wait(Duration),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    steps: Vec<WrittenStep>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    name: Option<String>,
    register: Option<Register>,
    update: Option<Update>,
    get: Option<One>,
    renew: Option<Renew>,
    unregister: Option<One>,
    enumerate: Option<Enumerate>,
    publish: Option<Box<Publish>>,
    receipts: Option<Sent>,
    cancel: Option<Sent>,
    dead_letters: Option<DeadLetters>,
    redrive: Option<Redrive>,
    subscribe: Option<Subscribe>,
    receive: Option<Receive>,
    silence: Option<Silence>,
    close: Option<Close>,
    #[serde(default, deserialize_with = "optional_duration_ms")]
    wait: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration_ms")]
    within: Option<Duration>,
    /// Read again by what the step does.
    expect: Option<Value>,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a step that does nothing or two things, a filter that is none, a
    /// session that no step before opens, a multicast that none sends; with line and column.
    pub(crate) fn load(path: &std::path::Path) -> Result<Self, Error> {
        Self::read(&Source::load(path)?)
    }

    pub(super) fn read(source: &Source) -> Result<Self, Error> {
        let written: Written = source.decode()?;
        let steps = Path::root().key("steps");
        if written.steps.is_empty() {
            return Err(source.place(Error::new(steps, "there is nothing to do")));
        }
        let mut read = Vec::new();
        for (index, step) in written.steps.into_iter().enumerate() {
            let reader = Reader {
                source,
                path: steps.clone().index(index),
            };
            read.push(reader.step(step)?);
        }
        let scenario = Self {
            name: written.name.unwrap_or_else(|| source.name().to_owned()),
            steps: read,
        };
        scenario.check_names(source)?;
        Ok(scenario)
    }

    /// Whoever is to receive something has been opened by a step before, and what is asked after was sent by one.
    fn check_names(&self, source: &Source) -> Result<(), Error> {
        let (mut open, mut sent): (Vec<&str>, Vec<&str>) = Default::default();
        for (index, step) in self.steps.iter().enumerate() {
            let (key, field, name, known, verb) = match &step.action {
                Action::Subscribe(subscribe, _) => {
                    open.push(subscribe.name());
                    continue;
                }
                Action::Publish(publish, ..) => {
                    sent.extend(publish.name.as_deref());
                    continue;
                }
                Action::Receive(receive) => ("receive", "by", &receive.by, &open, "subscribes"),
                Action::Silence(silence) => ("silence", "by", &silence.by, &open, "subscribes"),
                Action::Close(close) => ("close", "session", &close.session, &open, "subscribes"),
                Action::Receipts(asked, _) => ("receipts", "of", &asked.of, &sent, "publishes"),
                Action::Cancel(asked, _) => ("cancel", "of", &asked.of, &sent, "publishes"),
                _ => continue,
            };
            if !known.contains(&name.as_str()) {
                let path = Path::root().key("steps").index(index).key(key).key(field);
                let near = prism_core::config::nearest(name, known.iter().copied());
                let message = format!("no step before this one {verb} as `{name}`");
                return Err(source.place(Error::new(path, message).suggest(near)));
            }
        }
        Ok(())
    }
}

/// Reads a step, and knows where it stands.
struct Reader<'a> {
    source: &'a Source,
    path: Path,
}

impl Reader<'_> {
    fn step(&self, mut written: WrittenStep) -> Result<Step, Error> {
        let (name, within) = (written.name.take(), written.within);
        let expects = written.expect.is_some();
        let mut actions = self.actions(written)?;
        let (kind, action) = match (actions.pop(), actions.pop()) {
            (Some(action), None) => action,
            (None, _) => return Err(self.error("a step without anything to do")),
            (Some((one, _)), Some((other, _))) => {
                return Err(self.error(format!("one step does one thing, and not `{other}` and `{one}`")));
            }
        };
        if expects && !action.can_expect() {
            let path = self.path.clone().key("expect");
            let message = format!("`{kind}` says itself what it expects");
            return Err(self.source.place(Error::new(path, message)));
        }
        self.check_error_alone()?;
        if within.is_some() && !action.is_read() {
            let path = self.path.clone().key("within");
            let message = format!("`{kind}` is done once: only what reads is repeated, such as `get`");
            return Err(self.source.place(Error::new(path, message)));
        }
        Ok(Step {
            name: name.unwrap_or_else(|| action.describe(kind)),
            line: self.source.locate(&self.path).map(|(line, _)| line),
            action,
            within,
        })
    }

    /// Everything that a step does, by its key.
    fn actions(&self, step: WrittenStep) -> Result<Vec<(&'static str, Action)>, Error> {
        let mut all = Vec::new();
        if let Some(it) = step.register {
            all.push(("register", Action::Register(it, self.expected()?)));
        }
        if let Some(it) = step.update {
            all.push(("update", Action::Update(it, self.expected()?)));
        }
        if let Some(it) = step.get {
            all.push(("get", Action::Get(it, self.expected()?)));
        }
        if let Some(it) = step.renew {
            all.push(("renew", Action::Renew(it, self.expected()?)));
        }
        if let Some(it) = step.unregister {
            all.push(("unregister", Action::Unregister(it, self.expected()?)));
        }
        if let Some(it) = step.enumerate {
            let filter = self.filter("enumerate", it.filter.as_ref())?;
            all.push(("enumerate", Action::Enumerate(it, filter, self.expected()?)));
        }
        if let Some(it) = step.publish {
            let filter = self.filter("publish", it.filter.as_ref())?;
            all.push(("publish", Action::Publish(it, filter, self.expected()?)));
        }
        if let Some(it) = step.receipts {
            all.push(("receipts", Action::Receipts(it, self.expected()?)));
        }
        if let Some(it) = step.cancel {
            all.push(("cancel", Action::Cancel(it, self.expected()?)));
        }
        if let Some(it) = step.dead_letters {
            all.push(("dead_letters", Action::DeadLetters(it, self.expected()?)));
        }
        if let Some(it) = step.redrive {
            if it.all == it.identity.is_some() {
                return Err(self.error_in("redrive", "either names an `identity` or says `all: true`"));
            }
            all.push(("redrive", Action::Redrive(it, self.expected()?)));
        }
        if let Some(it) = step.subscribe {
            all.push(("subscribe", Action::Subscribe(it, self.expected()?)));
        }
        if let Some(it) = step.receive {
            if it.is_ambiguous() {
                return Err(self.error_in(
                    "receive",
                    "of `ack`, `nack` and `term` one is said about a message",
                ));
            }
            all.push(("receive", Action::Receive(it)));
        }
        all.extend(step.silence.map(|it| ("silence", Action::Silence(it))));
        all.extend(step.close.map(|it| ("close", Action::Close(it))));
        all.extend(step.wait.map(|it| ("wait", Action::Wait(it))));
        Ok(all)
    }

    fn expected<T: DeserializeOwned + Default>(&self) -> Result<T, Error> {
        let path = self.path.clone().key("expect");
        match self.source.at(&path) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(_) => self.source.decode_at(&path),
        }
    }

    /// A call that fails has no answer of which anything else could be expected.
    fn check_error_alone(&self) -> Result<(), Error> {
        let path = self.path.clone().key("expect");
        let expected = self.source.at(&path).and_then(Value::as_object);
        let Some(expected) = expected.filter(|expected| expected.contains_key("error")) else {
            return Ok(());
        };
        match expected.keys().find(|key| *key != "error") {
            None => Ok(()),
            Some(other) => {
                let message = format!("of a call that fails with `error` there is no `{other}` to expect");
                Err(self.source.place(Error::new(path.key(other), message)))
            }
        }
    }

    fn filter(&self, action: &str, filter: Option<&Value>) -> Result<Option<Filter>, Error> {
        let Some(filter) = filter else { return Ok(None) };
        let read = cli::selection(&filter.to_string());
        read.map(Some).map_err(|message| {
            let path = self.path.clone().key(action).key("filter");
            self.source.place(Error::new(path, message))
        })
    }

    fn error(&self, message: impl Into<String>) -> Error {
        self.source.place(Error::new(self.path.clone(), message))
    }

    fn error_in(&self, action: &str, message: &str) -> Error {
        let path = self.path.clone().key(action);
        self.source.place(Error::new(path, message))
    }
}

impl Action {
    fn can_expect(&self) -> bool {
        !matches!(
            self,
            Self::Receive(_) | Self::Silence(_) | Self::Close(_) | Self::Wait(_)
        )
    }

    /// Whether it changes nothing, and may be repeated until what is expected comes of it.
    fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Get(..) | Self::Enumerate(..) | Self::Receipts(..) | Self::DeadLetters(..)
        )
    }

    /// How long it may take where it waits for something.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::Receive(receive) => receive.within.unwrap_or(PATIENCE),
            _ => PATIENCE,
        }
    }

    fn describe(&self, kind: &str) -> String {
        let whom = match self {
            Self::Register(it, _) => it.identity.clone(),
            Self::Update(it, _) => it.identity.clone(),
            Self::Get(it, _) | Self::Unregister(it, _) => it.identity.clone(),
            Self::Renew(it, _) => it.identities.join(", "),
            Self::Enumerate(_, filter, _) | Self::Publish(_, filter, _) => match filter {
                Some(filter) => filter.to_string(),
                None => "all".to_owned(),
            },
            Self::Receipts(it, _) | Self::Cancel(it, _) => it.of.clone(),
            Self::DeadLetters(DeadLetters { identity }, _) | Self::Redrive(Redrive { identity, .. }, _) => {
                identity.clone().unwrap_or_else(|| "all".to_owned())
            }
            Self::Subscribe(it, _) => it.identity.clone(),
            Self::Receive(it) => it.by.clone(),
            Self::Silence(it) => it.by.clone(),
            Self::Close(it) => it.session.clone(),
            Self::Wait(length) => prism_core::config::format_duration(*length),
        };
        format!("{kind} {whom}")
    }
}
