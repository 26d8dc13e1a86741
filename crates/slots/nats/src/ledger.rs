//! The ledger on JetStream.

use futures::future::join_all;
use prism_slot::{
    Entry, Error, Expect, Ledger, LedgerCapability, Listed, Result, Scope, Write, Wrote, capability::Survives,
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    error::BACKEND,
    jetstream::{
        JetStreamConfig, Storage,
        api::{self, Failure, TTL},
        client::JetStream,
        layout::Kind,
        read::Kept,
        streams::{self, Stream},
        ttl,
    },
    messaging::USUAL_MAX_PAYLOAD,
};

/// What the ledger can do, as known before it is opened: an entry is bounded by a server as it comes, and lives as
/// long as files do. An open ledger knows what its own server takes.
pub const LEDGER_CAPABILITY: LedgerCapability = LedgerCapability {
    backend: BACKEND,
    scope: Scope::Shared,
    survives: Survives::BackendRestart,
    max_body: USUAL_MAX_PAYLOAD - (4 << 10),
};

/// A ledger in a JetStream stream of the namespace's own, one message an entry; its version is the message's sequence.
///
/// The server itself lets a write through only when what it expects holds, and removes an entry after its ttl, rounded
/// up to whole seconds. With replicas all is read from their leader.
#[derive(Debug)]
pub struct JetStreamLedger {
    capability: LedgerCapability,
    jetstream: JetStream,
}

impl JetStreamLedger {
    /// Connects and makes the stream if it is missing. Takes no longer than the configured `timeout`.
    ///
    /// # Errors
    /// `Misconfigured` for settings, a server, a login or permissions that cannot work; `Unavailable` or `Timeout` for
    /// a server that cannot be reached.
    pub async fn open(namespace: &str, config: JetStreamConfig) -> Result<Self> {
        let (storage, replicas) = (config.storage, config.replicas);
        let wanted = |layout: &_| vec![(Kind::Ledger, streams::ledger(layout, storage, replicas))];
        let jetstream = JetStream::open(namespace, &config, wanted).await?;
        Ok(Self {
            capability: LedgerCapability {
                survives: storage.survives(),
                max_body: jetstream.max_payload(),
                ..LEDGER_CAPABILITY
            },
            jetstream,
        })
    }

    fn subject(&self, key: &str) -> String {
        self.jetstream.layout.named(Kind::Ledger, key)
    }

    async fn current(&self, stream: &Stream, keys: &[&str], deadline: Instant) -> Vec<Result<Option<Entry>>> {
        let subjects = keys.iter().map(|key| self.subject(key));
        let found = self.jetstream.last(stream, subjects, deadline).await;
        let entry = |found: Option<Kept>| {
            found.map(|kept| Entry {
                version: kept.sequence,
                body: kept.body,
            })
        };
        found.into_iter().map(|found| Ok(found.map(entry)?)).collect()
    }

    async fn current_one(&self, stream: &Stream, key: &str, deadline: Instant) -> Result<Option<Entry>> {
        let mut found = self.current(stream, &[key], deadline).await;
        found.pop().unwrap_or(Ok(None))
    }

    /// All at once; each is one message that the stream takes or not.
    async fn put(&self, stream: &Stream, writes: &[&Write], deadline: Instant) -> Vec<Result<Wrote>> {
        let messages = writes.iter().map(|write| {
            let mut headers = match write.expect {
                Expect::Anything => async_nats::HeaderMap::new(),
                Expect::Absent => api::expecting(0),
                Expect::Version(version) => api::expecting(version),
            };
            headers.insert(TTL, ttl(write.ttl));
            api::message(
                self.subject(&write.key),
                headers,
                write.body.clone().unwrap_or_default(),
            )
        });
        let stored = self.jetstream.store(stream, messages, deadline).await;
        let outcomes = stored.into_iter().zip(writes).map(|(stored, write)| async move {
            match stored {
                Ok(stored) => Ok(Wrote::Done(stored.seq)),
                Err(failure) if failure.is_conflict() => {
                    let current = self.current_one(stream, &write.key, deadline).await;
                    // What is there could not be learned; that nothing was changed is known.
                    Ok(Wrote::Conflict(current.unwrap_or(None)))
                }
                Err(failure) => Err(failure.into()),
            }
        });
        join_all(outcomes).await
    }

