//! Multicast: one payload to everyone who matches, and what is known of each (DESIGN §6).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prism_core::backoff::{Backoff, Policy};
use prism_filter::Filter;
use prism_slot::{Identity, Kind, Message, MulticastId, Outcome, Position, Timestamp};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Config, Coordinator, Error,
    enumerate::{compile_at, tolerate},
};
use crate::{config::ReadConsistency, directory::Row, limits::Caller};

/// How many targets are handed to the messaging slot at a time.
const WINDOW: usize = 4_096;
/// What is kept of the time that is left for the answer to travel back: a tenth, between these.
const RESERVE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// What a payload is, unless the sender says.
const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// How sure the sender wants to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Sent once; what is known not to have been sent is tried again, nothing else.
    #[default]
    AtMostOnce,
    /// Stored and sent again until acknowledged.
    AtLeastOnce,
    /// The same, with duplicates suppressed.
    ExactlyOnce,
}

/// A request to multicast.
#[derive(Debug, Clone, Default)]
pub struct Multicast {
    /// Who gets it; everyone if absent.
    pub filter: Option<Filter>,
    /// What they get.
    pub payload: Bytes,
    /// Its media type.
    pub content_type: Option<String>,
    /// How sure the sender wants to be.
    pub delivery: Delivery,
    /// How long to wait for outcomes, within the call's deadline.
    pub timeout: Option<Duration>,
    /// How fresh the target set must be; consistent if absent.
    pub consistency: Option<ReadConsistency>,
    /// Headers to send along.
    pub headers: Vec<(String, String)>,
    /// Whose allowance of targets it counts against; nobody's if absent.
    pub caller: Option<Caller>,
}

/// What the system knows of a message on its way to one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The identity was in the target set.
    Resolved,
    /// The messaging slot accepted it, with somebody listening.
    Accepted,
}

/// What became of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Certainly not delivered.
    Failed,
    /// Not known either way.
    Timeout,
    /// Delivered, as far as the delivery semantics go.
    Delivered,
}

/// One target of a multicast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The identity.
    pub identity: Identity,
    /// What is known of it.
    pub outcome: Outcome,
}

impl Target {
    /// What became of it.
    pub fn status(&self) -> Status {
        match self.outcome {
            Outcome::Accepted => Status::Delivered,
            Outcome::NoSubscriber | Outcome::NotSent(_) => Status::Failed,
            Outcome::Unknown(_) => Status::Timeout,
        }
    }

    /// How far it is known to have come.
    pub fn stage(&self) -> Stage {
        if self.outcome == Outcome::Accepted {
            Stage::Accepted
        } else {
            Stage::Resolved
        }
    }

    /// The machine-readable cause where it was not delivered.
    pub fn reason(&self) -> &'static str {
        match self.outcome {
            Outcome::Accepted => "",
            Outcome::NoSubscriber => "NO_SUBSCRIBER",
            Outcome::NotSent(_) => "NOT_SENT",
            Outcome::Unknown(_) => "UNKNOWN_OUTCOME",
        }
    }

    /// The same for people.
    pub fn error(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Accepted => None,
            Outcome::NoSubscriber => Some("nobody is subscribed for the identity".to_owned()),
            Outcome::NotSent(why) => Some(format!("not sent: {why}")),
            Outcome::Unknown(why) => Some(format!("it is not known whether it arrived: {why}")),
        }
    }
}

/// What became of a multicast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Names it.
    pub id: MulticastId,
    /// Where the target set was taken.
    pub position: Position,
    /// Every target, in no particular order.
    pub targets: Vec<Target>,
}

impl Report {
    /// How many targets were delivered.
    pub fn delivered(&self) -> usize {
        self.count(Status::Delivered)
    }

    /// How many targets have this status.
    pub fn count(&self, status: Status) -> usize {
        self.targets
            .iter()
            .filter(|target| target.status() == status)
            .count()
    }
}

