//! What a subscription and the task that feeds it have between them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use prism_proto::pattern::{
    SubscribeRequest, SubscribeResponse, subscribe_request, subscribe_response::Message,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::{
    Listen,
    shelf::Shelf,
    words::{Known, Spoken, Word, Words},
};
use crate::{Error, Result};

/// How many words may not be confirmed; an answer counts once more for each KiB.
const ROOM: u32 = 8_192;
/// As how many words one answer counts at most, so that there is room for any.
const LARGEST: u32 = ROOM / 4;

pub(in crate::raw) struct Shared {
    state: Mutex<State>,
    /// Who waits for the next answer.
    reader: AtomicWaker,
    /// Tells the feed that there is something to do.
    work: Notify,
    room: Arc<Semaphore>,
    /// How many words are not confirmed.
    unsettled: watch::Sender<usize>,
}

struct State {
    shelf: Shelf,
    words: Words,
    suppressed: u64,
    end: Option<Error>,
    /// Words were not confirmed when it ended.
    is_cut: bool,
    /// The end has been told.
    is_over: bool,
}

/// What the feed has to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// The session may be read.
    pub(super) reads: bool,
    /// The session is to be told something.
    pub(super) speaks: bool,
}

impl Shared {
    pub(super) fn new(listen: &Listen) -> Self {
        Self {
            state: Mutex::new(State {
                shelf: Shelf::new(listen.credits),
                words: Words::new(listen.remember),
                suppressed: 0,
                end: None,
                is_cut: false,
                is_over: false,
            }),
            reader: AtomicWaker::new(),
            work: Notify::new(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            unsettled: watch::Sender::new(0),
        }
    }

    // ------------------------------------------------------------------------------- the consumer

    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<SubscribeResponse>>> {
        self.reader.register(cx.waker());
        let mut state = self.state.lock();
        if let Some(answer) = state.shelf.take() {
            if state.shelf.is_due() || state.shelf.has_just_room() {
                self.work.notify_one();
            }
            return Poll::Ready(Some(Ok(answer)));
        }
        let State { end, is_over, .. } = &mut *state;
        match end {
            None => Poll::Pending,
            Some(_) if *is_over => Poll::Ready(None),
            Some(error) => {
                *is_over = true;
                Poll::Ready(Some(Err(error.clone())))
            }
        }
    }

    pub(super) fn grant(&self, messages: u32) {
        self.state.lock().shelf.grant(messages);
        self.work.notify_one();
    }

    pub(super) fn suppressed(&self) -> u64 {
        self.state.lock().suppressed
    }

    /// Room for one more word.
    pub(in crate::raw) async fn room(&self, word: &Word) -> Result<OwnedSemaphorePermit> {
        let size = match word {
            Word::Answer(answer) => answer.payload.len() / 1_024 + 1,
            _ => 1,
        };
        let size = u32::try_from(size).unwrap_or(LARGEST).min(LARGEST);
        let room = self.room.clone().acquire_many_owned(size).await;
        room.map_err(|_| self.end())
    }

    pub(in crate::raw) fn say(&self, spoken: Spoken) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(error) = &state.end {
            return Err(error.clone());
        }
        state.words.say(spoken);
        self.unsettled.send_replace(state.words.len());
        self.work.notify_one();
        Ok(())
    }

    pub(in crate::raw) async fn settled(&self) -> Result<()> {
        let mut unsettled = self.unsettled.subscribe();
        // The sender is in `self`, so it does not go away.
        let _ = unsettled.wait_for(|count| *count == 0).await;
        let state = self.state.lock();
        match &state.end {
            Some(error) if state.is_cut => Err(error.clone()),
            _ => Ok(()),
        }
    }

    pub(in crate::raw) fn unsettled(&self) -> usize {
        *self.unsettled.borrow()
    }

    // ----------------------------------------------------------------------------------- the feed

    /// How many messages a session that is opened now may send.
    pub(super) fn opening(&self) -> u32 {
        self.state.lock().shelf.opening()
    }

    /// The first session is open.
    pub(super) fn opened(&self, opened: SubscribeResponse) {
        self.state.lock().shelf.put(opened);
        self.reader.wake();
    }

    /// Another session is open.
    pub(super) fn reopened(&self, opened: SubscribeResponse, gap: SubscribeResponse) {
        let mut state = self.state.lock();
        state.shelf.reopened(opened, gap);
        state.words.resume();
        drop(state);
        self.reader.wake();
    }

    pub(super) fn received(&self, answer: SubscribeResponse) {
        let mut state = self.state.lock();
        match &answer.message {
            Some(Message::Settled(settled)) => {
                state.words.settled(settled.clone());
                self.unsettled.send_replace(state.words.len());
                return;
            }
            Some(Message::Delivery(delivery)) => {
                let delivery_id: Arc<str> = delivery.delivery_id.as_str().into();
                match state.words.know(&delivery_id) {
                    Known::No => state.shelf.put_message(&delivery_id, answer),
                    known => return self.suppress(&mut state, delivery_id, known),
                }
            }
            _ => state.shelf.put(answer),
        }
        drop(state);
        self.reader.wake();
    }

    /// Keeps a message from the consumer, who has finished with it.
    fn suppress(&self, state: &mut State, delivery_id: Arc<str>, known: Known) {
        tracing::debug!(%delivery_id, "a message came again that is acknowledged");
        state.suppressed += 1;
        state.shelf.pass();
        if known == Known::Acked {
            state.words.say(Spoken {
                delivery_id,
                word: Word::Ack,
                confirm: None,
                _room: None,
            });
            self.unsettled.send_replace(state.words.len());
        }
    }

    pub(super) fn work(&self) -> Work {
        let state = self.state.lock();
        Work {
            reads: !state.shelf.is_full(),
            speaks: state.shelf.is_due() || state.words.is_due(),
        }
    }

    /// Returns when there may be something to do. Cancel safe.
    pub(super) async fn worked(&self) {
        self.work.notified().await;
    }

    /// What the session is to be told next.
    pub(super) fn request(&self) -> Option<SubscribeRequest> {
        let mut state = self.state.lock();
        let credit = state
            .shelf
            .credit()
            .map(|deliveries| subscribe_request::Message::Credit(subscribe_request::Credit { deliveries }));
        let message = credit.or_else(|| state.words.request());
        message.map(|message| SubscribeRequest {
            message: Some(message),
        })
    }

    /// What ended the subscription; for words that come after that.
    pub(in crate::raw) fn end(&self) -> Error {
        self.state.lock().end.clone().unwrap_or_else(Error::unsubscribed)
    }

    /// It is over. The first end counts.
    pub(super) fn finish(&self, error: Error) {
        let mut state = self.state.lock();
        let error = state.end.get_or_insert(error).clone();
        state.is_cut |= state.words.len() > 0;
        state.words.end(&error);
        drop(state);
        self.room.close();
        self.unsettled.send_replace(0);
        self.reader.wake();
    }
}
