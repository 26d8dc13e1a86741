//! The control plane over the real wire: against a scripted runner, and against the real SDK.

mod plugin;
mod scripted;
mod sdk;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prism_core::id::Digest;
use prism_proxy::{
    control::{Control, DesiredNamespace, NamespaceView, Settings, Snapshot},
    route::Table,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::timeout,
};

/// Longer than anything here takes, shorter than anybody's patience.
const SOON: Duration = Duration::from_secs(10);

/// A proxy's control plane on a port of its own.
struct Proxy {
    control: Control,
    table: Arc<Table>,
    address: SocketAddr,
}

impl Proxy {
    async fn start(namespaces: &[DesiredNamespace]) -> Self {
        Self::start_with("127.0.0.1:0".parse().unwrap(), quick(), namespaces).await
    }

    async fn start_with(address: SocketAddr, settings: Settings, namespaces: &[DesiredNamespace]) -> Self {
        let table = Arc::new(Table::default());
        let control = Control::new(table.clone(), settings);
        let address = control.serve(listen(address)).unwrap();
        let proxy = Self {
            control,
            table,
            address,
        };
        proxy.apply(namespaces).await;
        proxy
    }

    async fn apply(&self, namespaces: &[DesiredNamespace]) {
        self.table
            .declare(namespaces.iter().map(|namespace| namespace.name.clone()));
        self.control.apply(namespaces.to_vec()).await;
    }

    /// Waits until the control plane shows something.
    async fn until(&self, what: &str, is: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut watch = self.control.watch();
        match timeout(SOON, watch.wait_for(|snapshot| is(snapshot))).await {
            Ok(shown) => shown.unwrap().clone(),
            Err(_) => panic!("never: {what}; instead {:#?}", self.control.snapshot()),
        }
    }

    async fn until_served(&self, namespace: &str, by: usize) -> Arc<Snapshot> {
        self.until("served", |snapshot| {
            find(snapshot, namespace).is_some_and(|view| view.serving.len() == by)
        })
        .await
    }

    /// Where calls go, as the data path sees it.
    fn endpoints(&self, namespace: &str) -> Vec<String> {
        let (_, targets) = self.table.snapshot().remove(namespace).unwrap();
        targets.into_iter().map(|target| target.endpoint).collect()
    }

    async fn stop(self) {
        self.control.shutdown(tokio::time::Instant::now() + SOON).await;
    }
}

/// A listener on a port that was just in use, if need be.
fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

/// The defaults, with health checks that a test can wait for.
fn quick() -> Settings {
    Settings {
        health_interval: Duration::from_millis(200),
        health_within: Duration::from_millis(500),
        ..Settings::default()
    }
}

fn find<'a>(snapshot: &'a Snapshot, namespace: &str) -> Option<&'a NamespaceView> {
    snapshot.namespaces.iter().find(|view| view.name == namespace)
}

fn desired(name: &str, version: i64, config: Value) -> DesiredNamespace {
    let Value::Object(config) = config else {
        panic!("not an object: {config}")
    };
    DesiredNamespace {
        name: name.to_owned(),
        pattern: "test-pattern".to_owned(),
        pattern_version: "v1".to_owned(),
        digest: Digest::of(&config),
        config,
        version,
        discard_on_move: false,
    }
}

fn good(name: &str) -> DesiredNamespace {
    desired(
        name,
        1,
        json!({"slots": {"registry": {"backend": "memory", "config": {"port": 6379}}}}),
    )
}
