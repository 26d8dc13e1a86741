//! What a multicast comes to before anything is sent: checked, with what was left open filled in, and its targets.

use std::{sync::Arc, time::Duration};

use prism_slot::{DEFAULT_CONTENT_TYPE, Holder, Identity, Kind, Message, Position, Priority, Timestamp};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{
    Config, Coordinator, Error, Multicast, Replies,
    enumerate::{compile_at, tolerate},
};
use crate::{
    config::ReadConsistency,
    delivery::{Delivery, Load, Pace, Stage},
    directory::{Query, Row},
};

/// What is kept of the time that is left for the answer to travel back: a tenth, between these.
const RESERVE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 256;

/// A multicast as it is to be made: checked, with everything that was left open filled in.
pub(super) struct Plan {
    pub(super) config: Arc<Config>,
    pub(super) delivery: Delivery,
    pub(super) required: Stage,
    pub(super) key: Option<Key>,
    pub(super) message: Message,
    pub(super) priority: Priority,
    pub(super) pace: Pace,
    pub(super) replies: Option<Replies>,
    /// Whether outcomes are waited for beyond sending.
    pub(super) waits: bool,
    pub(super) until: Instant,
}

pub(super) struct Key {
    pub(super) name: String,
    pub(super) request: [u8; 32],
}

/// Whom a multicast goes to, as of one position.
pub(super) struct TargetSet {
    pub(super) position: Position,
    pub(super) identities: Vec<Identity>,
    /// Where messages are stored for them.
    pub(super) holders: Option<Vec<Holder>>,
}

impl Coordinator {
    pub(super) async fn plan(
        &self,
        request: Multicast,
        deadline: Instant,
    ) -> Result<(Plan, TargetSet), Error> {
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
            multicast: self.shared.runner.multicast(),
            kind: Kind::Payload,
            payload: request.payload.clone(),
            content_type: content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.clone()),
            published_at: now,
            headers: request.headers.clone(),
            reply_to: request.reply_to.as_deref().map(Into::into),
            expects_reply: request.replies.is_some(),
            expires_at: lives.map(after),
            // There may be no post yet; it is asked for when the multicast is begun.
            receipts: None,
            again: false,
        }
    }

    fn check_multicast(&self, config: &Config, request: &Multicast) -> Result<(Delivery, Stage), Error> {
        let delivery = request.delivery.unwrap_or(config.behavior.delivery.into());
        let (size, limit) = (request.payload.len(), self.max_payload(config, delivery));
        if size > limit {
            return Err(Error::PayloadTooLarge { size, limit });
        }
        if delivery != Delivery::AtMostOnce && self.inbox().is_none() {
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

    /// The largest payload that can be delivered so.
    fn max_payload(&self, config: &Config, delivery: Delivery) -> usize {
        let messaging = self.messaging().capability().max_payload;
        let inbox = self.inbox().map(|inbox| inbox.capability().max_payload);
        // What is stored is written down first, with all that goes along with it.
        let ledger = || self.books().capability().max_body.saturating_sub(Load::ROOM);
        let ledger = (delivery != Delivery::AtMostOnce).then(ledger);
        let limits = [inbox, ledger, config.behavior.max_payload_bytes];
        limits.into_iter().flatten().fold(messaging, usize::min)
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

    pub(super) async fn targets(
        &self,
        request: &Multicast,
        stored: bool,
        deadline: Instant,
    ) -> Result<TargetSet, Error> {
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
            return Ok(TargetSet {
                position: searched.position,
                identities: found.0,
                holders: stored.then_some(found.1),
            });
        }
        let consistency = request.consistency.unwrap_or(ReadConsistency::Consistent);
        let mut freshness = self.freshen(config, consistency, None, None, deadline).await?;
        let leases = self.filter_leases(filter.as_deref(), freshness, deadline).await;
        let leases = tolerate(config, leases, &mut freshness)?;
        let query = Query {
            filter: filter.as_deref(),
            leases: leases.as_ref(),
            ..Query::default()
        };
        let (mut identities, mut holders) = (Vec::new(), Vec::new());
        let take = |rows: &[&Row]| {
            if stored {
                holders.extend(rows.iter().map(|row| holder_of(&row.principal)));
            }
            identities.extend(rows.iter().map(|row| row.identity.clone()));
        };
        Ok(TargetSet {
            position: self.shared.directory.take_matching(&query, take).await,
            identities,
            holders: stored.then_some(holders),
        })
    }
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
