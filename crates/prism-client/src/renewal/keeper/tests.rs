use std::time::SystemTime;

use prism_core::failure::{Failure, Reason};
use tokio::sync::mpsc;

use super::*;
use crate::{Outcome, Position, Renewed, State};

const POLICY: Policy = Policy {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(2),
};

const INTERVAL: Duration = Duration::from_secs(10);

/// Tells the test of each call, and answers as it was told to.
#[derive(Clone)]
struct Scripted {
    calls: mpsc::UnboundedSender<(Duration, Seen)>,
    began: Instant,
    renewal: Arc<Mutex<Answering>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Renew(usize),
    Register(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answering {
    Renewed,
    Gone,
    Never,
}

impl Scripted {
    fn new() -> (Self, mpsc::UnboundedReceiver<(Duration, Seen)>) {
        let (calls, seen) = mpsc::unbounded_channel();
        let scripted = Self {
            calls,
            began: Instant::now(),
            renewal: Arc::new(Mutex::new(Answering::Renewed)),
        };
        (scripted, seen)
    }

    fn answer(&self, answering: Answering) {
        *self.renewal.lock() = answering;
    }

    fn tell(&self, seen: Seen) {
        let _ = self.calls.send((self.began.elapsed(), seen));
    }
}

impl Calls for Scripted {
    fn renew(&self, leases: Vec<Lease>, _: Duration) -> BoxFuture<'static, Result<Vec<Renewal>>> {
        self.tell(Seen::Renew(leases.len()));
        let answering = *self.renewal.lock();
        Box::pin(async move {
            let result = match answering {
                Answering::Renewed => Ok(Renewed {
                    expires_at: None,
                    renew_after: Some(INTERVAL),
                }),
                Answering::Gone => Err(Error::from(Failure::new(Reason::NotRegistered, "gone"))),
                Answering::Never => std::future::pending().await,
            };
            let renewal = |lease: Lease| Renewal {
                identity: lease.identity,
                result: result.clone(),
            };
            Ok(leases.into_iter().map(renewal).collect())
        })
    }

    fn register(&self, request: RegisterRequest) -> BoxFuture<'static, Result<Registration>> {
        self.tell(Seen::Register(request.identity.clone()));
        Box::pin(async move { Ok(registration(&request.identity, 2)) })
    }
}

fn registration(identity: &str, revision: u64) -> Registration {
    let position = Position { epoch: 1, revision };
    Registration {
        identity: identity.to_owned(),
        outcome: Outcome::Registered,
        registered_at: SystemTime::UNIX_EPOCH,
        expires_at: None,
        generation: position,
        position,
        renew_after: Some(INTERVAL),
        ttl: None,
    }
}

fn insert(keeper: &Keeper, identity: &str) -> (Key, watch::Receiver<Kept>) {
    keeper
        .desk()
        .insert(RegisterRequest::new(identity), registration(identity, 1))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_registrations_are_renewed_in_two_calls_and_in_time() {
    let (calls, mut seen) = Scripted::new();
    let keeper = Keeper::start(calls, POLICY);
    let _kept: Vec<_> = (0..1_000)
        .map(|number| insert(&keeper, &number.to_string()))
        .collect();
    for round in 1..=3 {
        for _ in 0..2 {
            let (at, call) = seen.recv().await.unwrap();
            assert_eq!(call, Seen::Renew(500));
            // Timers have a grain of a millisecond.
            assert!(
                at.abs_diff(INTERVAL * round) <= Duration::from_millis(5),
                "{at:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_registration_is_made_again_and_its_watcher_sees_the_new_one() {
    let (calls, mut seen) = Scripted::new();
    calls.answer(Answering::Gone);
    let keeper = Keeper::start(calls.clone(), POLICY);
    let (_, mut kept) = insert(&keeper, "a");
    assert_eq!(seen.recv().await.unwrap().1, Seen::Renew(1));
    assert_eq!(seen.recv().await.unwrap().1, Seen::Register("a".to_owned()));
    let kept = kept
        .wait_for(|kept| kept.registration.generation.revision == 2)
        .await
        .unwrap();
    assert!(matches!(kept.state, State::Live));
}

#[tokio::test(start_paused = true)]
async fn one_mute_call_does_not_keep_others_from_being_renewed() {
    let (calls, mut seen) = Scripted::new();
    calls.answer(Answering::Never);
    let keeper = Keeper::start(calls.clone(), POLICY);
    let _first = insert(&keeper, "a");
    assert_eq!(seen.recv().await.unwrap().1, Seen::Renew(1));
    calls.answer(Answering::Renewed);
    let _second = insert(&keeper, "b");
    assert_eq!(seen.recv().await.unwrap(), (INTERVAL * 2, Seen::Renew(1)));
}

#[tokio::test(start_paused = true)]
async fn retiring_waits_for_the_call_under_way() {
    let (calls, mut seen) = Scripted::new();
    calls.answer(Answering::Never);
    let keeper = Keeper::start(calls, POLICY);
    let (key, _kept) = insert(&keeper, "a");
    let (other, _) = insert(&keeper, "b");
    keeper.desk().hurry(key);
    assert_eq!(seen.recv().await.unwrap().1, Seen::Renew(1));
    keeper.desk().retire(other).await;
    let retired = tokio::time::timeout(Duration::from_secs(3_600), keeper.desk().retire(key)).await;
    assert!(retired.is_err(), "it ended while a call was under way");
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_keeper() {
    let (calls, mut seen) = Scripted::new();
    let keeper = Keeper::start(calls, POLICY);
    let _kept = insert(&keeper, "a");
    drop(keeper);
    assert_eq!(seen.recv().await, None, "the task still holds its calls");
}
