//! Leases, and sessions that need a registration.

use anyhow::Result;
use integration::calls::next_event;
use prism_client::{
    EnumerateRequest, Event, Identity, Lease, Reason, RegisterRequest, SubscribeRequest, Subscription,
};

use crate::{
    fixture::{Fixture, PAST_TTL, TTL, end_of, leased, pass, refusal},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    renew_never_creates,
    renew_moves_only_the_lease,
    renew_answers_in_order,
    renew_is_fenced,
    leases_follow_renewals,
    claims_are_ordered,
    claims_need_the_registration,
];

/// Why one lease was not renewed.
async fn renewal(client: &prism_client::Client, lease: impl Into<Lease>) -> Result<Option<Reason>> {
    let mut renewals = client.registry.renew([lease]).await?;
    Ok(renewals.remove(0).result.err().and_then(|error| error.reason()))
}

async fn renew_never_creates(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    assert_eq!(renewal(&client, "a").await?, Some(Reason::NotRegistered));
    client.registry.register(leased("a")).await?;
    pass(PAST_TTL).await;
    assert_eq!(renewal(&client, "a").await?, Some(Reason::NotRegistered));
    assert_eq!(
        refusal(client.registry.get("a").await),
        Some(Reason::NotRegistered)
    );
    Ok(())
}

async fn renew_moves_only_the_lease(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let registered = client.registry.register(leased("a")).await?;
    let before = client.registry.get("a").await?;
    for _ in 0..3 {
        pass(TTL / 2).await;
        let renewed = client.registry.renew([&registered]).await?.remove(0).result?;
        assert!(renewed.expires_at > registered.expires_at);
        let again = renewed.renew_after.unwrap();
        assert!(again < TTL / 2, "to be renewed again after {again:?}");
    }
    let after = client.registry.get("a").await?;
    assert_eq!(after.position, before.position);
    let kept = Identity {
        expires_at: before.identity.expires_at,
        ..after.identity
    };
    assert_eq!(kept, before.identity);
    client.registry.register(RegisterRequest::new("forever")).await?;
    let renewed = client.registry.renew(["forever"]).await?.remove(0).result?;
    assert_eq!((renewed.expires_at, renewed.renew_after), (None, None));
    Ok(())
}

async fn renew_answers_in_order(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let minute = RegisterRequest {
        ttl: Some(60),
        ..RegisterRequest::new("a")
    };
    let a = client.registry.register(minute).await?;
    client.registry.register(RegisterRequest::new("forever")).await?;
    let stale = Lease {
        identity: "forever".into(),
        generation: Some(a.generation),
    };
    let kinds = [
        Lease::from(&a),
        Lease::from("nobody"),
        Lease::from("forever"),
        stale,
    ];
    // More of them than one call to a slot takes.
    let renewals = client
        .registry
        .renew((0..5_000).map(|number| kinds[number % 4].clone()))
        .await?;
    assert_eq!(renewals.len(), 5_000);
    for (number, renewal) in renewals.into_iter().enumerate() {
        assert_eq!(renewal.identity, kinds[number % 4].identity);
        let told = match &renewal.result {
            Ok(renewed) => Ok(renewed.expires_at.is_some()),
            Err(error) => Err(error.reason().unwrap()),
        };
        let expected = [
            Ok(true),
            Err(Reason::NotRegistered),
            Ok(false),
            Err(Reason::StaleGeneration),
        ];
        assert_eq!(told, expected[number % 4], "{number}");
    }
    Ok(())
}

async fn renew_is_fenced(fixture: Fixture) -> Result<()> {
    let (old, new) = (fixture.client()?, fixture.client()?);
    let minute = || RegisterRequest {
        ttl: Some(60),
        replace: true,
        ..RegisterRequest::new("a")
    };
    let first = old.registry.register(minute()).await?;
    let second = new.registry.register(minute()).await?;
    assert_eq!(renewal(&old, &first).await?, Some(Reason::StaleGeneration));
    assert_eq!(renewal(&new, &second).await?, None);
    Ok(())
}

async fn leases_follow_renewals(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let registered = client.registry.register(leased("a")).await?;
    client.registry.register(RegisterRequest::new("forever")).await?;
    let listed = async || {
        let page = client.registry.enumerate(EnumerateRequest::default()).await?;
        let leases = page
            .into_iter()
            .map(|identity| (identity.identity, identity.expires_at));
        anyhow::Ok(leases.collect::<Vec<_>>())
    };
    pass(TTL * 2 / 3).await;
    client.registry.renew(["a"]).await?;
    pass(TTL / 2).await;
    let leases = listed().await?;
    assert_eq!(leases.len(), 2, "it is renewed");
    assert!(leases[0].1 > registered.expires_at, "{leases:?}");
    assert_eq!(leases[1], ("forever".to_owned(), None));
    pass(PAST_TTL).await;
    assert_eq!(listed().await?, leases[1..], "and not renewed again");
    Ok(())
}

/// The number that orders a session, which begins by saying it.
async fn number_of(session: &mut Subscription) -> Result<u64> {
    match next_event(session).await? {
        Event::Opened(opened) => Ok(opened.session_seq),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn claims_are_ordered(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let registered = client.registry.register(RegisterRequest::new("a")).await?;
    let (mut last, mut sessions) = (0, Vec::new());
    for client in fixture.through_each_runner()?.iter().cycle().take(4) {
        for request in [SubscribeRequest::from("a"), SubscribeRequest::from(&registered)] {
            let mut session = client.registry.subscribe(request).await?;
            let number = number_of(&mut session).await?;
            assert!(number > last, "{number} after {last}");
            last = number;
            sessions.push(session);
        }
    }
    let head = client.registry.get("a").await?.position;
    assert_eq!(head, registered.position, "a session uses no revision");
    Ok(())
}

async fn claims_need_the_registration(fixture: Fixture) -> Result<()> {
    let (client, other) = (fixture.client()?, fixture.client()?);
    let absent = client.registry.subscribe("a").await;
    assert_eq!(refusal(absent), Some(Reason::NotRegistered));
    let first = client.registry.register(RegisterRequest::new("a")).await?;
    let replace = RegisterRequest {
        replace: true,
        ..leased("a")
    };
    let second = other.registry.register(replace).await?;
    let stale = client.registry.subscribe(&first).await;
    assert_eq!(refusal(stale), Some(Reason::StaleGeneration));
    let mut live = other.registry.subscribe(&second).await?;
    pass(PAST_TTL).await;
    let due = other.registry.subscribe(&second).await;
    assert_eq!(refusal(due), Some(Reason::NotRegistered));
    assert_eq!(end_of(&mut live).await?.reason(), Some(Reason::Unregistered));
    Ok(())
}
