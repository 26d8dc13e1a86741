//! What befalls a backend, and the backend that a case has for itself to have it befallen.

use std::{ffi::OsString, fmt, ops::Range, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng};
use tokio::time::{Instant, sleep, timeout};

use crate::{Error, Result, Scope};

/// A deadline that is meant to pass.
pub(super) const LIMIT: Duration = Duration::from_millis(500);
/// How much later than its deadline a call may end on a busy machine.
const SLACK: Duration = Duration::from_secs(1);
/// How long something that happens by itself may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at whether it has.
const PAUSE: Duration = Duration::from_millis(10);

/// What befalls a backend, or the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing arrives any more, either way, and connections stay open.
    BlackHole,
    /// What is asked arrives, and no answer.
    LostReplies,
    /// The connections break within what is under way; see [`Backend::cut_within`].
    Cut,
    /// The backend stands still, and its connections stay open.
    Frozen,
    /// The backend is asked to end, and started again.
    Restarted,
    /// The backend is killed, and started again.
    Killed,
    /// The backend is killed, loses its data, and is started again.
    Emptied,
    /// Files may not grow any more.
    DiskFull,
}

impl Fault {
    /// Whether it can befall a backend that reaches so far. One within this process has nothing that could fail
    /// without it, one of this host is a file that processes open, and one that all share is a server.
    pub fn befalls(self, scope: Scope) -> bool {
        match scope {
            Scope::Process => false,
            Scope::Host => matches!(self, Self::Killed | Self::DiskFull),
            Scope::Shared => self != Self::DiskFull,
        }
    }

    /// Whether it befalls everything in this process at once.
    pub(super) fn befalls_the_process(self) -> bool {
        self == Self::DiskFull
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlackHole => "nothing arrives any more, and connections stay open",
            Self::LostReplies => "answers are lost",
            Self::Cut => "the connection breaks in the middle of a call for many",
            Self::Frozen => "the server stands still",
            Self::Restarted => "the server is stopped and started again",
            Self::Killed => "the server, or the process that has the file open, is killed at any moment",
            Self::Emptied => "the server comes back without its data",
            Self::DiskFull => "the disk is full",
        })
    }
}

/// Which bytes are counted before the connections break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// Of what is asked.
    Asked,
    /// Of what is answered.
    Answered,
}

/// What can be done to a backend. A backend of a [`Scope`] is asked for the faults that can befall it, one at a time.
pub trait Backend: Send + Sync + 'static {
    /// Lets the fault begin. What is to be killed is dead when this returns.
    fn begin(&self, fault: Fault) -> BoxFuture<'_, ()>;

    /// Ends it: what was stopped runs again.
    fn end(&self, fault: Fault) -> BoxFuture<'_, ()>;

    /// How many bytes have passed so far.
    fn passed(&self, bytes: Bytes) -> u64;

    /// Breaks all connections after so many more bytes.
    fn cut_within(&self, bytes: Bytes, after: u64);

    /// Of a backend that lives in the process which opened it: what to set in the environment of another run of this
    /// program, so that it opens the same data. That run is what is killed.
    fn within_process(&self) -> Option<(&'static str, OsString)> {
        None
    }
}

/// A backend that one case has for itself. It keeps what it has acknowledged where it ends and is started again.
pub struct Stage<O: ?Sized> {
    /// Opens a slot there, on the way that faults befall.
    pub open: Arc<O>,
    /// Opens one past that way.
    pub beside: Arc<O>,
    /// The backend.
    pub backend: Arc<dyn Backend>,
}

/// The stage of what lives and ends with this process, which nothing befalls.
pub async fn nothing_fails<O: ?Sized>() -> Stage<O> {
    unreachable!("no fault can befall it")
}

/// A case's stage, and what else it needs.
pub(super) struct Scene<O: ?Sized> {
    pub(super) stage: Stage<O>,
    pub(super) suite: &'static str,
    pub(super) namespace: String,
    pub(super) random: Mutex<StdRng>,
}

impl<O: ?Sized> Scene<O> {
    pub(super) async fn begin(&self, fault: Fault) {
        self.stage.backend.begin(fault).await;
    }

    pub(super) async fn end(&self, fault: Fault) {
        self.stage.backend.end(fault).await;
    }

    /// A number that comes by chance.
    pub(super) fn random(&self, range: Range<u64>) -> u64 {
        self.random.lock().random_range(range)
    }

    /// From the beginning of a fault to its end.
    pub(super) async fn befall(&self, fault: Fault) {
        self.begin(fault).await;
        self.end(fault).await;
    }
}

/// How many calls are left whole before connections break: the first also says what is said once, and the second shows how
/// many bytes such a call takes.
const WHOLE: usize = 2;

/// Breaks the connections within calls that are alike, once within what is asked and once within what is answered.
pub(super) struct Cuts<'a, O: ?Sized> {
    scene: &'a Scene<O>,
    made: usize,
    taken: [u64; 2],
}

impl<'a, O: ?Sized> Cuts<'a, O> {
    pub(super) fn new(scene: &'a Scene<O>) -> Self {
        Self {
            scene,
            made: 0,
            taken: [0; 2],
        }
    }

    pub(super) async fn within<T>(&mut self, call: impl Future<Output = T>) -> T {
        let backend = &self.scene.stage.backend;
        let passed = || [Bytes::Asked, Bytes::Answered].map(|bytes| backend.passed(bytes));
        let before = passed();
        let cut = self.made.checked_sub(WHOLE);
        self.made += 1;
        if let Some(cut) = cut {
            let bytes = [Bytes::Asked, Bytes::Answered][cut % 2];
            let after = self.scene.random(1..self.taken[cut % 2].max(2));
            backend.cut_within(bytes, after);
        }
        let told = call.await;
        if cut.is_some() {
            self.scene.end(Fault::Cut).await;
        } else {
            let after = passed();
            self.taken = std::array::from_fn(|way| after[way] - before[way]);
        }
        told
    }
}

/// When a call ends that is not to be answered.
pub(super) fn soon() -> Instant {
    Instant::now() + LIMIT
}

/// Runs calls that must end by [`soon`].
pub(super) async fn in_time<T>(calls: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let outcome = calls.await;
    let took = begun.elapsed();
    assert!(took < LIMIT + SLACK, "took {took:?} instead of {LIMIT:?}");
    outcome
}

/// Which backend an error speaks of that did not answer, or is not there.
pub(super) fn unavailable(error: &Error) -> &'static str {
    match error {
        Error::Timeout { backend, .. } | Error::Unavailable { backend, .. } => backend,
        other => panic!("{other:?}"),
    }
}

/// What is known after a call: nothing, where the backend did not answer.
pub(super) fn known<T>(answer: Result<T>) -> Option<T> {
    answer.inspect_err(|error| _ = unavailable(error)).ok()
}

/// Waits until there is something.
pub(super) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(PAUSE).await;
        }
    };
    let found = timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain until {what}"))
}
