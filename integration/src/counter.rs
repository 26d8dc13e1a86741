//! Counting what a broker delivers to identities.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use prism_testkit::NatsServer;
use tokio_util::task::AbortOnDropHandle;

/// How many messages async-nats keeps for it.
const QUEUE: usize = 1 << 20;

/// A subscription that counts what comes, as long as it lives.
pub struct Counter {
    received: Arc<AtomicUsize>,
    expected: usize,
    _counting: AbortOnDropHandle<()>,
}

impl Counter {
    /// Subscribes to everything below `prefix`, and counts what goes to identities that begin like this: runners say
    /// things to one another there too. When it returns, the server knows.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn subscribe(nats: &NatsServer, prefix: &str, identities: &str) -> Result<Self> {
        let options = async_nats::ConnectOptions::new().subscription_capacity(QUEUE);
        let client = options.connect(nats.url()).await?;
        let mut messages = client.subscribe(format!("{prefix}.*")).await?;
        // A flush would not do: it is local to the client library.
        let inbox = client.new_inbox();
        let mut echo = client.subscribe(inbox.clone()).await?;
        client.publish(inbox, "".into()).await?;
        echo.next().await.context("no echo")?;
        let received = Arc::new(AtomicUsize::new(0));
        let (counted, counts) = (received.clone(), format!("{prefix}.{identities}"));
        let counting = tokio::spawn(async move {
            // The connection is to live as long as its subscription.
            let _client = client;
            while let Some(message) = messages.next().await {
                counted.fetch_add(usize::from(message.subject.starts_with(&counts)), Relaxed);
            }
        });
        Ok(Self {
            received,
            expected: 0,
            _counting: AbortOnDropHandle::new(counting),
        })
    }

    /// Waits until so many more have come.
    ///
    /// # Errors
    /// When fewer came in time, or more.
    pub async fn more(&mut self, count: usize, patience: Duration) -> Result<()> {
        self.expected += count;
        let began = Instant::now();
        while self.received.load(Relaxed) < self.expected {
            let (received, expected) = (self.received.load(Relaxed), self.expected);
            ensure!(
                began.elapsed() < patience,
                "{received} of {expected} messages came"
            );
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let (received, expected) = (self.received.load(Relaxed), self.expected);
        ensure!(
            received == expected,
            "{received} messages came, {expected} were sent"
        );
        Ok(())
    }
}
