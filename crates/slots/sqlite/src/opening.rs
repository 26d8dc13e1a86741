//! One slot's share in a file: the namespace, and whether the slot is still open.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prism_slot::{Position, Result};
use tokio::{sync::watch, time::Instant};

use crate::{
    call::{Load, Pending},
    config::InboxConfig,
    error::{Fault, closed},
    file::{File, Share, tuning},
    step::Step,
    worker::OPEN_LIMIT,
};

/// A namespace of an open file.
pub(crate) struct Opening {
    namespace: Arc<str>,
    share: Mutex<Option<Share>>,
}

impl Opening {
    pub(crate) async fn new(namespace: &str, config: &InboxConfig) -> Result<Self> {
        config.validate()?;
        let opening = Self {
            namespace: namespace.into(),
            share: Mutex::new(Some(Share::new(config).await?)),
        };
        let tuning = tuning(config);
        let deadline = Instant::now() + OPEN_LIMIT;
        opening
            .call(deadline, Load::of(0), move |step, _| step.tune(tuning))
            .await?;
        Ok(opening)
    }

    fn file(&self) -> Result<Arc<File>> {
        let share = self.share.lock();
        Ok(share.as_ref().ok_or_else(closed)?.file().clone())
    }

    /// Executes `work` for the namespace in one step.
    ///
    /// Dropping the future abandons the answer, and the work if it has not begun.
    pub(crate) async fn call<T, W>(&self, deadline: Instant, load: Load, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnMut(&mut Step<'_>, i64) -> Result<T, Fault> + Send + 'static,
    {
        let pending = self.submit(deadline, load, work).await?;
        pending.answer(Duration::ZERO).await
    }

    /// Has `work` executed after what was submitted before.
    pub(crate) async fn submit<T, W>(&self, deadline: Instant, load: Load, mut work: W) -> Result<Pending<T>>
    where
        T: Send + 'static,
        W: FnMut(&mut Step<'_>, i64) -> Result<T, Fault> + Send + 'static,
    {
        let file = self.file()?;
        let name = self.namespace.clone();
        let work = move |step: &mut Step<'_>| {
            let ns = step.namespace(&name)?;
            work(step, ns)
        };
        file.queue.submit(deadline, load, work).await
    }

    /// Told whenever the namespace's history has gone on.
    pub(crate) fn watch(&self) -> Result<watch::Receiver<Option<Position>>> {
        Ok(self.file()?.signals.watch(&self.namespace))
    }

    /// Lets go of the file. The last one waits until it is closed.
    pub(crate) async fn close(&self) {
        let share = self.share.lock().take();
        if let Some(share) = share {
            share.close().await;
        }
    }
}
