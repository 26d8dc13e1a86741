//! What runners share, and what namespaces do not.

use anyhow::Result;
use integration::calls::{register, stored};
use prism_client::{EnumerateRequest, MulticastRequest, Outcome, Reason, RegisterRequest, Status};

use crate::{
    combination::Slots,
    fixture::{Fixture, once, refusal, status_of, texts, to},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    openings_share_one_history if Slots::are_shared,
    namespaces_have_their_own_history,
    namespaces_are_apart,
    namespaces_have_their_own_inboxes if Slots::store,
    namespaces_have_their_own_ledger,
];

/// Two runners over one backend see one history.
async fn openings_share_one_history(fixture: Fixture) -> Result<()> {
    let clients = fixture.through_each_runner()?;
    let (one, other) = (&clients[0], &clients[1]);
    let registered = one.registry.register(RegisterRequest::new("a")).await?;
    assert_eq!(
        other.registry.get("a").await?.identity.generation,
        registered.generation
    );
    let refused = other.registry.register(RegisterRequest::new("a")).await;
    assert_eq!(refusal(refused), Some(Reason::AlreadyRegistered));
    let next = other.registry.register(RegisterRequest::new("b")).await?;
    assert_eq!(next.position.epoch, registered.position.epoch);
    assert_eq!(next.position.revision, registered.position.revision + 1);
    for client in &clients {
        let page = client.registry.enumerate(EnumerateRequest::default()).await?;
        assert_eq!((page.total_count, page.position), (2, next.position));
    }
    Ok(())
}

/// The same identity in two namespaces of one backend is two registrations.
async fn namespaces_have_their_own_history(fixture: Fixture) -> Result<()> {
    const NAME: &str = "of-history";
    let (here, there) = (fixture.client()?, fixture.elsewhere()?);
    let first = here.registry.register(RegisterRequest::new(NAME)).await?;
    assert_eq!(
        refusal(there.registry.get(NAME).await),
        Some(Reason::NotRegistered)
    );
    let second = there.registry.register(RegisterRequest::new(NAME)).await?;
    assert_eq!(second.outcome, Outcome::Registered);
    assert_ne!(second.position.epoch, first.position.epoch);
    assert!(there.registry.unregister(NAME).await?.existed);
    assert_eq!(
        here.registry.get(NAME).await?.position,
        first.position,
        "nothing has happened here"
    );
    Ok(())
}

async fn namespaces_are_apart(fixture: Fixture) -> Result<()> {
    const NAME: &str = "of-messaging";
    let (here, there) = (fixture.client()?, fixture.elsewhere()?);
    register(&here, &[NAME]).await?;
    register(&there, &[NAME]).await?;
    let mut session = here.registry.subscribe(NAME).await?;
    let report = there.registry.multicast(to(NAME, once("elsewhere"))).await?;
    let status = status_of(&report, NAME);
    assert_eq!(
        (status.status, status.reason.as_deref()),
        (Status::Failed, Some("NO_SUBSCRIBER"))
    );
    here.registry.multicast(once("here")).await?;
    assert_eq!(texts(&mut session, 1).await?, ["here"]);
    Ok(())
}

async fn namespaces_have_their_own_inboxes(fixture: Fixture) -> Result<()> {
    const NAME: &str = "of-inboxes";
    let (here, there) = (fixture.client()?, fixture.elsewhere()?);
    for (client, payload) in [(&here, "here"), (&there, "there")] {
        register(client, &[NAME]).await?;
        client.registry.multicast(to(NAME, stored(payload))).await?;
    }
    for (client, payload) in [(&there, "there"), (&here, "here")] {
        let mut session = client.registry.subscribe(NAME).await?;
        client.registry.multicast(to(NAME, stored("last"))).await?;
        assert_eq!(texts(&mut session, 2).await?, [payload, "last"]);
    }
    Ok(())
}

/// One key in two namespaces is two keys, and receipts are of one namespace.
async fn namespaces_have_their_own_ledger(fixture: Fixture) -> Result<()> {
    let (here, there) = (fixture.client()?, fixture.elsewhere()?);
    let to_nobody = MulticastRequest {
        idempotency_key: Some("of-ledgers".into()),
        ..to("nobody", once("x"))
    };
    let first = here.registry.multicast(to_nobody.clone()).await?;
    let second = there.registry.multicast(to_nobody.clone()).await?;
    assert!(!second.replayed && second.multicast_id != first.multicast_id);
    let unknown = there.registry.get_multicast(first.multicast_id.as_str()).await;
    assert_eq!(refusal(unknown), Some(Reason::UnknownMulticast));
    assert_eq!(
        here.registry
            .get_multicast(first.multicast_id.as_str())
            .await?
            .target_count,
        0
    );
    Ok(())
}
