//! What an answer means, also a missing and an odd one.

use super::{Peer, Progress, Request};
use crate::lifecycle::{Answer, Mark, Stage};

impl Peer {
    /// Takes an answer.
    pub fn answered(&mut self, correlation: &str, answer: Answer) -> Progress {
        let Some(pending) = self.pending.remove(correlation) else {
            return Progress::None;
        };
        match pending.request {
            Request::Initialize { namespace, mark } => self.initialized(correlation, namespace, mark, answer),
            Request::Remove { namespace, .. } => self.removed(correlation, namespace, answer),
            Request::Start => self.started(match answer {
                Answer::Started(outcome) => outcome,
                _ => Err(odd("start")),
            }),
            Request::HealthCheck => Progress::Health(match answer {
                Answer::Health(health) => Some(health),
                _ => None,
            }),
            Request::Drain { .. } => self.drained(),
            Request::Shutdown { .. } => self.stopped(),
        }
    }

    /// Takes note that the time for an answer passed.
    pub fn expired(&mut self, correlation: &str) -> Progress {
        let Some(pending) = self
            .pending
            .get_mut(correlation)
            .filter(|pending| !pending.overdue)
        else {
            return Progress::None;
        };
        pending.overdue = true;
        match pending.request.clone() {
            // Not to be pushed again until it has another version: a runner that hung on it once would
            // hang on it again, and one that only was slow still gets its answer taken.
            Request::Initialize { namespace, mark } => {
                self.not_initialized(correlation, namespace, mark, silent("initialize"))
            }
            Request::Remove { namespace, .. } => {
                self.conclude_removal(correlation, namespace, Some(silent("initialize")))
            }
            Request::Start => self.started(Err(silent("start"))),
            Request::HealthCheck => {
                self.pending.remove(correlation);
                Progress::Silent
            }
            Request::Drain { .. } => self.drained(),
            Request::Shutdown { .. } => self.stopped(),
        }
    }

    fn initialized(&mut self, correlation: &str, namespace: String, mark: Mark, answer: Answer) -> Progress {
        let offer = match answer {
            Answer::Initialized(Ok(offer)) => offer,
            Answer::Initialized(Err(error)) => {
                return self.not_initialized(correlation, namespace, mark, error);
            }
            _ => return self.not_initialized(correlation, namespace, mark, odd("initialize")),
        };
        match self.spaces.get_mut(&namespace) {
            Some(space) if space.is_last(correlation) => space.accepted(&namespace, mark, &offer),
            _ => return Progress::None,
        }
        Progress::Configured {
            namespace,
            error: None,
        }
    }

    fn not_initialized(
        &mut self,
        correlation: &str,
        namespace: String,
        mark: Mark,
        error: String,
    ) -> Progress {
        match self.spaces.get_mut(&namespace) {
            Some(space) if space.is_last(correlation) => space.refused(mark, error.clone()),
            _ => return Progress::None,
        }
        Progress::Configured {
            namespace,
            error: Some(error),
        }
    }

    fn removed(&mut self, correlation: &str, namespace: String, answer: Answer) -> Progress {
        let error = match answer {
            Answer::Initialized(Ok(_)) => None,
            Answer::Initialized(Err(error)) => Some(error),
            _ => Some(odd("initialize")),
        };
        self.conclude_removal(correlation, namespace, error)
    }

    fn conclude_removal(&mut self, correlation: &str, namespace: String, error: Option<String>) -> Progress {
        match self.spaces.get_mut(&namespace) {
            Some(space) if space.is_last(correlation) => {
                space.removed(error.clone().map_or(Ok(()), Err));
                if space.is_blank() {
                    self.spaces.remove(&namespace);
                }
            }
            _ => return Progress::None,
        }
        Progress::Configured { namespace, error }
    }

    fn started(&mut self, outcome: Result<String, String>) -> Progress {
        let awaited = matches!(self.stage, Stage::Idle | Stage::Starting);
        match outcome {
            Ok(endpoint) => {
                self.endpoint = Some(endpoint);
                self.start_error = None;
                if awaited {
                    self.stage = Stage::Running;
                }
                Progress::Started(Ok(()))
            }
            Err(error) => {
                self.start_error = Some(error.clone());
                if awaited {
                    self.stage = Stage::Idle;
                }
                Progress::Started(Err(error))
            }
        }
    }

    fn drained(&mut self) -> Progress {
        self.stage = self.stage.max(Stage::Drained);
        Progress::Drained
    }

    fn stopped(&mut self) -> Progress {
        self.stage = Stage::Stopped;
        Progress::Stopped
    }
}

fn odd(command: &str) -> String {
    format!("the runner answered `{command}` with another message, check that it speaks this protocol")
}

fn silent(command: &str) -> String {
    format!("the runner did not answer `{command}` in time, look at its log")
}
