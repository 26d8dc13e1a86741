//! A program of this workspace, run as its users run it.

use std::{
    fmt, io,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{ChildStderr, ChildStdout},
    sync::Notify,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use crate::child::OwnedChild;

/// How long to read on once a program has ended.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A running program and everything it has printed. Killed when this is dropped.
pub struct Process {
    name: String,
    child: OwnedChild,
    output: Arc<Output>,
    // Reads the pipes; aborted on drop.
    readers: JoinSet<()>,
}

#[derive(Default)]
struct Output {
    stdout: Lines,
    stderr: Lines,
}

/// The lines of one pipe as far as they have come.
#[derive(Default)]
struct Lines {
    lines: Mutex<(Vec<String>, bool)>,
    more: Notify,
}

impl Process {
    /// Runs a binary of this workspace; see [`workspace_binary`].
    ///
    /// # Errors
    /// When the binary has not been built or does not start.
    pub fn spawn(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = Command::new(workspace_binary(binary)?);
        command.args(arguments).envs(environment.iter().copied());
        Self::spawn_command(command)
    }

    /// Runs any command, with both its outputs captured.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn_command(mut command: Command) -> anyhow::Result<Self> {
        let name = command.get_program().display().to_string();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = OwnedChild::spawn(command)?;
        let output = Arc::new(Output::default());
        let mut readers = JoinSet::new();
        if let Some(pipe) = child.pipes().stdout.take() {
            let (pipe, output) = (ChildStdout::from_std(pipe)?, output.clone());
            readers.spawn(async move { output.stdout.fill(pipe).await });
        }
        if let Some(pipe) = child.pipes().stderr.take() {
            let (pipe, output) = (ChildStderr::from_std(pipe)?, output.clone());
            readers.spawn(async move { output.stderr.fill(pipe).await });
        }
        Ok(Self {
            name,
            child,
            output,
            readers,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The lines on standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.output.stderr.lines.lock().0.clone()
    }

    /// The lines on standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.output.stdout.lines.lock().0.clone()
    }

    /// The first line on standard error, past or to come, that contains `text`.
    ///
    /// # Errors
    /// When none has come within the time, or standard error was closed without it. The error shows
    /// what was printed instead.
    pub async fn stderr_line(&self, text: &str, within: Duration) -> anyhow::Result<String> {
        let found = self.output.stderr.find(text, within).await;
        found.with_context(|| self.silence("standard error", text))
    }

    /// As [`stderr_line`](Self::stderr_line), for standard output.
    ///
    /// # Errors
    /// As [`stderr_line`](Self::stderr_line).
    pub async fn stdout_line(&self, text: &str, within: Duration) -> anyhow::Result<String> {
        let found = self.output.stdout.find(text, within).await;
        found.with_context(|| self.silence("standard output", text))
    }

    /// Sends a signal, unless it has ended.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        self.child.signal(signal)
    }

    /// Stops it, and returns when none of its threads runs any more: a signal alone takes effect a moment
    /// later.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.child.freeze()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn thaw(&mut self) -> io::Result<()> {
        self.child.signal(Signal::CONT)
    }

    /// Waits until it has ended by itself, and what it printed has been read.
    ///
    /// # Errors
    /// When it still runs after `within`; it goes on running. The error shows what it printed.
    pub async fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        match self.child.wait(within).await? {
            Some(status) => {
                let read = async { while self.readers.join_next().await.is_some() {} };
                // Its own children may hold its pipes for as long as they like.
                let _ = timeout(LAST_LINES, read).await;
                Ok(status)
            }
            None => bail!("`{}` still runs after {within:?}; {}", self.name, self.printed()),
        }
    }

    fn silence(&self, pipe: &str, text: &str) -> String {
        format!(
            "`{}` printed no line with `{text}` on {pipe}; {}",
            self.name,
            self.printed()
        )
    }

    fn printed(&self) -> String {
        let (stdout, stderr) = (self.stdout().join("\n"), self.stderr().join("\n"));
        format!("standard output:\n{stdout}\nstandard error:\n{stderr}")
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid())
    }
}

impl Lines {
    async fn fill(&self, pipe: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            self.lines.lock().0.push(line);
            self.more.notify_waiters();
        }
        self.lines.lock().1 = true;
        self.more.notify_waiters();
    }

    async fn find(&self, text: &str, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        let mut from = 0;
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            // Enabled before looking, so that a line in between is not missed.
            more.as_mut().enable();
            {
                let state = self.lines.lock();
                let (lines, ended) = &*state;
                if let Some(line) = lines[from..].iter().find(|line| line.contains(text)) {
                    return Some(line.clone());
                }
                if *ended {
                    return None;
                }
                from = lines.len();
            }
            timeout_at(deadline, more).await.ok()?;
        }
    }
}

/// Where cargo puts the binary `name` of this workspace: beside the test that asks.
///
/// # Errors
/// When it has not been built. Cargo builds the binaries of a package for that package's own tests
/// only.
pub fn workspace_binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("cannot tell where this test is")?;
    // Tests and examples lie one folder below `target/<profile>`, binaries right in it.
    let mut folders = test.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    folders.find(|path| path.is_file()).with_context(|| {
        let test = test.display();
        format!("`{name}` has not been built for `{test}`; run `cargo build --workspace --bins` with the same profile")
    })
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn_command(command).unwrap()
    }

    /// A program that has ended may have printed more than has been read.
    #[tokio::test]
    async fn everything_that_was_printed_is_there_when_it_has_ended() {
        let mut process = shell("seq 1000; seq 1000 >&2");
        // It ends while nobody reads: this holds up the only thread there is.
        let pid = Pid::from_raw(process.pid().cast_signed()).unwrap();
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), ended).unwrap();
        assert!(process.wait(SOON).await.unwrap().success());
        assert_eq!((process.stdout().len(), process.stderr().len()), (1_000, 1_000));
    }

    #[tokio::test]
    async fn lines_are_found_before_and_after_they_come() {
        let mut process = shell("echo out; echo one >&2; read -r _; echo two >&2; exit 3");
        assert_eq!(process.stderr_line("two", SOON).await.unwrap(), "two");
        assert_eq!(process.stderr_line("on", SOON).await.unwrap(), "one");
        assert_eq!(process.stdout_line("out", SOON).await.unwrap(), "out");
        assert_eq!(process.wait(SOON).await.unwrap().code(), Some(3));
    }

    #[tokio::test]
    async fn a_line_that_never_comes_is_an_error_that_shows_the_others() {
        let ended = shell("echo something else >&2");
        let error = ended.stderr_line("ready", SOON).await.unwrap_err().to_string();
        assert!(
            error.contains("`ready`") && error.contains("something else"),
            "{error}"
        );
        let silent = shell("exec sleep 60");
        let waited = silent.stderr_line("ready", Duration::from_millis(20)).await;
        assert!(waited.is_err());
    }

    #[tokio::test]
    async fn a_process_is_signalled_and_awaited() {
        let mut process = shell("trap 'exit 7' TERM; echo ready >&2; while :; do sleep 0.01; done");
        process.stderr_line("ready", SOON).await.unwrap();
        assert!(process.wait(Duration::from_millis(20)).await.is_err());
        process.signal(Signal::TERM).unwrap();
        assert_eq!(process.wait(SOON).await.unwrap().code(), Some(7));
    }

    #[test]
    fn a_binary_that_was_not_built_says_so() {
        let error = workspace_binary("no-such-binary").unwrap_err().to_string();
        assert!(error.contains("cargo build"), "{error}");
    }
}
