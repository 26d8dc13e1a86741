//! One connection to JetStream, and the streams of one namespace that are used over it.

use std::{sync::Arc, time::Duration};

use async_nats::connection::State;
use bytes::Bytes;
use futures::FutureExt;
use prism_slot::Result;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    connect::{connect, refused},
    error::{misconfigured, timeout as timed_out, unavailable},
    health::Health,
    jetstream::{
        JetStreamConfig,
        api::{self, Failure},
        layout::{Kind, Layout},
        requests::{Request, Requests},
        streams::{Info, Stream},
    },
    statistics::Counters,
};

/// The oldest server that keeps messages for as long as each says, and reads many at once.
const NEEDED: (u64, u64) = (2, 11);
/// What is kept free for headers.
const HEADER_ROOM: usize = 4 << 10;
/// How long the reason of a refusal may take.
const REASON: Duration = Duration::from_millis(100);
/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection with the streams behind it.
#[derive(Debug)]
pub(crate) struct JetStream {
    pub(crate) requests: Requests,
    pub(crate) layout: Layout,
    streams: Vec<Stream>,
    pub(crate) has_replicas: bool,
    health: Arc<Health>,
    tasks: TaskTracker,
    stop: CancellationToken,
    max_payload: usize,
}

impl JetStream {
    /// Connects and makes what is missing of the streams. Takes no longer than the configured `timeout`.
    pub(crate) async fn open(
        namespace: &str,
        config: &JetStreamConfig,
        wanted: impl FnOnce(&Layout) -> Vec<(Kind, Map<String, Value>)>,
    ) -> Result<Self> {
        config.validate().map_err(refused)?;
        let layout = Layout::new(&config.queue_prefix, namespace)?;
        let deadline = Instant::now() + config.timeout;
        let streams = wanted(&layout).into_iter();
        let streams = streams
            .map(|(kind, wanted)| Stream::new(&layout, kind, wanted))
            .collect();
        let connecting = Self::connect(namespace, config, layout, streams);
        let jetstream = timeout_at(deadline, connecting)
            .await
            .map_err(|_| timed_out())??;
        jetstream.try_out(deadline).await?;
        Ok(jetstream)
    }

