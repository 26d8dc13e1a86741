//! Runners and brokers are killed, at random moments.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::Result;
use prism_client::DeliverySemantics;
use prism_testkit::seed;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    callers::{Callers, Clients, Habit},
    check::Counts,
    consumers::Consumers,
    faults::clear_up,
    history::Manner,
    hold, say, size,
    world::World,
};

/// At least so many targets are told of between two kills, so that each hits work that is under way.
const BETWEEN: u64 = 20;
/// How long after that, in milliseconds.
const MOMENTS: std::ops::Range<u64> = 0..200;

/// Kills one after the other: a runner twice as often as the broker.
async fn kill(
    world: &mut World,
    clients: &Clients,
    callers: &Callers,
    kills: u64,
    random: &mut SmallRng,
) -> Result<()> {
    for _ in 0..kills {
        callers
            .reach(callers.targets.load(Ordering::Relaxed) + BETWEEN)
            .await;
        tokio::time::sleep(Duration::from_millis(random.random_range(MOMENTS))).await;
        match random.random_range(0..3) {
            0 => world.broker.restart().await?,
            number => world.replace_runner(number - 1, clients).await?,
        }
    }
    Ok(())
}

/// Multicasts while so many processes are killed.
async fn under_kills(mut world: World, delivery: DeliverySemantics, kills: u64, seed: u64) -> Result<Counts> {
    let habit = Habit {
        delivery,
        callers: 4,
        keyed: delivery != DeliverySemantics::AtMostOnce,
        repeated: 0,
    };
    let manner = |number: usize| [Manner::Prompt, Manner::Careless, Manner::Raw][number % 3];
    let client = world.client()?;
    let consumers = Consumers::start(&client, 60, 0, manner, seed).await?;
    let clients = world.clients()?;
    let callers = Callers::start(&clients, habit, seed);
    let mut random = SmallRng::seed_from_u64(seed);
    kill(&mut world, &clients, &callers, kills, &mut random).await?;
    clear_up(&world.link, &mut world.broker).await?;
    let calls = callers.stop().await?;
    let counts = hold(&client, calls, consumers, &world.broker).await?;
    say(format_args!("{kills} kills, {counts:?}"));
    assert!(counts.targets as u64 > kills * BETWEEN / 2, "{counts:?}");
    Ok(counts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_make_no_lie_of_what_was_sent_once() -> Result<()> {
    let world = World::on_nats().await?;
    under_kills(world, DeliverySemantics::AtMostOnce, size(10, 30), seed()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_that_jetstream_has() -> Result<()> {
    let world = World::on_jetstream().await?;
    under_kills(world, DeliverySemantics::AtLeastOnce, size(10, 35), seed()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_that_redis_streams_have() -> Result<()> {
    let world = World::on_redis_streams().await?;
    under_kills(world, DeliverySemantics::ExactlyOnce, size(10, 35), seed()).await?;
    Ok(())
}
