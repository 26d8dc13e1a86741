//! Multicast: one payload to everyone who matches, and what is known of each (DESIGN §6).

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use prism_filter::Filter;
use prism_slot::{Holder, Identity, Position, Priority, Timestamp};
use tokio::time::Instant;

use super::{
    Coordinator, Error,
    claiming::Claimed,
    following::{Attended, Following, Source},
    planning::{Plan, TargetSet},
    sending::{GivenUp, Job},
};
use crate::{
    config::{KeepReceipts, ReadConsistency},
    delivery::{
        Cast, Delivery, Load, Pace, Phase, ReceiptsScope, Report, Stage, Tally, Targets, Tracker, into_parts,
    },
    limits::Caller,
};

/// How many bytes of answers are collected.
const MAX_REPLIES: usize = 2 << 20;

/// A request to multicast.
#[derive(Debug, Clone, Default)]
pub struct Multicast {
    /// Who gets it; everyone if absent.
    pub filter: Option<Filter>,
    /// What they get.
    pub payload: Bytes,
    /// Its media type.
    pub content_type: Option<String>,
    /// How sure the sender wants to be; as the namespace is configured if absent.
    pub delivery: Option<Delivery>,
    /// From which stage on a target counts as delivered; as the delivery has it if absent.
    pub require: Option<Stage>,
    /// How long to wait for outcomes, within the call's deadline.
    pub timeout: Option<Duration>,
    /// How fresh the target set must be; consistent if absent.
    pub consistency: Option<ReadConsistency>,
    /// Headers to send along.
    pub headers: Vec<(String, String)>,
    /// Another call with the same one sends nothing, and gets the outcome of the first.
    pub idempotency_key: Option<String>,
    /// After how long the message is of no more use.
    pub expires_in: Option<Duration>,
    /// Before which others it comes where messages wait.
    pub priority: Priority,
    /// Where consumers should send answers of their own.
    pub reply_to: Option<String>,
    /// How fast to send.
    pub pace: Pace,
    /// Whether answers of the targets are collected.
    pub replies: Option<Replies>,
    /// Whose allowance of targets it counts against; nobody's if absent.
    pub caller: Option<Caller>,
}

/// Which answers of targets to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replies {
    /// So many are enough; all if absent.
    pub min: Option<usize>,
}

/// What beginning a multicast came to.
pub(super) enum Began {
    /// It is to be sent.
    Sending(Box<Job>),
    /// It was made before, under the same idempotency key.
    Before(Box<Report>),
}

impl Coordinator {
    /// Sends one payload to every identity that matches now. Nobody matching is a normal answer.
    ///
    /// # Errors
    /// Bad arguments, too many targets for the caller or at all, and an unavailable registry or ledger, before anything
    /// is sent. Whatever goes wrong with a target is in the report. When the future is dropped, what is stored is gone on
    /// with, and of what is sent once nothing more is sent.
    pub async fn multicast(&self, request: Multicast, deadline: Instant) -> Result<Report, Error> {
        let (plan, targets) = self.plan(request, deadline).await?;
        let (waits, until) = (plan.waits, plan.until);
        let job = match self.begin(plan, targets, deadline).await? {
            Began::Before(report) => return Ok(*report),
            Began::Sending(job) => job,
        };
        let attended = Attended(job.tracker.clone());
        let tracker = &attended.0;
        self.send(*job).await;
        if waits {
            tracker.decided(until).await;
        }
        self.write_outcome(tracker, deadline).await;
        Ok(self.conclude(tracker, true))
    }

    /// As [`Self::multicast`], telling of each target as soon as something is known of it. Sending goes on when the
    /// stream is dropped.
    ///
    /// # Errors
    /// As [`Self::multicast`].
    pub async fn multicast_stream(&self, request: Multicast, deadline: Instant) -> Result<Following, Error> {
        let (plan, targets) = self.plan(request, deadline).await?;
        let (waits, until) = (plan.waits, plan.until);
        let following = |coordinator: &Self, source| Following {
            coordinator: coordinator.clone(),
            source,
            started: false,
            // Where nothing is waited for, it is over with the sending.
            until,
            deadline,
        };
        let job = match self.begin(plan, targets, deadline).await? {
            Began::Before(report) => return Ok(following(self, Source::Before(report, 0))),
            Began::Sending(job) => job,
        };
        let tracker = job.tracker.clone();
        tracker.follow();
        let (coordinator, sent) = (self.clone(), tracker.clone());
        self.shared.tasks.spawn(async move {
            let closing = coordinator.shared.closing.clone();
            closing.run_until_cancelled(coordinator.send(*job)).await;
            if !waits || closing.is_cancelled() {
                sent.enough();
            }
        });
        let live = Source::Live {
            attended: Attended(tracker),
            settled: false,
        };
        Ok(following(self, live))
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
        let targets = self.targets(request, false, deadline).await?;
        Ok((targets.position, targets.identities))
    }

    /// What a multicast would come to if it were made: its targets, and nothing sent.
    ///
    /// # Errors
    /// As [`Self::multicast`].
    pub async fn dry_run(&self, request: Multicast, deadline: Instant) -> Result<Report, Error> {
        // Nothing is sent, so nothing of what its caller may send is used up.
        let request = Multicast {
            caller: None,
            ..request
        };
        let (_, targets) = self.plan(request, deadline).await?;
        Ok(Report {
            id: prism_slot::MulticastId(0),
            position: targets.position,
            tally: Tally::default(),
            targets: Targets::unsent(targets.identities.into()),
            phase: Phase::Running,
            replayed: false,
            kept: None,
            replies: Vec::new(),
            reply_count: 0,
            next: None,
        })
    }

