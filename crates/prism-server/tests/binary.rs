//! The binary as operators run it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{collections::HashMap, fs, net::SocketAddr, time::Duration};

use prism_proto::pattern::{
    EnumerateRequest, RegisterRequest, multicast_registry_pattern_client::MulticastRegistryPatternClient,
};
use prism_testkit::{Process, Signal, eventually};
use tonic::{Code, Request, metadata::MetadataValue, transport::Channel};

const LONG: Duration = Duration::from_secs(30);

struct Running {
    process: Process,
    addresses: HashMap<&'static str, SocketAddr>,
}

impl Running {
    /// On free ports, with the older dash style.
    async fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut all = vec![
            "-control-addr",
            "127.0.0.1:0",
            "-data-addr",
            "127.0.0.1:0",
            "--admin-addr=127.0.0.1:0",
        ];
        all.extend(arguments);
        let process = Process::spawn("prism-proxy", &all, environment).unwrap();
        let mut addresses = HashMap::new();
        for port in ["control", "data", "admin"] {
            let line = process.stdout_line(&format!("{port} "), LONG).await.unwrap();
            addresses.insert(port, line.split_once(' ').unwrap().1.parse().unwrap());
        }
        Self { process, addresses }
    }

    async fn client(&self) -> MulticastRegistryPatternClient<Channel> {
        let endpoint = Channel::from_shared(format!("http://{}", self.addresses["data"])).unwrap();
        MulticastRegistryPatternClient::new(endpoint.timeout(LONG).connect().await.unwrap())
    }
}

fn in_namespace<T>(namespace: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-prism-namespace", MetadataValue::from_static(namespace));
    request
}

fn alice() -> RegisterRequest {
    RegisterRequest {
        identity: "alice".to_owned(),
        ..RegisterRequest::default()
    }
}

#[tokio::test]
async fn embedded_is_the_whole_system_in_one_process() {
    let mut running = Running::start(&["-embedded"], &[]).await;
    let client = running.client().await;
    eventually(LONG, "the embedded registry takes calls", || {
        let mut client = client.clone();
        async move { client.register(in_namespace("default", alice())).await.is_ok() }
    })
    .await;
    let mut client = client;
    let list = client
        .enumerate(in_namespace("default", EnumerateRequest::default()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(list.identities.len(), 1);
    assert_eq!(list.identities[0].identity, "alice");
    let unknown = client
        .enumerate(in_namespace("other", EnumerateRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    running.process.signal(Signal::TERM).unwrap();
    assert_eq!(
        running.process.wait(LONG).await.unwrap().code(),
        Some(0),
        "{:?}",
        running.process.stderr()
    );
}

#[tokio::test]
async fn a_wrong_file_ends_it_before_anything_is_bound() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        file.path(),
        "namespaces:\n  - name: a\n    patern: multicast-registry\n",
    )
    .unwrap();
    let mut process =
        Process::spawn("prism-proxy", &["-config", file.path().to_str().unwrap()], &[]).unwrap();
    assert_eq!(process.wait(LONG).await.unwrap().code(), Some(1));
    let told = process.stderr_line("patern", LONG).await.unwrap();
    assert!(
        told.ends_with(":3:5: namespaces[0].patern: unknown key `patern`, did you mean `pattern`?"),
        "{told}"
    );
    assert!(process.stdout().is_empty());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let running = Running::start(&[], &[]).await;
    let taken = running.addresses["data"].to_string();
    let arguments = ["--control-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"];
    let mut process = Process::spawn("prism-proxy", &arguments, &[("PRISM_DATA_ADDR", &taken)]).unwrap();
    assert_eq!(process.wait(LONG).await.unwrap().code(), Some(1));
    process
        .stderr_line(&format!("cannot listen on `{taken}`"), LONG)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_hangup_makes_it_read_its_file_again() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |names: &[&str]| {
        let list: Vec<_> = names
            .iter()
            .map(|name| format!("{{name: {name}, pattern: mine}}"))
            .collect();
        fs::write(file.path(), format!("namespaces: [{}]\n", list.join(", "))).unwrap();
    };
    write(&["one"]);
    let mut running = Running::start(&["-config", file.path().to_str().unwrap()], &[]).await;
    let mut client = running.client().await;
    let missing = client
        .enumerate(in_namespace("two", EnumerateRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    write(&["one", "two"]);
    running.process.signal(Signal::HUP).unwrap();
    running
        .process
        .stderr_line("the configuration is in effect", LONG)
        .await
        .unwrap();
    let there = client
        .enumerate(in_namespace("two", EnumerateRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(there.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "timeouts: {readiness_grace: 10m, drain: 10m}\n").unwrap();
    let mut running = Running::start(&["-config", file.path().to_str().unwrap()], &[]).await;
    running.process.signal(Signal::TERM).unwrap();
    running.process.stderr_line("told to end", LONG).await.unwrap();
    running.process.signal(Signal::INT).unwrap();
    assert_eq!(running.process.wait(LONG).await.unwrap().code(), Some(2));
}
