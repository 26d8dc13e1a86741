//! Messages that are stored: which, in what order, how many and for how long.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use integration::{
    PATIENCE,
    calls::{next_message, reaches, register, stored},
};
use prism_client::{Client, DeliverySemantics, Error, MulticastRequest, Priority, Reason, Stage, Status};
use prism_testkit::eventually;

use crate::{
    combination::Slots,
    fixture::{Fixture, pass, refusal, status_of, text, texts, to},
    messaging::{LARGEST_REQUEST, assert_full, awkward_names, full},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    messages_come_in_order if Slots::store,
    urgent_messages_come_first if Slots::store,
    inboxes_are_apart if Slots::store,
    stored_messages_arrive_unchanged if Slots::store,
    a_message_is_stored_once if Slots::store,
    a_full_inbox_rejects with { "behavior": { "inbox_max_messages": 2 } } if Slots::store,
    the_oldest_makes_room
        with { "behavior": { "inbox_max_messages": 2, "inbox_overflow": "drop_oldest" } } if Slots::store,
    what_makes_room_is_told
        with { "behavior": { "inbox_max_messages": 2, "inbox_overflow": "drop_oldest" } } if Slots::tell_losses,
    messages_expire if Slots::store,
    what_expires_is_told if Slots::tell_losses,
    what_expires_untold_is_unknown if |slots| slots.store() && !slots.tell_losses(),
    payloads_over_the_limit_are_not_stored
        if |slots| slots.store() && slots.max_payload() <= LARGEST_REQUEST,
    nothing_is_stored_without_a_slot if |slots| !slots.store(),
];

/// How long a message lives that does not live long. Some backends know only whole seconds.
const LIFE: Duration = Duration::from_secs(1);

/// Stores a message for one identity; what the multicast is called.
async fn store(client: &Client, name: &str, payload: &str) -> Result<String> {
    let report = client.registry.multicast(to(name, stored(payload))).await?;
    let status = status_of(&report, name);
    assert_eq!(status.status, Status::Pending, "{status:?}");
    assert!(status.stage >= Stage::Stored, "{status:?}");
    Ok(report.multicast_id)
}

async fn messages_come_in_order(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let sent: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    for payload in &sent {
        store(&client, "a", payload).await?;
    }
    let mut session = client.registry.subscribe("a").await?;
    for payload in &sent {
        let message = next_message(&mut session).await?;
        assert_eq!(
            (&text(&message), message.attempt, message.stored),
            (payload, 1, true)
        );
    }
    Ok(())
}

async fn urgent_messages_come_first(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    for (payload, priority) in [
        ("low", Priority::Low),
        ("normal 1", Priority::Normal),
        ("high 1", Priority::High),
        ("normal 2", Priority::Normal),
        ("high 2", Priority::High),
    ] {
        let request = MulticastRequest {
            priority,
            ..stored(payload)
        };
        assert_eq!(client.registry.multicast(request).await?.pending_count, 1);
    }
    let mut session = client.registry.subscribe("a").await?;
    let expected = ["high 1", "high 2", "normal 1", "normal 2", "low"];
    assert_eq!(texts(&mut session, 5).await?, expected);
    Ok(())
}

async fn inboxes_are_apart(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let names = awkward_names();
    for name in &names {
        register(&client, &[name]).await?;
        store(&client, name, name).await?;
    }
    let report = client.registry.multicast(stored("to all")).await?;
    assert_eq!(report.pending_count, names.len() as u64);
    for name in &names {
        let mut session = client.registry.subscribe(name.as_str()).await?;
        assert_eq!(text(&next_message(&mut session).await?), *name);
        let to_all = next_message(&mut session).await?;
        assert_eq!(text(&to_all), "to all");
        to_all.ack().await?.settled().await?;
    }
    reaches(&client, &report.multicast_id, Stage::Acked).await;
    Ok(())
}

async fn stored_messages_arrive_unchanged(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let sent_at = SystemTime::now();
    let delivery = Some(DeliverySemantics::AtLeastOnce);
    for request in [full(), MulticastRequest::default()] {
        let request = MulticastRequest { delivery, ..request };
        client.registry.multicast(request).await?;
    }
    let mut session = client.registry.subscribe("a").await?;
    assert_full(&next_message(&mut session).await?, sent_at);
    let empty = next_message(&mut session).await?;
    assert_eq!((&empty.payload[..], empty.reply_to), (&b""[..], None));
    assert_eq!(empty.content_type, "application/octet-stream");
    Ok(())
}

