//! Who is handed what is stored, and how often.

use std::time::Duration;

use anyhow::Result;
use integration::{
    PATIENCE,
    calls::{next_message, register, stored},
};
use prism_client::{
    Credits, DeadLetter, ListDeadLettersRequest, Reason, Status, SubscribeRequest, Subscription,
};
use prism_testkit::eventually;
use tokio::time::{Instant, timeout};

use crate::{
    combination::Slots,
    fixture::{Fixture, end_of, text, texts},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    a_new_consumer_gets_what_was_out if Slots::store,
    the_latest_consumer_stays if Slots::store,
    attempts_are_counted if Slots::store,
    unsettled_messages_come_again with { "behavior": { "ack_timeout": "1s" } } if Slots::store,
    some_come_back_while_others_are_out with { "behavior": { "ack_timeout": "600s" } } if Slots::store,
    messages_that_are_out_wait with { "behavior": { "ack_timeout": "600s" } } if Slots::store,
    given_up_messages_are_dead_letters with { "behavior": { "max_deliver": 2 } } if Slots::store,
    fetches_are_bounded with { "behavior": { "max_unacked": 2 } } if Slots::store,
    only_the_consumer_fetches_and_settles if Slots::store,
    what_is_released_was_not_handed_out if Slots::store,
];

/// Whether nothing comes for a while.
async fn is_silent(session: &mut Subscription) -> bool {
    timeout(Duration::from_millis(500), next_message(session))
        .await
        .is_err()
}

async fn a_new_consumer_gets_what_was_out(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    client.registry.multicast(stored("x")).await?;
    let mut attempt = 0;
    for client in fixture.through_each_runner()?.iter().cycle().take(2) {
        let mut session = client.registry.subscribe("a").await?;
        let message = next_message(&mut session).await?;
        attempt += 1;
        assert_eq!((text(&message), message.attempt), ("x".to_owned(), attempt));
    }
    Ok(())
}

async fn the_latest_consumer_stays(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let clients = fixture.through_each_runner()?;
    let mut sessions = Vec::new();
    for client in clients.iter().cycle().take(3) {
        sessions.push(client.registry.subscribe("a").await?);
    }
    let mut latest = sessions.pop().unwrap();
    for session in &mut sessions {
        assert_eq!(end_of(session).await?.reason(), Some(Reason::Superseded));
    }
    client.registry.multicast(stored("x")).await?;
    assert_eq!(texts(&mut latest, 1).await?, ["x"]);
    Ok(())
}

async fn attempts_are_counted(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    client.registry.multicast(stored("x")).await?;
    let mut session = client.registry.subscribe("a").await?;
    let mut delivery = None;
    for attempt in 1..=4 {
        let message = next_message(&mut session).await?;
        assert_eq!(message.attempt, attempt);
        assert_eq!(
            *delivery.get_or_insert(message.delivery_id.clone()),
            message.delivery_id
        );
        message.nack(Duration::ZERO).await?.settled().await?;
    }
    Ok(())
}

async fn unsettled_messages_come_again(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    client.registry.multicast(stored("x")).await?;
    let mut session = client.registry.subscribe("a").await?;
    let first = next_message(&mut session).await?;
    let second = next_message(&mut session).await?;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert_eq!(first.delivery_id, second.delivery_id);
    Ok(())
}

async fn some_come_back_while_others_are_out(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    for number in 0..6 {
        client.registry.multicast(stored(&number.to_string())).await?;
    }
    let mut session = client.registry.subscribe("a").await?;
    let mut out = Vec::new();
    for _ in 0..6 {
        out.push(next_message(&mut session).await?);
    }
    for message in out {
        match text(&message).as_str() {
            "3" => message.ack().await?,
            "0" | "2" | "5" => message.nack(Duration::ZERO).await?,
            _ => continue,
        }
        .settled()
        .await?;
    }
    let mut again = Vec::new();
    for _ in 0..3 {
        let message = next_message(&mut session).await?;
        again.push((text(&message), message.attempt));
    }
    again.sort_unstable();
    assert_eq!(again, ["0", "2", "5"].map(|text| (text.to_owned(), 2)));
    assert!(is_silent(&mut session).await, "the others are out");
    Ok(())
}

