//! Multicast: one payload to everyone who matches, and what is known of each (DESIGN §6).

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use prism_filter::Filter;
use prism_slot::{Applied, DEFAULT_CONTENT_TYPE, Holder, Identity, Message, Position, Priority, Timestamp};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{
    Config, Coordinator, Error,
    enumerate::{compile_at, tolerate},
    sending::{GivenUp, Job, Pace},
};
use crate::{
    config::{KeepReceipts, ReadConsistency},
    delivery::{
        Cast, Delivery, KeyEntry, Load, Phase, ReceiptsScope, Report, Stage, State, Tally, Target, Told,
        Tracker, into_parts, targets_of,
    },
    directory::Row,
    limits::Caller,
};

/// What is kept of the time that is left for the answer to travel back: a tenth, between these.
const RESERVE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 256;
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

/// A multicast as it is to be made: checked, with everything that was left open filled in.
pub(super) struct Plan {
    config: Arc<Config>,
    delivery: Delivery,
    required: Stage,
    key: Option<Key>,
    message: Message,
    priority: Priority,
    pace: Pace,
    replies: Option<Replies>,
    /// Whether outcomes are waited for beyond sending.
    waits: bool,
    until: Instant,
}

struct Key {
    name: String,
    request: [u8; 32],
}

/// Whom a multicast goes to, as of one position.
pub(super) struct Targets {
    position: Position,
    identities: Vec<Identity>,
    /// Where messages are stored for them.
    holders: Option<Vec<Holder>>,
}

/// What beginning a multicast came to.
pub(super) enum Began {
    /// It is to be sent.
    Sending(Box<Job>),
    /// It was made before, under the same idempotency key.
    Before(Report),
}

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

impl Coordinator {
    /// Sends one payload to every identity that matches now. Nobody matching is a normal answer.
    ///
    /// # Errors
    /// Bad arguments, too many targets for the caller or at all, and an unavailable registry or ledger, before anything
    /// is sent. Whatever goes wrong with a target is in the report. Dropping the future may leave some targets sent to.
    pub async fn multicast(&self, request: Multicast, deadline: Instant) -> Result<Report, Error> {
        let (plan, targets) = self.plan(request, deadline).await?;
        let (waits, until) = (plan.waits, plan.until);
        let job = match self.begin(plan, targets, deadline).await? {
            Began::Before(report) => return Ok(report),
            Began::Sending(job) => job,
        };
        let tracker = job.tracker.clone();
        self.send(*job).await;
        if waits {
            tracker.decided(until).await;
        }
        self.conclude(&tracker, deadline).await;
        Ok(self.report(&tracker, true))
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
            Began::Before(report) => return Ok(following(self, Source::Before(report))),
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
        Ok(following(self, Source::Live(tracker)))
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
        let target = |identity| Target::new(identity, crate::delivery::Status::Pending, State::default());
        Ok(Report {
            id: prism_slot::MulticastId(0),
            position: targets.position,
            tally: Tally::default(),
            targets: targets.identities.into_iter().map(target).collect(),
            phase: Phase::Running,
            replayed: false,
            kept: None,
            replies: Vec::new(),
            reply_count: 0,
            next: None,
        })
    }

    async fn plan(&self, request: Multicast, deadline: Instant) -> Result<(Plan, Targets), Error> {
        self.open_for_calls()?;
        let config = self.config();
        let (delivery, required) = self.check_multicast(&config, &request)?;
        let stored = delivery != Delivery::AtMostOnce;
        let targets = self.targets(&request, stored, deadline).await?;
        if let (Some(limits), Some(caller)) = (self.limits(), &request.caller) {
            let admitted = limits.admit_targets(caller, targets.identities.len());
            admitted.map_err(|exceeded| self.too_often(exceeded))?;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut until = deadline
            .checked_sub((left / 10).clamp(RESERVE.0, RESERVE.1))
            .unwrap_or(deadline);
        if let Some(timeout) = request.timeout {
            until = until.min(Instant::now() + timeout);
        }
        let waits = request.replies.is_some()
            || (required > Stage::Stored && (request.timeout.is_some() || request.require.is_some()));
        let plan = Plan {
            key: request.idempotency_key.as_ref().map(|name| Key {
                name: hex::encode(Sha256::digest(name)),
                request: digest(&request, delivery, required),
            }),
            message: self.message(&config, &request, delivery),
            priority: request.priority,
            pace: request.pace,
            replies: request.replies,
            config,
            delivery,
            required,
            waits,
            until,
        };
        Ok((plan, targets))
    }

    fn message(&self, config: &Config, request: &Multicast, delivery: Delivery) -> Message {
        let now = Timestamp::now();
        let longest = (delivery != Delivery::AtMostOnce).then_some(config.behavior.message_ttl);
        let lives = match (request.expires_in, longest) {
            (Some(asked), Some(longest)) => Some(asked.min(longest)),
            (asked, longest) => asked.or(longest),
        };
        let after = |by: Duration| {
            Timestamp(
                now.0
                    .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
            )
        };
        let content_type = request.content_type.as_deref().map(Into::into);
        Message {
            content_type: content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.clone()),
            published_at: now,
            headers: request.headers.clone(),
            reply_to: request.reply_to.as_deref().map(Into::into),
            expects_reply: request.replies.is_some(),
            expires_at: lives.map(after),
            receipts: self.shared.courier.address(),
            ..Message::new(self.shared.runner.multicast(), request.payload.clone())
        }
    }