async fn a_message_is_stored_once(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a", "b"]).await?;
    let once = MulticastRequest {
        delivery: Some(DeliverySemantics::ExactlyOnce),
        idempotency_key: Some("order-7".into()),
        ..stored("once")
    };
    let first = client.registry.multicast(once.clone()).await?;
    assert_eq!((first.pending_count, first.replayed), (2, false));
    let again = client.registry.multicast(once.clone()).await?;
    assert_eq!((&again.multicast_id, again.replayed), (&first.multicast_id, true));
    let mut session = client.registry.subscribe("a").await?;
    let message = next_message(&mut session).await?;
    assert_eq!(
        (text(&message), &message.multicast_id),
        ("once".into(), &first.multicast_id)
    );
    message.ack().await?.settled().await?;
    for client in fixture.through_each_runner()? {
        assert!(
            client.registry.multicast(once.clone()).await?.replayed,
            "also when it has been acknowledged"
        );
    }
    store(&client, "a", "another").await?;
    assert_eq!(texts(&mut session, 1).await?, ["another"], "nothing comes twice");
    Ok(())
}

/// What became of one more message.
async fn one_more(client: &Client, name: &str) -> Result<Option<String>> {
    let report = client.registry.multicast(to(name, stored("x"))).await?;
    Ok(status_of(&report, name).reason.clone())
}

async fn a_full_inbox_rejects(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a", "b"]).await?;
    let full = Some("INBOX_FULL".to_owned());
    for expected in [None, None, full.clone()] {
        assert_eq!(one_more(&client, "a").await?, expected);
    }
    assert_eq!(one_more(&client, "b").await?, None);
    let mut session = client.registry.subscribe("a").await?;
    let first = next_message(&mut session).await?;
    next_message(&mut session).await?;
    assert_eq!(one_more(&client, "a").await?, full, "what is out counts");
    first.ack().await?.settled().await?;
    assert_eq!(one_more(&client, "a").await?, None);
    Ok(())
}

async fn the_oldest_makes_room(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    for payload in ["1", "2", "3"] {
        store(&client, "a", payload).await?;
    }
    let mut session = client.registry.subscribe("a").await?;
    assert_eq!(texts(&mut session, 2).await?, ["2", "3"]);
    Ok(())
}

/// Waits for what is known of the only target to be this.
pub(crate) async fn becomes(client: &Client, multicast: &str, status: Status, reason: Option<&str>) {
    let what = format!("{multicast} is {status:?} with {reason:?}");
    eventually(PATIENCE, &what, async || {
        let known = client.registry.get_multicast(multicast).await;
        known.is_ok_and(|known| {
            let target = &known.statuses[0];
            (target.status, target.reason.as_deref()) == (status, reason)
        })
    })
    .await;
}

async fn what_makes_room_is_told(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let first = store(&client, "a", "1").await?;
    let second = store(&client, "a", "2").await?;
    store(&client, "a", "3").await?;
    becomes(&client, &first, Status::Failed, Some("DISPLACED")).await;
    becomes(&client, &second, Status::Pending, None).await;
    Ok(())
}

/// Stores a message that does not live long; what the multicast is called.
async fn store_briefly(client: &Client) -> Result<String> {
    let brief = MulticastRequest {
        expires_in: Some(LIFE),
        ..stored("gone")
    };
    Ok(client.registry.multicast(brief).await?.multicast_id)
}

async fn messages_expire(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a", "b"]).await?;
    store_briefly(&client).await?;
    store(&client, "a", "stays").await?;
    pass(LIFE * 3).await;
    let mut session = client.registry.subscribe("a").await?;
    assert_eq!(texts(&mut session, 1).await?, ["stays"]);
    let mut other = client.registry.subscribe("b").await?;
    store(&client, "b", "new").await?;
    assert_eq!(texts(&mut other, 1).await?, ["new"]);
    Ok(())
}

async fn what_expires_is_told(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let gone = store_briefly(&client).await?;
    becomes(&client, &gone, Status::Failed, Some("EXPIRED")).await;
    Ok(())
}

async fn what_expires_untold_is_unknown(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let gone = store_briefly(&client).await?;
    eventually(PATIENCE, "nobody knows what became of it", async || {
        let known = client.registry.get_multicast(gone.as_str()).await;
        known.is_ok_and(|known| known.timeout_count == 1)
    })
    .await;
    Ok(())
}

async fn payloads_over_the_limit_are_not_stored(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let sized = |size| MulticastRequest {
        payload: vec![7; size],
        ..stored("")
    };
    let refused = client
        .registry
        .multicast(sized(fixture.slots().max_payload() + 1))
        .await;
    let Err(Error::Refused(refusal)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refusal.reason, Reason::PayloadTooLarge.as_str());
    let most: usize = refusal.details["limit"].parse()?;
    assert!(most > fixture.slots().max_payload() / 2, "{most} bytes");
    assert_eq!(client.registry.multicast(sized(most)).await?.pending_count, 1);
    let mut session = client.registry.subscribe("a").await?;
    assert_eq!(next_message(&mut session).await?.payload.len(), most);
    Ok(())
}

async fn nothing_is_stored_without_a_slot(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let refused = client.registry.multicast(stored("x")).await;
    assert_eq!(refusal(refused), Some(Reason::Unsupported));
    let letters = client.registry.list_dead_letters(Default::default()).await;
    assert_eq!(refusal(letters), Some(Reason::Unsupported));
    Ok(())
}
