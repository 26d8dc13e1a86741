//! The plugin's end under commands and events in any order.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::{digest, mark, namespace};
use crate::lifecycle::{
    Answer, Command, Configuration, Decision, Drained, Event, ExitStatus, Initialized, Kind, Machine, Stage,
};

#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    /// Concludes the oldest, second oldest, … piece of work that was decided, well or badly.
    Conclude(usize, bool),
    /// An event that nothing waits for.
    Stray(Event),
    Leave,
}

fn command() -> impl Strategy<Value = Command> {
    let initialize = (0..2_u8, 0..4_i64, 0..4_u8).prop_map(|(name, version, content)| {
        Command::Initialize(Configuration {
            namespace: namespace(name),
            pattern_version: "v1".to_owned(),
            config: serde_json::Map::new(),
            mark: mark(version, content),
        })
    });
    let remove = (0..2_u8, 0..4_i64).prop_map(|(name, version)| Command::Remove {
        namespace: namespace(name),
        version,
    });
    prop_oneof![
        12 => initialize,
        4 => remove,
        4 => Just(Command::Start),
        3 => Just(Command::HealthCheck),
        1 => Just(Command::Unknown),
        1 => Just(Command::Invalid("bad".to_owned())),
        1 => Just(Command::Drain { within: None, reason: String::new() }),
        1 => Just(Command::Stop { within: None }),
        1 => Just(Command::Shutdown { within: None, reason: String::new() }),
    ]
}

fn stray() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Initialized {
            namespace: namespace(7),
            outcome: Ok(Initialized::default())
        }),
        Just(Event::Removed {
            namespace: namespace(7),
            outcome: Ok(())
        }),
        Just(Event::Started(Ok("stray".to_owned()))),
        Just(Event::Announced),
        Just(Event::Drained {
            counts: Drained::default(),
            overran: true,
            error: None
        }),
        Just(Event::Stopped(Err("stray".to_owned()))),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => command().prop_map(Step::Command),
        6 => (0..4_usize, prop::bool::weighted(0.7)).prop_map(|(nth, well)| Step::Conclude(nth, well)),
        2 => stray().prop_map(Step::Stray),
        1 => Just(Step::Leave),
    ];
    prop::collection::vec(step, 0..60)
}

/// Work that the machine decided on and that has not been concluded.
#[derive(Debug, Clone, PartialEq)]
enum Job {
    Initialize(Configuration),
    Remove(String),
    Start,
    Announce,
    Drain,
    Stop,
}

/// Plays the part of the SDK, and checks every decision.
#[derive(Default)]
struct Bench {
    machine: Machine<usize>,
    asked: Vec<Kind>,
    answers: HashMap<usize, Answer>,
    jobs: Vec<Job>,
    applied: BTreeMap<String, Configuration>,
    started: usize,
    drained: usize,
    stopped: usize,
    exits: Vec<ExitStatus>,
}

impl Bench {
    fn ask(&mut self, command: Command) {
        let waiter = self.asked.len();
        self.asked.push(command.kind());
        let decisions = self.machine.command(waiter, command);
        self.obey(decisions);
    }

    fn tell(&mut self, event: Event) {
        let decisions = self.machine.event(event);
        self.obey(decisions);
    }

    fn obey(&mut self, decisions: Vec<Decision<usize>>) {
        for decision in decisions {
            match decision {
                Decision::Answer { to, answer } => self.answered(to, answer),
                Decision::Health { to, .. } => self.answered(to, Answer::Health(Default::default())),
                Decision::Initialize(configuration) => self.decided_initialize(configuration),
                Decision::Remove(name) => {
                    self.assert_free(&name);
                    assert!(self.applied.contains_key(&name), "removal of what does not serve");
                    self.begin(Job::Remove(name));
                }
                Decision::Start => {
                    assert!(!self.applied.is_empty(), "started without a namespace");
                    assert_eq!(self.started, 0, "started twice");
                    self.begin(Job::Start);
                }
                Decision::Cancel => assert!(!self.jobs.is_empty(), "nothing to cancel"),
                Decision::Announce => self.begin(Job::Announce),
                Decision::Drain { .. } => {
                    assert!(self.jobs.is_empty(), "drains while {:?} is under way", self.jobs);
                    self.begin(Job::Drain);
                }
                Decision::Stop { .. } => {
                    assert_eq!(self.drained, 1, "stops without having drained");
                    self.begin(Job::Stop);
                }
                Decision::Exit(status) => self.exits.push(status),
            }
        }
    }

