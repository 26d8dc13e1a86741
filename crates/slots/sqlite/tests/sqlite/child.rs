//! Processes of this test's own: this very program, run once more for one of its tests.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::Duration,
};

use super::support::SOON;

const ROLE: &str = "PRISM_SQLITE_CHILD_ROLE";
const PATH: &str = "PRISM_SQLITE_CHILD_PATH";
/// What the harness writes does not begin with it.
const SAYS: &str = "> ";

/// What a child does.
pub(super) struct Task {
    pub(super) path: PathBuf,
}

/// Says something to the parent.
pub(super) fn say(line: impl std::fmt::Display) {
    println!("\n{SAYS}{line}");
}

/// Waits for the parent to say something.
pub(super) fn listen() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// A running child. Killed with the value.
pub(super) struct Running {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

/// A command that runs this program in a role.
pub(super) fn command(program: &Path, role: &str, path: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--exact", "sqlite::child::role", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env(PATH, path);
    command
}

impl Running {
    pub(super) fn start(role: &str, path: &Path) -> Self {
        Self::run(command(&std::env::current_exe().unwrap(), role, path))
    }

    pub(super) fn run(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, lines) = channel();
        let reader = std::thread::spawn(move || {
            let said = BufReader::new(output).lines().map_while(Result::ok);
            for line in said.filter_map(|line| line.strip_prefix(SAYS).map(str::to_owned)) {
                let _ = send.send(line);
            }
        });
        Self {
            child,
            input,
            lines,
            reader: Some(reader),
        }
    }

    /// The next line that it says.
    pub(super) fn line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("the child says something")
    }

    pub(super) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Waits until it has ended by itself.
    pub(super) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.reader.take().unwrap().join().unwrap();
                return (status, self.lines.try_iter().collect());
            }
            assert!(std::time::Instant::now() < deadline, "the child does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what this program does as a child.
#[test]
#[ignore = "run by the tests that need another process"]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let task = Task {
        path: std::env::var_os(PATH).unwrap().into(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        match role.as_str() {
            "neighbour" => super::processes::neighbour(task).await,
            "full" => super::full::full(task).await,
            "producer" => super::full::producer(task).await,
            "stranger" => super::setup::stranger(task).await,
            other => panic!("there is no role `{other}`"),
        }
    });
}
