//! The proxy's end under answers that come late, twice, out of order, oddly or not at all.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::{digest, mark, namespace};
use crate::{
    id::CorrelationIds,
    lifecycle::{
        Answer, Assignment, Drained, Health, Initialized, NamespaceReport, Peer, Progress, Request, Sent,
        Stage,
    },
};

#[derive(Debug, Clone)]
enum Step {
    Assign(u8, i64, u8),
    Release(u8, i64),
    Answer(usize, Answer),
    Expire(usize),
    Rejoin(Vec<(u8, Option<u8>, Option<u8>)>),
    CheckHealth,
    Leaves,
    Drain,
    ShutDown,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Initialized(Ok(Initialized::default()))),
        3 => Just(Answer::Initialized(Err("no".to_owned()))),
        2 => Just(Answer::Started(Ok("here".to_owned()))),
        1 => Just(Answer::Started(Err("no".to_owned()))),
        1 => Just(Answer::Drained { counts: Drained::default(), error: None }),
        1 => Just(Answer::Stopped(Ok(()))),
        2 => Just(Answer::Health(Health::healthy())),
        2 => Just(Answer::Unrecognised),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let content = || prop::option::of(0..4_u8);
    let step = prop_oneof![
        6 => (0..2_u8, 1..4_i64, 0..4_u8).prop_map(|(name, version, content)| Step::Assign(name, version, content)),
        2 => (0..2_u8, 1..4_i64).prop_map(|(name, version)| Step::Release(name, version)),
        8 => (0..40_usize, answer()).prop_map(|(nth, answer)| Step::Answer(nth, answer)),
        3 => (0..40_usize).prop_map(Step::Expire),
        1 => prop::collection::vec((0..2_u8, content(), content()), 0..3).prop_map(Step::Rejoin),
        2 => Just(Step::CheckHealth),
        1 => Just(Step::Leaves),
        1 => Just(Step::Drain),
        1 => Just(Step::ShutDown),
    ];
    prop::collection::vec(step, 0..60)
}

/// Plays the part of the proxy, and checks every command.
struct Bench {
    peer: Peer,
    extended: bool,
    sent: Vec<Sent>,
    /// The commands whose outcome is open: neither answered nor expired, on the present stream.
    open: BTreeMap<String, Request>,
    /// The contents that were refused, with the version, and whether anything came after that lifts it.
    refused: BTreeMap<(String, i64), crate::id::Digest>,
    told_to_end: bool,
}

impl Bench {
    fn new(extended: bool) -> Self {
        Self {
            peer: Peer::new(extended, CorrelationIds::with_prefix("test")),
            extended,
            sent: Vec::new(),
            open: BTreeMap::new(),
            refused: BTreeMap::new(),
            told_to_end: false,
        }
    }

    fn note(&mut self, sent: impl IntoIterator<Item = Sent>) {
        for sent in sent {
            self.check(&sent.request);
            let known = self.open.insert(sent.correlation.clone(), sent.request.clone());
            assert!(known.is_none(), "a correlation id came twice");
            self.sent.push(sent);
        }
    }

    fn check(&self, request: &Request) {
        let subject = subject(request);
        let twice = subject.is_some()
            && self
                .open
                .values()
                .any(|open| super::peer::subject(open) == subject);
        assert!(!twice, "two commands at a time: {request:?}");
        match request {
            Request::Initialize { namespace, mark } => {
                let refused = self.refused.get(&(namespace.clone(), mark.version));
                assert_ne!(
                    refused,
                    Some(&mark.digest),
                    "{namespace} was refused in this version"
                );
            }
            Request::Remove { .. } => assert!(self.extended, "a foreign runner does not know removals"),
            _ => {}
        }
        let ending = matches!(
            request,
            Request::HealthCheck | Request::Drain { .. } | Request::Shutdown { .. }
        );
        assert!(
            ending || !self.told_to_end,
            "{request:?} to a runner that was told to end"
        );
    }

    fn answer(&mut self, nth: usize, answer: Answer) {
        let Some(sent) = self.sent.get(nth).cloned() else {
            let stranger = self.peer.answered("stranger", answer);
            assert_eq!(stranger, Progress::None, "nobody asked");
            return;
        };
        let was_open = self.open.remove(&sent.correlation).is_some();
        let good = matches!(answer, Answer::Initialized(Ok(_)));
        let progress = self.peer.answered(&sent.correlation, answer);
        if was_open {
            assert_ne!(progress, Progress::None, "the answer to {sent:?} was ignored");
        }
        if let (Request::Initialize { namespace, mark }, Progress::Configured { error, .. }) =
            (sent.request, progress)
        {
            assert_eq!(error.is_none(), good);
            self.remember(namespace, mark, error.is_some());
        }
    }