    fn decided_initialize(&mut self, configuration: Configuration) {
        self.assert_free(&configuration.namespace);
        if let Some(serving) = self.applied.get(&configuration.namespace) {
            assert_ne!(serving.mark.digest, configuration.mark.digest, "applied twice");
            let (old, new) = (serving.mark.version, configuration.mark.version);
            assert!(new > old || (new, old) == (0, 0), "version {new} replaces {old}");
        }
        self.begin(Job::Initialize(configuration));
    }

    fn assert_free(&self, name: &str) {
        let busy = self.jobs.iter().any(|job| match job {
            Job::Initialize(configuration) => configuration.namespace == name,
            Job::Remove(removing) => removing == name,
            _ => false,
        });
        assert!(!busy, "two pieces of work for {name}");
    }

    fn begin(&mut self, job: Job) {
        assert_eq!(self.stopped, 0, "{job:?} after the stop");
        let last = matches!(job, Job::Announce | Job::Drain | Job::Stop);
        assert!(
            last || self.machine.stage() < Stage::Draining,
            "{job:?} while it drains"
        );
        self.jobs.push(job);
    }

    fn answered(&mut self, waiter: usize, answer: Answer) {
        let fits = match self.asked[waiter] {
            Kind::Configure => matches!(answer, Answer::Initialized(_)),
            Kind::Start => matches!(answer, Answer::Started(_)),
            Kind::HealthCheck => matches!(answer, Answer::Health(_)),
            Kind::Drain => matches!(answer, Answer::Drained { .. }),
            Kind::Stop => matches!(answer, Answer::Stopped(_)),
        };
        assert!(fits, "{:?} was answered with {answer:?}", self.asked[waiter]);
        assert!(
            self.answers.insert(waiter, answer).is_none(),
            "command {waiter} was answered twice"
        );
    }

    fn conclude(&mut self, nth: usize, well: bool) {
        if self.jobs.is_empty() {
            return;
        }
        let job = self.jobs.remove(nth % self.jobs.len());
        let outcome = if well { Ok(()) } else { Err("failed".to_owned()) };
        match job {
            Job::Initialize(configuration) => {
                let name = configuration.namespace.clone();
                if well {
                    self.applied.insert(name.clone(), configuration);
                }
                let outcome = outcome.map(|()| Initialized::default());
                self.tell(Event::Initialized {
                    namespace: name,
                    outcome,
                });
            }
            Job::Remove(name) => {
                if well {
                    self.applied.remove(&name);
                }
                self.tell(Event::Removed {
                    namespace: name,
                    outcome,
                });
            }
            Job::Start => {
                self.started += usize::from(well);
                self.tell(Event::Started(outcome.map(|()| "here".to_owned())));
            }
            Job::Announce => self.tell(Event::Announced),
            Job::Drain => {
                self.drained += 1;
                let counts = Drained::default();
                self.tell(Event::Drained {
                    counts,
                    overran: !well,
                    error: outcome.err(),
                });
            }
            Job::Stop => {
                self.stopped += 1;
                self.tell(Event::Stopped(outcome));
            }
        }
        self.assert_report();
    }

    fn assert_report(&self) {
        let told: BTreeMap<_, _> = self
            .machine
            .report()
            .into_iter()
            .filter_map(|report| Some((report.namespace, report.applied?)))
            .collect();
        let serving: BTreeMap<_, _> = self
            .applied
            .iter()
            .map(|(name, configuration)| (name.clone(), configuration.mark.digest.clone()))
            .collect();
        assert_eq!(told, serving, "the report is not what serves");
    }

