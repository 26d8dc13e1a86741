//! The way out: leave, drain, stop, exit.

use super::{Decision, Decisions, ExitStatus, Machine, Within, answer};
use crate::lifecycle::{Answer, Drained, Stage};

impl<W> Machine<W> {
    pub(super) fn ask_drain(&mut self, from: W, within: Within, out: &mut Decisions<W>) {
        if let Some((counts, error)) = self.drained.clone() {
            out.push(answer(from, Answer::Drained { counts, error }));
            return;
        }
        self.draining.push(from);
        if self.stage < Stage::Leaving {
            self.quiesce(within, out);
        }
    }

    pub(super) fn ask_stop(&mut self, from: W, within: Within, out: &mut Decisions<W>) {
        if self.stage == Stage::Stopped {
            out.push(answer(from, Answer::Stopped(self.stopped.clone())));
            return;
        }
        self.stopping.push(from);
        self.leave(within, out);
    }

    pub(super) fn leave(&mut self, within: Within, out: &mut Decisions<W>) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(within);
        if self.stage < Stage::Leaving {
            self.stage = Stage::Leaving;
            out.push(Decision::Announce);
        } else if self.stage == Stage::Drained {
            self.begin_stop(within, out);
        }
    }

    /// Gives up whatever is being configured; the drain follows when the last of it has ended.
    pub(super) fn quiesce(&mut self, within: Within, out: &mut Decisions<W>) {
        self.stage = Stage::Draining;
        self.drain_due = Some(within);
        let reason = "the plugin began to drain, use another instance";
        self.answer_starting(&Err(reason.to_owned()), out);
        for namespace in self.namespaces.values_mut() {
            namespace.refuse_queued(reason, out);
        }
        if self.is_configuring() {
            out.push(Decision::Cancel);
        }
        self.advance(out);
    }

    pub(super) fn drained(
        &mut self,
        counts: Drained,
        overran: bool,
        error: Option<String>,
        out: &mut Decisions<W>,
    ) {
        if self.stage != Stage::Draining || self.drain_due.is_some() {
            return;
        }
        self.stage = Stage::Drained;
        self.overran = overran;
        for to in self.draining.drain(..) {
            let error = error.clone();
            out.push(answer(to, Answer::Drained { counts, error }));
        }
        self.drained = Some((counts, error));
        if let Some(within) = self.end {
            self.begin_stop(within, out);
        }
    }

    fn begin_stop(&mut self, within: Within, out: &mut Decisions<W>) {
        self.stage = Stage::Stopping;
        out.push(Decision::Stop { within });
    }

    pub(super) fn ended(&mut self, outcome: Result<(), String>, out: &mut Decisions<W>) {
        if self.stage != Stage::Stopping {
            return;
        }
        self.stage = Stage::Stopped;
        let waiting = self.stopping.drain(..);
        out.extend(waiting.map(|to| answer(to, Answer::Stopped(outcome.clone()))));
        out.push(Decision::Exit(match &outcome {
            _ if self.overran => ExitStatus::DrainOverran,
            Ok(()) if self.drained.as_ref().is_none_or(|(_, error)| error.is_none()) => ExitStatus::Clean,
            _ => ExitStatus::Failed,
        }));
        self.stopped = outcome;
    }

    /// The proxies were told, or had their time.
    pub(super) fn announced(&mut self, out: &mut Decisions<W>) {
        if self.stage == Stage::Leaving {
            self.quiesce(self.end.flatten(), out);
        }
    }
}