    /// Takes a multicast up: admits it, and writes it down where it is to be found again.
    async fn begin(&self, plan: Plan, targets: TargetSet, deadline: Instant) -> Result<Began, Error> {
        let max = plan.config.behavior.max_targets_in_flight;
        let count = targets.identities.len();
        let admission = self.gate(plan.delivery).admit(count, max, plan.until);
        let admission = admission.map_err(|crowded| self.crowded(crowded, max))?;
        if plan.waits {
            // Word of what is stored finds its way without a post, too, and some time must be left to send.
            let now = Instant::now();
            let half = plan.until.saturating_duration_since(now) / 2;
            self.shared.courier.ready(now + half).await;
        }
        let mut message = plan.message;
        message.receipts = self.shared.courier.address();
        let recorded = plan.key.is_some()
            || plan.delivery != Delivery::AtMostOnce
            || plan.config.behavior.keep_receipts == KeepReceipts::All;
        let began_at = message.published_at;
        let behavior = &plan.config.behavior;
        let window = behavior.receipts_window;
        let cast = Cast {
            id: message.multicast,
            position: targets.position,
            delivery: plan.delivery,
            required: plan.required,
            began_at,
            expires_at: message.expires_at,
            kept_until: Timestamp(began_at.0 + i64::try_from(window.as_millis()).unwrap_or(i64::MAX / 2)),
            recorded,
            key_window: plan.key.as_ref().map(|_| behavior.dedupe_window),
        };
        let tracker = Arc::new(tracker(cast, targets));
        if let Some(replies) = plan.replies {
            tracker.collect(replies.min, MAX_REPLIES);
        }
        // From before the claim on: whose key it is must be seen to be at work.
        let _beginning = recorded.then(|| self.shared.desk.beginning(tracker.cast.id));
        let mut taken = None;
        if let Some(key) = &plan.key {
            match self.claim(key, tracker.cast.id, &plan.config, deadline).await? {
                Claimed::Before(report) => return Ok(Began::Before(report)),
                Claimed::Ours(claimed) => taken = Some(claimed),
            }
        }
        let load = Load {
            message,
            priority: plan.priority,
            pace: plan.pace,
        };
        self.write_down(taken, &tracker, &load, plan.until, deadline)
            .await?;
        self.shared.desk.put(tracker.clone());
        Ok(Began::Sending(Box::new(Job {
            config: plan.config,
            _given_up: GivenUp::new(self, &tracker),
            tracker,
            message: Arc::new(load.message),
            priority: load.priority,
            pace: load.pace,
            until: plan.until,
            admission,
        })))
    }

    /// What is known of a multicast in memory, with its targets or without.
    pub(super) fn report(&self, tracker: &Tracker, with_targets: bool) -> Report {
        let cast = &tracker.cast;
        let (phase, tally, targets) = match with_targets {
            true => {
                let (phase, targets) = tracker.told();
                (phase, Tally::of(targets.statuses().iter().copied()), targets)
            }
            false => (tracker.phase(), tracker.tally(), Targets::default()),
        };
        let scope = match cast.recorded {
            true => ReceiptsScope::Ledger,
            false => ReceiptsScope::Runner,
        };
        let (replies, reply_count) = tracker.replies();
        Report {
            id: cast.id,
            position: cast.position,
            targets,
            tally,
            phase,
            replayed: false,
            kept: Some((scope, cast.kept_until)),
            replies,
            reply_count,
            next: None,
        }
    }

    /// Writes down what a multicast came to before anybody is told of it, where a repeated call must get the same, or
    /// another runner might store what would be said not to be stored. Where that cannot be, it is not said.
    pub(super) async fn write_outcome(&self, tracker: &Tracker, deadline: Instant) {
        let is_stored = tracker.cast.delivery != Delivery::AtMostOnce;
        if tracker.cast.key_window.is_some() || is_stored && tracker.has_failed() {
            self.write_up(tracker, deadline).await;
        }
    }

    /// What a multicast came to, counted and logged.
    pub(super) fn conclude(&self, tracker: &Tracker, with_targets: bool) -> Report {
        let report = self.report(tracker, with_targets);
        let (tally, id) = (report.tally, report.id);
        let others = tally.failed + tally.timeout;
        self.shared.metrics.multicast(tally.delivered, others);
        let namespace = self.shared.sessions.namespace();
        let (targets, delivered) = (tally.total(), tally.delivered);
        tracing::info!(namespace, multicast = %id, targets, delivered, pending = tally.pending, "multicast");
        report
    }
}

fn tracker(cast: Cast, targets: TargetSet) -> Tracker {
    let TargetSet {
        identities, holders, ..
    } = targets;
    if !cast.recorded {
        return Tracker::new(cast, identities.into(), None, Vec::new());
    }
    let Some(holders) = holders else {
        let mut identities = identities;
        let parts = into_parts(&mut identities, Identity::as_str);
        return Tracker::new(cast, identities.into(), None, parts);
    };
    let mut pairs: Vec<(Identity, Holder)> = identities.into_iter().zip(holders).collect();
    let parts: Vec<Range<usize>> = into_parts(&mut pairs, |(identity, _)| identity.as_str());
    let (identities, holders): (Vec<Identity>, Vec<Holder>) = pairs.into_iter().unzip();
    Tracker::new(cast, identities.into(), Some(holders.into()), parts)
}
