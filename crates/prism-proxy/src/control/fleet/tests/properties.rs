//! What holds whatever runners do, in any order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Join(u8),
    Rejoin(usize, bool),
    /// Answers the oldest open command of a session, well, badly, oddly.
    Answer(usize, u8),
    /// Answers something that nobody asked.
    Stray(usize),
    Beat(usize, u8, bool),
    Lose(usize),
    Probed(bool),
    Apply(Vec<(u8, u8)>),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..3_u8).prop_map(Step::Join),
        1 => (0..8_usize, any::<bool>()).prop_map(|(peer, applied)| Step::Rejoin(peer, applied)),
        12 => (0..8_usize, 0..6_u8).prop_map(|(peer, how)| Step::Answer(peer, how)),
        1 => (0..8_usize).prop_map(Step::Stray),
        2 => (0..8_usize, 0..3_u8, prop::bool::weighted(0.2)).prop_map(|(peer, how, ends)| Step::Beat(peer, how, ends)),
        1 => (0..8_usize).prop_map(Step::Lose),
        2 => any::<bool>().prop_map(Step::Probed),
        2 => prop::collection::vec((0..3_u8, 0..3_u8), 0..4).prop_map(Step::Apply),
        3 => (1..8_000_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..80)
}

/// The bench, with what has to hold checked after each step.
struct Checked {
    bench: Bench,
    peers: Vec<Peer>,
    version: i64,
    /// What each session refused, with the version.
    refused: BTreeSet<(SessionId, String, i64)>,
    seen: usize,
}

impl Checked {
    fn new() -> Self {
        Self {
            bench: Bench::new(),
            peers: Vec::new(),
            version: 0,
            refused: BTreeSet::new(),
            seen: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join(kind) if self.peers.len() < 8 => {
                let script = [OURS, SHARED, FOREIGN][usize::from(kind)].clone();
                let peer = self.bench.join(script);
                self.peers.push(peer);
            }
            Step::Join(_) => {}
            Step::Rejoin(index, applied) => self.rejoin(index, applied),
            Step::Answer(index, how) => self.answer(index, how),
            Step::Stray(index) => {
                if let Some(peer) = self.peers.get(index) {
                    self.bench.answer(peer, "nobody asked", Answer::Unrecognised);
                }
            }
            Step::Beat(index, how, ends) => {
                if let Some(peer) = self.peers.get(index) {
                    let all = [
                        HealthStatus::Healthy,
                        HealthStatus::Degraded,
                        HealthStatus::Unhealthy,
                    ];
                    self.bench.beat(peer, all[usize::from(how)], ends);
                }
            }
            Step::Lose(index) => {
                if let Some(peer) = self.peers.get(index) {
                    self.bench.lose(peer);
                }
            }
            Step::Probed(serves) => {
                if !self.bench.probes.is_empty() {
                    self.bench.probed(serves);
                }
            }
            Step::Apply(wanted) => self.apply(wanted),
            Step::Pass(millis) => self.bench.pass(Duration::from_millis(millis)),
        }
        self.check();
    }

    fn rejoin(&mut self, index: usize, applied: bool) {
        let Some(peer) = self.peers.get(index).filter(|peer| peer.script.extended) else {
            return;
        };
        let reports = vec![report(&first("0"), applied, false)];
        let (script, token) = (peer.script.clone(), peer.token.clone());
        self.peers[index] = self.bench.join_with(script, token, reports);
    }

    fn answer(&mut self, index: usize, how: u8) {
        let Some(peer) = self.peers.get(index) else {
            return;
        };
        let Some((correlation, message)) = self.bench.next(peer) else {
            return;
        };
        let special = match how {
            0 => refuse(&message),
            1 => Some(Answer::Unrecognised),
            _ => None,
        };
        if let (Some(_), Message::Initialize(request)) = (&special, &message)
            && !request.remove
        {
            self.refused
                .insert((peer.session, request.name.clone(), request.config_version));
        }
        let answer = special.unwrap_or_else(|| usual(&peer.script, &message));
        self.bench.answer(peer, &correlation, answer);
    }

    fn apply(&mut self, wanted: Vec<(u8, u8)>) {
        self.version += 1;
        let wanted: BTreeMap<u8, u8> = wanted.into_iter().collect();
        let namespaces: Vec<_> = wanted
            .into_iter()
            .map(|(name, content)| DesiredNamespace {
                discard_on_move: content == 2,
                ..desired(&name.to_string(), self.version, json!({"content": content}))
            })
            .collect();
        self.bench.apply(&namespaces);
    }

    fn check(&mut self) {
        for (session, name, version) in &self.bench.pushed[self.seen..] {
            let key = (*session, name.clone(), *version);
            assert!(
                !self.refused.contains(&key),
                "{name} was refused in version {version}"
            );
        }
        self.seen = self.bench.pushed.len();
        for peer in self.peers.iter().filter(|peer| !peer.script.many) {
            let names: BTreeSet<_> = self
                .bench
                .pushes(peer)
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            assert!(
                names.len() <= 1,
                "a second namespace for one that takes one: {names:?}"
            );
        }
        let snapshot = self.bench.fleet.snapshot();
        for namespace in &snapshot.namespaces {
            if self.bench.held.contains(&namespace.name) {
                continue;
            }
            let routed = self.bench.routes(&namespace.name);
            for instance in routed {
                let runner = snapshot
                    .runners
                    .iter()
                    .find(|runner| runner.instance_id.as_str() == instance);
                let runner = runner.unwrap_or_else(|| panic!("{} is routed to a stranger", namespace.name));
                let has = |view: &crate::control::RunnerNamespaceView| {
                    view.namespace == namespace.name && view.applied_digest.is_some()
                };
                assert!(
                    runner.namespaces.iter().any(has),
                    "{} is routed to one that lacks it",
                    namespace.name
                );
            }
            if namespace.scope.is_some_and(|scope| scope != Scope::Shared) {
                assert!(routed.len() <= 1, "two serve what only one has: {routed:?}");
            }
        }
        let wanted = |name: &String| {
            snapshot
                .namespaces
                .iter()
                .any(|namespace| namespace.name == *name)
        };
        for (name, routed) in &self.bench.routes {
            assert!(
                wanted(name) || routed.is_empty(),
                "{name} is routed and not wanted"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_runner_confuses_the_fleet(steps in steps()) {
        let mut checked = Checked::new();
        for step in steps {
            checked.step(step);
        }
    }
}
