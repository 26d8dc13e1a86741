//! Accepted connections that cannot keep a server from ending: one that never speaks is closed, and all
//! of them break when the server is cut.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::{corked::Corked, socket};

/// After the operating system refused to accept, how long until the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What bounds the connections of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many may be open; further ones wait to be accepted.
    pub connections: usize,
    /// For a connection to say its first byte.
    pub handshake_within: Duration,
    /// How long what was sent may stay unacknowledged by the peer's host.
    pub unacknowledged: Duration,
}

/// Accepts connections for a tonic server. When `goaway` is cancelled, those that have not spoken yet
/// are closed: there is nobody to say it to, and a graceful end would wait for them. When `cut` is
/// cancelled, all of them break.
pub fn accept(
    listener: TcpListener,
    limits: Limits,
    goaway: CancellationToken,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let room = Arc::new(Semaphore::new(limits.connections));
    let (handshake_within, patience) = (limits.handshake_within, limits.unacknowledged);
    futures::stream::unfold(listener, move |listener| {
        let (room, goaway, cut) = (room.clone(), goaway.clone(), cut.clone());
        async move {
            let permit = room.acquire_owned().await.ok()?;
            let stream = next(&listener, patience).await;
            let first = FirstByte {
                until: Box::pin(tokio::time::sleep(handshake_within)),
                goaway: Box::pin(goaway.cancelled_owned()),
            };
            let connection = Connection {
                stream: Corked::new(stream),
                first: Some(first),
                cut: Box::pin(cut.cancelled_owned()),
                _permit: permit,
            };
            Some((Ok(connection), listener))
        }
    })
}

async fn next(listener: &TcpListener, patience: Duration) -> TcpStream {
    loop {
        let refused = match listener.accept().await {
            Ok((stream, _)) => match socket::tune(&stream, patience) {
                Ok(()) => return stream,
                // It closed while it was being accepted.
                Err(error) => error,
            },
            Err(error) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                error
            }
        };
        tracing::debug!(error = %refused, "a connection was not accepted");
    }
}

/// An accepted connection.
pub struct Connection {
    stream: Corked<TcpStream>,
    /// Set until the peer has said anything.
    first: Option<FirstByte>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

struct FirstByte {
    until: Pin<Box<Sleep>>,
    goaway: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl FirstByte {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.until.as_mut().poll(cx).is_ready() || self.goaway.as_mut().poll(cx).is_ready()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.get_ref().connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.first = None;
        } else if self.first.as_mut().is_some_and(|first| first.is_over(cx)) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
