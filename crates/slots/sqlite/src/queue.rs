//! Calls that wait for the thread, bounded by what they hold.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};
use prism_slot::{Applied, Result};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use crate::{
    call::{Job, Load, Pending, call},
    error::{Fault, closed, timeout},
    step::Step,
};

/// How much may wait: each call counts as one, and as one more for each of these bytes that it brings.
const ROOM: u32 = 16_384;
const UNIT: usize = 4_096;

/// What the queue has for the thread.
pub(crate) enum Found {
    /// Calls.
    Calls,
    /// None, for as long as was asked.
    Nothing,
    /// None, and none will come any more.
    Closed,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Box<dyn Job>>,
    closed: bool,
}

/// Calls that wait, in the order in which they came.
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    room: Arc<Semaphore>,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
        }
    }

    /// Hands a call over, as soon as there is room for it.
    pub(crate) async fn submit<T, W>(&self, deadline: Instant, load: Load, work: W) -> Result<Pending<T>>
    where
        T: Send + 'static,
        W: FnMut(&mut Step<'_>) -> Result<T, Fault> + Send + 'static,
    {
        if Instant::now() >= deadline {
            return Err(timeout(Applied::No));
        }
        // One call may be larger than all that may wait: it then waits alone.
        let units = u32::try_from(1 + load.size / UNIT).unwrap_or(ROOM).min(ROOM);
        let room = timeout_at(deadline, self.room.clone().acquire_many_owned(units)).await;
        let room = room.map_err(|_| timeout(Applied::No))?.map_err(|_| closed())?;
        let (job, pending) = call(deadline, load, room, work);
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        state.jobs.push_back(job);
        if state.jobs.len() == 1 {
            self.filled.notify_one();
        }
        Ok(pending)
    }

    /// The next call.
    pub(crate) fn pop(&self) -> Option<Box<dyn Job>> {
        self.state.lock().jobs.pop_front()
    }

    /// All calls that wait.
    pub(crate) fn take_all(&self) -> VecDeque<Box<dyn Job>> {
        std::mem::take(&mut self.state.lock().jobs)
    }

    /// Waits for calls.
    pub(crate) fn wait(&self, most: Duration) -> Found {
        let mut state = self.state.lock();
        if state.jobs.is_empty() && !state.closed {
            self.filled.wait_for(&mut state, most);
        }
        match (state.jobs.is_empty(), state.closed) {
            (false, _) => Found::Calls,
            (true, true) => Found::Closed,
            (true, false) => Found::Nothing,
        }
    }

    /// Drops the calls that nobody waits for any more; whether any are left.
    pub(crate) fn tidy(&self) -> bool {
        let mut state = self.state.lock();
        state.jobs.retain(|job| !job.is_abandoned());
        !state.jobs.is_empty()
    }

    /// Takes no more calls. Those that wait are still executed.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.filled.notify_one();
    }
}
