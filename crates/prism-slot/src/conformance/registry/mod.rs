//! The cases of [`RegistryStore`](crate::RegistryStore).

mod faults;
mod feed;
mod lasting;
mod leases;
mod query;
mod records;
mod registering;
mod sharing;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;

pub(super) use self::lasting::work;
use self::{faults::*, feed::*, lasting::*, leases::*, query::*, records::*, registering::*, sharing::*};
use super::{
    Options, RegistryOpen as Open, RegistrySubject,
    cases::{Case, FaultCase, cases, fault_cases},
    deadline,
    fault::Scene,
};
use crate::{
    Call, Cause, Change, Identity, Mode, Owner, Position, Put, Record, Register, Registered,
    RegistryCapability, Renew, RequestId, Result, Revision, Scope, SessionId, Ttl, Unregister,
    capability::Survives,
};

pub(super) const CASES: &[Case<RegistryCapability, Fixture>] = cases![
    register_assigns_dense_revisions,
    register_answers_in_order,
    register_create_refuses_existing,
    register_replace_makes_a_new_generation,
    register_same_session_renews_or_updates,
    register_over_a_due_record_expires_it_first,
    register_quota_is_exact,
    register_quota_ignores_the_due,
    register_replay_returns_the_first_result,
    put_checks_revision_and_generation,
    put_never_creates,
    put_replay_returns_the_first_result,
    concurrent_puts_are_steps,
    renew_never_creates,
    renew_moves_only_the_lease,
    renew_wakes_nobody,
    renew_answers_in_order,
    renew_is_fenced,
    unregister_is_idempotent,
    unregister_is_fenced,
    get_reads_the_last_write,
    get_never_serves_the_due,
    leases_follow_renewals,
    leases_survive_an_interruption,
    sync_returns_dense_history,
    sync_is_bounded,
    sync_expires_what_is_due,
    sync_says_compacted,
    changes_are_told,
    is_head_is_known_and_never_wrong if |capability: &RegistryCapability| capability.scope == Scope::Process,
    calls_refuse_another_epoch,
    scan_finds_everything,
    query_finds_every_match if |capability: &RegistryCapability| capability.query,
    query_passes_others_over if |capability: &RegistryCapability| capability.query,
    query_reads_the_last_write if |capability: &RegistryCapability| capability.query,
    query_never_serves_the_due if |capability: &RegistryCapability| capability.query,
    query_is_bounded if |capability: &RegistryCapability| capability.query,
    query_stays_in_its_epoch if |capability: &RegistryCapability| capability.query,
    query_needs_the_capability if |capability: &RegistryCapability| !capability.query,
    claims_are_ordered,
    claims_need_the_registration,
    a_slot_answers_until_it_is_closed,
    late_calls_change_nothing if |capability: &RegistryCapability| capability.scope != Scope::Process,
    openings_share_one_history if |capability: &RegistryCapability| capability.scope > Scope::Process,
    namespaces_have_their_own_history if |capability: &RegistryCapability| capability.scope > Scope::Process,
    records_outlive_the_runner
        if |capability: &RegistryCapability| capability.survives >= Survives::RunnerRestart,
];

pub(super) const FAULTS: &[FaultCase<RegistryCapability, Scene<Open>>] = fault_cases![
    BlackHole: calls_end_in_the_dark =>
        "every call ends by its deadline: a read with an error, a write with one that says whether it may have been done; \
         a repeated write finds out, and is done once; the slot goes on by itself",
    Frozen: calls_end_while_the_backend_stands_still => "as before",
    LostReplies: lost_answers_are_given_again =>
        "a write is said to be unknown; repeated, it gets the answer that was lost, and is done once",
    Cut: a_batch_that_is_cut_is_told_one_by_one =>
        "each write of a batch is told for itself: done is done, not done is not done, the rest is unknown until it is \
         repeated, and each is done once",
    Restarted: a_feed_goes_on_or_says_that_it_cannot =>
        "a view goes on in the feed without a gap, or is told that it must begin anew; new changes are told as before",
    Restarted: acknowledged_records_outlive_a_restart if outlives_runners =>
        "what was acknowledged is there, if the server was told to write it to its disk first; what was removed stays so",
    Killed: acknowledged_records_outlive_kills if outlives_runners =>
        "as after a restart, whatever was under way",
    Emptied: a_lost_history_is_another_epoch =>
        "another epoch begins, calls of the old one are refused, and nothing that is gone is served",
    DiskFull: a_full_disk_refuses_and_loses_nothing =>
        "what needs room is refused and certainly not done, what was acknowledged is read as before, and with room again \
         it goes on by itself",
];

