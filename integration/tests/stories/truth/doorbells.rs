//! What runners tell each other is lost, all of it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use prism_client::DeliverySemantics;
use prism_testkit::{Direction, Flow, seed};

use super::{
    callers::{Callers, Habit},
    consumers::Consumers,
    history::Manner,
    hold, say, size,
    world::World,
};

/// All sessions are at one runner and all callers at the other, and neither doorbells nor receipts arrive. Sessions look
/// for themselves, later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_doorbell_messages_come_later_and_none_is_lost() -> Result<()> {
    let (world, seed) = (World::with_messaging_behind_the_link().await?, seed());
    let client = world.client()?;
    let (near, far) = (world.runners[0].client("test")?, world.runners[1].client("test")?);
    let mut consumers = Consumers::start(&near, 100, 0, |_| Manner::Raw, seed).await?;
    world.link.set(Direction::ToServer, Flow::Discard);
    let habit = Habit {
        delivery: DeliverySemantics::AtLeastOnce,
        callers: 4,
        keyed: true,
        repeated: 0,
    };
    let callers = Callers::start(&Arc::new(Mutex::new(vec![far])), habit, seed);
    callers.reach(size(1_000, 5_000)).await;
    let calls = callers.stop().await?;
    let late = consumers.settle(&calls, Duration::ZERO).await?;
    let counts = hold(&client, calls, consumers, &world.broker).await?;
    say(format_args!("{} calls late, {counts:?}", late.len()));
    assert_eq!(late.len(), counts.calls, "a doorbell was heard");
    assert_eq!(counts.failed + counts.unknown, 0, "{counts:?}");
    Ok(())
}
