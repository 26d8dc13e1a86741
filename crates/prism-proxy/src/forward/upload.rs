//! The request body on its way to a runner, kept back as far as it may have to be sent again.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use http_body::Body;

use super::framing::{Framing, TooLarge};

/// A request body that is read once and can be sent twice.
#[derive(Debug)]
pub(crate) struct Upload<B> {
    body: B,
    framing: Framing,
    /// What has been read, as long as all of it fits.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    kept_limit: usize,
    /// All that has been read is in `kept`.
    whole: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// Why a body goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// A message is larger than allowed.
    TooLarge(TooLarge),
    /// The client has given the call up.
    ClientGone,
    /// The runner takes no more; its answer says why.
    RunnerClosed,
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    /// Nothing read yet. Up to `kept_limit` bytes are kept for a second attempt.
    pub(crate) fn new(body: B, max_message: usize, kept_limit: usize) -> Self {
        Self {
            ended: body.is_end_stream(),
            body,
            framing: Framing::new(max_message),
            kept: Vec::new(),
            kept_bytes: 0,
            kept_limit,
            whole: true,
            trailers: None,
        }
    }

    /// Whether all that was sent can be sent again.
    pub(crate) fn replayable(&self) -> bool {
        self.whole
    }

    /// How many messages have begun.
    pub(crate) fn messages(&self) -> u64 {
        self.framing.messages()
    }

    /// No second attempt will be made.
    pub(crate) fn keep_nothing(&mut self) {
        self.kept_limit = 0;
        self.whole = false;
    }

    /// Reads what is there already, so that a short request goes out with its headers.
    pub(crate) fn prefetch(&mut self, cx: &mut Context<'_>) -> Result<(), Stopped> {
        while !self.ended && self.kept_bytes == 0 {
            match self.poll_read(cx) {
                Poll::Ready(Ok(Some(chunk))) => {
                    self.keep(chunk);
                    // It is kept to be sent at all, but once.
                    self.whole = self.kept_bytes <= self.kept_limit;
                }
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(stopped)) => return Err(stopped),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Whether the request has no body at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.ended && self.kept.is_empty() && self.whole && self.trailers.is_none()
    }

    /// The next bytes; `None` once there are no more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Stopped>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Err(Stopped::ClientGone)),
                None => {
                    self.ended = true;
                    return Poll::Ready(Ok(None));
                }
            };
            match frame.into_data() {
                Ok(chunk) => {
                    self.ended = self.body.is_end_stream();
                    self.framing.follow(&chunk).map_err(Stopped::TooLarge)?;
                    if !chunk.is_empty() || self.ended {
                        return Poll::Ready(Ok(Some(chunk)));
                    }
                }
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    self.ended = true;
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    fn keep(&mut self, chunk: Bytes) {
        self.kept_bytes += chunk.len();
        self.kept.push(chunk);
    }

    /// Keeps a chunk that is about to be sent, unless that would be too much to keep.
    fn remember(&mut self, chunk: &Bytes) {
        if self.whole && self.kept_bytes + chunk.len() <= self.kept_limit {
            self.keep(chunk.clone());
        } else {
            self.whole = false;
        }
    }
}

/// One attempt to send a request body.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: SendStream<Bytes>,
    /// How many of the kept chunks have been sent.
    replayed: usize,
    /// Waits until the runner takes more.
    waiting: Option<Bytes>,
    started: bool,
    finished: bool,
}

impl Sender {
    pub(crate) fn new(stream: SendStream<Bytes>, finished: bool) -> Self {
        Self {
            stream,
            replayed: 0,
            waiting: None,
            started: false,
            finished,
        }
    }

    /// Sends on until the body has ended.
    pub(crate) fn poll_send<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        upload: &mut Upload<B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        while !self.finished {
            if self.waiting.is_none() && !ready!(self.poll_next(upload, cx))? {
                self.finish(upload)?;
                break;
            }
            ready!(self.poll_capacity(cx))?;
            if let Some(chunk) = self.waiting.take() {
                let last = upload.ended && upload.trailers.is_none() && self.replayed >= upload.kept.len();
                self.stream
                    .send_data(chunk, last)
                    .map_err(|_| Stopped::RunnerClosed)?;
                self.started = true;
                self.finished = last;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Resolves when the runner resets the stream.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }

    /// Puts the next chunk into `waiting`; `false` when there is none.
    fn poll_next<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        upload: &mut Upload<B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Stopped>> {
        if let Some(chunk) = upload.kept.get(self.replayed) {
            self.waiting = Some(chunk.clone());
            self.replayed += 1;
            return Poll::Ready(Ok(true));
        }
        if upload.ended {
            return Poll::Ready(Ok(false));
        }
        match ready!(upload.poll_read(cx))? {
            Some(chunk) => {
                upload.remember(&chunk);
                self.replayed = upload.kept.len();
                self.waiting = Some(chunk);
                Poll::Ready(Ok(true))
            }
            None => Poll::Ready(Ok(false)),
        }
    }

    /// Waits until the runner takes more. The first chunk goes at once: a new stream always has room
    /// for a frame, and asking costs a look at the lock that all streams share.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        if !self.started || self.waiting.as_ref().is_none_or(Bytes::is_empty) {
            return Poll::Ready(Ok(()));
        }
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Stopped::RunnerClosed)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish<B>(&mut self, upload: &Upload<B>) -> Result<(), Stopped> {
        self.finished = true;
        let sent = match upload.trailers.clone() {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        };
        sent.map_err(|_| Stopped::RunnerClosed)
    }

    /// Whether all of the body has been handed over.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }
}
