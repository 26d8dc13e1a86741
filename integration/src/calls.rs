//! What tests say and hear as clients, in short.

use anyhow::{Context, Result, bail};
use prism_client::{
    Change, Client, DeliverySemantics, Event, Message, MulticastRequest, RegisterRequest, Stage,
    Subscription, Watch, WatchEvent,
};
use prism_testkit::eventually;
use tokio::time::timeout;

use crate::PATIENCE;

/// Registers identities, without metadata and for good.
pub async fn register(client: &Client, names: &[&str]) -> Result<()> {
    for name in names {
        client.registry.register(RegisterRequest::new(*name)).await?;
    }
    Ok(())
}

/// A message to everybody that is stored until it is acknowledged.
pub fn stored(payload: &str) -> MulticastRequest {
    MulticastRequest {
        payload: payload.as_bytes().to_vec(),
        delivery: Some(DeliverySemantics::AtLeastOnce),
        ..Default::default()
    }
}

/// The next event of a session.
pub async fn next_event(session: &mut Subscription) -> Result<Event> {
    let event = timeout(PATIENCE, session.next()).await.context("nothing came")?;
    Ok(event.context("the session is over")??)
}

/// The next message of a session.
pub async fn next_message(session: &mut Subscription) -> Result<Message> {
    loop {
        if let Event::Message(message) = next_event(session).await? {
            return Ok(message);
        }
    }
}

/// The next change that a watch tells of.
pub async fn next_change(watch: &mut Watch) -> Result<Change> {
    loop {
        let event = timeout(PATIENCE, watch.next()).await.context("nothing is told")?;
        match event.context("the watch is over")?? {
            WatchEvent::Entered(change) | WatchEvent::Updated(change) | WatchEvent::Left(change) => {
                return Ok(change);
            }
            WatchEvent::Present(_) | WatchEvent::Bookmark(_) => {}
            WatchEvent::Restarted => bail!("the watch has begun anew"),
        }
    }
}

/// Waits until every target of a multicast is known to be this far.
pub async fn reaches(client: &Client, multicast: &str, stage: Stage) {
    eventually(PATIENCE, &format!("{multicast} is {stage:?}"), async || {
        let known = client.registry.get_multicast(multicast).await;
        known.is_ok_and(|known| known.statuses.iter().all(|status| status.stage == stage))
    })
    .await;
}
