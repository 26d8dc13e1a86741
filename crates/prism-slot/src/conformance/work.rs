//! Work that goes on while its backend is stopped or killed, and what was told of it, line by line.
//!
//! Where the backend is a server it is the server that ends, and the work goes on in this process. Where it lives in
//! the process that opened it, the work is done by a run of this program of its own, which is killed.

use std::{
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::sleep,
};

use super::fault::{Fault, Scene, eventually};

/// Says which suite is to work on which namespace, in which session.
const WRITER: &str = "PRISM_CONFORMANCE_WRITER";
/// How many more lines are awaited after the backend is back.
const LINES: usize = 30;
/// When, after its beginning, work is disturbed: at some moment up to this, in milliseconds.
const MOMENT: u64 = 250;
/// Before something is tried again that may have been refused at once.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Where what was told is noted.
pub(super) type Say = Arc<dyn Fn(String) + Send + Sync>;

/// What is done on a slot, in a session of some number, until it is stopped.
pub(super) type Work<S> = fn(S, u64, Say) -> BoxFuture<'static, ()>;

impl<O: ?Sized> Scene<O> {
    /// Lets work go on while the fault befalls the backend at some moment. What was told, in its order.
    pub(super) async fn work_through<S: Send + 'static>(
        &self,
        fault: Fault,
        session: u64,
        open: impl Future<Output = S>,
        work: Work<S>,
    ) -> Vec<String> {
        let pause = Duration::from_millis(self.random(10..MOMENT));
        match self.stage.backend.within_process() {
            Some(environment) => self.killed_in_another_run(environment, session, pause).await,
            None => self.disturbed(fault, session, pause, open.await, work).await,
        }
    }

    async fn disturbed<S: Send + 'static>(
        &self,
        fault: Fault,
        session: u64,
        pause: Duration,
        slot: S,
        work: Work<S>,
    ) -> Vec<String> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let say: Say = {
            let told = told.clone();
            Arc::new(move |line| told.lock().push(line))
        };
        let working = tokio::spawn(work(slot, session, say));
        // A moment like any other: nothing is waited for here.
        sleep(pause).await;
        self.befall(fault).await;
        let so_far = told.lock().len();
        eventually("the work goes on", || {
            let more = told.lock().len() >= so_far + LINES || working.is_finished();
            std::future::ready(more.then_some(()))
        })
        .await;
        working.abort();
        let ended = working.await.unwrap_err();
        assert!(ended.is_cancelled(), "{ended}");
        std::mem::take(&mut told.lock())
    }

    async fn killed_in_another_run(
        &self,
        (name, value): (&str, std::ffi::OsString),
        session: u64,
        pause: Duration,
    ) -> Vec<String> {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(name, value)
            .env(WRITER, format!("{} {} {session}", self.suite, self.namespace))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("it says something");
        let reading = tokio::spawn(async move {
            let mut told = vec![first];
            while let Some(line) = lines.next_line().await.unwrap() {
                told.push(line);
            }
            told
        });
        sleep(pause).await;
        assert_eq!(child.try_wait().unwrap(), None, "it works until it is killed");
        child.kill().await.unwrap();
        reading.await.unwrap()
    }
}

/// This run, where it is one that only works until it is killed.
pub(super) struct Writer {
    suite: String,
    namespace: String,
    session: u64,
}

impl Writer {
    pub(super) fn asked_for() -> Option<Self> {
        let asked = std::env::var(WRITER).ok()?;
        let mut words = asked.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap();
        Some(Self {
            suite: word(),
            namespace: word(),
            session: word().parse().unwrap(),
        })
    }

    /// Works, if this is the suite.
    #[allow(clippy::print_stdout, reason = "how it tells its parent")]
    pub(super) fn write<S>(
        self,
        suite: &str,
        open: impl FnOnce(String) -> BoxFuture<'static, S>,
        work: Work<S>,
    ) -> ExitCode {
        if self.suite == suite {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let say: Say = Arc::new(|line| println!("{line}"));
            runtime.block_on(async { work(open(self.namespace).await, self.session, say).await });
        }
        ExitCode::SUCCESS
    }
}

/// Repeats what may have been done until it is known that it has been. `None`: not yet.
pub(super) async fn until_known<T, F: Future<Output = Option<T>>>(mut attempt: impl FnMut() -> F) -> T {
    loop {
        if let Some(known) = attempt().await {
            return known;
        }
        sleep(PAUSE).await;
    }
}
