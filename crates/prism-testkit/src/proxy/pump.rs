//! One direction of one connection.

use std::{io, sync::atomic::Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Direction, Flow, Links};

/// The most that is read at a time.
const CHUNK: usize = 16 << 10;
/// How many chunks wait between reading and writing.
const CHUNKS: usize = 64;

/// Reads ahead, so that delays do not cost throughput, and decides about each chunk when its turn to
/// be written has come.
pub(super) struct Pump<'a> {
    links: &'a Links,
    direction: Direction,
    flow: watch::Receiver<Flow>,
    cut: CancellationToken,
}

/// Bytes and when they may be written; empty at the end of the stream.
struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
}

impl<'a> Pump<'a> {
    pub(super) fn new(links: &'a Links, direction: Direction, cut: &CancellationToken) -> Self {
        let flow = links.flow(direction).subscribe();
        Self {
            links,
            direction,
            flow,
            cut: cut.clone(),
        }
    }

    /// Forwards until the sender has closed its side and everything has been written.
    pub(super) async fn run(self, from: OwnedReadHalf, to: OwnedWriteHalf) -> io::Result<()> {
        let (queue, chunks) = mpsc::channel(CHUNKS);
        let read = read(from, queue, self.flow.clone());
        tokio::try_join!(read, self.write(chunks, to)).map(|_| ())
    }

    async fn write(mut self, mut chunks: mpsc::Receiver<Chunk>, mut to: OwnedWriteHalf) -> io::Result<()> {
        while let Some(chunk) = chunks.recv().await {
            sleep_until(chunk.due).await;
            // The sender of this watch lives as long as the proxy, so waiting does not fail.
            let flow = self.flow.wait_for(|flow| *flow != Flow::Hold).await;
            let flow = *flow.map_err(io::Error::other)?;
            // The connection may have lost bytes before it was cut; what follows them must not arrive in their place.
            if self.cut.is_cancelled() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if chunk.bytes.is_empty() {
                return to.shutdown().await;
            }
            match flow {
                Flow::Discard => {}
                Flow::CutAfter(_) => self.write_some(&chunk.bytes, &mut to).await?,
                Flow::Pass | Flow::Delay(_) | Flow::Hold => self.write_all(&chunk.bytes, &mut to).await?,
            }
        }
        Ok(())
    }

    async fn write_all(&self, bytes: &[u8], to: &mut OwnedWriteHalf) -> io::Result<()> {
        // First, so that who has received them finds them counted.
        self.links
            .forwarded(self.direction)
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        to.write_all(bytes).await
    }

    /// Takes what is left of the allowance before writing, so that several connections do not exceed
    /// it together.
    async fn write_some(&self, bytes: &[u8], to: &mut OwnedWriteHalf) -> io::Result<()> {
        let mut allowed = bytes.len();
        let mut used_up = false;
        self.links.flow(self.direction).send_if_modified(|flow| {
            let Flow::CutAfter(left) = flow else {
                return false;
            };
            allowed = allowed.min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= allowed as u64;
            used_up = *left == 0;
            true
        });
        self.write_all(&bytes[..allowed], to).await?;
        if used_up {
            self.links.cut();
            self.links.flow(self.direction).send_replace(Flow::Pass);
        }
        Ok(())
    }
}

async fn read(
    mut from: OwnedReadHalf,
    queue: mpsc::Sender<Chunk>,
    flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    loop {
        let mut bytes = Vec::with_capacity(CHUNK);
        let count = from.read_buf(&mut bytes).await?;
        let mut due = Instant::now();
        if let Flow::Delay(delay) = *flow.borrow() {
            due += delay;
        }
        // Fails once the writer has ended, with an error of its own.
        if queue.send(Chunk { due, bytes }).await.is_err() || count == 0 {
            return Ok(());
        }
    }
}
