//! Callers that multicast and note what they are told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::TryStreamExt;
use prism_client::{
    Client, DeliverySemantics, DeliveryStatus, Filter, GetMulticastRequest, Multicast, MulticastRequest,
    Stage,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::task::JoinSet;

use super::{
    consumers::GROUPS,
    history::{Answer, Call, Totals},
};

/// How long a multicast waits for outcomes.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How often a call with an idempotency key is made until it is answered.
const ATTEMPTS: usize = 4;
/// Between these.
const PAUSE: Duration = Duration::from_millis(100);

/// What callers do.
#[derive(Clone, Copy)]
pub(super) struct Habit {
    pub(super) delivery: DeliverySemantics,
    /// How many call at the same time.
    pub(super) callers: u64,
    /// Whether calls have idempotency keys, so that they are repeated until they are answered.
    pub(super) keyed: bool,
    /// How often a call that was answered is repeated.
    pub(super) repeated: usize,
}

/// A client of each runner, past the proxy; replaced with its runner.
pub(super) type Clients = Arc<Mutex<Vec<Client>>>;

/// Callers at work.
pub(super) struct Callers {
    pub(super) targets: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Vec<Call>>,
}

impl Callers {
    /// Each call goes through one of these clients, and each of its repetitions through the next one.
    pub(super) fn start(clients: &Clients, habit: Habit, seed: u64) -> Self {
        let mut callers = Self {
            targets: Arc::default(),
            stop: Arc::default(),
            tasks: JoinSet::new(),
        };
        let numbers: Arc<AtomicU64> = Arc::default();
        for number in 0..habit.callers {
            let caller = Caller {
                clients: clients.clone(),
                habit,
                random: SmallRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number)),
                targets: callers.targets.clone(),
            };
            let (numbers, stop) = (numbers.clone(), callers.stop.clone());
            callers.tasks.spawn(caller.work(numbers, stop));
        }
        callers
    }

    /// Waits until so many targets have been told of.
    pub(super) async fn reach(&self, targets: u64) {
        while self.targets.load(Ordering::Relaxed) < targets {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything that they did.
    pub(super) async fn stop(mut self) -> Result<Vec<Call>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        while let Some(made) = self.tasks.join_next().await {
            calls.extend(made?);
        }
        Ok(calls)
    }
}

struct Caller {
    clients: Clients,
    habit: Habit,
    random: SmallRng,
    targets: Arc<AtomicU64>,
}

impl Caller {
    async fn work(mut self, numbers: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<Call> {
        let mut calls = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            calls.push(self.call(numbers.fetch_add(1, Ordering::Relaxed)).await);
        }
        calls
    }

    async fn call(&mut self, number: u64) -> Call {
        let habit = self.habit;
        let (request, mut call) = (
            self.request(number),
            Call {
                number,
                delivery: habit.delivery,
                keyed: habit.keyed,
                answers: Vec::new(),
            },
        );
        let first: usize = self.random.random_range(0..2);
        let attempts = if habit.keyed { ATTEMPTS } else { 1 };
        for attempt in 0..attempts {
            let client = {
                let clients = self.clients.lock().unwrap();
                clients[(first + attempt) % clients.len()].clone()
            };
            match client.registry.multicast(request.clone()).await {
                Ok(sent) => call.answers.push(answer(sent)),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            if call.answers.len() > habit.repeated {
                break;
            }
        }
        let targets = call.answers.first().map_or(0, |answer| answer.told.len());
        self.targets.fetch_add(targets as u64, Ordering::Relaxed);
        call
    }

    fn request(&mut self, number: u64) -> MulticastRequest {
        let habit = self.habit;
        let group = self.random.random_range(0..2 * GROUPS);
        let filter = (group < GROUPS).then(|| Filter::new().eq("group", group));
        let require = match (number % 6, habit.delivery) {
            (1, _) => Some(Stage::Handed),
            (2, _) => Some(Stage::Acked),
            (_, DeliverySemantics::AtMostOnce) => None,
            _ => Some(Stage::Stored),
        };
        MulticastRequest {
            filter,
            payload: number.to_string().into_bytes(),
            delivery: Some(habit.delivery),
            require,
            timeout: Some(PATIENCE),
            idempotency_key: habit.keyed.then(|| format!("call-{number}")),
            ..MulticastRequest::default()
        }
    }
}

fn answer(sent: Multicast) -> Answer {
    Answer {
        multicast: sent.multicast_id,
        heard: Instant::now(),
        totals: Some(Totals {
            targets: sent.target_count,
            delivered: sent.delivered_count,
            failed: sent.failed_count,
            pending: sent.pending_count,
            timeout: sent.timeout_count,
        }),
        told: sent.statuses,
    }
}

/// Adds what is said of multicasts now. Where nobody knows one any more, nothing is.
pub(super) async fn read_receipts(client: &Client, calls: impl Iterator<Item = &mut Call>) {
    for call in calls {
        let Some(multicast) = call.answers.last().map(|answer| answer.multicast.clone()) else {
            continue;
        };
        let request = GetMulticastRequest {
            limit: Some(1_000),
            ..multicast.as_str().into()
        };
        let told: prism_client::Result<Vec<DeliveryStatus>> =
            client.registry.receipts(request).try_collect().await;
        if let Ok(told) = told {
            call.answers.push(Answer {
                multicast,
                heard: Instant::now(),
                totals: None,
                told,
            });
        }
    }
}
