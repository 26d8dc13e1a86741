//! A proxy between a scripted client and scripted runners, all speaking raw HTTP/2.
#![allow(unreachable_pub, dead_code)]

pub mod client;
pub mod runner;

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use prism_core::{caller::Proof, id::InstanceId};
use prism_proxy::{
    forward::{
        Forward, Limits,
        lane::{self, Lanes},
    },
    metrics::Metrics,
    route::{Table, Target},
    serve::{Port, Settings},
};
use tokio::net::TcpListener;

pub use client::{Client, Reply};
pub use runner::{Exchange, Runner};

/// The namespace of all tests.
pub const NAMESPACE: &str = "test";
/// A unary method.
pub const UNARY: &str = "/prism.pattern.MulticastRegistryPattern/Register";
/// A method that streams both ways.
pub const STREAM: &str = "/prism.pattern.MulticastRegistryPattern/Subscribe";

/// Longer than anything in a test takes, unless something hangs.
pub const LONG: Duration = Duration::from_secs(20);

/// A data port with a table of its own.
pub struct Proxy {
    pub table: Arc<Table>,
    pub forward: Arc<Forward>,
    pub metrics: Arc<Metrics>,
    pub port: Port,
}

impl Proxy {
    pub async fn start(limits: Limits) -> Self {
        Self::with(limits, Settings::default()).await
    }

    pub async fn with(limits: Limits, settings: Settings) -> Self {
        let lanes = lane::Settings {
            connect_timeout: Duration::from_millis(500),
            ..lane::Settings::default()
        };
        Self::with_lanes(limits, settings, lanes).await
    }

    pub async fn with_lanes(limits: Limits, settings: Settings, lanes: lane::Settings) -> Self {
        let metrics = Arc::new(Metrics::new());
        let table = Arc::new(Table::new(Arc::new(Lanes::new(lanes)), metrics.clone()));
        table.declare([NAMESPACE]);
        let forward = Arc::new(Forward::new(table.clone(), limits));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answering = forward.clone();
        let port = Port::serve(listener, settings, metrics.connections.clone(), move |request| {
            let forward = answering.clone();
            async move { forward.call(request).await }
        })
        .unwrap();
        Self {
            table,
            forward,
            metrics,
            port,
        }
    }

    /// Routes the namespace to these runners; the unary method is not idempotent.
    pub fn serve(&self, runners: &[&Runner]) {
        self.serve_at(runners.iter().map(|runner| runner.address), &[]);
    }

    pub fn serve_at(&self, addresses: impl IntoIterator<Item = SocketAddr>, idempotent: &[&str]) {
        let idempotent: Arc<HashSet<_>> =
            Arc::new(idempotent.iter().map(|path| (*path).to_owned()).collect());
        let targets = addresses.into_iter().map(|address| Target {
            instance_id: InstanceId::generate("test", 1),
            endpoint: address.to_string(),
            idempotent: idempotent.clone(),
            proof: None,
        });
        assert!(self.table.set(NAMESPACE, targets.collect()));
    }

    /// One runner, which is to know that calls come from this proxy.
    pub fn serve_proven(&self, address: SocketAddr, proof: Proof) {
        let target = Target {
            instance_id: InstanceId::generate("test", 1),
            endpoint: address.to_string(),
            idempotent: Arc::default(),
            proof: Some(proof),
        };
        assert!(self.table.set(NAMESPACE, vec![target]));
    }

    /// Another runner beside those that are there; the unary method is idempotent at all of them.
    pub fn serve_beside(&self, address: SocketAddr) {
        let mut targets = self.table.snapshot().remove(NAMESPACE).unwrap().1;
        targets.push(Target {
            instance_id: InstanceId::generate("test", 1),
            endpoint: address.to_string(),
            idempotent: Arc::new([UNARY.to_owned()].into()),
            proof: None,
        });
        assert!(self.table.set(NAMESPACE, targets));
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.port.address()).await
    }

    pub fn counter(&self, line: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let found = text.lines().find_map(|candidate| candidate.strip_prefix(line));
        found.map_or(0, |value| value.trim().parse().unwrap())
    }
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

/// One gRPC message with this content.
pub fn message(content: &[u8]) -> bytes::Bytes {
    let mut framed = vec![0];
    framed.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
    framed.extend(content);
    framed.into()
}

/// Waits for something that must come, and fails instead of hanging.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what)
        .await
        .expect("it did not come in time")
}
