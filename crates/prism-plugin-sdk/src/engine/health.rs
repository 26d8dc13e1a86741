//! Health reports: one probe at a time, however many ask.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use prism_core::lifecycle::{Answer, Health, HealthStatus, Stage};
use tokio::task::JoinSet;

use super::{Engine, Reply};
use crate::Plugin;

/// How many askers may wait for one probe; beyond, they get the last report at once.
const MAX_WAITING: usize = 256;

pub(super) struct Probe {
    within: Duration,
    under_way: JoinSet<Health>,
    waiting: Vec<(Reply, Option<String>)>,
    last: Health,
}

impl Probe {
    pub(super) fn new(within: Duration) -> Self {
        Self {
            within,
            under_way: JoinSet::new(),
            waiting: Vec::new(),
            last: Health::healthy(),
        }
    }

    pub(super) fn wait(&mut self, reply: Reply, note: Option<String>) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push((reply, note));
        } else {
            reply.send(Answer::Health(noted(self.last.clone(), note)));
        }
    }

    /// Asks the plugin, unless it is being asked.
    pub(super) fn begin<P: Plugin>(&mut self, plugin: &Arc<P>) {
        if !self.under_way.is_empty() {
            return;
        }
        let (plugin, within) = (plugin.clone(), self.within);
        self.under_way.spawn(async move {
            let report = std::panic::AssertUnwindSafe(plugin.health()).catch_unwind();
            match tokio::time::timeout(within, report).await {
                Ok(Ok(health)) => health,
                Ok(Err(_)) => Health::new(HealthStatus::Unhealthy, "the health report panicked"),
                Err(_) => {
                    let text = format!("the plugin did not report its health within {within:?}");
                    Health::new(HealthStatus::Degraded, text)
                }
            }
        });
    }

    /// The next report. Pending while none is under way.
    pub(super) async fn done(&mut self) -> Health {
        match self.under_way.join_next().await {
            Some(Ok(health)) => health,
            Some(Err(error)) => Health::new(HealthStatus::Unhealthy, error.to_string()),
            None => std::future::pending().await,
        }
    }

    pub(super) fn note(&mut self, health: Health) {
        self.last = health;
    }

    pub(super) fn answer(&mut self, health: &Health) {
        for (reply, note) in self.waiting.drain(..) {
            reply.send(Answer::Health(noted(health.clone(), note)));
        }
    }
}

fn noted(mut health: Health, note: Option<String>) -> Health {
    if let Some(note) = note {
        health.message = note;
    }
    health
}

impl<P: Plugin> Engine<P> {
    /// The last report. A process that ends is no place for new calls, however well it does, and
    /// foreign proxies know no other way to be told.
    pub(super) fn reported_health(&self) -> Health {
        let (stage, health) = (self.machine.stage(), self.health.last.clone());
        if stage < Stage::Leaving {
            return health;
        }
        Health {
            status: HealthStatus::Unhealthy,
            message: stage.as_str().to_owned(),
            ..health
        }
    }
}
