//! A child process that does not outlive the value that stands for it.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::time::{Instant, sleep};

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// A running child. Killed and reaped on drop.
#[derive(Debug)]
pub(crate) struct OwnedChild {
    child: Child,
    sentinel: Child,
}

impl OwnedChild {
    /// Starts `command`. Its standard input is empty.
    pub(crate) fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_owned();
        let mut child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{}`", program.display()))?;
        match sentinel(child.id()) {
            Ok(sentinel) => Ok(Self { child, sentinel }),
            Err(error) => {
                end(&mut child);
                Err(error).context("cannot start `sh`, which would end the child after a crash of the test")
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child's pipes, for those that were asked for.
    pub(crate) fn pipes(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal, unless the child has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // Asked first: the id of a reaped child may belong to somebody else by now.
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        Ok(self.raw_pid().map_or(Ok(()), |pid| kill_process(pid, signal))?)
    }

    /// Stops the child and waits until all its threads have stopped, or it has ended.
    pub(crate) fn freeze(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        while self.ended()?.is_none() {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
            let stopped = self.raw_pid().map(|pid| waitid(WaitId::Pid(pid), options));
            if stopped.transpose()?.flatten().is_some() {
                break;
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    fn raw_pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// How the child ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until the child has ended by itself; `None` when it has not within the time.
    pub(crate) async fn wait(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // The sentinel first: after the child is reaped its id may belong to somebody else.
        end(&mut self.sentinel);
        end(&mut self.child);
    }
}

/// A shell that waits for the end of this process, which closes its input, and then kills `pid`. In a
/// process group of its own, so that an interrupt from the terminal does not end it first.
fn sentinel(pid: u32) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", "read -r _; kill -9 \"$1\"", "sh"])
        .arg(pid.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// Kills and reaps. Fails only for a child that is already reaped.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> OwnedChild {
        let mut command = Command::new("sleep");
        command.arg("60");
        OwnedChild::spawn(command).unwrap()
    }

    fn lives(pid: u32) -> bool {
        rustix::process::test_kill_process(Pid::from_raw(pid.cast_signed()).unwrap()).is_ok()
    }

    #[test]
    fn a_child_ends_with_its_owner_even_in_a_panic() {
        let child = sleeper();
        let pids = [child.child.id(), child.sentinel.id()];
        assert!(pids.into_iter().all(lives));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _child = child;
            panic!("as a failed assertion would");
        }));
        assert!(unwound.is_err());
        assert!(!pids.into_iter().any(lives));
    }

    #[tokio::test]
    async fn the_sentinel_ends_the_child_of_a_killed_test() {
        let mut child = sleeper();
        drop(child.sentinel.stdin.take());
        let status = child.wait(Duration::from_secs(10)).await.unwrap().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = OwnedChild::spawn(Command::new("no-such-program")).unwrap_err();
        assert!(error.to_string().contains("`no-such-program`"), "{error}");
    }
}
