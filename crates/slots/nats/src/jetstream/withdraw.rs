//! Taking messages back, and giving inboxes up.

use futures::{StreamExt, stream};
use prism_slot::{Address, Discarded, Error, Identity, MulticastId, Result, Ticket};
use tokio::time::Instant;

use crate::{
    error::{timeout, unavailable},
    jetstream::{
        api::Failure,
        inboxes::{Attempts, Inboxes, Step},
        layout::Kind,
        letter::{self, Found},
        read::Next,
        streams::Stream,
    },
};

/// How many inboxes one call works on at a time.
const AT_ONCE: usize = 256;
/// How many messages are read at once.
const PAGE: usize = 256;
/// How many bytes are read at once.
const PAGE_BYTES: usize = 8 << 20;

impl Inboxes {
    /// Takes a message back from many inboxes, each to its end; whether it was there and not out.
    pub(crate) async fn cancel(
        &self,
        multicast: MulticastId,
        identities: &[Identity],
        deadline: Instant,
    ) -> Vec<Result<bool>> {
        let cancelling = identities
            .iter()
            .cloned()
            .map(|identity| async move { self.cancel_one(multicast, &identity, deadline).await });
        stream::iter(cancelling).buffered(AT_ONCE).collect().await
    }

    async fn cancel_one(
        &self,
        multicast: MulticastId,
        identity: &Identity,
        deadline: Instant,
    ) -> Result<bool> {
        let draft = self.draft(identity, deadline).await?;
        let (sequence, rank, expires_at) = match draft.state.find(multicast) {
            Some(sequence) => (sequence, draft.state.entries[&sequence].rank, draft.state.until),
            None => match self.search(identity, multicast, deadline).await? {
                Some(found) => (found.sequence, found.rank, found.expires_at),
                None => return Ok(false),
            },
        };
        let cancel = |state: &mut super::state::State, now| {
            if state.entries.len() >= self.room().to_cancel() {
                Step::Refuse(unavailable("too much of the inbox is out or on its way out"))
            } else if state.cancel(sequence, rank, multicast, now) {
                state.outlives(expires_at);
                Step::Write(true)
            } else {
                Step::Keep(false)
            }
        };
        let (cancelled, removed) = self.change(identity, deadline, cancel).await?;
        // It may have expired meanwhile.
        Ok(cancelled && removed.get(&sequence).copied().unwrap_or(true))
    }

    /// Looks for a message of an inbox.
    async fn search(
        &self,
        identity: &Identity,
        multicast: MulticastId,
        deadline: Instant,
    ) -> Result<Option<Found>> {
        let (stream, _) = self.jetstream.stream(Kind::Messages, deadline).await?;
        let is_it = |found: &Found| {
            let letter = found.letter.as_ref();
            letter.is_some_and(|letter| letter.message.multicast == multicast)
        };
        let mut from = 1;
        loop {
            let (page, more) = self.page(stream, identity, from, deadline).await?;
            let last = page.last().map(|found| found.sequence);
            if let Some(found) = page.into_iter().find(is_it) {
                return Ok(Some(found));
            }
            match last.filter(|_| more) {
                Some(last) => from = last + 1,
                None => return Ok(None),
            }
        }
    }

    /// Some messages of an inbox, of any priority, in the order in which they came.
    async fn page(
        &self,
        stream: &Stream,
        identity: &Identity,
        from: u64,
        deadline: Instant,
    ) -> Result<(Vec<Found>, bool), Failure> {
        let next = Next {
            seq: from,
            subject: self.jetstream.layout.inbox(identity),
            batch: PAGE,
            max_bytes: PAGE_BYTES,
        };
        let (messages, beyond) = self.jetstream.next(stream, &next, deadline).await?;
        let page = messages.into_iter().map(letter::read).collect::<Result<_, _>>()?;
        Ok((page, beyond > 0))
    }

    /// Drops what was stored for a holder, and its session; which messages that were.
    pub(crate) async fn discard(&self, address: &Address, deadline: Instant) -> Result<Discarded> {
        self.end_session(address, deadline).await?;
        let mut dropped = Vec::new();
        match self.drop_pages(address, &mut dropped, deadline).await {
            Ok(()) => Ok(Discarded { dropped, more: false }),
            Err(error) if dropped.is_empty() => Err(error),
            // The next call tells of that, or goes on.
            Err(_) => Ok(Discarded { dropped, more: true }),
        }
    }

    /// Adds what was dropped, whatever came after it.
    async fn drop_pages(
        &self,
        address: &Address,
        dropped: &mut Vec<Ticket>,
        deadline: Instant,
    ) -> Result<()> {
        let (stream, _) = self.jetstream.stream(Kind::Messages, deadline).await?;
        let mut from = 1;
        loop {
            let (page, more) = self.page(stream, &address.identity, from, deadline).await?;
            let last = page.last().map(|found| found.sequence);
            self.drop_some(stream, address, page, dropped, deadline).await?;
            match last.filter(|_| more) {
                Some(last) => from = last + 1,
                None => return Ok(()),
            }
        }
    }

    /// Drops what of a page is the holder's.
    async fn drop_some(
        &self,
        stream: &Stream,
        address: &Address,
        page: Vec<Found>,
        dropped: &mut Vec<Ticket>,
        deadline: Instant,
    ) -> Result<()> {
        let is_of_holder = |found: &Found| {
            let letter = found.letter.as_ref();
            letter.is_none_or(|letter| letter.holder == address.holder)
        };
        let of_holder: Vec<Found> = page.into_iter().filter(is_of_holder).collect();
        let sequences: Vec<u64> = of_holder.iter().map(|found| found.sequence).collect();
        let deleted = self.jetstream.delete(stream, &sequences, deadline).await;
        let mut outcome = Ok(());
        for (found, deleted) in of_holder.iter().zip(deleted) {
            match deleted {
                // What is of no version of ours has no sender.
                Ok(true) => {
                    dropped.extend(found.letter.as_ref().map(|letter| Ticket::from(&*letter.message)))
                }
                // Removed by somebody else, who tells what became of it.
                Ok(false) => {}
                Err(failure) => outcome = Err(Error::from(failure)),
            }
        }
        outcome
    }

    /// First, so that nobody is handed what is being dropped.
    async fn end_session(&self, address: &Address, deadline: Instant) -> Result<()> {
        let identity = &address.identity;
        let mut attempts = Attempts::new(deadline);
        loop {
            self.forget(identity);
            let draft = self.draft(identity, deadline).await?;
            let session = draft.state.session;
            if session.is_some_and(|session| session.holder != address.holder) {
                return Ok(());
            }
            if self.drop_record(identity, draft, deadline).await? {
                return Ok(());
            }
            attempts.pause().await.map_err(|_| timeout())?;
        }
    }
}
