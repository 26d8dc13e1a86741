//! Multicasts to live sessions in one process, beside pushing the same messages into the same queues and writing
//! down a receipt for each target.
//!
//! Every inbox counts what it gets, ours and the floor's alike. Nobody reads while the time is taken, so that the
//! queues are what is compared and not the readers.

use std::{hint::black_box, sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::FutureExt;
use multicast_registry::{Coordinator, Multicast, Session, SessionEvent, Status};
use prism_slot::{Identity, Listener, ListenerSink, Message, MulticastId, Received, Room, listener};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    memory::{ROUNDS, WARM_UP, filled, prototype, soon},
    report::{Better, Report, median},
};

/// How many in a round: within the queue of a session, so that none is full.
const COUNT: usize = 100;
const PAYLOAD: Bytes = Bytes::from_static(b"command");

pub(crate) fn run(report: &mut Report, runtime: &Runtime) -> Result<()> {
    for targets in [10, 100, 1_000] {
        let name = format!("multicast_{targets}_memory");
        if report.wants(&name) {
            measure(report, runtime, &name, targets)?;
        }
    }
    Ok(())
}

fn measure(report: &mut Report, runtime: &Runtime, name: &str, targets: usize) -> Result<()> {
    let mut ours = Ours::open(runtime, targets)?;
    let mut floor = Floor::open(targets)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let pair = (timed(|| runtime.block_on(ours.send()))?, timed(|| floor.send())?);
        ours.all_received()?;
        floor.all_received()?;
        if round >= WARM_UP {
            with.push(pair.0);
            without.push(pair.1);
        }
    }
    let mut sent = Ok(());
    let counted = allocation_counter::measure(|| sent = runtime.block_on(ours.send()));
    sent?;
    ours.all_received()?;
    let each = |total: u64| total as f64 / COUNT as f64;
    let more = json!({
        "prototype": prototype(name), "targets": targets,
        "allocations": each(counted.count_total), "bytes": each(counted.bytes_total),
    });
    let (value, floor) = (median(&mut with), median(&mut without));
    report.row(name, value, "ns", floor, Better::Lower, more);
    Ok(())
}

/// Nanoseconds for each of a round.
fn timed(round: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    round()?;
    Ok(began.elapsed().as_secs_f64() * 1e9 / COUNT as f64)
}

/// Multicasts of a coordinator to its sessions.
struct Ours {
    coordinator: Coordinator,
    sessions: Vec<Session>,
}

impl Ours {
    fn open(runtime: &Runtime, targets: usize) -> Result<Self> {
        let coordinator = filled(runtime, targets)?;
        let open = |number: usize| {
            let subscribed = coordinator.subscribe(format!("device-{number:04}"), None, soon());
            anyhow::Ok(runtime.block_on(subscribed)?)
        };
        let sessions = (0..targets).map(open).collect::<Result<_>>()?;
        Ok(Self {
            coordinator,
            sessions,
        })
    }

    async fn send(&self) -> Result<()> {
        for _ in 0..COUNT {
            let request = Multicast {
                payload: PAYLOAD,
                ..Default::default()
            };
            let report = self.coordinator.multicast(request, soon()).await?;
            ensure!(
                report.delivered() == self.sessions.len(),
                "delivered {}",
                report.delivered()
            );
        }
        Ok(())
    }

    fn all_received(&mut self) -> Result<()> {
        for session in &mut self.sessions {
            let mut count = 0;
            while let Some(event) = session.next().now_or_never() {
                let event = event.context("a session has ended")??;
                ensure!(matches!(event, SessionEvent::Message(_)), "{event:?}");
                count += 1;
            }
            ensure!(count == COUNT, "an inbox got {count} of {COUNT}");
        }
        Ok(())
    }
}

/// The same queues, filled by hand.
struct Floor {
    inboxes: Vec<(Identity, ListenerSink, Listener)>,
}

impl Floor {
    fn open(targets: usize) -> Result<Self> {
        let open = |number: usize| {
            let (sink, listener) = listener(Room::default(), ());
            anyhow::Ok((Identity::new(format!("device-{number:04}"))?, sink, listener))
        };
        Ok(Self {
            inboxes: (0..targets).map(open).collect::<Result<_>>()?,
        })
    }

    fn send(&self) -> Result<()> {
        for _ in 0..COUNT {
            let message = Arc::new(Message::new(MulticastId::random(), PAYLOAD));
            let mut receipts = Vec::with_capacity(self.inboxes.len());
            for (identity, sink, _) in &self.inboxes {
                let status = if sink.push(message.clone()) {
                    Status::Delivered
                } else {
                    Status::Failed
                };
                receipts.push((identity.clone(), status));
            }
            let all = receipts.iter().all(|(_, status)| *status == Status::Delivered);
            ensure!(all, "a queue is full");
            black_box(receipts);
        }
        Ok(())
    }

    fn all_received(&mut self) -> Result<()> {
        for (_, _, listener) in &mut self.inboxes {
            let mut count = 0;
            while let Some(received) = listener.next().now_or_never() {
                let received = received.context("a queue has ended")?;
                ensure!(matches!(received, Received::Message(_)), "{received:?}");
                count += 1;
            }
            ensure!(count == COUNT, "an inbox got {count} of {COUNT}");
        }
        Ok(())
    }
}
