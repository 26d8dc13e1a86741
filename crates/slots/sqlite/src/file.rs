//! One file, as everybody in this process shares it: one thread, one connection, one history.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Weak},
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;
use prism_slot::{Applied, Result};
use tokio::sync::watch;

use crate::{
    config::{InboxConfig, located},
    connect::misplaced,
    error::unavailable,
    queue::Queue,
    signals::Signals,
    step::Tuning,
    worker::Worker,
};

/// The files that are open, by their one name.
static FILES: LazyLock<Mutex<HashMap<PathBuf, Weak<File>>>> = LazyLock::new(Mutex::default);

/// Whether the thread has the file, once it is known.
type Ready = Option<Result<()>>;

/// An open file and its thread.
pub(crate) struct File {
    path: PathBuf,
    pub(crate) queue: Arc<Queue>,
    pub(crate) signals: Arc<Signals>,
    ready: watch::Receiver<Ready>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many slots use it.
    users: usize,
    thread: Option<JoinHandle<()>>,
}

/// A slot's share in an open file. The last one that goes has the thread end.
pub(crate) struct Share(Arc<File>);

impl Share {
    /// Joins those who use the file, or opens it as the first.
    pub(crate) async fn new(config: &InboxConfig) -> Result<Self> {
        let path = config.path.clone();
        let find = move || located(&path).map_err(|error| misplaced(&path, &error));
        let found = tokio::task::spawn_blocking(find).await;
        let path = found.map_err(|_| unavailable("cannot look for its file", Applied::No))??;
        let share = File::join(path, tuning(config))?;
        let mut ready = share.0.ready.clone();
        let opened = ready.wait_for(Option::is_some).await;
        let outcome = opened.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(unavailable("its thread has ended", Applied::No)))?;
        Ok(share)
    }

    /// The file.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.0
    }

    /// Lets go of the file, and waits until it is closed where nobody else uses it.
    pub(crate) async fn close(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(thread) = self.0.leave() {
            // A thread that panicked has been reported.
            let _ = thread.join();
        }
    }
}

impl File {
    fn join(path: PathBuf, tuning: Tuning) -> Result<Share> {
        let mut files = FILES.lock();
        if let Some(file) = files.get(&path).and_then(Weak::upgrade) {
            file.state.lock().users += 1;
            return Ok(Share(file));
        }
        let file = Arc::new(Self::start(path.clone(), tuning)?);
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(path, Arc::downgrade(&file));
        Ok(Share(file))
    }

    fn start(path: PathBuf, tuning: Tuning) -> Result<Self> {
        let (queue, signals) = (Arc::new(Queue::new()), Arc::new(Signals::default()));
        let (say, ready) = watch::channel(None);
        let (of, calls, told) = (path.clone(), queue.clone(), signals.clone());
        let work = move || match Worker::open(of, tuning, calls, told) {
            Ok(worker) => {
                say.send_replace(Some(Ok(())));
                worker.run();
            }
            Err(error) => {
                say.send_replace(Some(Err(error)));
            }
        };
        let thread = thread::Builder::new().name("prism-sqlite".to_owned()).spawn(work);
        let thread =
            thread.map_err(|error| unavailable(format!("cannot start its thread ({error})"), Applied::No))?;
        let state = State {
            users: 1,
            thread: Some(thread),
        };
        Ok(Self {
            path,
            queue,
            signals,
            ready,
            state: Mutex::new(state),
        })
    }

    /// One user less. The last one has the thread end, which executes what waits and closes the file, and is given
    /// it to wait for.
    fn leave(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        let mut files = FILES.lock();
        let mut state = self.state.lock();
        state.users -= 1;
        if state.users > 0 {
            return None;
        }
        // Whoever comes from now on opens the file for himself.
        if files
            .get(&self.path)
            .is_some_and(|known| known.as_ptr() == Arc::as_ptr(self))
        {
            files.remove(&self.path);
        }
        self.queue.close();
        state.thread.take()
    }
}

/// What of a configuration holds for the whole file.
pub(crate) fn tuning(config: &InboxConfig) -> Tuning {
    Tuning {
        cache_size: config.cache_size,
        max_size: config.max_size,
    }
}
