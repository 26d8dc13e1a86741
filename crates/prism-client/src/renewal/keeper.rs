//! The task that makes the calls which the schedule asks for.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use prism_core::backoff::Policy;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::schedule::{Kept, Key, Schedule, Work};
use crate::{
    Error, Lease, RegisterRequest, Registration, Registry, Renewal, Result, by_namespace::ByNamespace,
};

/// The most calls under way at a time: a mass loss of registrations is not answered by a stampede.
const UNDER_WAY: usize = 32;

/// No renewal gets less time than this, however short its lease.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(250);

/// The keepers of a client. A keeper lives as long as a handle does.
pub(crate) type Keepers = ByNamespace<Keeper>;

/// Keeps the registrations of one namespace. Its task ends with it.
pub(crate) struct Keeper {
    desk: Arc<Desk>,
    _task: AbortOnDropHandle<()>,
}

/// What handles and the task share.
pub(super) struct Desk {
    schedule: Mutex<Schedule>,
    /// Something may be due sooner than it was.
    changed: Notify,
    /// A call is done.
    settled: Notify,
}

/// The calls that a keeper makes.
pub(super) trait Calls: Send + 'static {
    fn renew(&self, leases: Vec<Lease>, timeout: Duration) -> BoxFuture<'static, Result<Vec<Renewal>>>;
    fn register(&self, request: RegisterRequest) -> BoxFuture<'static, Result<Registration>>;
}

impl Calls for Registry {
    fn renew(&self, leases: Vec<Lease>, timeout: Duration) -> BoxFuture<'static, Result<Vec<Renewal>>> {
        let registry =
            self.with_timeout(timeout.clamp(SHORTEST_TIMEOUT, self.raw().timeout().max(SHORTEST_TIMEOUT)));
        Box::pin(async move { registry.renew(leases).await })
    }

    fn register(&self, request: RegisterRequest) -> BoxFuture<'static, Result<Registration>> {
        let registry = self.clone();
        Box::pin(async move { registry.register(request).await })
    }
}

impl Keeper {
    pub(super) fn start(calls: impl Calls, policy: Policy) -> Self {
        let desk = Arc::new(Desk {
            schedule: Mutex::new(Schedule::new(policy)),
            changed: Notify::new(),
            settled: Notify::new(),
        });
        let task = tokio::spawn(keep(calls, desk.clone()));
        Self {
            desk,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }
}

impl Desk {
    pub(super) fn insert(
        &self,
        request: RegisterRequest,
        registration: Registration,
    ) -> (Key, watch::Receiver<Kept>) {
        self.change(|schedule| schedule.insert(request, registration, Instant::now()))
    }

    /// Looks after a registration now instead of when it is due.
    pub(super) fn hurry(&self, key: Key) {
        self.change(|schedule| schedule.hurry(key, Instant::now()));
    }

    pub(super) fn set_metadata(&self, key: Key, metadata: serde_json::Value) {
        self.schedule.lock().set_metadata(key, metadata);
    }

    pub(super) fn forget(&self, key: Key) {
        self.schedule.lock().forget(key);
    }

    /// Keeps a registration no longer; returns when no call for it is under way any more.
    pub(super) async fn retire(&self, key: Key) {
        loop {
            // Before the look, so that a call which is settled in between is not missed.
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.schedule.lock().remove(key) {
                return;
            }
            settled.await;
        }
    }

    /// Wakes the task only when there is something to do sooner: a thousand registrations in a row do
    /// not wake it a thousand times.
    fn change<T>(&self, change: impl FnOnce(&mut Schedule) -> T) -> T {
        let mut schedule = self.schedule.lock();
        let before = schedule.next_due();
        let result = change(&mut schedule);
        let after = schedule.next_due();
        drop(schedule);
        if after.is_some() && (before.is_none() || after < before) {
            self.changed.notify_one();
        }
        result
    }

    fn settle(&self, answer: Answer) {
        let now = Instant::now();
        let mut schedule = self.schedule.lock();
        match answer {
            Answer::Renewed(keys, Ok(renewals)) => {
                for (key, renewal) in keys.into_iter().zip(renewals) {
                    schedule.renewed(key, renewal.result, now);
                }
            }
            Answer::Renewed(keys, Err(error)) => {
                for key in keys {
                    schedule.not_renewed(key, error.clone(), now);
                }
            }
            Answer::Registered(key, result) => schedule.registered(key, result, now),
        }
        drop(schedule);
        self.settled.notify_waiters();
    }
}

enum Answer {
    Renewed(Vec<Key>, Result<Vec<Renewal>, Error>),
    Registered(Key, Result<Registration, Error>),
}

async fn keep(calls: impl Calls, desk: Arc<Desk>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < UNDER_WAY {
            let Some(work) = desk.schedule.lock().take(Instant::now()) else {
                break;
            };
            under_way.push(perform(&calls, work));
        }
        let next = (under_way.len() < UNDER_WAY)
            .then(|| desk.schedule.lock().next_due())
            .flatten();
        tokio::select! {
            Some(answer) = under_way.next() => desk.settle(answer),
            () = until(next) => {}
            () = desk.changed.notified() => {}
        }
    }
}

fn perform(calls: &impl Calls, work: Work) -> BoxFuture<'static, Answer> {
    match work {
        Work::Renew { leases, timeout } => {
            let (keys, leases) = leases.into_iter().unzip();
            let renewed = calls.renew(leases, timeout);
            Box::pin(async move { Answer::Renewed(keys, renewed.await) })
        }
        Work::Register { key, request } => {
            let registered = calls.register(request);
            Box::pin(async move { Answer::Registered(key, registered.await) })
        }
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
