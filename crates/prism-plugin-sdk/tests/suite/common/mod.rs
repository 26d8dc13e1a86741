//! A scripted proxy and a plugin that does as its configuration says.

pub(crate) mod plugin;
pub(crate) mod proxy;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prism_plugin_sdk::{ExitStatus, Initialize, Runner, Settings};
use prism_proto::interfaces::{InitializeRequest, proxy_command::Command};
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::timeout,
};

use self::plugin::{Calls, TestPlugin};

/// Longer than anything here takes, shorter than anybody's patience.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A runner under test.
pub(crate) struct Running {
    pub(crate) data: SocketAddr,
    pub(crate) calls: Calls,
    /// Lets those `initialize` calls end that wait.
    pub(crate) gate: Arc<Semaphore>,
    leave: Option<oneshot::Sender<()>>,
    task: JoinHandle<ExitStatus>,
}

impl Running {
    /// Starts a runner for these proxies.
    pub(crate) async fn start(proxies: Vec<String>) -> Self {
        Self::start_with(proxies, |runner| runner).await
    }

    pub(crate) async fn start_with(
        proxies: Vec<String>,
        adjust: impl FnOnce(Runner<TestPlugin>) -> Runner<TestPlugin>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let data = listener.local_addr().unwrap();
        let plugin = TestPlugin::default();
        let (calls, gate) = (plugin.calls.clone(), plugin.gate.clone());
        let (leave, left) = oneshot::channel();
        let runner = Runner::new(plugin).proxies(proxies).data_listener(listener);
        let runner = adjust(runner.settings(quick()));
        let task = tokio::spawn(runner.run(async {
            // A dropped sender is a test that does not mean to end the runner.
            if left.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        Self {
            data,
            calls,
            gate,
            leave: Some(leave),
            task,
        }
    }

    /// As SIGTERM does.
    pub(crate) fn leave(&mut self) {
        self.leave.take().unwrap().send(()).unwrap();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        timeout(Duration::from_secs(20), &mut self.task)
            .await
            .expect("the runner does not end")
            .expect("the runner panicked")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The defaults, with heartbeats that a test can wait for.
pub(crate) fn quick() -> Settings {
    Settings {
        heartbeat: Duration::from_millis(200),
        ..Settings::default()
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

/// A push as a proxy of this project sends it.
pub(crate) fn push(namespace: &str, version: i64, config: Value) -> Command {
    let config = object(config);
    let digest = prism_core::id::Digest::of(&config).to_string();
    Command::Initialize(InitializeRequest {
        name: namespace.to_owned(),
        version: "v1".to_owned(),
        config: Some(prism_core::structure::from_json(&config).unwrap()),
        remove: false,
        config_version: version,
        config_digest: digest,
    })
}

/// A push as a foreign proxy sends it.
pub(crate) fn foreign_push(namespace: &str, config: Value) -> Command {
    Command::Initialize(InitializeRequest {
        name: namespace.to_owned(),
        version: "v1".to_owned(),
        config: Some(prism_core::structure::from_json(&object(config)).unwrap()),
        ..InitializeRequest::default()
    })
}

pub(crate) fn initial(namespace: &str, config: Value) -> Initialize {
    Initialize {
        namespace: namespace.to_owned(),
        version: "v1".to_owned(),
        config: object(config),
        config_version: 0,
        config_digest: String::new(),
    }
}

pub(crate) fn good() -> Value {
    json!({"slots": {}})
}
