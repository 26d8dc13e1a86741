//! How a process ends: what tells it to, and the phases in which it does.

use std::{os::fd::AsFd, pin::Pin, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

/// The signals that tell a process to end. The first means in order, a second means now.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them over, from this moment: one that comes while the process is still starting is not
    /// missed. Dropping this does not give them back.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves with the next one's name: `SIGTERM` or `SIGINT`. Cancellation safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The first of the [`Signals`], for a process that knows only one way to end.
///
/// # Errors
/// When the operating system refuses the handlers.
pub fn signals() -> std::io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let mut signals = Signals::install()?;
    Ok(async move { signals.next().await })
}

/// The variable by which a supervisor says that it holds the other end of the process's standard input,
/// for as long as it lives.
pub const SUPERVISED: &str = "PRISM_SUPERVISED";

/// Resolves when the supervisor that started this process is gone, however it went; never in a process
/// that has none. Without it a supervisor that was killed would leave its processes behind, on the ports
/// that those of the next one need.
pub async fn orphaned() {
    let tether = std::env::var_os(SUPERVISED).and_then(|_| tether().ok());
    let Some(mut tether) = tether else {
        return std::future::pending().await;
    };
    // Nothing is ever written there: it ends, or breaks.
    while tether.read(&mut [0; 16]).await.is_ok_and(|read| read > 0) {}
}

/// Standard input, read without a thread that would wait for it for ever.
fn tether() -> std::io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)
}

type Work<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The steps of an orderly end, declared in one place and in order.
///
/// ```
/// # use std::time::Duration;
/// # use prism_core::shutdown::Phases;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let report = Phases::new()
///     .phase("readiness fails", Duration::from_millis(100), async {})
///     .phase("calls drain", Duration::from_secs(25), async {})
///     .run()
///     .await;
/// assert!(report.is_clean());
/// # }
/// ```
#[derive(Default)]
#[must_use = "phases do nothing until they are run"]
pub struct Phases<'a> {
    phases: Vec<Phase<'a>>,
}

struct Phase<'a> {
    name: &'static str,
    limit: Duration,
    work: Work<'a>,
}

impl<'a> Phases<'a> {
    /// No phase yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a phase. Work that is not done within its limit is dropped, and the next phase begins: a
    /// stuck phase costs its own time and never the phases after it.
    pub fn phase(
        mut self,
        name: &'static str,
        limit: Duration,
        work: impl Future<Output = ()> + Send + 'a,
    ) -> Self {
        let work = Box::pin(work);
        self.phases.push(Phase { name, limit, work });
        self
    }

    /// The hard deadline: the sum of all limits.
    pub fn longest(&self) -> Duration {
        self.phases.iter().map(|phase| phase.limit).sum()
    }

    /// Runs the phases in order. Ends within [`longest`](Self::longest).
    pub async fn run(self) -> Report {
        let mut report = Report::default();
        for Phase { name, limit, work } in self.phases {
            let began = Instant::now();
            if tokio::time::timeout(limit, work).await.is_ok() {
                tracing::debug!(phase = name, took = ?began.elapsed(), "shutdown phase done");
            } else {
                tracing::warn!(
                    phase = name,
                    ?limit,
                    "shutdown phase did not end in time and was abandoned"
                );
                report.abandoned.push(name);
            }
        }
        report
    }
}

/// How the phases went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The phases that were dropped at their limit.
    pub abandoned: Vec<&'static str>,
}

impl Report {
    /// Whether every phase was done in time.
    pub fn is_clean(&self) -> bool {
        self.abandoned.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn phases_run_in_order_and_a_stuck_one_costs_only_its_own_time() {
        let ran = Mutex::new(Vec::new());
        let note = |name| ran.lock().unwrap().push(name);
        let phases = Phases::new()
            .phase("first", Duration::from_secs(1), async { note("first") })
            .phase("stuck", Duration::from_secs(5), std::future::pending())
            .phase("last", Duration::from_secs(1), async { note("last") });
        assert_eq!(phases.longest(), Duration::from_secs(7));

        let began = Instant::now();
        let report = phases.run().await;

        assert_eq!(began.elapsed(), Duration::from_secs(5));
        assert_eq!(report.abandoned, ["stuck"]);
        assert_eq!(*ran.lock().unwrap(), ["first", "last"]);
    }

    #[tokio::test]
    async fn a_signal_before_the_first_poll_is_not_missed() {
        let told = signals().unwrap();
        let own = std::process::id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &own])
            .status()
            .unwrap();
        assert!(sent.success());
        assert_eq!(told.await, "SIGTERM");
    }
}
