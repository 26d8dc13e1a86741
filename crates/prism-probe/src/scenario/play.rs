//! Carrying out a scenario.

use std::{
    collections::HashMap,
    pin::pin,
    time::{Duration, Instant},
};

use prism_client::{
    EnumerateRequest, Filter, GetMulticastRequest, ListDeadLettersRequest, Multicast, MulticastRequest,
    RedriveRequest, RegisterRequest, Registration, Registry, Result as Answer, UnregisterRequest,
    UpdateRequest,
};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    expect::{Expect, Ordered, Problem, is_broken},
    file::{Action, Scenario, Step},
    sessions::Sessions,
    step::{Enumerate, Publish, Register},
};

/// How many receipts, or dead letters, are looked at: all that fit a page.
const PAGE: u32 = 1_000;

/// Between the attempts of a step that waits for something.
const PAUSE: Duration = Duration::from_millis(50);

/// What became of a scenario.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) name: String,
    pub(crate) steps: Vec<PlayedStep>,
}

/// What became of a step.
#[derive(Debug)]
pub(crate) struct PlayedStep {
    pub(crate) name: String,
    pub(crate) line: Option<u32>,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

/// How a step ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Passed,
    Failed(Problem),
    /// Somebody ended the run while it was under way.
    Interrupted,
    /// One before it did not pass.
    Skipped,
}

impl Played {
    /// The first step that failed, and why.
    pub(crate) fn failure(&self) -> Option<(&PlayedStep, &Problem)> {
        self.steps.iter().find_map(|step| match &step.outcome {
            Outcome::Failed(problem) => Some((step, problem)),
            _ => None,
        })
    }

    /// Whether it was ended before it was over.
    pub(crate) fn is_interrupted(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|step| matches!(step.outcome, Outcome::Interrupted))
    }

    /// How many steps passed.
    pub(crate) fn passed(&self) -> usize {
        let passed = self.steps.iter();
        passed
            .filter(|step| matches!(step.outcome, Outcome::Passed))
            .count()
    }
}

/// Carries out a scenario, step by step, until one fails.
pub(crate) struct Player {
    registry: Registry,
    sessions: Sessions,
    /// What was registered and is to be removed in the end.
    registered: Vec<Registration>,
    /// What was sent, by the names that later steps call it.
    sent: HashMap<String, String>,
}

