//! Dead letters.

use anyhow::Result;
use integration::calls::{next_message, register, stored};
use prism_client::{Client, ListDeadLettersRequest, RedriveRequest, Redriven, Settled, Subscription};

use crate::{
    combination::Slots,
    fixture::{Fixture, text, to},
    handing::letters,
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    dead_letters_are_bounded with { "behavior": { "max_dead_letters": 3 } } if Slots::store,
    dead_letters_can_go_back with { "behavior": { "inbox_max_messages": 1 } } if Slots::store,
];

/// Has the consumer refuse a message.
async fn refuse(client: &Client, session: &mut Subscription, payload: &str) -> Result<()> {
    client.registry.multicast(to("a", stored(payload))).await?;
    let message = next_message(session).await?;
    assert_eq!(message.term("not now").await?.settled().await?, Settled::Done);
    Ok(())
}

async fn dead_letters_are_bounded(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let mut session = client.registry.subscribe("a").await?;
    for payload in ["0", "1", "2", "3", "4"] {
        refuse(&client, &mut session, payload).await?;
    }
    let kept = letters(&client, 3).await?;
    let payloads: Vec<&[u8]> = kept.iter().map(|letter| &letter.payload[..]).collect();
    assert_eq!(payloads, [b"2", b"3", b"4"], "the oldest made room");
    let page = |cursor, identity: Option<&str>| {
        client.registry.list_dead_letters(ListDeadLettersRequest {
            identity: identity.map(str::to_owned),
            limit: Some(2),
            cursor,
        })
    };
    let first = page(None, None).await?;
    assert_eq!(first.letters, kept[..2]);
    let second = page(first.next_cursor, None).await?;
    assert_eq!((&second.letters[..], second.next_cursor), (&kept[2..], None));
    assert_eq!(page(None, Some("b")).await?.letters, []);
    Ok(())
}

async fn dead_letters_can_go_back(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let mut session = client.registry.subscribe("a").await?;
    refuse(&client, &mut session, "x").await?;
    let letter = letters(&client, 1).await?.remove(0);
    let redrive = || {
        client
            .registry
            .redrive_dead_letters(RedriveRequest::Letters(vec![letter.letter_id.clone()]))
    };
    client.registry.multicast(stored("in the way")).await?;
    let in_the_way = next_message(&mut session).await?;
    assert_eq!(counts(redrive().await?), (0, 1, 0), "there is room for one");
    in_the_way.ack().await?.settled().await?;
    assert_eq!(counts(redrive().await?), (1, 0, 0));
    assert_eq!(
        counts(redrive().await?),
        (0, 0, 1),
        "it is no dead letter any more"
    );
    let again = next_message(&mut session).await?;
    assert_eq!((text(&again).as_str(), again.attempt), ("x", 1));
    assert_eq!(again.delivery_id, letter.delivery_id);
    assert_eq!(again.ack().await?.settled().await?, Settled::Done);
    Ok(())
}

fn counts(redriven: Redriven) -> (u64, u64, u64) {
    (redriven.redriven_count, redriven.full_count, redriven.gone_count)
}
