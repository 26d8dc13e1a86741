//! Clients that do this and that, and note what they were told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Result;
use integration::PATIENCE;
use prism_client::{
    Applied, Client, EnumerateRequest, Error, Filter, Position, RegisterRequest, UpdateRequest,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::history::State;

/// One call, when it was made and when it was answered, and what it said.
pub(super) struct Operation {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) said: Said,
}

pub(super) enum Said {
    /// A write that carried this mark, or a removal, at this revision.
    Written {
        identity: String,
        mark: Option<u64>,
        at: Position,
    },
    /// A write that may have happened.
    Unknown { mark: Option<u64> },
    /// A write that has not.
    Refused { mark: Option<u64> },
    /// What one identity was as of a position.
    Read {
        identity: String,
        found: Option<Value>,
        at: Position,
    },
    /// Everybody with an even mark, as of a position.
    Listed { found: State, at: Position },
    /// Nothing that could be held against it.
    Nothing,
}

pub(super) fn is_even(metadata: &Value) -> bool {
    metadata["even"] == json!(true)
}

/// Clients at work.
pub(super) struct Callers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Operation>>>,
}

impl Callers {
    pub(super) fn start(client: &Client, count: u64) -> Self {
        let (marks, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let task = |seed| tokio::spawn(caller(client.clone(), seed, marks.clone(), stop.clone()));
        Self {
            tasks: (0..count).map(task).collect(),
            stop,
        }
    }

    /// Everything that they were told.
    pub(super) async fn stop(self) -> Result<Vec<Operation>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut operations = Vec::new();
        for task in self.tasks {
            operations.extend(tokio::time::timeout(PATIENCE, task).await??);
        }
        Ok(operations)
    }
}

/// A client that does this and that.
async fn caller(client: Client, seed: u64, marks: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<Operation> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut operations = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let identity = format!("id-{}", random.random_range(0..12));
        let began = Instant::now();
        let said = match random.random_range(0..10) {
            0..=2 => register(&client, identity, marks.fetch_add(1, Ordering::Relaxed)).await,
            3..=4 => update(&client, identity, marks.fetch_add(1, Ordering::Relaxed)).await,
            5 => unregister(&client, identity).await,
            6 => {
                let _ = client.registry.renew([identity]).await;
                Said::Nothing
            }
            7..=8 => get(&client, identity).await,
            _ => enumerate(&client).await,
        };
        let ended = Instant::now();
        operations.push(Operation { began, ended, said });
    }
    operations
}

fn failed(error: &Error, mark: Option<u64>) -> Said {
    match error.applied() {
        Applied::No => Said::Refused { mark },
        Applied::Unknown => Said::Unknown { mark },
    }
}

fn marked(mark: u64) -> Value {
    json!({ "mark": mark, "even": mark.is_multiple_of(2) })
}

async fn register(client: &Client, identity: String, mark: u64) -> Said {
    let request = RegisterRequest {
        metadata: marked(mark),
        replace: true,
        ttl: Some(60),
        ..RegisterRequest::new(&identity)
    };
    match client.registry.register(request).await {
        Ok(held) => Said::Written {
            identity,
            mark: Some(mark),
            at: held.position,
        },
        Err(error) => failed(&error, Some(mark)),
    }
}

async fn update(client: &Client, identity: String, mark: u64) -> Said {
    let request = UpdateRequest {
        identity: identity.clone(),
        patch: marked(mark),
        ..Default::default()
    };
    match client.registry.update(request).await {
        Ok(found) => Said::Written {
            identity,
            mark: Some(mark),
            at: found.position,
        },
        Err(error) => failed(&error, Some(mark)),
    }
}

async fn unregister(client: &Client, identity: String) -> Said {
    match client.registry.unregister(identity.as_str()).await {
        Ok(removed) if removed.existed => Said::Written {
            identity,
            mark: None,
            at: removed.position,
        },
        Ok(removed) => Said::Read {
            identity,
            found: None,
            at: removed.position,
        },
        Err(error) => failed(&error, None),
    }
}

async fn get(client: &Client, identity: String) -> Said {
    match client.registry.get(&identity).await {
        Ok(found) => Said::Read {
            identity,
            found: Some(Value::Object(found.identity.metadata)),
            at: found.position,
        },
        // It says no position that it could be held against.
        Err(_) => Said::Nothing,
    }
}

async fn enumerate(client: &Client) -> Said {
    let request = EnumerateRequest {
        filter: Some(Filter::new().eq("even", true)),
        ..Default::default()
    };
    match client.registry.enumerate(request).await {
        Ok(page) => Said::Listed {
            at: page.position,
            found: page
                .identities
                .into_iter()
                .map(|found| (found.identity, Value::Object(found.metadata)))
                .collect(),
        },
        Err(_) => Said::Nothing,
    }
}
