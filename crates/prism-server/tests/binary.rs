//! The binary as operators run it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{collections::HashMap, fs, net::SocketAddr, process::Command, time::Duration};

use prism_proto::pattern::{
    EnumerateRequest, RegisterRequest, multicast_registry_pattern_client::MulticastRegistryPatternClient,
};
use prism_testkit::{Process, Signal, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, Request, metadata::MetadataValue, transport::Channel};

const LONG: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(5);

struct Running {
    process: Process,
    addresses: HashMap<&'static str, SocketAddr>,
}

const FREE_PORTS: [&str; 5] = [
    "-control-addr",
    "127.0.0.1:0",
    "-data-addr",
    "127.0.0.1:0",
    "--admin-addr=127.0.0.1:0",
];

impl Running {
    /// On free ports, with the older dash style.
    async fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let all = [&FREE_PORTS, arguments].concat();
        Self::of(Process::spawn("prism-proxy", &all, environment).unwrap()).await
    }

    /// With limits of open files, as the arguments of `ulimit`.
    async fn start_with_files(limits: &[&str]) -> Self {
        let set: String = limits.iter().map(|limit| format!("ulimit {limit} && ")).collect();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{set} exec \"$@\""), "sh"]);
        command.arg(prism_testkit::workspace_binary("prism-proxy").unwrap());
        command.args(FREE_PORTS);
        Self::of(Process::spawn_command(command).unwrap()).await
    }

    async fn of(process: Process) -> Self {
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

async fn is_alive(admin: SocketAddr) -> bool {
    let ask = async {
        let mut probe = TcpStream::connect(admin).await?;
        probe
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        probe.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with("HTTP/1.1 200 "))
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(5), ask).await,
        Ok(Ok(true))
    )
}

/// As many as a system lets a process have that does not ask for more.
#[tokio::test]
async fn it_may_have_as_many_connections_as_its_hard_limit_has_files() {
    let running = Running::start_with_files(&["-Sn 128"]).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(running.addresses["data"]).await.unwrap());
    }
    let call = async {
        let mut client = running.client().await;
        let request = in_namespace("none", EnumerateRequest::default());
        client.enumerate(request).await.unwrap_err().code()
    };
    // Before those that say nothing are disconnected, which would make room.
    let answered = tokio::time::timeout(SOON, call).await;
    assert_eq!(answered, Ok(Code::NotFound));
    assert!(is_alive(running.addresses["admin"]).await);
}

#[tokio::test]
async fn connections_leave_files_for_everything_else() {
    let running = Running::start_with_files(&["-n 128"]).await;
    let told = running
        .process
        .stderr_line("limits.connections", LONG)
        .await
        .unwrap();
    assert!(
        told.contains("`10000`") && told.contains("`128`") && told.contains("`64`"),
        "{told}"
    );
    let mut idle = Vec::new();
    // Some of them wait for a place.
    for _ in 0..150 {
        idle.push(TcpStream::connect(running.addresses["data"]).await.unwrap());
    }
    for _ in 0..3 {
        assert!(is_alive(running.addresses["admin"]).await);
    }
}
