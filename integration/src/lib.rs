//! Whole-system tests: real binaries, real servers, injected faults.
//!
//! A test describes a [`System`]: which namespaces, on which backends, with how many runners. It is
//! started on free ports and ended when the value is dropped.

pub mod calls;
mod counter;
mod failures;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use prism_client::Client;
use prism_testkit::{NatsServer, Process, RedisServer};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use counter::Counter;

/// How long a process may take to start. Far more than it needs, even where the machine is busy.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// How long something that happens by itself may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(15);

const ANY_PORTS: [SocketAddr; 3] = [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0); 3];

/// A running proxy.
pub struct Proxy {
    /// The process.
    pub process: Process,
    /// Where runners dial in.
    pub control: SocketAddr,
    /// Where clients call.
    pub data: SocketAddr,
    /// Where operators look.
    pub admin: SocketAddr,
    /// Its configuration file.
    pub config: PathBuf,
    directory: TempDir,
}

impl Proxy {
    /// Starts a proxy that serves these namespaces.
    pub async fn start(namespaces: &[Value]) -> Result<Self> {
        Self::start_with(&json!({ "namespaces": namespaces }), &[]).await
    }

    /// Starts a proxy with a whole configuration and further arguments.
    pub async fn start_with(config: &Value, arguments: &[&str]) -> Result<Self> {
        Self::start_in(config, arguments, &[]).await
    }

    /// As [`start_with`](Self::start_with), in this environment.
    pub async fn start_in(config: &Value, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("prism.yaml");
        std::fs::write(&path, serde_saphyr::to_string(config)?)?;
        let process = Self::spawn(Some(&path), ANY_PORTS, arguments, environment)?;
        Self::started(process, path, directory).await
    }

    /// Starts the whole system in one process.
    pub async fn embedded() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let process = Self::spawn(None, ANY_PORTS, &["--embedded"], &[])?;
        Self::started(process, PathBuf::new(), directory).await
    }

    /// Kills the proxy and starts it again on the same ports.
    pub async fn restart(self) -> Result<Self> {
        let Self {
            process,
            control,
            data,
            admin,
            config,
            directory,
        } = self;
        drop(process);
        let process = Self::spawn(Some(&config), [control, data, admin], &[], &[])?;
        Self::started(process, config, directory).await
    }

    /// Replaces the configuration file; the proxy notices by itself.
    pub fn configure(&self, namespaces: &[Value]) -> Result<()> {
        // As editors and configuration maps do it: a new file in place of the old one.
        let next = self.directory.path().join("next.yaml");
        std::fs::write(
            &next,
            serde_saphyr::to_string(&json!({ "namespaces": namespaces }))?,
        )?;
        std::fs::rename(next, &self.config)?;
        Ok(())
    }

    fn spawn(
        config: Option<&std::path::Path>,
        addresses: [SocketAddr; 3],
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Process> {
        let [control, data, admin] = addresses.map(|address| address.to_string());
        let config = config.map(|path| path.display().to_string());
        let mut all = vec![
            "--control-addr",
            &control,
            "--data-addr",
            &data,
            "--admin-addr",
            &admin,
            "-v",
        ];
        all.extend(config.iter().flat_map(|path| ["--config", path]));
        all.extend(arguments);
        Process::spawn("prism-proxy", &all, environment)
    }

    async fn started(process: Process, config: PathBuf, directory: TempDir) -> Result<Self> {
        let [control, data, admin] = bound(&process, ["control", "data", "admin"]).await?;
        Ok(Self {
            process,
            control,
            data,
            admin,
            config,
            directory,
        })
    }

    /// A client of a namespace through this proxy.
    pub fn client(&self, namespace: &str) -> Result<Client> {
        client_of(self.data, namespace)
    }

    /// An admin page, with its status code.
    pub async fn admin(&self, path: &str) -> Result<(u16, String)> {
        http_get(self.admin, path).await
    }

    /// An admin page as JSON.
    pub async fn admin_json(&self, path: &str) -> Result<Value> {
        let (status, body) = self.admin(path).await?;
        serde_json::from_str(&body).with_context(|| format!("{path} answered {status}: {body}"))
    }

    /// Waits until a namespace is served by this many runners at once.
    pub async fn wait_for_runners(&self, namespace: &str, count: usize) {
        let what = format!("`{namespace}` is served by {count} runners");
        prism_testkit::eventually(START_LIMIT, &what, async || {
            let Ok(listed) = self.admin_json("/api/v1/namespaces").await else {
                return false;
            };
            serving(&listed, namespace) == Some(count)
        })
        .await;
    }
}

/// How many runners the proxy routes a namespace to.
fn serving(listed: &Value, namespace: &str) -> Option<usize> {
    let entries = listed.get("namespaces").unwrap_or(listed).as_array()?;
    let entry = entries.iter().find(|entry| entry["name"] == namespace)?;
    Some(entry["serving"].as_array()?.len())
}

/// A running runner.
pub struct Runner {
    /// The process.
    pub process: Process,
    /// Where it serves the pattern.
    pub data: SocketAddr,
    /// Where it serves `/health` and `/metrics`.
    pub health: SocketAddr,
}

impl Runner {
    /// Starts a runner under the proxy at this control address.
    pub async fn under(control: SocketAddr) -> Result<Self> {
        let control = control.to_string();
        Self::start(&["-proxy-addr", &control], &[]).await
    }

