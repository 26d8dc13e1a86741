//! A proxy's end and a plugin's end, with a stream between them that breaks at any moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::{BAD, digest, mark, namespace};
use crate::{
    id::CorrelationIds,
    lifecycle::{Answer, Assignment, Configuration, Decision, Event, Initialized, Machine, Mark, Peer, Sent},
};

#[derive(Debug, Clone)]
enum Step {
    Assign(u8, u8),
    Release(u8),
    DeliverCommand,
    DeliverAnswer,
    FinishWork(usize),
    Cut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..2_u8, 0..4_u8).prop_map(|(name, content)| Step::Assign(name, content)),
        1 => (0..2_u8).prop_map(Step::Release),
        4 => Just(Step::DeliverCommand),
        4 => Just(Step::DeliverAnswer),
        4 => (0..4_usize).prop_map(Step::FinishWork),
        1 => Just(Step::Cut),
    ];
    prop::collection::vec(step, 0..80)
}

struct Bench {
    peer: Peer,
    machine: Machine<(u32, String)>,
    /// Counts streams: an answer to a command of an earlier one goes nowhere.
    stream: u32,
    down: VecDeque<Sent>,
    up: VecDeque<(String, Answer)>,
    work: Vec<Event>,
    version: i64,
    wanted: BTreeMap<String, Option<Mark>>,
    refused: BTreeSet<(String, i64)>,
    starts: usize,
}

impl Bench {
    fn new() -> Self {
        Self {
            peer: Peer::new(true, CorrelationIds::with_prefix("test")),
            machine: Machine::new(),
            stream: 0,
            down: VecDeque::new(),
            up: VecDeque::new(),
            work: Vec::new(),
            version: 0,
            wanted: BTreeMap::new(),
            refused: BTreeSet::new(),
            starts: 0,
        }
    }

    fn want(&mut self, name: u8, content: Option<u8>) {
        self.version += 1;
        let wanted = content.map(|content| mark(self.version, content));
        self.wanted.insert(namespace(name), wanted);
    }

    /// The proxy says anew what it wants whenever anything happened, and sends what follows from it.
    fn plan(&mut self) {
        for (name, wanted) in &self.wanted {
            let assignment = match wanted.clone() {
                Some(mark) => Assignment::Serve(mark),
                None => Assignment::Release {
                    version: self.version,
                },
            };
            self.peer.assign(name, assignment);
        }
        self.down.extend(self.peer.due());
    }

    fn deliver_command(&mut self) -> bool {
        let Some(Sent { correlation, request }) = self.down.pop_front() else {
            return false;
        };
        let configuration = |name: &str| Configuration {
            namespace: name.to_owned(),
            pattern_version: "v1".to_owned(),
            config: serde_json::Map::new(),
            mark: mark(0, 0),
        };
        let command = request.into_command(|name| Some(configuration(name)));
        let decisions = self.machine.command((self.stream, correlation), command.unwrap());
        self.obey(decisions);
        true
    }

    fn obey(&mut self, decisions: Vec<Decision<(u32, String)>>) {
        let mut undelivered = false;
        for decision in decisions {
            match decision {
                Decision::Answer {
                    to: (stream, correlation),
                    answer,
                } if stream == self.stream => {
                    self.up.push_back((correlation, answer));
                }
                Decision::Answer { .. } => undelivered = true,
                Decision::Initialize(configuration) => {
                    let outcome = self.initialize(&configuration);
                    let namespace = configuration.namespace;
                    self.work.push(Event::Initialized { namespace, outcome });
                }
                Decision::Remove(namespace) => self.work.push(Event::Removed {
                    namespace,
                    outcome: Ok(()),
                }),
                Decision::Start => {
                    self.starts += 1;
                    self.work.push(Event::Started(Ok("here".to_owned())));
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
        // An outcome that went nowhere makes the last report untrue: the plugin registers anew.
        if undelivered {
            self.cut();
        }
    }

    fn initialize(&mut self, configuration: &Configuration) -> Result<Initialized, String> {
        if configuration.mark.digest != digest(BAD) {
            return Ok(Initialized::default());
        }
        let first = self
            .refused
            .insert((configuration.namespace.clone(), configuration.mark.version));
        assert!(first, "a refused version came again: {:?}", configuration.mark);
        Err("bad".to_owned())
    }

    fn deliver_answer(&mut self) -> bool {
        let Some((correlation, answer)) = self.up.pop_front() else {
            return false;
        };
        self.peer.answered(&correlation, answer);
        true
    }

    fn finish_work(&mut self, nth: usize) -> bool {
        if self.work.is_empty() {
            return false;
        }
        let event = self.work.remove(nth % self.work.len());
        let decisions = self.machine.event(event);
        self.obey(decisions);
        true
    }

    fn cut(&mut self) {
        self.stream += 1;
        self.down.clear();
        self.up.clear();
        self.peer.registered(self.machine.report());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Assign(name, content) => self.want(name, Some(content)),
            Step::Release(name) => self.want(name, None),
            Step::DeliverCommand => drop(self.deliver_command()),
            Step::DeliverAnswer => drop(self.deliver_answer()),
            Step::FinishWork(nth) => drop(self.finish_work(nth)),
            Step::Cut => self.cut(),
        }
        self.plan();
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let moved = self.deliver_command() | self.deliver_answer() | self.finish_work(0);
            self.plan();
            if !moved && self.down.is_empty() {
                return;
            }
        }
        panic!("the two ends never agree");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn both_ends_agree_in_the_end(steps in steps()) {
        let mut bench = Bench::new();
        for step in steps {
            bench.step(step);
        }
        bench.settle();
        prop_assert!(bench.starts <= 1, "started {} times", bench.starts);
        let serving: BTreeMap<_, _> = bench
            .machine
            .report()
            .into_iter()
            .filter_map(|report| Some((report.namespace, report.applied?)))
            .collect();
        for (name, wanted) in &bench.wanted {
            let runs = serving.get(name);
            prop_assert_eq!(bench.peer.space(name).and_then(|space| space.standing().applied()).map(|mark| &mark.digest), runs);
            match wanted {
                Some(mark) if mark.digest != digest(BAD) => prop_assert_eq!(runs, Some(&mark.digest)),
                Some(_) => prop_assert_ne!(runs, Some(&digest(BAD))),
                None => prop_assert_eq!(runs, None),
            }
        }
    }
}
