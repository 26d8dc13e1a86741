//! What goes wrong, at moments that a seed decides.

use std::time::Duration;

use anyhow::Result;
use prism_testkit::{Direction, FaultProxy, Flow};
use rand::{RngExt, rngs::SmallRng};
use tokio::time::sleep;

use super::world::Broker;

/// How long nothing goes wrong, in milliseconds.
const CALM: std::ops::Range<u64> = 50..400;
/// How long something does.
const TROUBLE: std::ops::Range<u64> = 20..400;

/// Something that goes wrong between runners and a broker.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Connections break, and what is under way is lost.
    Cut,
    /// They break in the middle of something.
    CutAfter(Direction, u64),
    /// They break, and nobody is let in for a while.
    Refuse,
    /// Everything comes late.
    Delay(Duration),
    /// Nothing arrives for a while, either way.
    BlackHole,
    /// What is sent arrives, and its answers do not.
    DropReplies,
    /// What is sent does not arrive.
    DropRequests,
    /// The broker itself stands still.
    Freeze,
}

fn any_fault(random: &mut SmallRng) -> Fault {
    match random.random_range(0..9) {
        0 => Fault::Cut,
        1 => Fault::CutAfter(Direction::ToServer, random.random_range(1..50_000)),
        2 => Fault::CutAfter(Direction::ToClient, random.random_range(1..50_000)),
        3 => Fault::Refuse,
        4 => Fault::Delay(Duration::from_millis(random.random_range(1..60))),
        5 => Fault::BlackHole,
        6 => Fault::DropReplies,
        7 => Fault::DropRequests,
        _ => Fault::Freeze,
    }
}

fn any_pause(range: std::ops::Range<u64>, random: &mut SmallRng) -> Duration {
    Duration::from_millis(random.random_range(range))
}

/// One fault after the other, for ever. Dropped in the middle of one, it leaves that behind; [`clear_up`] ends it.
pub(super) async fn trouble(link: &FaultProxy, broker: &mut Broker, random: &mut SmallRng) -> Result<()> {
    loop {
        sleep(any_pause(CALM, random)).await;
        let fault = any_fault(random);
        begin(fault, link, broker).await?;
        sleep(any_pause(TROUBLE, random)).await;
        end(fault, link, broker).await?;
    }
}

async fn begin(fault: Fault, link: &FaultProxy, broker: &mut Broker) -> Result<()> {
    match fault {
        Fault::Cut => link.cut(),
        Fault::CutAfter(direction, bytes) => link.set(direction, Flow::CutAfter(bytes)),
        Fault::Refuse => {
            link.refuse().await;
            link.cut();
        }
        Fault::Delay(by) => {
            link.set(Direction::ToServer, Flow::Delay(by));
            link.set(Direction::ToClient, Flow::Delay(by));
        }
        Fault::BlackHole => link.black_hole(),
        Fault::DropReplies => link.drop_replies(),
        Fault::DropRequests => link.set(Direction::ToServer, Flow::Discard),
        Fault::Freeze => broker.freeze()?,
    }
    Ok(())
}

async fn end(fault: Fault, link: &FaultProxy, broker: &mut Broker) -> Result<()> {
    match fault {
        Fault::Cut | Fault::Delay(_) | Fault::BlackHole => link.heal(),
        Fault::CutAfter(..) => {
            link.cut();
            link.heal();
        }
        Fault::Refuse => link.accept().await?,
        Fault::DropReplies | Fault::DropRequests => {
            // What has lost bytes is of no use, and nobody may come before it is over.
            link.refuse().await;
            link.cut();
            link.heal();
            link.accept().await?;
        }
        Fault::Freeze => broker.thaw()?,
    }
    Ok(())
}

/// Ends whatever is wrong.
pub(super) async fn clear_up(link: &FaultProxy, broker: &mut Broker) -> Result<()> {
    link.refuse().await;
    link.cut();
    link.heal();
    link.accept().await?;
    match broker.is_up() {
        true => broker.thaw(),
        false => broker.restart().await,
    }
}
