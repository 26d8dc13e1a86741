//! The fleet against scripted runners, in virtual time.

mod configuring;
mod failing;
mod foreign;
mod leaving;
mod properties;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use prism_core::{
    id::{Digest, SessionToken},
    lifecycle::{Answer, Command, Health, HealthStatus, Initialized, NamespaceReport, Scope, wire},
};
use prism_proto::interfaces::{RegisterResponse, proxy_command::Command as Message};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{DesiredNamespace, Effect, Fleet, Registration, RunnerId, SessionId, Settings};

/// What a scripted runner is.
#[derive(Clone)]
struct Script {
    pattern: &'static str,
    many: bool,
    extended: bool,
    scope: Scope,
    port: u16,
    everywhere: Option<&'static str>,
}

const OURS: Script = Script {
    pattern: "test",
    many: true,
    extended: true,
    scope: Scope::Process,
    port: 0,
    everywhere: None,
};

const SHARED: Script = Script {
    scope: Scope::Shared,
    ..OURS
};

const FOREIGN: Script = Script {
    many: false,
    extended: false,
    ..OURS
};

/// A scripted runner, as the bench knows it.
struct Peer {
    session: SessionId,
    instance: String,
    token: Option<SessionToken>,
    script: Script,
}

struct Bench {
    fleet: Fleet,
    now: Instant,
    sessions: u64,
    /// Commands that were sent and not looked at yet.
    inbox: BTreeMap<SessionId, VecDeque<(String, Message)>>,
    /// Every namespace that was pushed to a session, in order, with its version.
    pushed: Vec<(SessionId, String, i64)>,
    routes: BTreeMap<String, Vec<String>>,
    held: BTreeSet<String>,
    closed: BTreeSet<SessionId>,
    probes: VecDeque<RunnerId>,
    disconnected: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            fleet: Fleet::new(settings, now),
            now,
            sessions: 0,
            inbox: BTreeMap::new(),
            pushed: Vec::new(),
            routes: BTreeMap::new(),
            held: BTreeSet::new(),
            closed: BTreeSet::new(),
            probes: VecDeque::new(),
            disconnected: Vec::new(),
        }
    }

    fn settle(&mut self) {
        self.fleet.tick(self.now);
        loop {
            self.fleet.plan(self.now);
            let effects = self.fleet.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.note(effect);
            }
        }
    }

    fn note(&mut self, effect: Effect) {
        match effect {
            Effect::Send { session, command } => {
                let message = command.command.unwrap();
                assert!(!self.closed.contains(&session), "{message:?} on a closed stream");
                if let Message::Initialize(initialize) = &message
                    && !initialize.remove
                {
                    self.pushed
                        .push((session, initialize.name.clone(), initialize.config_version));
                }
                self.inbox
                    .entry(session)
                    .or_default()
                    .push_back((command.correlation_id, message));
            }
            Effect::Close { session } => drop(self.closed.insert(session)),
            Effect::Route { namespace, targets } => {
                self.held.remove(&namespace);
                let instances = targets.into_iter().map(|target| target.instance_id.to_string());
                self.routes.insert(namespace, instances.collect());
            }
            Effect::Hold { namespace } => drop(self.held.insert(namespace)),
            Effect::Probe { runner, .. } => self.probes.push_back(runner),
            Effect::Disconnect { instance } => self.disconnected.push(instance.to_string()),
        }
    }

    fn apply(&mut self, namespaces: &[DesiredNamespace]) {
        self.fleet.apply(namespaces.to_vec());
        self.settle();
    }

    fn registration(
        script: &Script,
        token: Option<SessionToken>,
        reports: Vec<NamespaceReport>,
    ) -> Registration {
        Registration {
            pattern: wire::canonical_pattern(script.pattern),
            version: "1".to_owned(),
            process_id: 1,
            everywhere: script.everywhere.map(str::to_owned),
            many: script.many,
            extended: script.extended,
            idempotent: Arc::default(),
            token,
            reports,
        }
    }

    fn join(&mut self, script: Script) -> Peer {
        self.join_with(script, None, Vec::new())
    }

    fn join_with(
        &mut self,
        script: Script,
        token: Option<SessionToken>,
        reports: Vec<NamespaceReport>,
    ) -> Peer {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let mut script = script;
        if script.port == 0 {
            script.port = 50_000 + u16::try_from(self.sessions).unwrap();
        }
        let registration = Self::registration(&script, token, reports);
        let peer = "127.0.0.1:1".parse().ok();
        self.fleet
            .joined(self.now, session, "register".to_owned(), Ok(registration), peer);
        self.settle();
        let ack = self.acknowledgement(session);
        assert!(ack.success, "{}", ack.error);
        Peer {
            session,
            instance: ack.instance_id,
            token: SessionToken::from_wire(ack.session_token),
            script,
        }
    }

    fn acknowledgement(&mut self, session: SessionId) -> RegisterResponse {
        match self.inbox.get_mut(&session).and_then(VecDeque::pop_front) {
            Some((correlation, Message::RegisterAck(ack))) => {
                assert_eq!(correlation, "register");
                ack
            }
            other => panic!("the first command is {other:?}"),
        }
    }

    /// The next command to a runner.
    fn next(&mut self, peer: &Peer) -> Option<(String, Message)> {
        self.inbox.get_mut(&peer.session)?.pop_front()
    }

    fn answer(&mut self, peer: &Peer, correlation: &str, answer: Answer) {
        self.fleet.answered(self.now, peer.session, correlation, answer);
        self.settle();
    }

    /// Lets a runner do as it is told until it is told nothing more. Returns what it was told.
    fn obey(&mut self, peer: &Peer) -> Vec<String> {
        self.obey_but(peer, |_| None)
    }

    /// The same, with other answers where the test has one.
    fn obey_but(&mut self, peer: &Peer, special: impl Fn(&Message) -> Option<Answer>) -> Vec<String> {
        let mut told = Vec::new();
        while let Some((correlation, message)) = self.next(peer) {
            told.push(describe(&message));
            let answer = special(&message).unwrap_or_else(|| usual(&peer.script, &message));
            self.answer(peer, &correlation, answer);
        }
        told
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.fleet.next_timer().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Lets time pass with a runner that obeys.
    fn pass_obeyed(&mut self, time: Duration, peers: &[&Peer]) {
        let end = self.now + time;
        while self.now < end {
            self.pass(Duration::from_millis(100));
            for peer in peers {
                self.obey(peer);
            }
        }
    }

    fn lose(&mut self, peer: &Peer) {
        self.fleet.left(self.now, peer.session, "test");
        self.settle();
    }

    fn probed(&mut self, serves: bool) {
        let runner = self.probes.pop_front().expect("a probe");
        self.fleet.probed(self.now, runner, serves);
        self.settle();
    }

    fn beat(&mut self, peer: &Peer, status: HealthStatus, draining: bool) {
        self.fleet.heartbeat(self.now, peer.session, status, draining);
        self.settle();
    }

    fn routes(&self, namespace: &str) -> &[String] {
        self.routes.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }

    fn pushes(&self, peer: &Peer) -> Vec<(&str, i64)> {
        let own = self
            .pushed
            .iter()
            .filter(|(session, ..)| *session == peer.session);
        own.map(|(_, name, version)| (name.as_str(), *version)).collect()
    }
}

