//! The real thing: a proxy, runners, and a broker behind a link that can be disturbed.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use integration::{Proxy, Runner, shared_namespace_at};
use prism_client::Client;
use prism_testkit::{FaultProxy, NatsServer, RedisServer};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{callers::Clients, history::Tap, tap};

/// How long a consumer has for a message before it comes again.
const ACK_TIMEOUT: &str = "1s";

/// A broker that is observed.
pub(super) enum Broker {
    Nats(NatsServer, PathBuf),
    Redis(RedisServer, PathBuf),
}

impl Broker {
    async fn nats(directory: &TempDir, more: &str) -> Result<Self> {
        let trace = directory.path().join("trace.log");
        let config = format!("{}{more}\n", tap::traced(&trace));
        Ok(Self::Nats(NatsServer::start_with(&config).await?, trace))
    }

    async fn redis(directory: &TempDir) -> Result<Self> {
        let path = directory.path().display().to_string();
        let log = ["--appendonly", "yes", "--appendfsync", "everysec"];
        let whole = ["--auto-aof-rewrite-percentage", "0", "--dir", &path];
        let server = RedisServer::start_with(&[&log[..], &whole[..]].concat()).await?;
        Ok(Self::Redis(server, directory.path().to_owned()))
    }

    pub(super) fn freeze(&mut self) -> Result<()> {
        Ok(match self {
            Self::Nats(server, _) => server.freeze(),
            Self::Redis(server, _) => server.freeze(),
        }?)
    }

    pub(super) fn thaw(&mut self) -> Result<()> {
        Ok(match self {
            Self::Nats(server, _) => server.thaw(),
            Self::Redis(server, _) => server.thaw(),
        }?)
    }

    pub(super) fn is_up(&self) -> bool {
        match self {
            Self::Nats(server, _) => server.pid(),
            Self::Redis(server, _) => server.pid(),
        }
        .is_some()
    }

    /// Kills it, and starts it again with what it had persisted.
    pub(super) async fn restart(&mut self) -> Result<()> {
        match self {
            Self::Nats(server, _) => server.restart().await,
            Self::Redis(server, _) => server.restart().await,
        }
    }

    /// What it had, by its own account.
    pub(super) fn tap(&self) -> Result<Tap> {
        match self {
            Self::Nats(_, trace) => tap::of_nats(trace),
            Self::Redis(_, directory) => tap::of_redis(directory),
        }
    }

    fn addr(&self) -> std::net::SocketAddr {
        match self {
            Self::Nats(server, _) => server.addr(),
            Self::Redis(server, _) => server.addr(),
        }
    }
}

/// A running system whose namespace is `test`.
pub(super) struct World {
    pub(super) proxy: Proxy,
    pub(super) runners: Vec<Runner>,
    /// On the way from the runners to a broker.
    pub(super) link: FaultProxy,
    /// The broker that has to tell the truth: it has the messages.
    pub(super) broker: Broker,
    _others: Vec<Other>,
    _directory: TempDir,
}

/// A server that is left alone.
enum Other {
    Nats(#[expect(dead_code, reason = "it runs while this lives")] NatsServer),
    Redis(#[expect(dead_code, reason = "it runs while this lives")] RedisServer),
}

impl World {
    /// NATS behind the link, and nothing is stored.
    pub(super) async fn on_nats() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let broker = Broker::nats(&directory, "").await?;
        let link = FaultProxy::start(broker.addr()).await?;
        let registry = RedisServer::start().await?;
        let namespace = shared_namespace_at("test", registry.addr(), link.addr());
        Self::serve(namespace, link, broker, vec![Other::Redis(registry)], directory).await
    }

    /// NATS with JetStream behind the link.
    pub(super) async fn on_jetstream() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let broker = Broker::nats(&directory, "jetstream: enabled").await?;
        let link = FaultProxy::start(broker.addr()).await?;
        let registry = RedisServer::start().await?;
        let mut namespace = shared_namespace_at("test", registry.addr(), link.addr());
        let servers = json!({ "servers": [format!("nats://{}", link.addr())] });
        namespace["slots"]["durability"] = json!({ "backend": "nats", "config": servers });
        Self::serve(namespace, link, broker, vec![Other::Redis(registry)], directory).await
    }

    /// Redis Streams behind the link; the registry and NATS are not disturbed.
    pub(super) async fn on_redis_streams() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let broker = Broker::redis(&directory).await?;
        let link = FaultProxy::start(broker.addr()).await?;
        let (registry, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
        let mut namespace = shared_namespace_at("test", registry.addr(), nats.addr());
        namespace["slots"]["durability"] = stored_at(link.addr());
        let others = vec![Other::Redis(registry), Other::Nats(nats)];
        Self::serve(namespace, link, broker, others, directory).await
    }

    /// Redis Streams that are not disturbed; behind the link is NATS, which carries word between runners.
    pub(super) async fn with_messaging_behind_the_link() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let broker = Broker::redis(&directory).await?;
        let (registry, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
        let link = FaultProxy::start(nats.addr()).await?;
        let mut namespace = shared_namespace_at("test", registry.addr(), link.addr());
        namespace["slots"]["durability"] = stored_at(broker.addr());
        let others = vec![Other::Redis(registry), Other::Nats(nats)];
        Self::serve(namespace, link, broker, others, directory).await
    }

    async fn serve(
        mut namespace: Value,
        link: FaultProxy,
        broker: Broker,
        others: Vec<Other>,
        directory: TempDir,
    ) -> Result<Self> {
        namespace["behavior"] = json!({
            "ack_timeout": ACK_TIMEOUT, "max_deliver": 1_000, "max_unacked": 1_000, "inbox_max_messages": 100_000,
        });
        let proxy = Proxy::start(&[namespace]).await?;
        let runners = vec![
            Runner::under(proxy.control).await?,
            Runner::under(proxy.control).await?,
        ];
        proxy.wait_for_runners("test", 2).await;
        Ok(Self {
            proxy,
            runners,
            link,
            broker,
            _others: others,
            _directory: directory,
        })
    }

    pub(super) fn client(&self) -> Result<Client> {
        self.proxy.client("test")
    }

    /// A client of each runner, past the proxy.
    pub(super) fn clients(&self) -> Result<Clients> {
        let clients: Result<_> = self.runners.iter().map(|runner| runner.client("test")).collect();
        Ok(Arc::new(Mutex::new(clients?)))
    }

    /// Kills a runner at once, and starts another one in its place.
    pub(super) async fn replace_runner(&mut self, number: usize, clients: &Clients) -> Result<()> {
        drop(self.runners.remove(number));
        let runner = Runner::under(self.proxy.control).await?;
        clients.lock().unwrap()[number] = runner.client("test")?;
        self.runners.insert(number, runner);
        Ok(())
    }
}

fn stored_at(address: std::net::SocketAddr) -> Value {
    json!({ "backend": "redis-stream", "config": { "address": address.to_string() } })
}
