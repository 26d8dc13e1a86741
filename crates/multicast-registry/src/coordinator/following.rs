//! A multicast that is told of as it is sent.

use std::sync::Arc;

use tokio::time::Instant;

use super::Coordinator;
use crate::delivery::{Report, Target, Targets, Told, Tracker};

/// What a multicast that is followed tells.
#[derive(Debug, Clone, PartialEq)]
pub enum MulticastEvent {
    /// It has been begun; without targets.
    Started(Report),
    /// More is known of a target.
    Target(Target),
    /// A target answered.
    Reply(crate::delivery::Reply),
    /// It is over; without targets.
    Ended(Report),
}

/// A multicast that is followed as it is sent.
pub struct Following {
    pub(super) coordinator: Coordinator,
    pub(super) source: Source,
    pub(super) started: bool,
    pub(super) until: Instant,
    pub(super) deadline: Instant,
}

/// A multicast whose caller listens. Answers and news are kept for as long as this lives.
pub(super) struct Attended(pub(super) Arc<Tracker>);

impl Drop for Attended {
    fn drop(&mut self) {
        self.0.unattended();
    }
}

pub(super) enum Source {
    Live {
        attended: Attended,
        /// Nothing more is waited for; it has been written down what it came to.
        settled: bool,
    },
    /// With how many of its targets have been told of.
    Before(Box<Report>, usize),
    Over,
}

impl Following {
    /// What happens next; `None` after the end. Cancel safe.
    pub async fn next(&mut self) -> Option<MulticastEvent> {
        let started = std::mem::replace(&mut self.started, true);
        match &mut self.source {
            Source::Over => None,
            Source::Before(report, told) if started => {
                if let Some(target) = report.targets.get(*told) {
                    *told += 1;
                    return Some(MulticastEvent::Target(target));
                }
                let summary = without_targets(report);
                self.source = Source::Over;
                Some(MulticastEvent::Ended(summary))
            }
            Source::Before(report, _) => Some(MulticastEvent::Started(without_targets(report))),
            Source::Live { attended, settled } if started => {
                let tracker = attended.0.clone();
                if !*settled {
                    if let Some(told) = tracker.next_news(self.until).await {
                        return Some(to_event(&tracker, told));
                    }
                    self.coordinator.write_outcome(&tracker, self.deadline).await;
                    *settled = true;
                }
                // What failed is told of once that is written down.
                if let Some(told) = tracker.news() {
                    return Some(to_event(&tracker, told));
                }
                self.source = Source::Over;
                Some(MulticastEvent::Ended(self.coordinator.conclude(&tracker, false)))
            }
            Source::Live { attended, .. } => Some(MulticastEvent::Started(
                self.coordinator.report(&attended.0, false),
            )),
        }
    }
}

fn without_targets(report: &Report) -> Report {
    Report {
        targets: Targets::default(),
        replies: Vec::new(),
        ..*report
    }
}

fn to_event(tracker: &Tracker, told: Told) -> MulticastEvent {
    match told {
        Told::Reply(reply) => MulticastEvent::Reply(reply),
        Told::Target(place, status, state) => {
            MulticastEvent::Target(Target::new(tracker.targets[place].clone(), status, state))
        }
    }
}