impl Player {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            sessions: Sessions::default(),
            registered: Vec::new(),
            sent: HashMap::new(),
        }
    }

    /// Does each step, of which it tells, until one does not pass or `interrupted` resolves.
    pub(crate) async fn play(
        &mut self,
        scenario: &Scenario,
        interrupted: impl Future,
        mut told: impl FnMut(usize, &Step),
    ) -> Played {
        let mut interrupted = pin!(interrupted);
        let mut steps = Vec::new();
        let mut is_over = false;
        for (index, step) in scenario.steps.iter().enumerate() {
            told(index, step);
            let begun = Instant::now();
            let outcome = if is_over {
                Outcome::Skipped
            } else {
                tokio::select! {
                    done = self.step(step) => done.map_or_else(Outcome::Failed, |()| Outcome::Passed),
                    _ = &mut interrupted => Outcome::Interrupted,
                }
            };
            is_over |= !matches!(outcome, Outcome::Passed);
            steps.push(PlayedStep {
                name: step.name.clone(),
                line: step.line,
                outcome,
                took: begun.elapsed(),
            });
        }
        Played {
            name: scenario.name.clone(),
            steps,
        }
    }

    /// Ends the sessions and removes what was registered, if it is still that. What cannot be removed stays; where
    /// the service is gone that is found out once.
    pub(crate) async fn tidy(self) {
        drop(self.sessions);
        for registration in &self.registered {
            let request = UnregisterRequest::from(registration);
            if let Err(error) = self.registry.unregister(request).await
                && is_broken(&error)
            {
                break;
            }
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), Problem> {
        let began = Instant::now();
        loop {
            let outcome = self.once(&step.action).await;
            let is_to_wait = step.within.is_some_and(|within| began.elapsed() + PAUSE < within);
            match outcome {
                Err(_) if is_to_wait => sleep(PAUSE).await,
                Err(Problem::Unexpected(problem)) => {
                    let waited = step.within.map(|within| format!(", for {within:?}"));
                    return Err((problem + &waited.unwrap_or_default()).into());
                }
                Err(broken) => return Err(broken),
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn once(&mut self, action: &Action) -> Result<(), Problem> {
        let registry = self.registry.clone();
        match action {
            Action::Register(asked, expected) => expected.check(&self.register(asked).await),
            Action::Update(asked, expected) => {
                let request = UpdateRequest {
                    identity: asked.identity.clone(),
                    patch: Value::Object(asked.patch.clone()),
                    ..UpdateRequest::default()
                };
                expected.check(&registry.update(request).await)
            }
            Action::Get(asked, expected) => expected.check(&registry.get(&asked.identity).await),
            Action::Renew(asked, expected) => {
                let leases = asked.identities.iter().map(String::as_str);
                expected.check(&registry.renew(leases).await)
            }
            Action::Unregister(asked, expected) => {
                expected.check(&registry.unregister(asked.identity.as_str()).await)
            }
            Action::Enumerate(asked, filter, expected) => {
                let expected = Ordered {
                    expected,
                    is_sorted: !asked.sort.is_empty(),
                };
                expected.check(&registry.enumerate(enumeration(asked, filter.clone())).await)
            }
            Action::Publish(asked, filter, expected) => {
                expected.check(&self.publish(asked, filter.clone()).await)
            }
            Action::Receipts(asked, expected) => {
                let request = GetMulticastRequest {
                    limit: Some(PAGE),
                    ..self.sent(&asked.of)?.into()
                };
                expected.check(&registry.get_multicast(request).await)
            }
            Action::Cancel(asked, expected) => {
                expected.check(&registry.cancel_multicast(self.sent(&asked.of)?).await)
            }
            Action::DeadLetters(asked, expected) => {
                let request = ListDeadLettersRequest {
                    identity: asked.identity.clone(),
                    limit: Some(PAGE),
                    cursor: None,
                };
                expected.check(&registry.list_dead_letters(request).await)
            }
            Action::Redrive(asked, expected) => {
                let identity = asked.identity.clone();
                let which = identity.map_or(RedriveRequest::All, RedriveRequest::OfIdentity);
                expected.check(&registry.redrive_dead_letters(which).await)
            }
            Action::Subscribe(asked, expected) => {
                let opened = self.sessions.open(&registry, asked.name(), &asked.identity).await;
                expected.check(&opened)
            }
            Action::Receive(asked) => match self.sessions.receive(asked, action.patience()).await {
                // A session whose connection is lost receives nothing either, and goes on by itself.
                Err(problem) => Err(self.broken(&asked.by).await.unwrap_or(problem)),
                Ok(()) => Ok(()),
            },
            Action::Silence(asked) => self.sessions.silence(&asked.by, asked.length).await,
            Action::Close(asked) => self.sessions.close(&asked.session),
            Action::Wait(length) => {
                sleep(*length).await;
                Ok(())
            }
        }
    }

    async fn register(&mut self, asked: &Register) -> Answer<Registration> {
        let request = RegisterRequest {
            metadata: Value::Object(asked.metadata.clone()),
            ttl: asked.ttl.filter(Duration::is_zero).map(|_| 0),
            ttl_ms: asked
                .ttl
                .filter(|ttl| !ttl.is_zero())
                .map(|ttl| ttl.as_millis() as u64),
            replace: asked.replace,
            ..RegisterRequest::new(asked.identity.as_str())
        };
        let answer = self.registry.register(request).await;
        self.registered.extend(answer.iter().cloned());
        answer
    }

    async fn publish(&mut self, asked: &Publish, filter: Option<Filter>) -> Answer<Multicast> {
        let answer = self.registry.multicast(multicast(asked, filter)).await?;
        if let Some(name) = &asked.name {
            self.sent.insert(name.clone(), answer.multicast_id.clone());
        }
        Ok(answer)
    }

    /// What is broken, if anything is: whether the identity is there makes no difference.
    async fn broken(&self, identity: &str) -> Option<Problem> {
        let error = self.registry.get(identity).await.err()?;
        is_broken(&error).then(|| Problem::of(&error))
    }

    /// The multicast that a step calls so. That one publishes as this is known; it may not have succeeded.
    fn sent(&self, name: &str) -> Result<String, Problem> {
        let sent = self.sent.get(name).cloned();
        sent.ok_or_else(|| format!("`{name}` was not sent").into())
    }
}

fn enumeration(asked: &Enumerate, filter: Option<Filter>) -> EnumerateRequest {
    EnumerateRequest {
        filter,
        limit: asked.limit,
        sort_by: asked.sort.clone(),
        ..EnumerateRequest::default()
    }
}

/// The one place where a scenario makes its multicasts.
fn multicast(asked: &Publish, filter: Option<Filter>) -> MulticastRequest {
    MulticastRequest {
        filter,
        payload: asked.payload.clone().into_bytes(),
        content_type: asked.content_type.clone(),
        timeout: asked.timeout,
        delivery: asked.delivery.map(Into::into),
        require: asked.require.map(Into::into),
        idempotency_key: asked.idempotency_key.clone(),
        expires_in: asked.expires,
        headers: asked.headers.clone(),
        ..MulticastRequest::default()
    }
}
