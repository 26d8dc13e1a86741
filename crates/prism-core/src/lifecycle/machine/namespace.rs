//! One namespace: what runs, what waits for it, what comes of it. One thing at a time.

use std::collections::VecDeque;

use super::{Decision, Decisions, answer, not_initialized};
use crate::{
    id::Digest,
    lifecycle::{Answer, Configuration, Initialized, Mark, Scope, Standing, Verdict},
};

/// How many commands may wait for the one under way.
const MAX_QUEUED: usize = 8;

/// Where one namespace stands, as a register message carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceReport {
    /// Which.
    pub namespace: String,
    /// What serves.
    pub applied: Option<Digest>,
    /// What was refused last.
    pub refused: Option<Digest>,
    /// How far its data reaches; `None` when nothing serves.
    pub scope: Option<Scope>,
}

/// A command that concerns one namespace.
#[derive(Debug)]
pub(super) enum Work {
    Initialize(Configuration),
    Remove { namespace: String, version: i64 },
}

impl Work {
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Initialize(configuration) => &configuration.namespace,
            Self::Remove { namespace, .. } => namespace,
        }
    }
}

#[derive(Debug)]
struct UnderWay<W> {
    from: W,
    aim: Aim,
}

#[derive(Debug)]
enum Aim {
    Apply(Mark),
    Remove(i64),
}

#[derive(Debug)]
pub(super) struct Namespace<W> {
    pub(super) standing: Standing,
    /// What the configuration that serves offers.
    pub(super) offer: Option<Initialized>,
    /// Why the last configuration was refused.
    refusal: String,
    under_way: Option<UnderWay<W>>,
    queued: VecDeque<(W, Work)>,
}

impl<W> Default for Namespace<W> {
    fn default() -> Self {
        Self {
            standing: Standing::default(),
            offer: None,
            refusal: String::new(),
            under_way: None,
            queued: VecDeque::new(),
        }
    }
}

impl<W> Namespace<W> {
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether nothing is lost by forgetting it.
    pub(super) fn is_blank(&self) -> bool {
        self.standing.is_blank() && self.under_way.is_none() && self.queued.is_empty()
    }

    pub(super) fn report(&self, name: &str) -> Option<NamespaceReport> {
        let applied = self.standing.applied().map(|mark| mark.digest.clone());
        let refused = self.standing.refused().map(|refused| refused.digest.clone());
        (applied.is_some() || refused.is_some()).then(|| NamespaceReport {
            namespace: name.to_owned(),
            scope: applied.as_ref().and(self.offer.as_ref()).map(|offer| offer.scope),
            applied,
            refused,
        })
    }

    /// Takes up a command, now or after what is under way.
    pub(super) fn offer(&mut self, from: W, work: Work, out: &mut Decisions<W>) {
        if self.under_way.is_none() {
            self.take_up(from, work, out);
        } else if self.queued.len() < MAX_QUEUED {
            self.queued.push_back((from, work));
        } else {
            let text = format!(
                "`{}` already has {MAX_QUEUED} commands waiting, try later",
                work.namespace()
            );
            out.push(answer(from, not_initialized(text)));
        }
    }

    fn take_up(&mut self, from: W, work: Work, out: &mut Decisions<W>) {
        match work {
            Work::Initialize(configuration) => self.take_up_configuration(from, configuration, out),
            Work::Remove { namespace, version } => match self.standing.judge_removal(version) {
                Err(conflict) => out.push(answer(from, not_initialized(conflict.to_string()))),
                Ok(()) if self.standing.applied().is_none() => {
                    self.standing.remove(version);
                    out.push(answer(from, Answer::Initialized(Ok(Initialized::default()))));
                }
                Ok(()) => {
                    let aim = Aim::Remove(version);
                    self.under_way = Some(UnderWay { from, aim });
                    out.push(Decision::Remove(namespace));
                }
            },
        }
    }

    fn take_up_configuration(&mut self, from: W, configuration: Configuration, out: &mut Decisions<W>) {
        match self.standing.judge(&configuration.mark) {
            Verdict::Conflict(conflict) => {
                let text = format!("namespace `{}`: {conflict}", configuration.namespace);
                out.push(answer(from, not_initialized(text)));
            }
            Verdict::Serves => {
                self.standing.accept(configuration.mark);
                let offer = self.offer.clone().unwrap_or_default();
                out.push(answer(from, Answer::Initialized(Ok(offer))));
            }
            Verdict::Refused => out.push(answer(from, not_initialized(self.refusal.clone()))),
            Verdict::Apply => {
                let aim = Aim::Apply(configuration.mark.clone());
                self.under_way = Some(UnderWay { from, aim });
                out.push(Decision::Initialize(configuration));
            }
        }
    }

    pub(super) fn initialized(&mut self, outcome: Result<Initialized, String>, out: &mut Decisions<W>) {
        let Some(UnderWay {
            from,
            aim: Aim::Apply(mark),
        }) = self.under_way.take_if(|work| matches!(work.aim, Aim::Apply(_)))
        else {
            return;
        };
        match &outcome {
            Ok(offer) => {
                self.standing.accept(mark);
                self.offer = Some(offer.clone());
            }
            Err(refusal) => {
                self.standing.refuse(mark);
                self.refusal.clone_from(refusal);
            }
        }
        out.push(answer(from, Answer::Initialized(outcome)));
        self.take_up_queued(out);
    }

    pub(super) fn removed(&mut self, outcome: Result<(), String>, out: &mut Decisions<W>) {
        let Some(UnderWay {
            from,
            aim: Aim::Remove(version),
        }) = self.under_way.take_if(|work| matches!(work.aim, Aim::Remove(_)))
        else {
            return;
        };
        if outcome.is_ok() {
            self.standing.remove(version);
            self.offer = None;
        }
        let outcome = outcome.map(|()| Initialized::default());
        out.push(answer(from, Answer::Initialized(outcome)));
        self.take_up_queued(out);
    }

    fn take_up_queued(&mut self, out: &mut Decisions<W>) {
        while self.under_way.is_none() {
            let Some((from, work)) = self.queued.pop_front() else {
                return;
            };
            self.take_up(from, work, out);
        }
    }

    pub(super) fn refuse_queued(&mut self, reason: &str, out: &mut Decisions<W>) {
        let queued = self.queued.drain(..);
        out.extend(queued.map(|(from, _)| answer(from, not_initialized(reason))));
    }
}
