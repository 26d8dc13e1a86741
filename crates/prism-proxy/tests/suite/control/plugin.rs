//! A plugin that remembers what it was asked.

use std::sync::Arc;

use prism_plugin_sdk::{
    Description, Drained, ExitStatus, Health, Initialize, Initialized, Plugin, Refusal, Runner, Scope,
    Settings,
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;

use super::SOON;

#[derive(Clone)]
pub(crate) struct Remembering {
    calls: Arc<watch::Sender<Vec<String>>>,
    scope: Scope,
}

impl Remembering {
    fn note(&self, call: String) {
        self.calls.send_modify(|calls| calls.push(call));
    }
}

impl Plugin for Remembering {
    fn description(&self) -> Description {
        Description {
            name: "test-pattern".to_owned(),
            version: "1".to_owned(),
            extra: [("prism.namespaces".to_owned(), "many".to_owned())].into(),
            ..Description::default()
        }
    }

    async fn initialize(&self, request: Initialize) -> Result<Initialized, Refusal> {
        self.note(format!(
            "initialize {} {}",
            request.namespace, request.config_version
        ));
        match request.config.get("bad") {
            Some(_) => Err(Refusal::new("no such host")
                .slot("registry")
                .key("config.address")),
            None => Ok(Initialized {
                scope: self.scope,
                ..Initialized::default()
            }),
        }
    }

    async fn remove(&self, namespace: &str) -> Result<(), Refusal> {
        self.note(format!("remove {namespace}"));
        Ok(())
    }

    fn routes(&self) -> Routes {
        Routes::default()
    }

    async fn start(&self) -> Result<(), Refusal> {
        self.note("start".to_owned());
        Ok(())
    }

    async fn health(&self) -> Health {
        Health::healthy()
    }

    async fn drain(&self, _: Instant) -> Drained {
        self.note("drain".to_owned());
        Drained::default()
    }

    async fn stop(&self, _: Instant) -> Result<(), Refusal> {
        self.note("stop".to_owned());
        Ok(())
    }
}

/// A runner of the real SDK, in this process.
pub(crate) struct Real {
    pub(crate) endpoint: String,
    plugin: Remembering,
    leave: Option<oneshot::Sender<()>>,
    task: AbortOnDropHandle<ExitStatus>,
}

impl Real {
    pub(crate) async fn start(proxies: Vec<String>, scope: Scope) -> Self {
        Self::start_with(proxies, scope, Settings::default()).await
    }

    pub(crate) async fn start_with(proxies: Vec<String>, scope: Scope, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let plugin = Remembering {
            calls: Arc::new(watch::Sender::new(Vec::new())),
            scope,
        };
        let (leave, left) = oneshot::channel();
        let runner = Runner::new(plugin.clone())
            .proxies(proxies)
            .data_listener(listener)
            .settings(settings);
        let task = tokio::spawn(runner.run(async {
            if left.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        Self {
            endpoint,
            plugin,
            leave: Some(leave),
            task: AbortOnDropHandle::new(task),
        }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.plugin.calls.borrow().clone()
    }

    /// As SIGTERM does.
    pub(crate) fn leave(&mut self) {
        self.leave.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        timeout(SOON, &mut self.task)
            .await
            .expect("the runner does not end")
            .unwrap()
    }
}