    async fn remove(&self, stream: &Stream, write: &Write, deadline: Instant) -> Result<Wrote> {
        if write.expect == Expect::Anything {
            let subject = self.subject(&write.key);
            let purged = self.jetstream.purge(stream, &subject, None, deadline).await;
            return Ok(purged.map(|_| Wrote::Done(0))?);
        }
        let current = self.current_one(stream, &write.key, deadline).await?;
        match (write.expect, &current) {
            (Expect::Absent, None) => return Ok(Wrote::Done(0)),
            (Expect::Version(version), Some(entry)) if entry.version == version => {}
            _ => return Ok(Wrote::Conflict(current)),
        }
        let Some(entry) = current else {
            return Ok(Wrote::Conflict(None));
        };
        // A sequence is never given twice, so this removes what has been seen or nothing.
        let deleted = self
            .jetstream
            .delete(stream, &[entry.version], deadline)
            .await
            .pop();
        match deleted.unwrap_or(Err(Failure::Nobody))? {
            true => Ok(Wrote::Done(0)),
            false => Ok(Wrote::Conflict(
                self.current_one(stream, &write.key, deadline).await?,
            )),
        }
    }

    /// Every key that there is, in no order.
    async fn keys(&self, stream: &Stream, deadline: Instant) -> Result<Vec<String>> {
        let (mut keys, mut offset) = (Vec::new(), 0);
        loop {
            let filter = self.jetstream.layout.all(Kind::Ledger);
            let page = json!({ "subjects_filter": filter, "offset": offset });
            let info = self.jetstream.info(stream, &page, deadline).await?;
            let found = info.state.subjects.len() as u64;
            let names = info.state.subjects.keys();
            keys.extend(names.filter_map(|subject| self.jetstream.layout.name(Kind::Ledger, subject)));
            offset += found;
            if found == 0 || offset >= info.total {
                return Ok(keys);
            }
        }
    }
}

impl Ledger for JetStreamLedger {
    fn capability(&self) -> &LedgerCapability {
        &self.capability
    }

    async fn read(&self, keys: Vec<String>, deadline: Instant) -> Result<Vec<Option<Entry>>> {
        let stream = self.jetstream.stream(Kind::Ledger, deadline).await;
        let (stream, _) = stream.map_err(not_applied)?;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let read = self.current(stream, &keys, deadline).await.into_iter();
        read.map(|entry| entry.map_err(not_applied)).collect()
    }

    async fn write(&self, writes: Vec<Write>, deadline: Instant) -> Vec<Result<Wrote>> {
        let stream = match self.jetstream.stream(Kind::Ledger, deadline).await {
            Ok((stream, _)) => stream,
            // A stream that could not be made was given nothing.
            Err(error) => return vec![Err(not_applied(error)); writes.len()],
        };
        let (puts, removals): (Vec<&Write>, Vec<&Write>) =
            writes.iter().partition(|write| write.body.is_some());
        let removing = join_all(removals.iter().map(|write| self.remove(stream, write, deadline)));
        let (put, removed) = tokio::join!(self.put(stream, &puts, deadline), removing);
        let (mut put, mut removed) = (put.into_iter(), removed.into_iter());
        let outcomes = writes.iter().map(|write| match write.body {
            Some(_) => put.next(),
            None => removed.next(),
        });
        outcomes.flatten().collect()
    }

    async fn list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Listed> {
        let stream = self.jetstream.stream(Kind::Ledger, deadline).await;
        let (stream, _) = stream.map_err(not_applied)?;
        let mut keys = self.keys(stream, deadline).await.map_err(not_applied)?;
        let is_asked =
            |key: &String| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| key > after);
        keys.retain(is_asked);
        keys.sort_unstable();
        let more = keys.len() > limit;
        keys.truncate(limit);
        Ok(Listed { keys, more })
    }

    async fn close(&self) {
        self.jetstream.close().await;
    }
}

/// What failed has changed nothing: it was a read, or came to nothing before it wrote.
fn not_applied(error: Error) -> Error {
    match error {
        Error::Timeout { backend, .. } => Error::Timeout {
            backend,
            applied: prism_slot::Applied::No,
        },
        Error::Unavailable { backend, message, .. } => Error::Unavailable {
            backend,
            message,
            applied: prism_slot::Applied::No,
        },
        other => other,
    }
}

impl Storage {
    /// What an acknowledged write outlives.
    pub(crate) fn survives(self) -> Survives {
        match self {
            Self::File => Survives::BackendRestart,
            Self::Memory => Survives::RunnerRestart,
        }
    }
}
