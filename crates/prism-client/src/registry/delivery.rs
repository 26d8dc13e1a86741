//! Multicasts, their receipts, and dead letters.

use futures::{Stream, TryStreamExt, stream};
use prism_proto::pattern;

use super::Registry;
use crate::{
    DeadLetter, DeadLetters, DeliveryStatus, DryRun, Error, GetMulticastRequest, ListDeadLettersRequest,
    Multicast, MulticastProgress, MulticastRequest, RedriveRequest, Redriven, Result, wire,
};

impl Registry {
    /// Sends a payload to every identity that matches, and says what is known of each.
    ///
    /// That some targets did not get it is an answer and not an error. With an idempotency key the call is tried again
    /// where its answer was lost; without one only where nothing was sent.
    ///
    /// # Errors
    /// `IDEMPOTENCY_MISMATCH` when the key was used for another request; `UNSUPPORTED` for what the namespace's
    /// slots cannot do; `OVERLOADED` while too many targets wait to be sent to.
    pub async fn multicast(&self, request: MulticastRequest) -> Result<Multicast> {
        let request = wire::multicast_request(request)?;
        wire::multicast(self.raw.multicast(request).await?)
    }

    /// As [`multicast`](Self::multicast), telling of each target as soon as something is known of it; returns once it
    /// has been begun.
    ///
    /// # Errors
    /// As [`multicast`](Self::multicast).
    pub async fn multicast_stream(&self, request: MulticastRequest) -> Result<MulticastProgress> {
        let request = wire::multicast_request(request)?;
        Ok(MulticastProgress::new(self.raw.multicast_stream(request).await?))
    }

    /// Says whom a multicast would be sent to, and sends nothing.
    ///
    /// # Errors
    /// As [`multicast`](Self::multicast).
    pub async fn multicast_dry_run(&self, request: MulticastRequest) -> Result<DryRun> {
        let request = pattern::MulticastRequest {
            dry_run: true,
            ..wire::multicast_request(request)?
        };
        wire::dry_run(self.raw.multicast(request).await?)
    }

    /// Reads the receipts of an earlier multicast, one page. The totals are of all targets.
    ///
    /// # Errors
    /// `UNKNOWN_MULTICAST` when there was none, or its receipts are not kept any longer.
    pub async fn get_multicast(&self, request: impl Into<GetMulticastRequest>) -> Result<Multicast> {
        let request = wire::get_multicast(request.into())?;
        wire::multicast(self.raw.get_multicast(request).await?)
    }

    /// Reads the receipts of an earlier multicast, all pages as one stream, each asked for when the one before has
    /// been read. After an error the stream ends.
    ///
    /// Pages are of different moments. With [`only`](GetMulticastRequest::only), a target whose status changes
    /// meanwhile may be left out, or told twice.
    pub fn receipts(
        &self,
        request: GetMulticastRequest,
    ) -> impl Stream<Item = Result<DeliveryStatus>> + Send + use<> {
        let registry = self.clone();
        let pages = stream::try_unfold(Some(request), move |next| {
            let registry = registry.clone();
            async move {
                let Some(mut request) = next else {
                    return Ok::<_, Error>(None);
                };
                let page = registry.get_multicast(request.clone()).await?;
                request.cursor = page.next_cursor;
                let next = request.cursor.is_some().then_some(request);
                Ok(Some((stream::iter(page.statuses.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten()
    }

    /// Stops what a multicast has not handed over yet: what is not sent, and what is stored and not with a consumer.
    /// Says what is known of it then, with as many targets as fit a page.
    ///
    /// # Errors
    /// As [`get_multicast`](Self::get_multicast).
    pub async fn cancel_multicast(&self, multicast_id: impl Into<String>) -> Result<Multicast> {
        let request = pattern::CancelMulticastRequest {
            multicast_id: multicast_id.into(),
        };
        wire::multicast(self.raw.cancel_multicast(request).await?)
    }

    /// Lists messages that could not be delivered, one page, the oldest first.
    ///
    /// # Errors
    /// `UNSUPPORTED` where nothing is stored.
    pub async fn list_dead_letters(&self, request: ListDeadLettersRequest) -> Result<DeadLetters> {
        let request = wire::list_dead_letters(request)?;
        wire::dead_letters(self.raw.list_dead_letters(request).await?)
    }

    /// Lists messages that could not be delivered, all pages as one stream, each asked for when the one before has
    /// been read. After an error the stream ends.
    pub fn dead_letters(
        &self,
        request: ListDeadLettersRequest,
    ) -> impl Stream<Item = Result<DeadLetter>> + Send + use<> {
        let registry = self.clone();
        let pages = stream::try_unfold(Some(request), move |next| {
            let registry = registry.clone();
            async move {
                let Some(mut request) = next else {
                    return Ok::<_, Error>(None);
                };
                let page = registry.list_dead_letters(request.clone()).await?;
                request.cursor = page.next_cursor;
                let next = request.cursor.is_some().then_some(request);
                Ok(Some((stream::iter(page.letters.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten()
    }

    /// Puts dead letters back into the inboxes of their identities, at most 10,000 at a time. Not tried again where
    /// that may have happened already.
    ///
    /// # Errors
    /// `UNSUPPORTED` where nothing is stored.
    pub async fn redrive_dead_letters(&self, request: RedriveRequest) -> Result<Redriven> {
        wire::redriven(self.raw.redrive_dead_letters(wire::redrive(request)).await?)
    }
}
