//! The multicast registry inside the proxy's own process. It is a runner like any other: it dials the
//! control port and is told what to serve.

use std::{future::pending, net::Ipv4Addr, time::Duration};

use anyhow::{Context, anyhow};
use multicast_registry::MulticastRegistry;
use prism_core::exposition::prometheus_text;
use prism_plugin_sdk::{ExitStatus, Runner};
use prism_proxy::{Proxy, listen};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// For the runner to end, once no call is under way any more.
const STOP: Duration = Duration::from_secs(10);

/// A runner in this process. Dropping it breaks it off.
pub(crate) struct Embedded {
    runner: AbortOnDropHandle<ExitStatus>,
    stop: CancellationToken,
}

impl Embedded {
    /// Starts it under this proxy.
    pub(crate) fn start(proxy: &Proxy) -> anyhow::Result<Self> {
        // For this host only: clients come through the proxy.
        let data = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
        data.set_nonblocking(true)?;
        let control = listen::reachable(proxy.addresses().control).to_string();
        let registry = MulticastRegistry::default();
        // It has no health port of its own.
        let exposition = registry.exposition();
        proxy
            .metrics()
            .show_beside(move || prometheus_text(&exposition()));
        let runner = Runner::new(registry)
            .proxies(vec![control])
            .data_listener(TcpListener::from_std(data)?);
        let stop = CancellationToken::new();
        let told = stop.clone();
        let runner = tokio::spawn(async move { runner.run(told.cancelled_owned()).await });
        Ok(Self {
            runner: AbortOnDropHandle::new(runner),
            stop,
        })
    }

    /// Ends it; `false` when it did not end in order.
    pub(crate) async fn stop(self) -> bool {
        if self.runner.is_finished() {
            return false;
        }
        self.stop.cancel();
        let status = tokio::time::timeout(STOP, self.runner).await;
        matches!(status, Ok(Ok(ExitStatus::Clean)))
    }
}

/// Resolves when the runner has ended without having been told to.
pub(crate) async fn failure(embedded: Option<&mut Embedded>) -> anyhow::Error {
    match embedded {
        Some(embedded) => match (&mut embedded.runner).await {
            Ok(status) => anyhow!("the embedded registry ended by itself: {status:?}"),
            Err(error) => anyhow!(error).context("the embedded registry was lost"),
        },
        None => pending().await,
    }
}