    async fn connect(
        namespace: &str,
        config: &JetStreamConfig,
        layout: Layout,
        streams: Vec<Stream>,
    ) -> Result<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let guard = stop.clone().drop_guard();
        let health = Arc::new(Health::new(namespace, Arc::new(Counters::default())));
        let client = connect(namespace, &config.connecting(), &health).await?;
        check_version(&client.server_info().version)?;
        let max_payload = client.max_payload().saturating_sub(HEADER_ROOM);
        let requests = Requests::start(client, health.clone(), &tasks, &stop).await?;
        guard.disarm();
        Ok(Self {
            requests,
            layout,
            streams,
            has_replicas: config.replicas > 1,
            health,
            tasks,
            stop,
            max_payload,
        })
    }

    /// Makes the streams, and learns whether this login may use them: otherwise a namespace would come up, and
    /// nothing be stored.
    async fn try_out(&self, deadline: Instant) -> Result<()> {
        let tried = self.make_and_store(deadline).await;
        if tried.is_ok() {
            return Ok(());
        }
        // The server's reason follows, if it has one.
        sleep(REASON).await;
        match self.health.last_error() {
            Some(complaint) => Err(misconfigured(format!(
                "{complaint}; allow the slot to use `$JS.API.>`, `{}>` and `_INBOX.>`",
                self.layout.prefix()
            ))),
            None => tried,
        }
    }

    async fn make_and_store(&self, deadline: Instant) -> Result<()> {
        for stream in &self.streams {
            stream.ready(self, deadline).await?;
            // Nothing has this sequence, so nothing is stored.
            let subject = self.layout.unused(stream.kind);
            let request = api::message(subject, api::expecting(u64::MAX), Bytes::new());
            match api::read::<api::Stored>(self.requests.one(request, deadline).await) {
                Err(failure) if failure.is_conflict() => {}
                Err(failure) => return Err(failure.into()),
                Ok(_) => return Err(unavailable("JetStream stored what it was not to store")),
            }
        }
        Ok(())
    }

    /// The largest payload, headers excluded.
    pub(crate) fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// The number of the connection that there is, or was last.
    pub(crate) fn connection(&self) -> u64 {
        self.health.connection()
    }

    /// # Errors
    /// For a slot that is closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(unavailable("the slot is closed"));
        }
        Ok(())
    }

    /// One of the streams, and when it was made.
    ///
    /// # Errors
    /// For a slot that is closed, and a stream that is missing and cannot be made.
    pub(crate) async fn stream(&self, kind: Kind, deadline: Instant) -> Result<(&Stream, u64)> {
        self.check_open()?;
        let stream = self.streams.iter().find(|stream| stream.kind == kind);
        let stream = stream.ok_or_else(|| unavailable("the slot has no such stream"))?;
        let generation = stream.ready(self, deadline).await?;
        Ok((stream, generation))
    }

    /// A request of the API and its answer.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        subject: String,
        body: &impl Serialize,
        deadline: Instant,
    ) -> Result<T, Failure> {
        api::read(self.requests.one(api::request(subject, body), deadline).await)
    }

    /// What is to be known of a stream.
    pub(crate) async fn info(
        &self,
        stream: &Stream,
        body: &impl Serialize,
        deadline: Instant,
    ) -> Result<Info, Failure> {
        let subject = format!("$JS.API.STREAM.INFO.{}", stream.name);
        let info: Info = self.noted(stream, self.call(subject, body, deadline).await)?;
        stream.is_told_of(&info);
        Ok(info)
    }

    /// How many messages there are with each of these subjects.
    pub(crate) async fn counts(
        &self,
        stream: &Stream,
        subjects: impl ExactSizeIterator<Item = &str> + Send,
        deadline: Instant,
    ) -> Vec<Result<u64, Failure>> {
        let at = format!("$JS.API.STREAM.INFO.{}", stream.name);
        let requests =
            subjects.map(|subject| api::request(at.clone(), &json!({ "subjects_filter": subject })));
        let read = |reply| {
            let info = self.noted(stream, api::read::<Info>(reply))?;
            Ok(info.state.subjects.values().sum())
        };
        self.requests.all(requests, deadline, read).await
    }

    /// Has the oldest messages removed of each of these subjects, but for so many.
    pub(crate) async fn trim(
        &self,
        stream: &Stream,
        subjects: impl ExactSizeIterator<Item = (&str, u64)> + Send,
        deadline: Instant,
    ) -> Vec<Result<Value, Failure>> {
        let at = format!("$JS.API.STREAM.PURGE.{}", stream.name);
        let body = |(subject, keep)| json!({ "filter": subject, "keep": keep });
        let requests = subjects.map(|subject| api::request(at.clone(), &body(subject)));
        let read = |reply| self.noted(stream, api::read(reply));
        self.requests.all(requests, deadline, read).await
    }

    /// Has messages removed; whether each was there.
    pub(crate) async fn delete(
        &self,
        stream: &Stream,
        sequences: &[u64],
        deadline: Instant,
    ) -> Vec<Result<bool, Failure>> {
        let at = format!("$JS.API.STREAM.MSG.DELETE.{}", stream.name);
        let body = |seq: &u64| json!({ "seq": seq, "no_erase": true });
        let requests = sequences.iter().map(|seq| api::request(at.clone(), &body(seq)));
        let read = |reply| match api::read::<Value>(reply) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_missing_message() => Ok(false),
            Err(failure) => Err(failure),
        };
        let read = |reply| self.noted(stream, read(reply));
        self.requests.all(requests, deadline, read).await
    }

    /// Has all messages removed that match a subject and come before a sequence; how many.
    pub(crate) async fn purge(
        &self,
        stream: &Stream,
        subject: &str,
        before: Option<u64>,
        deadline: Instant,
    ) -> Result<u64, Failure> {
        #[derive(Deserialize)]
        struct Purged {
            purged: u64,
        }
        let at = format!("$JS.API.STREAM.PURGE.{}", stream.name);
        let body = match before {
            Some(before) => json!({ "filter": subject, "seq": before }),
            None => json!({ "filter": subject }),
        };
        let purged = self.call::<Purged>(at, &body, deadline).await;
        self.noted(stream, purged).map(|Purged { purged }| purged)
    }

    /// Gives messages to a stream, and reads what it says to each.
    pub(crate) async fn store(
        &self,
        stream: &Stream,
        messages: impl ExactSizeIterator<Item = Request> + Send,
        deadline: Instant,
    ) -> Vec<Result<api::Stored, Failure>> {
        let read = |reply| self.noted(stream, api::read(reply));
        self.requests.all(messages, deadline, read).await
    }

    /// Remembers that a stream is gone.
    pub(crate) fn noted<T>(&self, stream: &Stream, outcome: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &outcome
            && failure.is_missing_stream()
        {
            stream.is_gone();
        }
        outcome
    }

    /// Accepts no more calls and releases the connection.
    pub(crate) async fn close(&self) {
        self.end();
        self.say_goodbye().await;
        self.tasks.close();
        // They were told to stop and wait for nothing else.
        self.tasks.wait().await;
    }

    async fn say_goodbye(&self) {
        let client = self.requests.client();
        if client.connection_state() != State::Connected {
            // It will be read when there is a connection again, and end that.
            let _ = client.drain().now_or_never();
            return;
        }
        let mut closed = self.health.closed.subscribe();
        let goodbye = async {
            if client.drain().await.is_ok() {
                // An error means that the connection is gone already.
                let _ = closed.wait_for(|closed| *closed).await;
            }
        };
        if timeout(GOODBYE, goodbye).await.is_err() {
            let namespace = &*self.health.namespace;
            tracing::debug!(namespace, "the server did not let the connection drain");
        }
    }

    fn end(&self) {
        self.stop.cancel();
        self.health.end();
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.end();
    }
}

/// # Errors
/// For a server that is too old, and one that cannot be told.
fn check_version(version: &str) -> Result<()> {
    let (major, minor) = NEEDED;
    let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(found), Some(part)) if (found, part) >= NEEDED => Ok(()),
        _ => Err(misconfigured(format!(
            "the server is nats-server {version}, and durability needs {major}.{minor} or newer; upgrade it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused_with_both_versions() {
        for version in ["2.11.0", "2.12.0-RC.1", "2.15.2", "3.0.0"] {
            check_version(version).unwrap();
        }
        for version in ["2.9.10", "2.10.29", "1.99.0", "", "dev"] {
            let refused = check_version(version).unwrap_err().to_string();
            assert!(refused.contains(version) && refused.contains("2.11"), "{refused}");
        }
    }
}