    fn expire(&mut self, nth: usize) {
        let Some(sent) = self.sent.get(nth).cloned() else {
            assert_eq!(self.peer.expired("stranger"), Progress::None);
            return;
        };
        self.open.remove(&sent.correlation);
        let progress = self.peer.expired(&sent.correlation);
        if let (Request::Initialize { namespace, mark }, Progress::Configured { .. }) =
            (sent.request, progress)
        {
            self.remember(namespace, mark, true);
        }
    }

    /// Only the last refusal of a namespace is kept by the peer, and so it is here.
    fn remember(&mut self, namespace: String, mark: crate::lifecycle::Mark, refused: bool) {
        if refused {
            self.refused.retain(|(name, _), _| *name != namespace);
            self.refused.insert((namespace, mark.version), mark.digest);
        }
    }

    fn rejoin(&mut self, reports: Vec<(u8, Option<u8>, Option<u8>)>) {
        self.open.clear();
        self.refused.clear();
        let reports = reports
            .into_iter()
            .map(|(name, applied, refused)| NamespaceReport {
                namespace: namespace(name),
                applied: applied.map(digest),
                refused: refused.map(digest),
                scope: None,
            });
        self.peer.registered(reports.collect());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Assign(name, version, content) => {
                self.peer
                    .assign(&namespace(name), Assignment::Serve(mark(version, content)));
            }
            Step::Release(name, version) => {
                self.refused.retain(|(refused, _), _| *refused != namespace(name));
                self.peer
                    .assign(&namespace(name), Assignment::Release { version });
            }
            Step::Answer(nth, answer) => self.answer(nth, answer),
            Step::Expire(nth) => self.expire(nth),
            Step::Rejoin(reports) => self.rejoin(reports),
            Step::CheckHealth => {
                let sent = self.peer.check_health();
                self.note(sent);
            }
            Step::Leaves => self.peer.leaves(),
            Step::Drain => {
                let sent = self.peer.drain(Duration::from_secs(1), "test");
                self.note(sent);
                self.told_to_end = true;
            }
            Step::ShutDown => {
                let sent = self.peer.shut_down(Duration::from_secs(1), "test");
                self.note(sent);
                self.told_to_end = true;
            }
        }
        let next = self.peer.due();
        self.note(next);
    }
}