async fn messages_that_are_out_wait(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    client.registry.multicast(stored("x")).await?;
    let mut session = client.registry.subscribe("a").await?;
    let message = next_message(&mut session).await?;
    assert!(is_silent(&mut session).await, "it is out");
    let delay = Duration::from_secs(1);
    let said_at = Instant::now();
    message.nack(delay).await?.settled().await?;
    assert_eq!(next_message(&mut session).await?.attempt, 2);
    let after = said_at.elapsed();
    assert!(after >= delay, "again after {after:?}");
    Ok(())
}

/// All letters, once there are so many.
pub(crate) async fn letters(client: &prism_client::Client, count: usize) -> Result<Vec<DeadLetter>> {
    let listed = || {
        client
            .registry
            .list_dead_letters(ListDeadLettersRequest::default())
    };
    eventually(PATIENCE, &format!("there are {count} dead letters"), async || {
        listed().await.is_ok_and(|page| page.letters.len() == count)
    })
    .await;
    Ok(listed().await?.letters)
}

async fn given_up_messages_are_dead_letters(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let report = client.registry.multicast(stored("x")).await?;
    let mut session = client.registry.subscribe("a").await?;
    let mut delivery = String::new();
    for _ in 0..2 {
        let message = next_message(&mut session).await?;
        message.nack(Duration::ZERO).await?.settled().await?;
        delivery = message.delivery_id;
    }
    let dead = letters(&client, 1).await?.remove(0);
    assert_eq!(
        (dead.identity.as_str(), dead.reason.as_str(), dead.attempts),
        ("a", "MAX_DELIVER", 2)
    );
    assert_eq!(
        (&dead.payload[..], dead.payload_size, dead.delivery_id),
        (&b"x"[..], 1, delivery)
    );
    eventually(PATIENCE, "its sender is told", async || {
        let known = client.registry.get_multicast(report.multicast_id.as_str()).await;
        known.is_ok_and(|known| {
            let target = &known.statuses[0];
            target.status == Status::Failed && target.reason.as_deref() == Some("MAX_DELIVER")
        })
    })
    .await;
    assert!(is_silent(&mut session).await, "and it does not come again");
    Ok(())
}

async fn fetches_are_bounded(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    for payload in ["1", "2", "3", "4"] {
        client.registry.multicast(stored(payload)).await?;
    }
    let mut session = client.registry.subscribe("a").await?;
    let first = next_message(&mut session).await?;
    let second = next_message(&mut session).await?;
    assert_eq!((text(&first), text(&second)), ("1".into(), "2".into()));
    assert!(is_silent(&mut session).await, "two are out");
    first.ack().await?.settled().await?;
    assert_eq!(texts(&mut session, 1).await?, ["3"]);
    assert!(is_silent(&mut session).await, "two are out again");
    second.ack().await?.settled().await?;
    assert_eq!(texts(&mut session, 1).await?, ["4"]);
    Ok(())
}

async fn only_the_consumer_fetches_and_settles(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    client.registry.multicast(stored("x")).await?;
    let clients = fixture.through_each_runner()?;
    let mut first = clients[0].registry.subscribe("a").await?;
    let held = next_message(&mut first).await?;
    let mut second = clients[clients.len() - 1].registry.subscribe("a").await?;
    assert_eq!(end_of(&mut first).await?.reason(), Some(Reason::Superseded));
    assert!(held.ack().await.is_err(), "the first one has no say any more");
    let again = next_message(&mut second).await?;
    assert_eq!((text(&again), again.attempt), ("x".to_owned(), 2));
    again.ack().await?.settled().await?;
    Ok(())
}

/// What a session had no credit for was not handed out.
async fn what_is_released_was_not_handed_out(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    for payload in ["1", "2", "3"] {
        client.registry.multicast(stored(payload)).await?;
    }
    let one_only = SubscribeRequest {
        credits: Credits::Manual(1),
        ..SubscribeRequest::from("a")
    };
    let mut session = client.registry.subscribe(one_only).await?;
    assert_eq!(texts(&mut session, 1).await?, ["1"]);
    drop(session);
    let mut session = client.registry.subscribe("a").await?;
    for expected in [("1", 2), ("2", 1), ("3", 1)] {
        let message = next_message(&mut session).await?;
        assert_eq!((text(&message).as_str(), message.attempt), expected);
    }
    Ok(())
}