fn describe(message: &Message) -> String {
    match message {
        Message::Initialize(request) if request.remove => format!("remove {}", request.name),
        Message::Initialize(request) => format!("initialize {}", request.name),
        Message::Start(_) => "start".to_owned(),
        Message::HealthCheck(_) => "health".to_owned(),
        Message::Drain(_) => "drain".to_owned(),
        Message::Stop(_) => "stop".to_owned(),
        Message::Shutdown(_) => "shutdown".to_owned(),
        Message::RegisterAck(_) => "ack".to_owned(),
    }
}

/// What a runner answers that does as it is told.
fn usual(script: &Script, message: &Message) -> Answer {
    match wire::command(Some(message.clone())) {
        Command::Initialize(configuration) => {
            let mut offer = Initialized::default();
            let key = wire::scope_key(&configuration.namespace);
            if script.extended {
                offer.extra.insert(key, script.scope.as_str().to_owned());
            }
            Answer::Initialized(Ok(offer))
        }
        Command::Remove { .. } => Answer::Initialized(Ok(Initialized::default())),
        Command::Start => Answer::Started(Ok(format!(":{}", script.port))),
        Command::HealthCheck => Answer::Health(Health::healthy()),
        Command::Drain { .. } if !script.extended => Answer::Unrecognised,
        Command::Drain { .. } => Answer::Drained {
            counts: Default::default(),
            error: None,
        },
        Command::Stop { .. } | Command::Shutdown { .. } => Answer::Stopped(Ok(())),
        Command::Invalid(_) | Command::Unknown => Answer::Unrecognised,
    }
}

fn content(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

fn desired(name: &str, version: i64, config: Value) -> DesiredNamespace {
    let config = content(config);
    DesiredNamespace {
        name: name.to_owned(),
        pattern: "test".to_owned(),
        pattern_version: "v1".to_owned(),
        digest: Digest::of(&config),
        config,
        version,
        discard_on_move: false,
    }
}

/// The first configuration of a namespace.
fn first(name: &str) -> DesiredNamespace {
    desired(name, 1, json!({"first": true}))
}

/// Another one.
fn second(name: &str) -> DesiredNamespace {
    desired(name, 2, json!({"second": true}))
}

fn refuse(message: &Message) -> Option<Answer> {
    let refusal = Answer::Initialized(Err("slot `registry`: no".to_owned()));
    matches!(message, Message::Initialize(_)).then_some(refusal)
}

fn report(namespace: &DesiredNamespace, applied: bool, refused: bool) -> NamespaceReport {
    NamespaceReport {
        namespace: namespace.name.clone(),
        applied: applied.then(|| namespace.digest.clone()),
        refused: refused.then(|| namespace.digest.clone()),
        scope: applied.then_some(Scope::Process),
    }
}

/// One namespace, and a runner that serves it.
fn served(script: Script) -> (Bench, Peer) {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let peer = bench.join(script);
    assert_eq!(bench.obey(&peer), ["initialize a", "start"]);
    assert_eq!(bench.routes("a"), std::slice::from_ref(&peer.instance));
    (bench, peer)
}