impl Coordinator {
    /// Sends one payload to every identity that matches now. Nobody matching is a normal answer.
    ///
    /// # Errors
    /// Bad arguments, too many targets for the caller, and an unavailable registry, before anything is sent. Whatever goes wrong with
    /// a target is in the report. Dropping the future may leave some targets sent to.
    pub async fn multicast(&self, request: Multicast, deadline: Instant) -> Result<Report, Error> {
        self.open_for_calls()?;
        let config = self.config();
        self.check_multicast(&config, &request)?;
        let (position, identities) = self.resolve(&request, deadline).await?;
        if let (Some(limits), Some(caller)) = (self.limits(), &request.caller) {
            let admitted = limits.admit_targets(caller, identities.len());
            admitted.map_err(|exceeded| self.too_often(exceeded))?;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut until = deadline
            .checked_sub((left / 10).clamp(RESERVE.0, RESERVE.1))
            .unwrap_or(deadline);
        if let Some(timeout) = request.timeout {
            until = until.min(Instant::now() + timeout);
        }
        let id = MulticastId::random();
        let message = Arc::new(Message {
            multicast: id,
            kind: Kind::Payload,
            payload: request.payload,
            content_type: request
                .content_type
                .as_deref()
                .unwrap_or(DEFAULT_CONTENT_TYPE)
                .into(),
            published_at: Timestamp::now(),
            headers: request.headers,
        });
        let outcomes = self.fan_out(&config, &identities, &message, until).await;
        let targets = identities.into_iter().zip(outcomes);
        let targets = targets
            .map(|(identity, outcome)| Target { identity, outcome })
            .collect();
        let report = Report {
            id,
            position,
            targets,
        };
        let (targets, delivered) = (report.targets.len(), report.delivered());
        self.shared.metrics.multicast(delivered, targets - delivered);
        tracing::info!(namespace = config.namespace, multicast = %id, targets, delivered, "multicast");
        Ok(report)
    }

    fn check_multicast(&self, config: &Config, request: &Multicast) -> Result<(), Error> {
        if request.delivery != Delivery::AtMostOnce {
            let message =
                "delivery beyond at-most-once needs a durability slot, which this namespace has not";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let most = self.messaging().capability().max_payload;
        let limit = config
            .behavior
            .max_payload_bytes
            .map_or(most, |limit| limit.min(most));
        let size = request.payload.len();
        if size > limit {
            return Err(Error::PayloadTooLarge { size, limit });
        }
        Ok(())
    }

    /// Whom a multicast would be sent to, as of one position, in no particular order.
    ///
    /// # Errors
    /// A bad filter, and an unavailable registry.
    pub async fn resolve(
        &self,
        request: &Multicast,
        deadline: Instant,
    ) -> Result<(Position, Vec<Identity>), Error> {
        let config = &self.config();
        let filter = compile_at(config, request.filter.as_ref(), Timestamp::now())?;
        if self.shared.directory.is_bare() {
            let name = |names: &mut Vec<Identity>, row: Row| {
                names.push(row.identity);
                Ok(())
            };
            let (searched, names) = self.search(filter, None, deadline, Vec::new, name).await?;
            return Ok((searched.position, names));
        }
        let consistency = request.consistency.unwrap_or(ReadConsistency::Consistent);
        let mut freshness = self.freshen(config, consistency, None, None, deadline).await?;
        let leases = self.filter_leases(filter.as_deref(), freshness, deadline).await;
        let leases = tolerate(config, leases, &mut freshness)?;
        Ok(self.shared.directory.read(|view| {
            let head = view.head();
            let rows = view.matching(head.revision, filter.as_deref(), leases.as_ref());
            (head, rows.into_iter().map(|row| row.identity.clone()).collect())
        }))
    }

    /// Publishes to every target, and again to those that are known not to have been sent to.
    async fn fan_out(
        &self,
        config: &Config,
        targets: &[Identity],
        message: &Arc<Message>,
        deadline: Instant,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(targets.len());
        for window in targets.chunks(WINDOW) {
            outcomes.extend(self.publish(window, message, deadline).await);
        }
        let mut backoff = None;
        for attempt in 1..=config.behavior.retry_attempts {
            let unsent: Vec<usize> = outcomes
                .iter()
                .enumerate()
                .filter_map(|(at, outcome)| matches!(outcome, Outcome::NotSent(_)).then_some(at))
                .collect();
            if unsent.is_empty() {
                break;
            }
            let pause = backoff
                .get_or_insert_with(|| Backoff::new(retry_policy(config)))
                .pause();
            if timeout_at(deadline, sleep(pause)).await.is_err() {
                break;
            }
            tracing::warn!(namespace = config.namespace, targets = unsent.len(), attempt, multicast = %message.multicast, "sending again");
            let again: Vec<Identity> = unsent.iter().map(|&at| targets[at].clone()).collect();
            let retried = self.publish(&again, message, deadline).await;
            for (at, outcome) in unsent.into_iter().zip(retried) {
                outcomes[at] = outcome;
            }
        }
        outcomes
    }

    /// Publishes to as many targets as the slot is handed at a time; an outcome for each.
    async fn publish(&self, targets: &[Identity], message: &Arc<Message>, deadline: Instant) -> Vec<Outcome> {
        if Instant::now() >= deadline {
            let why = "the deadline passed before its turn came".to_owned();
            return vec![Outcome::NotSent(why); targets.len()];
        }
        let messaging = self.messaging();
        let mut outcomes = messaging.publish_batch(targets, message.clone(), deadline).await;
        let unsaid = || Outcome::Unknown("the messaging slot said nothing of it".to_owned());
        outcomes.resize_with(targets.len(), unsaid);
        outcomes
    }
}

fn retry_policy(config: &Config) -> Policy {
    let base = Duration::from_millis(config.behavior.retry_delay_ms);
    Policy { base, cap: base * 16 }
}