/// What no two commands at a time may be about.
fn subject(request: &Request) -> Option<String> {
    match request {
        Request::Initialize { namespace, .. } | Request::Remove { namespace, .. } => Some(namespace.clone()),
        Request::Start => Some("start".to_owned()),
        Request::HealthCheck => Some("health".to_owned()),
        Request::Drain { .. } | Request::Shutdown { .. } => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_answer_leads_to_a_command_too_many(extended: bool, steps in steps()) {
        let mut bench = Bench::new(extended);
        for step in steps {
            bench.step(step);
        }
    }
}

/// A runner that was pushed content 0 in version 1, and the correlation id of that push.
fn pushed(extended: bool) -> (Peer, String) {
    let mut peer = Peer::new(extended, CorrelationIds::with_prefix("test"));
    peer.assign(&namespace(0), Assignment::Serve(mark(1, 0)));
    let sent = peer.due();
    assert_eq!(sent.len(), 1);
    (peer, sent[0].correlation.clone())
}

fn accepted() -> Answer {
    Answer::Initialized(Ok(Initialized::default()))
}

#[test]
fn a_runner_is_configured_then_started_once() {
    let (mut peer, push) = pushed(true);
    peer.answered(&push, accepted());
    let start = peer.due();
    assert_eq!(start[0].request, Request::Start);
    assert!(peer.due().is_empty());
    assert!(!peer.serves(&namespace(0)));
    peer.answered(&start[0].correlation, Answer::Started(Ok("here:1".to_owned())));
    assert!(peer.serves(&namespace(0)));
    assert_eq!(peer.endpoint(), Some("here:1"));
    peer.assign(&namespace(1), Assignment::Serve(mark(1, 1)));
    let second = peer.due();
    peer.answered(&second[0].correlation, accepted());
    assert!(
        peer.due().is_empty(),
        "a start belongs to the runner, not to a namespace"
    );
}

#[test]
fn a_late_answer_still_counts() {
    let (mut peer, push) = pushed(false);
    assert!(matches!(
        peer.expired(&push),
        Progress::Configured { error: Some(_), .. }
    ));
    assert!(peer.due().is_empty(), "what hung once is not pushed again");
    assert!(matches!(
        peer.answered(&push, accepted()),
        Progress::Configured { error: None, .. }
    ));
    assert_eq!(peer.due()[0].request, Request::Start);
}

#[test]
fn an_empty_answer_refuses_a_push_and_completes_a_drain() {
    let (mut peer, push) = pushed(false);
    let progress = peer.answered(&push, Answer::Unrecognised);
    assert!(matches!(progress, Progress::Configured { error: Some(_), .. }));
    let drain = peer.drain(Duration::from_secs(1), "test").unwrap();
    assert_eq!(
        peer.answered(&drain.correlation, Answer::Unrecognised),
        Progress::Drained
    );
    assert_eq!(peer.stage(), Stage::Drained);
    let check = peer.check_health().unwrap();
    assert_eq!(
        peer.answered(&check.correlation, Answer::Unrecognised),
        Progress::Health(None)
    );
}

#[test]
fn a_foreign_runner_is_never_sent_a_removal() {
    for extended in [false, true] {
        let (mut peer, push) = pushed(extended);
        peer.answered(&push, accepted());
        peer.due();
        peer.assign(&namespace(0), Assignment::Release { version: 2 });
        assert_eq!(peer.due().len(), usize::from(extended));
    }
}

#[test]
fn a_reconnecting_runner_is_pushed_neither_what_runs_nor_what_it_refused() {
    let (mut peer, push) = pushed(true);
    peer.answered(&push, accepted());
    peer.assign(&namespace(0), Assignment::Serve(mark(2, 1)));
    let report = |applied, refused| NamespaceReport {
        namespace: namespace(0),
        applied: Some(digest(applied)),
        refused: Some(digest(refused)),
        scope: None,
    };
    peer.registered(vec![report(0, 1)]);
    let initializes = |sent: Vec<Sent>| {
        sent.iter()
            .filter(|sent| matches!(sent.request, Request::Initialize { .. }))
            .count()
    };
    assert_eq!(initializes(peer.due()), 0);
    peer.assign(&namespace(0), Assignment::Serve(mark(3, 1)));
    assert_eq!(initializes(peer.due()), 1, "a later version may be tried");
}

#[test]
fn a_runner_is_not_flooded() {
    let mut peer = Peer::new(true, CorrelationIds::with_prefix("test"));
    for index in 0..100 {
        peer.assign(&namespace(index), Assignment::Serve(mark(1, 0)));
    }
    let mut open: Vec<Sent> = peer.due();
    assert_eq!(open.len(), 16);
    let mut configured = 0;
    while let Some(sent) = open.pop() {
        match sent.request {
            Request::Initialize { .. } => {
                configured += 1;
                peer.answered(&sent.correlation, accepted());
            }
            _ => drop(peer.answered(&sent.correlation, Answer::Started(Ok("here".to_owned())))),
        }
        open.extend(peer.due());
        assert!(open.len() <= 17, "16 pushes and a start");
    }
    assert_eq!(configured, 100);
}

#[test]
fn a_start_that_is_never_answered_is_not_remembered_for_each_time() {
    let (mut peer, push) = pushed(true);
    peer.answered(&push, accepted());
    for _ in 0..1_000 {
        let start = peer.due().remove(0);
        assert_eq!(start.request, Request::Start);
        peer.expired(&start.correlation);
        peer.retry_start();
    }
    assert!(peer.awaited() <= 1, "{} answers are awaited", peer.awaited());
}

#[test]
fn what_was_asked_on_a_broken_stream_is_asked_again() {
    let (mut peer, push) = pushed(true);
    let check = peer.check_health().unwrap();
    assert!(peer.check_health().is_none(), "one at a time");
    peer.registered(Vec::new());
    assert!(peer.check_health().is_some());
    assert_eq!(peer.due().len(), 1);
    assert_eq!(peer.answered(&push, accepted()), Progress::None);
    assert_eq!(
        peer.answered(&check.correlation, Answer::Unrecognised),
        Progress::None
    );
}
