//! Runs the program against a registry in this process.

pub(crate) mod store;
pub(crate) mod town;

use std::{fs::File, net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prism_client::testing::FakeRegistry;
use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

/// Longer than anything here should take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The exit code was this one.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Stdout as one document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// The error object on stderr.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:#?}"));
        error["error"].clone()
    }
}

/// The program, unaffected by the environment that the test runs in.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prism-probe"));
    for name in [
        "PRISM_ENDPOINT",
        "PRISM_NAMESPACE",
        "RUST_LOG",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The program with an endpoint and a namespace.
pub(crate) fn against(fake: &FakeRegistry) -> Command {
    let mut command = program();
    command.args([
        "--endpoint",
        &fake.address().to_string(),
        "--namespace",
        "presence",
        "--deadline",
        "10s",
    ]);
    command
}

pub(crate) async fn run(command: &mut Command) -> Ran {
    finish(command.spawn().unwrap()).await
}

/// Runs with something on stdin.
pub(crate) async fn run_with_input(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    finish(child).await
}

pub(crate) async fn finish(child: Child) -> Ran {
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("the program hangs")
        .unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Interrupts it, as somebody at a terminal does.
pub(crate) fn interrupt(child: &Child) {
    let id = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
}

/// The way to a registry, for one connection, which is lost when this is cut.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    between: AbortOnDropHandle<()>,
}

impl Way {
    pub(crate) async fn to(fake: &FakeRegistry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, far) = (listener.local_addr().unwrap(), fake.address());
        let between = tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(far).await.unwrap();
            // However it ends, it is cut.
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
        Self {
            address,
            between: AbortOnDropHandle::new(between),
        }
    }

    pub(crate) fn cut(&self) {
        self.between.abort();
    }
}

/// A terminal: what shows on it, and what a program writes to.
pub(crate) fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
    let line = File::options().read(true).write(true).open(name).unwrap();
    (screen.into(), line)
}

pub(crate) async fn fake() -> FakeRegistry {
    FakeRegistry::start().await.unwrap()
}

pub(crate) async fn multicast(fake: &FakeRegistry, line: &[&str]) -> Ran {
    run(against(fake).arg("multicast").args(line)).await
}

pub(crate) async fn multicast_as(fake: &FakeRegistry, format: &str, line: &[&str]) -> Ran {
    run(against(fake).args(["-o", format, "multicast"]).args(line)).await
}

/// Keeps what was asked.
pub(crate) fn keeper<T>() -> (Arc<Mutex<Option<T>>>, impl Fn(T) + Clone) {
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    (kept, move |asked| *keep.lock() = Some(asked))
}