    /// Starts a runner with these arguments and environment.
    pub async fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let mut all = vec!["-data-addr", "127.0.0.1:0", "-health-port", "0", "-v"];
        all.extend(arguments);
        let process = Process::spawn("multicast-registry-runner", &all, environment)?;
        let [data, health] = bound(&process, ["data", "health"]).await?;
        let health = SocketAddr::new(data.ip(), health.port());
        Ok(Self {
            process,
            data,
            health,
        })
    }

    /// Waits until it serves what it was started with.
    pub async fn ready(&self) {
        prism_testkit::eventually(START_LIMIT, "the runner is healthy", async || {
            http_get(self.health, "/health")
                .await
                .is_ok_and(|(status, body)| status == 200 && body.contains("running"))
        })
        .await;
    }

    /// A client of a namespace, past any proxy.
    pub fn client(&self, namespace: &str) -> Result<Client> {
        client_of(self.data, namespace)
    }
}

/// A proxy, its runners, and the backends behind them.
pub struct System {
    /// The proxy.
    pub proxy: Proxy,
    /// The runners.
    pub runners: Vec<Runner>,
    /// The store, where one is used.
    pub redis: Option<RedisServer>,
    /// The broker, where one is used.
    pub nats: Option<NatsServer>,
}

impl System {
    /// The namespace `test` on memory slots, with one runner.
    pub async fn on_memory() -> Result<Self> {
        let proxy = Proxy::start(&[memory_namespace("test")]).await?;
        Self::serve(proxy, 1, None, None).await
    }

    /// The namespace `test` on Redis and NATS, with this many runners.
    pub async fn on_redis_and_nats(runners: usize) -> Result<Self> {
        let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
        let proxy = Proxy::start(&[shared_namespace("test", &redis, &nats)]).await?;
        Self::serve(proxy, runners, Some(redis), Some(nats)).await
    }

    /// The same with no view in the runners.
    pub async fn on_redis_and_nats_without_view(runners: usize) -> Result<Self> {
        Self::on_redis_and_nats_with(runners, json!({ "view": "none" })).await
    }

    /// The same with such a behavior.
    pub async fn on_redis_and_nats_with(runners: usize, behavior: Value) -> Result<Self> {
        let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
        let mut namespace = shared_namespace("test", &redis, &nats);
        namespace["behavior"] = behavior;
        let proxy = Proxy::start(&[namespace]).await?;
        Self::serve(proxy, runners, Some(redis), Some(nats)).await
    }

    /// The namespace `test` of this proxy with this many runners and the backends behind them.
    pub async fn serve(
        proxy: Proxy,
        count: usize,
        redis: Option<RedisServer>,
        nats: Option<NatsServer>,
    ) -> Result<Self> {
        let mut runners = Vec::new();
        for _ in 0..count {
            runners.push(Runner::under(proxy.control).await?);
        }
        proxy.wait_for_runners("test", count).await;
        Ok(Self {
            proxy,
            runners,
            redis,
            nats,
        })
    }

    /// A client of the namespace `test` through the proxy.
    pub fn client(&self) -> Result<Client> {
        self.proxy.client("test")
    }
}

/// A namespace on memory slots.
pub fn memory_namespace(name: &str) -> Value {
    json!({
        "name": name,
        "pattern": "multicast-registry",
        "slots": { "registry": "memory", "messaging": "memory" },
    })
}

/// A namespace on Redis and NATS.
pub fn shared_namespace(name: &str, redis: &RedisServer, nats: &NatsServer) -> Value {
    shared_namespace_at(name, redis.addr(), nats.addr())
}

/// A namespace on whatever listens there.
pub fn shared_namespace_at(name: &str, redis: SocketAddr, nats: SocketAddr) -> Value {
    json!({
        "name": name,
        "pattern": "multicast-registry",
        "slots": {
            "registry": { "backend": "redis", "config": { "address": redis.to_string() } },
            "messaging": { "backend": "nats", "config": { "servers": [format!("nats://{nats}")] } },
        },
    })
}

/// A client with one attempt a call, so that tests see what happened on the wire.
pub fn client_of(data: SocketAddr, namespace: &str) -> Result<Client> {
    let client = Client::builder()
        .endpoint(data.to_string())
        .namespace(namespace)
        .attempts(1);
    Ok(client.timeout(Duration::from_secs(5)).connect_lazy()?)
}

/// Reads `<what> <address>` for each from the standard output.
async fn bound<const N: usize>(process: &Process, names: [&str; N]) -> Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for (address, name) in addresses.iter_mut().zip(names) {
        let line = process.stdout_line(&format!("{name} "), START_LIMIT).await?;
        let (_, text) = line.split_once(' ').context("no address")?;
        *address = text
            .trim()
            .parse()
            .with_context(|| format!("`{line}` names no address"))?;
    }
    Ok(addresses)
}

/// A plain HTTP GET, with the status code and the body.
pub async fn http_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange)
        .await
        .context("no answer in time")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no header")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The files that are made from the code, by their path from the root.
pub fn generated() -> Result<Vec<(&'static str, String)>> {
    let manifest = serde_saphyr::to_string(&multicast_registry::plugin::manifest())?;
    let manifest = format!("# Written by `make generate`. Do not edit.\n{manifest}");
    let reference = format!(
        "{}\n{}\n\n{}",
        include_str!("configuration.md"),
        multicast_registry::config::reference().trim_end(),
        prism_proxy::config::reference()
    );
    let guarantees = format!(
        "{}{}\n\n{}",
        include_str!("guarantees.md"),
        multicast_registry::config::guarantees().trim_end(),
        failures::section()
    );
    Ok(vec![
        ("docs/guarantees.md", guarantees),
        ("plugin-manifest.yaml", manifest),
        ("docs/configuration.md", reference),
    ])
}
