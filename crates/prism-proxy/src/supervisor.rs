//! Runners that the proxy starts itself, and starts again when they end.

use std::{process::Stdio, sync::Arc, time::Duration};

use prism_core::{
    backoff::{Backoff, Policy},
    shutdown::SUPERVISED,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{config::Runner, metrics::Metrics};

/// How often a runner that ends is started again.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The pauses between one end and the next start.
    pub pauses: Policy,
    /// A runner that lived this long has not failed to start: the pauses begin anew.
    pub settled: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pauses: Policy {
                base: Duration::from_millis(250),
                cap: Duration::from_secs(30),
            },
            settled: Duration::from_secs(30),
        }
    }
}

/// A line longer than this is logged in parts.
const MAX_LINE: u64 = 8 << 10;

/// Starts runners and keeps them running. Dropping it kills them.
#[derive(Debug)]
pub struct Supervisor {
    /// Each ends with whether its runner ended in order.
    keepers: JoinSet<bool>,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Supervisor {
    /// Starts every runner, each in its own process, told to dial `proxy_addr`.
    pub fn start(runners: &[Runner], proxy_addr: &str, metrics: &Arc<Metrics>, settings: Settings) -> Self {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let mut keepers = JoinSet::new();
        for runner in runners {
            for number in 0..runner.count {
                let keeper = Keeper {
                    name: format!("{}#{number}", runner.manifest.name),
                    runner: runner.clone(),
                    proxy_addr: proxy_addr.to_owned(),
                    metrics: metrics.clone(),
                    settings,
                    stop: stop.clone(),
                    kill: kill.clone(),
                };
                keepers.spawn(keeper.run());
            }
        }
        Self { keepers, stop, kill }
    }

    /// Asks every runner to end, and kills those that have not by `deadline`. `false` when one was killed
    /// or says by its exit code that not all went well: 1 for errors, 2 for work that was cut off. Dropping
    /// the future kills them at once.
    pub async fn stop(mut self, deadline: Instant) -> bool {
        self.stop.cancel();
        let mut clean = true;
        loop {
            match tokio::time::timeout_at(deadline, self.keepers.join_next()).await {
                Ok(Some(ended)) => clean &= ended.unwrap_or(false),
                Ok(None) => return clean,
                Err(_) => break,
            }
        }
        self.kill.cancel();
        while self.keepers.join_next().await.is_some() {}
        false
    }
}

/// Keeps one runner running.
struct Keeper {
    name: String,
    runner: Runner,
    proxy_addr: String,
    metrics: Arc<Metrics>,
    settings: Settings,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Keeper {
    async fn run(self) -> bool {
        let mut backoff = Backoff::new(self.settings.pauses);
        loop {
            let began = Instant::now();
            let clean = match self.command().spawn() {
                Ok(child) => self.attend(child).await,
                Err(error) => {
                    let program = self.command().as_std().get_program().display().to_string();
                    tracing::error!(runner = self.name, "`{program}` cannot be started: {error}");
                    true
                }
            };
            if self.stop.is_cancelled() {
                return clean;
            }
            if began.elapsed() >= self.settings.settled {
                backoff.reset();
            }
            let pause = backoff.pause();
            tracing::warn!(
                runner = self.name,
                ?pause,
                "starting the runner again after a pause"
            );
            if self
                .stop
                .run_until_cancelled(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                return true;
            }
            self.metrics.restarted(&self.runner.manifest.name);
        }
    }

    fn command(&self) -> Command {
        let program = self
            .runner
            .executable
            .as_ref()
            .unwrap_or(&self.runner.manifest.executable);
        let mut command = Command::new(beside_us(program));
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        command
            .arg("-proxy-addr")
            .arg(&self.proxy_addr)
            .args(&self.runner.args)
            .envs(&self.runner.env)
            .env(SUPERVISED, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A signal from a terminal is ours to handle: runners end after the calls that they serve.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Stays with a child until it has ended; whether it ended in order.
    async fn attend(&self, mut child: Child) -> bool {
        let pid = child.id();
        tracing::info!(runner = self.name, pid, "runner started");
        let (out, err) = (child.stdout.take(), child.stderr.take());
        // Held for as long as we live, and closed by the system when we do not: a runner of ours then ends.
        let _tether = child.stdin.take();
        let ended = async {
            tokio::select! {
                ended = child.wait() => return ended,
                () = self.stop.cancelled() => terminate(pid),
            }
            tokio::select! {
                ended = child.wait() => ended,
                () = self.kill.cancelled() => {
                    tracing::warn!(runner = self.name, pid, "runner did not end in time and is killed");
                    child.start_kill()?;
                    child.wait().await
                }
            }
        };
        let gone = CancellationToken::new();
        let (status, (), ()) = tokio::join!(
            async {
                let status = ended.await;
                gone.cancel();
                status
            },
            self.log(out, &gone),
            self.log(err, &gone),
        );
        match status {
            Ok(status) if status.success() => {
                tracing::info!(runner = self.name, pid, %status, "runner ended");
                true
            }
            Ok(status) => {
                tracing::warn!(runner = self.name, pid, %status, "runner did not end in order");
                false
            }
            Err(error) => {
                tracing::error!(runner = self.name, pid, %error, "runner was lost sight of");
                false
            }
        }
    }

    /// Passes on what a runner says, until it has ended: its own children may hold the pipe for longer.
    async fn log(&self, pipe: Option<impl AsyncRead + Unpin>, gone: &CancellationToken) {
        let Some(pipe) = pipe else { return };
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        let reading = async {
            loop {
                line.clear();
                match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        let text = String::from_utf8_lossy(&line);
                        tracing::info!(target: "runner", "[{}] {}", self.name, text.trim_end());
                    }
                }
            }
        };
        // What was written before the end is read after it, but not for long.
        let grace = async {
            gone.cancelled().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        tokio::select! {
            () = reading => {}
            () = grace => {}
        }
    }
}

/// Runners read variables of the same names, and would listen where we do.
fn is_ours(variable: &std::ffi::OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"PRISM_")
}

/// A bare name means the program beside this one, if there is one, and otherwise one on the search path.
fn beside_us(program: &std::path::Path) -> std::path::PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let ours = std::env::current_exe().ok();
    let beside = ours.and_then(|ours| Some(ours.parent()?.join(program)));
    beside
        .filter(|beside| beside.is_file())
        .unwrap_or_else(|| program.to_owned())
}

fn terminate(pid: Option<u32>) {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::debug!(%error, "a runner had ended before it was asked to");
    }
}