fn outlives_runners(capability: &RegistryCapability) -> bool {
    capability.survives >= Survives::RunnerRestart
}

/// Long enough for what a case does meanwhile on a machine whose disk stands still now and then. What is passed with it
/// is as far from [`crate::lease::MAX_STEP`], the interruption after which leases last once more.
const TTL: Duration = Duration::from_millis(1_000);
const PAST_TTL: Duration = Duration::from_millis(1_100);

/// How a case opens the slot, and a namespace of its own.
pub(super) struct Fixture {
    pub(super) open: Arc<Open>,
    pub(super) namespace: String,
}

impl Fixture {
    async fn open(&self) -> Subject {
        self.open_with(Options::default()).await
    }

    async fn open_with(&self, options: Options) -> Subject {
        Subject((self.open)(self.namespace.clone(), options).await)
    }
}

/// The slot with short ways to say common things.
#[derive(Clone)]
struct Subject(RegistrySubject);

impl Subject {
    async fn register(&self, request: Register) -> Result<Registered> {
        let mut results = self.0.store.register(call(), vec![request]).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    async fn put(&self, put: Put) -> Result<Arc<Record>> {
        self.0.store.put(call(), put).await
    }

    async fn renew(&self, name: &str, generation: Option<Position>) -> Result<crate::Renewed> {
        let request = Renew {
            identity: identity(name),
            generation,
        };
        self.0.store.renew(call(), vec![request]).await.remove(0)
    }

    async fn unregister(&self, name: &str, generation: Option<Position>) -> Result<crate::Unregistered> {
        let request = Unregister {
            identity: identity(name),
            generation,
        };
        self.0.store.unregister(call(), request).await
    }

    async fn get(&self, name: &str) -> Option<Arc<Record>> {
        self.0.store.get(call(), identity(name)).await.unwrap().record
    }

    async fn history(&self, from: Revision) -> Vec<Change> {
        let (mut changes, mut last) = (Vec::new(), from);
        loop {
            let sync = self.0.store.sync(call(), last, 3).await.unwrap();
            last = sync.changes.last().map_or(last, |change| change.revision);
            changes.extend(sync.changes);
            if !sync.more {
                assert_eq!(
                    last, sync.head.revision,
                    "a sync that is complete ends at its head"
                );
                return changes;
            }
        }
    }

    async fn head(&self) -> Position {
        self.0.store.get(call(), identity("nobody")).await.unwrap().head
    }

    async fn pass(&self, by: Duration) {
        (self.0.pass)(by).await;
    }
}

fn call() -> Call {
    Call {
        epoch: None,
        deadline: deadline(),
    }
}

fn identity(name: &str) -> Identity {
    Identity::new(name).unwrap()
}

fn session(number: u8) -> Owner {
    Owner {
        principal: "".into(),
        session: Some(SessionId([number; 16])),
    }
}

fn request(name: &str) -> Register {
    Register {
        identity: identity(name),
        metadata: Bytes::from_static(br#"{"status":"online"}"#),
        ttl: None,
        mode: Mode::Create,
        owner: Owner::default(),
        max_identities: 1_000,
        request: RequestId::next(),
    }
}

fn leased(name: &str) -> Register {
    Register {
        ttl: Ttl::from_millis(TTL.as_millis() as u64),
        ..request(name)
    }
}

fn put(name: &str, if_revision: Revision) -> Put {
    Put {
        identity: identity(name),
        metadata: Bytes::from_static(br#"{"status":"away"}"#),
        if_revision,
        generation: None,
        request: RequestId::next(),
    }
}

fn causes(changes: &[Change]) -> Vec<(u64, Cause, &str)> {
    changes
        .iter()
        .map(|change| (change.revision.0, change.cause, change.record.identity.as_str()))
        .collect()
}