    fn check_multicast(&self, config: &Config, request: &Multicast) -> Result<(Delivery, Stage), Error> {
        let inbox = self.inbox();
        let most = self.messaging().capability().max_payload;
        let most = inbox
            .as_ref()
            .map_or(most, |inbox| most.min(inbox.capability().max_payload));
        let limit = config
            .behavior
            .max_payload_bytes
            .map_or(most, |limit| limit.min(most));
        let size = request.payload.len();
        if size > limit {
            return Err(Error::PayloadTooLarge { size, limit });
        }
        let delivery = request.delivery.unwrap_or(config.behavior.delivery.into());
        if delivery != Delivery::AtMostOnce && inbox.is_none() {
            let message =
                "delivery beyond at-most-once needs a durability slot, which this namespace has not";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let required = required(delivery, request.require)?;
        let key = request.idempotency_key.as_deref();
        if key.is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
            let message = format!("an idempotency key has 1 to {MAX_KEY} bytes");
            return Err(Error::over_limit("idempotency_key", message, MAX_KEY));
        }
        if delivery == Delivery::ExactlyOnce && key.is_none() {
            let message =
                "exactly-once delivery needs an idempotency key, so that a repeated call is known for one";
            return Err(Error::argument("idempotency_key", message));
        }
        if let Some(key) = key.and(self.weak_ledger()) {
            return Err(Error::Unsupported(key));
        }
        Ok((delivery, required))
    }

    /// Why no idempotency key can be honoured, where runners keep their books apart.
    fn weak_ledger(&self) -> Option<String> {
        let ledger = self.books().capability().scope;
        let runners = self
            .registry()
            .capability()
            .scope
            .min(self.messaging().capability().scope);
        (ledger < runners).then(|| {
            "several runners may serve this namespace, and its slots keep no ledger that they share; \
             a durability slot would"
                .to_owned()
        })
    }

    async fn targets(&self, request: &Multicast, stored: bool, deadline: Instant) -> Result<Targets, Error> {
        let config = &self.config();
        let filter = compile_at(config, request.filter.as_ref(), Timestamp::now())?;
        if self.shared.directory.is_bare() {
            let name = |targets: &mut (Vec<Identity>, Vec<Holder>), row: Row| {
                targets.1.extend(stored.then(|| holder_of(&row.principal)));
                targets.0.push(row.identity);
                Ok(())
            };
            let (searched, found) = self
                .search(filter, None, deadline, Default::default, name)
                .await?;
            return Ok(Targets {
                position: searched.position,
                identities: found.0,
                holders: stored.then_some(found.1),
            });
        }
        let consistency = request.consistency.unwrap_or(ReadConsistency::Consistent);
        let mut freshness = self.freshen(config, consistency, None, None, deadline).await?;
        let leases = self.filter_leases(filter.as_deref(), freshness, deadline).await;
        let leases = tolerate(config, leases, &mut freshness)?;
        Ok(self.shared.directory.read(|view| {
            let head = view.head();
            let rows = view.matching(head.revision, filter.as_deref(), leases.as_ref());
            let holder = |row: &&Row| holder_of(&row.principal);
            Targets {
                position: head,
                holders: stored.then(|| rows.iter().map(holder).collect()),
                identities: rows.into_iter().map(|row| row.identity.clone()).collect(),
            }
        }))
    }

