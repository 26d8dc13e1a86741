//! A server process on a port of its own: started, awaited, disturbed, restarted.

use std::{
    ffi::{OsStr, OsString},
    fmt, fs,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};

use crate::{child::OwnedChild, free_port};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);
/// Between two attempts to reach a starting server.
const POLL: Duration = Duration::from_millis(5);
/// How many ports are tried when somebody else takes them first.
const PORTS: usize = 5;

/// How to start one kind of server and how to tell that it is ready.
pub trait Flavour: Send + Sync + 'static {
    /// The program.
    const PROGRAM: &'static str;
    /// The scheme of its URLs.
    const SCHEME: &'static str;

    /// The command line for a server on loopback at `port` that keeps its data in `dir`.
    ///
    /// # Errors
    /// When a file that the command line refers to cannot be written.
    fn arguments(&self, port: u16, dir: &Path) -> anyhow::Result<Vec<OsString>>;

    /// What the server's environment has besides ours.
    fn environment(&self) -> &[(String, String)] {
        &[]
    }

    /// One round trip that only a ready server of this very process (`pid`) completes. False when the
    /// server asks to be tried again later.
    fn greet(
        &self,
        stream: &mut TcpStream,
        port: u16,
        pid: u32,
    ) -> impl Future<Output = io::Result<bool>> + Send;
}

/// A running server; see [`RedisServer`](crate::RedisServer) and [`NatsServer`](crate::NatsServer).
///
/// Listens on a free loopback port, which stays the same over restarts, and works in a temporary
/// directory. The process is killed when this is dropped.
pub struct Server<F> {
    flavour: F,
    port: u16,
    child: Option<OwnedChild>,
    dir: TempDir,
}

impl<F: Flavour> Server<F> {
    pub(crate) async fn launch(flavour: F) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let mut server = Self {
            flavour,
            port: 0,
            child: None,
            dir,
        };
        for attempt in 1.. {
            server.port = free_port();
            match server.run().await {
                Ok(()) => break,
                Err(error) if attempt == PORTS || !server.lost_its_port() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where it listens, as a URL without a trailing slash.
    pub fn url(&self) -> String {
        format!("{}://{}", F::SCHEME, self.addr())
    }

    /// The process id; `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(OwnedChild::pid)
    }

    /// Kills it without warning. Returns when it is gone.
    pub fn stop(&mut self) {
        self.child = None;
    }

    /// Asks it to shut down (`SIGTERM`) and waits until it has.
    ///
    /// # Errors
    /// When it is still running after 20 s.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        child.signal(Signal::TERM)?;
        ensure!(
            child.wait(START).await?.is_some(),
            "`{}` ignored SIGTERM for {START:?}",
            F::PROGRAM
        );
        self.child = None;
        Ok(())
    }

    /// Kills it, if it runs, and starts it again on the same port with the data that it persisted.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        self.run().await
    }

    /// As [`restart`](Self::restart), without any data.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart_empty(&mut self) -> anyhow::Result<()> {
        self.stop();
        fs::remove_dir_all(self.data()).context("cannot remove the server's data")?;
        self.run().await
    }

    /// Stops the process in its tracks (`SIGSTOP`): connections stay open and nothing answers.
    /// Returns when the last of its threads has stopped.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.child.as_mut().map_or(Ok(()), OwnedChild::freeze)
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn thaw(&mut self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        self.child.as_mut().map_or(Ok(()), |child| child.signal(signal))
    }

    /// What it has logged since its last start.
    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    fn lost_its_port(&self) -> bool {
        self.log().to_lowercase().contains("address already in use")
    }

    /// Starts the process and returns once it is ready.
    async fn run(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all(self.data()).context("cannot make the server's directory")?;
        let log = fs::File::create(self.log_path()).context("cannot make the server's log")?;
        let mut command = Command::new(find(F::PROGRAM)?);
        command
            .args(self.flavour.arguments(self.port, &self.data())?)
            .envs(self.flavour.environment().iter().cloned())
            .current_dir(self.data())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = OwnedChild::spawn(command)?;
        self.ready(&mut child).await?;
        self.child = Some(child);
        Ok(())
    }

    async fn ready(&self, child: &mut OwnedChild) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let greeted = timeout_at(deadline, self.greeted(child.pid())).await;
            if let Some(status) = child.ended()? {
                bail!("`{}` ended at once ({status}):\n{}", F::PROGRAM, self.log());
            }
            match greeted {
                Ok(Ok(true)) => return Ok(()),
                Ok(_) if Instant::now() < deadline => sleep(POLL).await,
                _ => bail!("`{}` was not ready after {START:?}:\n{}", F::PROGRAM, self.log()),
            }
        }
    }

    async fn greeted(&self, pid: u32) -> io::Result<bool> {
        let mut stream = TcpStream::connect(self.addr()).await?;
        self.flavour.greet(&mut stream, self.port, pid).await
    }
}

impl<F: Flavour> fmt::Debug for Server<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {:?})", self.url(), self.pid())
    }
}

/// Looks a program up on `PATH`, then where Go installs programs.
fn find(program: &str) -> anyhow::Result<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    folders.extend(go_bin());
    folders
        .into_iter()
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("`{program}` is not installed; run `make deps`"))
}

/// `$(go env GOPATH)/bin`, without asking Go: it may be off `PATH` itself.
fn go_bin() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join("go"));
    let go_path = std::env::var_os("GOPATH").filter(|path| path.as_os_str() != OsStr::new(""));
    go_path
        .map(PathBuf::from)
        .or_else(home)
        .map(|path| path.join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_says_how_to_get_it() {
        let error = find("no-such-server").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`no-such-server` is not installed; run `make deps`"
        );
    }
}
