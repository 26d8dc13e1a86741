//! The calls into the plugin: each on a task of its own, with a time limit, and ending in an event
//! whatever happens.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use prism_core::lifecycle::{Configuration, Drained, Event, Initialized as Offer};
use tokio::time::{Instant, timeout, timeout_at};

use super::Engine;
use crate::{Initialize, Plugin, Refusal};

/// How long a call may have been on its way when its sender learnt that no more should come.
const PASSAGE: Duration = Duration::from_millis(200);

impl<P: Plugin> Engine<P> {
    pub(super) fn initialize(&mut self, configuration: Configuration) {
        let Configuration {
            namespace,
            pattern_version,
            config,
            mark,
        } = configuration;
        tracing::info!(%namespace, version = mark.version, digest = %mark.digest, "configuring");
        let request = Initialize {
            namespace: namespace.clone(),
            version: pattern_version,
            config,
            config_version: mark.version,
            config_digest: mark.digest.to_string(),
        };
        let (plugin, within, cancel) = self.for_work(self.settings.initialize_within);
        self.work.spawn(async move {
            let call = guarded(within, plugin.initialize(request));
            let outcome = cancel.run_until_cancelled(call).await.unwrap_or_else(given_up);
            let outcome = outcome.map(|offer| Offer {
                scope: offer.scope,
                extra: offer.extra,
            });
            match &outcome {
                Ok(offer) => tracing::info!(%namespace, scope = %offer.scope, "configured"),
                Err(error) => tracing::error!(%namespace, %error, "configuration refused"),
            }
            Event::Initialized { namespace, outcome }
        });
    }

    pub(super) fn remove(&mut self, namespace: String) {
        tracing::info!(%namespace, "removing");
        let (plugin, within, cancel) = self.for_work(self.settings.initialize_within);
        self.work.spawn(async move {
            let call = guarded(within, plugin.remove(&namespace));
            let outcome = cancel.run_until_cancelled(call).await.unwrap_or_else(given_up);
            if let Err(error) = &outcome {
                tracing::error!(%namespace, %error, "not removed");
            }
            Event::Removed { namespace, outcome }
        });
    }

    pub(super) fn start(&mut self) {
        let (plugin, within, cancel) = self.for_work(self.settings.start_within);
        let server = self.server.clone();
        self.work.spawn(async move {
            let call = guarded(within, plugin.start());
            let outcome = cancel.run_until_cancelled(call).await.unwrap_or_else(given_up);
            Event::Started(match outcome {
                Ok(()) => {
                    server.serve();
                    tracing::info!(endpoint = server.endpoint(), "serving");
                    Ok(server.endpoint().to_owned())
                }
                Err(error) => {
                    tracing::error!(%error, "not started");
                    Err(error)
                }
            })
        });
    }

    pub(super) fn drain(&mut self, within: Option<Duration>) {
        let (plugin, server) = (self.plugin.clone(), self.server.clone());
        // Who waits for the end also waits for the stop: leave it its share.
        let within = match within {
            Some(within) => within - (within / 5).min(self.settings.stop_within),
            None => self.settings.drain_within,
        };
        tracing::info!(?within, calls = server.calls(), "draining");
        self.work.spawn(async move {
            let deadline = Instant::now() + within;
            // Calls that were sent before their sender knew are served like any other. They may cross with
            // a GOAWAY and then count as never taken, so that comes after them.
            let _ = timeout(PASSAGE.min(within / 10), server.idle()).await;
            server.refuse_connections();
            let plugin_drained = guarded_until(deadline, plugin.drain(deadline));
            let (counts, idle) = tokio::join!(plugin_drained, timeout_at(deadline, server.idle()));
            let left = if idle.is_ok() { 0 } else { server.calls() };
            let (counts, error) = match counts {
                Ok(Drained { drained, aborted }) => (
                    Drained {
                        drained,
                        aborted: aborted.max(left),
                    },
                    None,
                ),
                Err(error) => (
                    Drained {
                        drained: 0,
                        aborted: left,
                    },
                    Some(error),
                ),
            };
            let overran = error.is_some() || left > 0;
            let error = error.or_else(|| {
                overran.then(|| format!("{left} calls were still open when the drain deadline passed"))
            });
            tracing::info!(
                drained = counts.drained,
                aborted = counts.aborted,
                overran,
                "drained"
            );
            Event::Drained {
                counts,
                overran,
                error,
            }
        });
    }

    pub(super) fn stop(&mut self, within: Option<Duration>) {
        let plugin = self.plugin.clone();
        let longest = self.settings.stop_within;
        let within = within
            .map_or(longest, |within| within.min(longest))
            .max(Duration::from_secs(1));
        self.work.spawn(async move {
            let deadline = Instant::now() + within;
            let stopped = guarded_until(deadline, plugin.stop(deadline)).await;
            let outcome = match stopped {
                Ok(outcome) => outcome.map_err(|refusal| refusal.to_string()),
                Err(error) => Err(error),
            };
            match &outcome {
                Ok(()) => tracing::info!("stopped"),
                Err(error) => tracing::error!(%error, "stopped with errors"),
            }
            Event::Stopped(outcome)
        });
    }

    fn for_work(
        &self,
        within: Duration,
    ) -> (std::sync::Arc<P>, Duration, tokio_util::sync::CancellationToken) {
        (self.plugin.clone(), within, self.cancel.clone())
    }
}

/// Runs a plugin call within a time limit. A panic is a refusal like any other: the namespace that
/// caused it is refused and the others go on.
async fn guarded<T>(within: Duration, call: impl Future<Output = Result<T, Refusal>>) -> Result<T, String> {
    match timeout(within, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(outcome)) => outcome.map_err(|refusal| refusal.to_string()),
        Ok(Err(_)) => Err("the plugin panicked, look at its log".to_owned()),
        Err(_) => Err(format!(
            "not done within {within:?}, check that the backends can be reached"
        )),
    }
}

async fn guarded_until<T>(deadline: Instant, call: impl Future<Output = T>) -> Result<T, String> {
    match timeout_at(deadline, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => Err("the plugin panicked, look at its log".to_owned()),
        Err(_) => Err("not done when the deadline passed".to_owned()),
    }
}

fn given_up<T>() -> Result<T, String> {
    Err("given up, the plugin began to drain".to_owned())
}