    /// Takes a multicast up: admits it, and writes it down where it is to be found again.
    async fn begin(&self, plan: Plan, targets: Targets, deadline: Instant) -> Result<Began, Error> {
        let max = plan.config.behavior.max_targets_in_flight;
        let count = targets.identities.len();
        let admission = self.shared.gate.admit(count, max, plan.until);
        let admission = admission.map_err(|crowded| self.crowded(crowded, max))?;
        if plan.required >= Stage::Handed || plan.replies.is_some() {
            self.shared.courier.ready(plan.until).await;
        }
        let mut message = plan.message;
        message.receipts = self.shared.courier.address();
        let recorded = plan.key.is_some()
            || plan.delivery != Delivery::AtMostOnce
            || plan.config.behavior.keep_receipts == KeepReceipts::All;
        let began_at = message.published_at;
        let window = plan.config.behavior.receipts_window;
        let cast = Cast {
            id: message.multicast,
            position: targets.position,
            delivery: plan.delivery,
            required: plan.required,
            began_at,
            expires_at: message.expires_at,
            kept_until: Timestamp(began_at.0 + i64::try_from(window.as_millis()).unwrap_or(i64::MAX / 2)),
            recorded,
            keyed: plan.key.is_some(),
        };
        let tracker = Arc::new(tracker(cast, targets));
        if let Some(replies) = plan.replies {
            tracker.collect(replies.min, MAX_REPLIES);
        }
        if let Some(key) = &plan.key
            && let Some(before) = self.claim(key, &tracker, &plan.config, deadline).await?
        {
            return Ok(Began::Before(before));
        }
        let load = Load {
            message,
            priority: plan.priority,
        };
        let _beginning = self.shared.desk.beginning(tracker.cast.id);
        self.write_down(&plan.key, &tracker, &load, plan.until, deadline)
            .await?;
        self.shared.desk.put(tracker.clone());
        Ok(Began::Sending(Box::new(Job {
            config: plan.config,
            _given_up: GivenUp::new(self, &tracker),
            tracker,
            message: Arc::new(load.message),
            priority: load.priority,
            pace: plan.pace,
            until: plan.until,
            admission,
        })))
    }

    /// Takes an idempotency key; the outcome of the multicast that has it already, if one has.
    async fn claim(
        &self,
        key: &Key,
        tracker: &Tracker,
        config: &Config,
        deadline: Instant,
    ) -> Result<Option<Report>, Error> {
        let entry = KeyEntry {
            multicast: tracker.cast.id,
            digest: key.request,
            runner: self.shared.runner,
        };
        let window = config.behavior.dedupe_window;
        let Some(known) = self
            .books()
            .claim_key(&key.name, &entry, window, deadline)
            .await?
        else {
            return Ok(None);
        };
        if known.digest != key.request {
            return Err(Error::IdempotencyMismatch {
                multicast: known.multicast,
            });
        }
        let report = self.outcome_of(known, deadline).await?;
        Ok(Some(Report {
            replayed: true,
            ..report
        }))
    }

    /// Writes a multicast down before anything is sent, where it must outlive this runner.
    async fn write_down(
        &self,
        key: &Option<Key>,
        tracker: &Tracker,
        load: &Load,
        until: Instant,
        deadline: Instant,
    ) -> Result<(), Error> {
        let stored = tracker.cast.delivery != Delivery::AtMostOnce;
        if !stored && key.is_none() {
            return Ok(());
        }
        // At most once is never sent again, so nobody else needs the message.
        let load = stored.then_some(load);
        let error = match self.be_known(deadline).await {
            Ok(()) => match self.books().begin(tracker, load, until, deadline).await {
                Ok(()) => return Ok(()),
                Err(error) => match self.books().withdraw(tracker.cast.id, deadline).await {
                    Ok(()) => Error::from(error),
                    // It may be found, and gone on with: nobody may make it anew under the same key.
                    Err(error) => return Err(may_be_begun(error).into()),
                },
            },
            Err(error) => error,
        };
        if let Some(key) = key {
            // Best effort: where it fails, the key says until its window is over that the outcome is not known.
            let _ = self.books().release_key(&key.name, deadline).await;
        }
        Err(error)
    }

