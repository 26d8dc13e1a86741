//! Random faults between runners and brokers.

use anyhow::Result;
use prism_client::DeliverySemantics;
use prism_testkit::seed;
use rand::{SeedableRng, rngs::SmallRng};

use super::{
    callers::{Callers, Habit},
    check::Counts,
    consumers::Consumers,
    faults::{clear_up, trouble},
    history::Manner,
    hold, say, size,
    world::World,
};

/// Multicasts until so many targets were told of, while the broker is in trouble.
async fn in_trouble(
    mut world: World,
    habit: Habit,
    targets: u64,
    manner: impl Fn(usize) -> Manner,
    seed: u64,
) -> Result<Counts> {
    let client = world.client()?;
    let absent = if habit.delivery == DeliverySemantics::AtMostOnce {
        20
    } else {
        0
    };
    let consumers = Consumers::start(&client, 200, absent, manner, seed).await?;
    let clients = world.clients()?;
    let callers = Callers::start(&clients, habit, seed);
    let mut random = SmallRng::seed_from_u64(seed);
    tokio::select! {
        ended = trouble(&world.link, &mut world.broker, &mut random) => ended?,
        () = callers.reach(targets) => {}
    }
    clear_up(&world.link, &mut world.broker).await?;
    let calls = callers.stop().await?;
    hold(&client, calls, consumers, &world.broker).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_once_over_a_failing_nats_is_told_truthfully() -> Result<()> {
    let habit = Habit {
        delivery: DeliverySemantics::AtMostOnce,
        callers: 12,
        keyed: false,
        repeated: 0,
    };
    let targets = size(20_000, 60_000);
    let counts = in_trouble(World::on_nats().await?, habit, targets, |_| Manner::Raw, seed()).await?;
    say(format_args!("{counts:?}"));
    let told = counts.accepted + counts.handed + counts.acked;
    assert!(counts.acked > 1_000 && told > counts.targets / 10, "{counts:?}");
    assert!(
        counts.failed > 100 && counts.unknown > 100,
        "it was no trouble: {counts:?}"
    );
    Ok(())
}

/// Two thirds of the consumers forget or refuse messages at first, so that much comes again.
fn mixed(number: usize) -> Manner {
    [Manner::Prompt, Manner::Careless, Manner::Raw][number % 3]
}

const AT_LEAST_ONCE: Habit = Habit {
    delivery: DeliverySemantics::AtLeastOnce,
    callers: 16,
    keyed: true,
    repeated: 0,
};

fn assert_nothing_was_easy(counts: Counts) {
    say(format_args!("{counts:?}"));
    // On a machine that does much else, more of the calls come to nothing.
    assert!(counts.acked > counts.targets / 4, "{counts:?}");
    assert!(counts.flagged > 100, "nothing came again: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failing_jetstream_stores_is_told_truthfully_and_arrives() -> Result<()> {
    let targets = size(5_000, 15_000);
    let world = World::on_jetstream().await?;
    assert_nothing_was_easy(in_trouble(world, AT_LEAST_ONCE, targets, mixed, seed()).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failing_redis_streams_store_is_told_truthfully_and_arrives() -> Result<()> {
    let targets = size(5_000, 15_000);
    let world = World::on_redis_streams().await?;
    assert_nothing_was_easy(in_trouble(world, AT_LEAST_ONCE, targets, mixed, seed()).await?);
    Ok(())
}

/// Each call is repeated with its idempotency key, through the other runner, also where it was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_repeated_with_its_key_comes_once_behind_suppression() -> Result<()> {
    let habit = Habit {
        delivery: DeliverySemantics::ExactlyOnce,
        repeated: 1,
        ..AT_LEAST_ONCE
    };
    let targets = size(3_000, 10_000);
    let world = World::on_jetstream().await?;
    assert_nothing_was_easy(in_trouble(world, habit, targets, mixed, seed()).await?);
    Ok(())
}
