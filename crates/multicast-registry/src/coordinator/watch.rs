//! Watch: what a call needs before there is a stream.

use prism_filter::{Compiled, Filter};
use prism_slot::Position;
use tokio::time::Instant;

use super::{Coordinator, Error, enumerate::compile};
use crate::watch::{Place, Watch};

impl Coordinator {
    /// Watches the registrations that match: those that do now, or what has happened since `resume_from`,
    /// and then each change.
    ///
    /// # Errors
    /// Bad arguments; too many watchers; [`Error::Compacted`] and [`Error::OtherEpoch`] for a position from
    /// which it cannot go on; unavailability.
    pub async fn watch(
        &self,
        filter: Option<&Filter>,
        resume_from: Option<Position>,
        deadline: Instant,
    ) -> Result<Watch, Error> {
        self.open_for_calls()?;
        if self.shared.directory.is_bare() {
            let message =
                "a namespace with `view: none` cannot be watched, it keeps nothing to tell changes by";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let config = self.config();
        let filter = compile(&config, filter)?;
        if filter.as_deref().is_some_and(Compiled::uses_expires_at) {
            let message = "`$expires_at` moves without a write and cannot be watched";
            return Err(Error::argument("filter", message));
        }
        let place = Place::take(
            &self.shared.watchers,
            config.behavior.max_watchers,
            &self.shared.metrics,
        )?;
        let hub = self.shared.watches.clone();
        let Some(at) = resume_from else {
            return Watch::with_snapshot(self.clone(), hub, filter, place, deadline).await;
        };
        self.shared.directory.ready(deadline).await?;
        // It may have been given by another runner that is ahead of this one.
        let current = self.shared.directory.make_current(deadline).await;
        let head = self.shared.directory.head();
        if head.revision < at.revision {
            current?;
        }
        if at.epoch == head.epoch && at.revision > head.revision {
            let message = format!(
                "revision {} has not been written yet, the head is {head}",
                at.revision.0
            );
            return Err(Error::argument("resume_from", message));
        }
        Watch::resumed(self.clone(), hub, filter, place, at)
    }
}