    /// What is known of a multicast in memory, with its targets or without.
    pub(super) fn report(&self, tracker: &Tracker, with_targets: bool) -> Report {
        let (phase, cast) = (tracker.phase(), &tracker.cast);
        let targets = match with_targets {
            true => targets_of(
                cast,
                phase,
                &tracker.targets,
                tracker.states(0..tracker.targets.len()),
            ),
            false => Vec::new(),
        };
        let statuses = targets.iter().map(Target::status);
        let tally = match with_targets {
            true => Tally::of(statuses),
            false => tracker.tally(),
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

    /// Counts and logs an outcome, and has it in the ledger before anybody is told of it where a repeated call must get
    /// the same.
    pub(super) async fn conclude(&self, tracker: &Tracker, deadline: Instant) {
        let (tally, id) = (tracker.tally(), tracker.cast.id);
        let others = tally.failed + tally.timeout;
        self.shared.metrics.multicast(tally.delivered, others);
        let namespace = self.shared.sessions.namespace();
        let (targets, delivered) = (tally.total(), tally.delivered);
        tracing::info!(namespace, multicast = %id, targets, delivered, pending = tally.pending, "multicast");
        if tracker.cast.keyed {
            self.write_up(tracker, deadline).await;
        }
    }
}

/// A multicast that is followed as it is sent.
pub struct Following {
    coordinator: Coordinator,
    source: Source,
    started: bool,
    until: Instant,
    deadline: Instant,
}

enum Source {
    Live(Arc<Tracker>),
    Before(Report),
    Over,
}

impl Following {
    /// What happens next; `None` after the end. Cancel safe.
    pub async fn next(&mut self) -> Option<MulticastEvent> {
        let started = std::mem::replace(&mut self.started, true);
        match &mut self.source {
            Source::Over => None,
            Source::Before(report) if started => {
                if let Some(target) = report.targets.pop() {
                    return Some(MulticastEvent::Target(target));
                }
                let summary = without_targets(report);
                self.source = Source::Over;
                Some(MulticastEvent::Ended(summary))
            }
            Source::Before(report) => Some(MulticastEvent::Started(without_targets(report))),
            Source::Live(tracker) if started => {
                let tracker = tracker.clone();
                if let Some(told) = tracker.next_news(self.until).await {
                    return Some(to_event(&tracker, told));
                }
                self.coordinator.conclude(&tracker, self.deadline).await;
                self.source = Source::Over;
                Some(MulticastEvent::Ended(self.coordinator.report(&tracker, false)))
            }
            Source::Live(tracker) => Some(MulticastEvent::Started(self.coordinator.report(tracker, false))),
        }
    }
}

/// Whatever went wrong, it leaves open whether the multicast is made.
fn may_be_begun(mut error: prism_slot::Error) -> prism_slot::Error {
    if let prism_slot::Error::Unavailable { applied, .. } | prism_slot::Error::Timeout { applied, .. } =
        &mut error
    {
        *applied = Applied::Unknown;
    }
    error
}

fn without_targets(report: &Report) -> Report {
    Report {
        targets: Vec::new(),
        replies: Vec::new(),
        ..*report
    }
}

fn to_event(tracker: &Tracker, told: Told) -> MulticastEvent {
    match told {
        Told::Reply(reply) => MulticastEvent::Reply(reply),
        Told::Target(place, state) => {
            let sent = tracker.phase() != Phase::Running;
            let status = tracker.cast.status(sent, &state, Timestamp::now());
            MulticastEvent::Target(Target::new(tracker.targets[place].clone(), status, state))
        }
    }
}

fn tracker(cast: Cast, targets: Targets) -> Tracker {
    let Targets {
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

/// From which stage on a target is delivered.
fn required(delivery: Delivery, asked: Option<Stage>) -> Result<Stage, Error> {
    let (usual, possible) = match delivery {
        Delivery::AtMostOnce => (Stage::Accepted, [Stage::Accepted, Stage::Handed, Stage::Acked]),
        _ => (Stage::Acked, [Stage::Stored, Stage::Handed, Stage::Acked]),
    };
    match asked {
        None => Ok(usual),
        Some(stage) if possible.contains(&stage) => Ok(stage),
        Some(_) => {
            let message = match delivery {
                Delivery::AtMostOnce => "at most once, `ACCEPTED`, `HANDED` or `ACKED` can be required",
                _ => "of a stored message `STORED`, `HANDED` or `ACKED` can be required",
            };
            Err(Error::argument("require", message))
        }
    }
}

/// Whose inbox an identity's is: the principal's that registered it. Where nobody is authenticated, everybody is the
/// same.
pub(super) fn holder_of(principal: &str) -> Holder {
    if principal.is_empty() {
        return Holder([0; 16]);
    }
    let digest = Sha256::digest(principal);
    let mut holder = [0; 16];
    holder.copy_from_slice(&digest[..16]);
    Holder(holder)
}

/// What must be the same for a call to be the same call.
fn digest(request: &Multicast, delivery: Delivery, required: Stage) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    let filter = request
        .filter
        .as_ref()
        .map(|filter| filter.canonical().to_json().to_string());
    part(filter.unwrap_or_default().as_bytes());
    part(&request.payload);
    part(request.content_type.as_deref().unwrap_or_default().as_bytes());
    part(&[delivery as u8, required as u8, request.priority as u8]);
    part(request.reply_to.as_deref().unwrap_or_default().as_bytes());
    let expires = request.expires_in.map_or(0, |expires| expires.as_millis());
    part(&expires.to_be_bytes());
    let mut headers: Vec<_> = request
        .headers
        .iter()
        .filter(|(name, _)| name != "traceparent")
        .collect();
    headers.sort_unstable();
    for (name, value) in headers {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    digest.finalize().into()
}