    /// Whether an event would be taken for the outcome of work that is under way.
    fn awaits(&self, event: &Event) -> bool {
        self.jobs.iter().any(|job| {
            matches!(
                (job, event),
                (Job::Start, Event::Started(_))
                    | (Job::Announce, Event::Announced)
                    | (Job::Drain, Event::Drained { .. })
                    | (Job::Stop, Event::Stopped(_))
            )
        })
    }

    fn run(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Command(command) => self.ask(command),
                Step::Conclude(nth, well) => self.conclude(nth, well),
                Step::Stray(event) if !self.awaits(&event) => {
                    let decisions = self.machine.event(event);
                    assert!(decisions.is_empty(), "a stray event led to {decisions:?}");
                }
                Step::Stray(_) => {}
                Step::Leave => self.tell(Event::Leave),
            }
        }
    }

    fn finish(&mut self) {
        self.tell(Event::Leave);
        while !self.jobs.is_empty() {
            self.conclude(0, true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_command_is_answered_once_and_every_life_ends(steps in steps()) {
        let mut bench = Bench::default();
        bench.run(steps);
        bench.finish();
        prop_assert_eq!(bench.machine.stage(), Stage::Stopped);
        prop_assert_eq!(bench.exits.len(), 1);
        prop_assert_eq!(bench.drained, 1);
        prop_assert_eq!(bench.answers.len(), bench.asked.len());
    }

    #[test]
    fn a_stopped_plugin_answers_and_does_nothing(before in steps(), after in prop::collection::vec(command(), 1..20)) {
        let mut bench = Bench::default();
        bench.run(before);
        bench.finish();
        for command in after {
            bench.ask(command);
            prop_assert!(bench.jobs.is_empty());
        }
        prop_assert_eq!(bench.answers.len(), bench.asked.len());
        prop_assert_eq!(bench.exits.len(), 1);
    }
}

fn configuration(version: i64, content: u8) -> Command {
    Command::Initialize(Configuration {
        namespace: namespace(0),
        pattern_version: "v1".to_owned(),
        config: serde_json::Map::new(),
        mark: mark(version, content),
    })
}

#[test]
fn a_start_waits_for_the_first_namespace_and_not_for_the_second() {
    let mut bench = Bench::default();
    bench.ask(configuration(1, 0));
    bench.ask(Command::Start);
    assert_eq!(bench.jobs.len(), 1, "nothing to serve yet");
    bench.conclude(0, true);
    assert_eq!(bench.jobs, [Job::Start]);
}

#[test]
fn a_start_without_a_namespace_is_refused() {
    let mut bench = Bench::default();
    bench.ask(Command::Start);
    assert!(matches!(&bench.answers[&0], Answer::Started(Err(text)) if text.contains("initialize")));
    bench.ask(configuration(1, 0));
    bench.ask(Command::Start);
    bench.conclude(0, false);
    assert!(matches!(&bench.answers[&2], Answer::Started(Err(_))));
}

#[test]
fn the_same_push_while_it_is_under_way_gets_the_same_outcome() {
    let mut bench = Bench::default();
    bench.ask(configuration(1, 0));
    bench.ask(configuration(1, 0));
    bench.conclude(0, false);
    assert!(bench.jobs.is_empty(), "a refusal is not provoked twice");
    assert_eq!(bench.answers[&0], bench.answers[&1]);
}

#[test]
fn a_failure_keeps_what_served() {
    let mut bench = Bench::default();
    bench.ask(configuration(1, 0));
    bench.conclude(0, true);
    bench.ask(configuration(2, 1));
    bench.conclude(0, false);
    let report = &bench.machine.report()[0];
    assert_eq!(report.applied, Some(digest(0)));
    assert_eq!(report.refused, Some(digest(1)));
}

#[test]
fn exit_codes_say_how_it_went() {
    let end = |drained_well, stopped_well| {
        let mut bench = Bench::default();
        bench.tell(Event::Leave);
        bench.conclude(0, true);
        bench.conclude(0, drained_well);
        bench.conclude(0, stopped_well);
        bench.exits[0].code()
    };
    assert_eq!(end(true, true), 0);
    assert_eq!(end(true, false), 1);
    assert_eq!(end(false, true), 2);
    assert_eq!(end(false, false), 2);
}
