//! What the process is told from outside.

use anyhow::Context;
use prism_core::shutdown;
use prism_proxy::Proxy;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals, from the moment of their installation: none is missed while the process starts.
pub(crate) struct Signals {
    end: shutdown::Signals,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn install() -> anyhow::Result<Self> {
        let refused = "signal handlers cannot be installed";
        Ok(Self {
            end: shutdown::Signals::install().context(refused)?,
            hangup: signal(SignalKind::hangup()).context(refused)?,
        })
    }

    /// Resolves with the name of the next signal to end.
    pub(crate) async fn again(&mut self) -> &'static str {
        self.end.next().await
    }

    /// As [`Self::again`]; until then, each SIGHUP makes the proxy read its configuration again.
    pub(crate) async fn until_told_to_end(&mut self, proxy: &Proxy) -> &'static str {
        loop {
            tokio::select! {
                signal = self.end.next() => return signal,
                _ = self.hangup.recv() => {
                    if proxy.reload().await.is_none() {
                        tracing::warn!("told to read the configuration again, but there is no file");
                    }
                }
            }
        }
    }
}
