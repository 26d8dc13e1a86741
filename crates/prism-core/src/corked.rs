//! Connections on which small messages share a system call.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much is written at once and not waited with, in bytes: h2 flushes after each frame above that, and a turn for each
/// would add up.
const MUCH: usize = 1 << 10;
/// How large a buffer is kept while there is nothing in it.
const KEPT: usize = 4 << 10;
/// How much is gathered at most.
const FULL: usize = 32 << 10;

/// A connection that gathers what is written until all who are about to write have.
///
/// One task writes for all the streams of an HTTP/2 connection, and it runs as soon as the first of them has something to
/// say: with a thousand streams that say little at the same time it makes a thousand system calls. So a flush of little
/// first lets other tasks run, once. Where there are none, that costs next to nothing.
#[derive(Debug)]
pub struct Corked<S> {
    stream: S,
    gathered: Vec<u8>,
    /// How much of that is written.
    written: usize,
    /// Whether others had their turn since something was written.
    has_waited: bool,
}

impl<S> Corked<S> {
    /// Over a stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            gathered: Vec::new(),
            written: 0,
            has_waited: false,
        }
    }

    /// The stream under it.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    fn write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let rest = &self.gathered[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        (self.written, self.has_waited) = (0, false);
        // There are many connections, and most of them have nothing to say most of the time.
        if self.gathered.capacity() > KEPT {
            self.gathered = Vec::new();
        }
        self.gathered.clear();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= FULL {
            ready!(self.write_gathered(cx))?;
        }
        if self.gathered.is_empty() && bytes.len() >= MUCH {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let count = bytes.len().min(FULL - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let left = self.gathered.len() - self.written;
        if (1..MUCH).contains(&left) && !self.has_waited {
            self.has_waited = true;
            // A task that is woken while it runs goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.write_gathered(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_gathered(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::{FutureExt, future::poll_fn, task::noop_waker_ref};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Takes so many bytes at a time, and remembers each time.
    #[derive(Clone, Default)]
    struct Log {
        takes: usize,
        calls: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl Log {
        fn calls(&self) -> Vec<Vec<u8>> {
            self.calls.lock().unwrap().clone()
        }

        fn bytes(&self) -> Vec<u8> {
            self.calls().concat()
        }
    }

    impl AsyncWrite for Log {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.takes);
            self.calls.lock().unwrap().push(bytes[..count].to_vec());
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn log(takes: usize) -> (Log, Corked<Log>) {
        let log = Log {
            takes,
            ..Log::default()
        };
        (log.clone(), Corked::new(log))
    }

    #[tokio::test]
    async fn what_others_write_meanwhile_goes_along() {
        let (log, mut corked) = log(usize::MAX);
        corked.write_all(b"one ").await.unwrap();
        let mut cx = Context::from_waker(noop_waker_ref());
        assert!(Pin::new(&mut corked).poll_flush(&mut cx).is_pending());
        corked.write_all(b"two").await.unwrap();
        corked.flush().await.unwrap();
        assert_eq!(log.calls(), [b"one two"]);
        corked.write_all(b"three").await.unwrap();
        corked.flush().await.unwrap();
        assert_eq!(log.calls(), [b"one two".to_vec(), b"three".to_vec()]);
    }

    /// Whoever waits for a flush is woken without anybody else's doing.
    #[tokio::test]
    async fn a_flush_waits_for_one_turn() {
        let (log, mut corked) = log(usize::MAX);
        corked.write_all(b"one").await.unwrap();
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            Pin::new(&mut corked).poll_flush(cx)
        })
        .await
        .unwrap();
        assert_eq!((polls, log.calls().len()), (2, 1));
        assert!(corked.flush().now_or_never().is_some(), "nothing is left");
    }

    #[tokio::test]
    async fn much_does_not_wait_and_is_not_kept() {
        let (log, mut corked) = log(usize::MAX);
        corked.write_all(&[1; MUCH]).await.unwrap();
        assert_eq!(log.calls().len(), 1, "past the buffer");
        corked.write_all(b"little").await.unwrap();
        corked.write_all(&[2; FULL * 3]).await.unwrap();
        assert!(corked.gathered.len() <= FULL);
        assert!(corked.flush().now_or_never().is_some());
        assert_eq!(corked.gathered.capacity(), 0);
        assert_eq!(log.bytes(), [&[1; MUCH][..], b"little", &[2; FULL * 3]].concat());
    }

    #[tokio::test]
    async fn everything_is_written_before_the_end() {
        let (log, mut corked) = log(2);
        corked.write_all(b"the end").await.unwrap();
        corked.shutdown().await.unwrap();
        assert_eq!(log.bytes(), b"the end");
        assert!(log.calls().len() > 1, "as much at a time as is taken");
        let (_, mut stuck) = super::tests::log(0);
        stuck.write_all(b"x").await.unwrap();
        assert_eq!(stuck.flush().await.unwrap_err().kind(), io::ErrorKind::WriteZero);
    }

    #[tokio::test]
    async fn both_ends_understand_each_other() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (mut ours, mut theirs) = (Corked::new(ours), Corked::new(theirs));
        let sent: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        let mut got = Vec::new();
        let send = async {
            for part in sent.chunks(777) {
                ours.write_all(part).await.unwrap();
                ours.flush().await.unwrap();
            }
            ours.shutdown().await.unwrap();
        };
        tokio::join!(send, theirs.read_to_end(&mut got)).1.unwrap();
        assert_eq!(got, sent);
    }
}
