//! What the process is told from outside.

use anyhow::Context;
use prism_proxy::Proxy;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals, from the moment of their installation: none is missed while the process starts.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn install() -> anyhow::Result<Self> {
        let install = |kind| signal(kind).context("signal handlers cannot be installed");
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hangup: install(SignalKind::hangup())?,
        })
    }

    /// Resolves with the name of the next signal to end.
    pub(crate) async fn again(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// As [`Self::again`]; until then, each SIGHUP makes the proxy read its configuration again.
    pub(crate) async fn until_told_to_end(&mut self, proxy: &Proxy) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    if proxy.reload().await.is_none() {
                        tracing::warn!("told to read the configuration again, but there is no file");
                    }
                }
            }
        }
    }
}
