//! Namespaces that share a store, a broker and every setting, and nothing else.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use integration::{PATIENCE, Proxy, Runner, shared_namespace};
use prism_client::{
    Client, EnumerateRequest, Event, Multicast, MulticastRequest, Reason, RegisterRequest, Status,
    Subscription,
};
use prism_testkit::{NatsServer, RedisServer};
use serde_json::json;
use tokio::time::timeout;

/// What could be taken for one another: as the beginning of a topic or a key, or as a pattern.
const NAMESPACES: [&str; 4] = ["fleet", "fleet-eu", "fleet_eu", "eu"];
/// Identities that spell others' topics, were they not escaped.
const IDENTITIES: [&str; 5] = ["a", "eu.a", "*", ">", "fleet.a"];

async fn subscribe(client: &Client, identity: &str) -> Result<Subscription> {
    let mut subscription = client.registry.subscribe(identity).await?;
    let opened = timeout(PATIENCE, subscription.next()).await?;
    ensure!(matches!(opened, Some(Ok(Event::Opened(_)))), "{opened:?}");
    Ok(subscription)
}

async fn multicast(client: &Client, payload: &str) -> Result<Multicast> {
    let request = MulticastRequest {
        payload: payload.as_bytes().to_vec(),
        ..MulticastRequest::default()
    };
    Ok(client.registry.multicast(request).await?)
}

async fn identities(client: &Client) -> Result<BTreeSet<String>> {
    let page = client.registry.enumerate(EnumerateRequest::default()).await?;
    Ok(page.identities.into_iter().map(|found| found.identity).collect())
}

/// All of them on one Redis and one NATS under the same prefixes, and two runners that serve them all.
#[tokio::test]
async fn namespaces_on_one_store_and_one_broker_never_mix() -> Result<()> {
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let proxy = Proxy::start(&NAMESPACES.map(|name| shared_namespace(name, &redis, &nats))).await?;
    let _runners = (
        Runner::under(proxy.control).await?,
        Runner::under(proxy.control).await?,
    );
    let mut clients = Vec::new();
    for namespace in NAMESPACES {
        proxy.wait_for_runners(namespace, 2).await;
        clients.push(proxy.client(namespace)?);
    }

    // The same identities everywhere, each a registration of its own.
    for (client, namespace) in clients.iter().zip(NAMESPACES) {
        for identity in IDENTITIES {
            let request = RegisterRequest {
                metadata: json!({ "home": namespace }),
                ..RegisterRequest::new(identity)
            };
            client.registry.register(request).await?;
        }
        let somebody_else = proxy.client(namespace)?;
        let again = somebody_else
            .registry
            .register(RegisterRequest::new("a"))
            .await
            .unwrap_err();
        ensure!(again.reason() == Some(Reason::AlreadyRegistered), "{again}");
    }

    // Everybody listens, in one namespace after the other, and hears of its own alone: what is meant for
    // others would come between.
    let mut sessions = Vec::new();
    for (at, client) in clients.iter().enumerate() {
        for identity in IDENTITIES {
            sessions.push((at, identity, subscribe(client, identity).await?));
        }
        for (sender, sending) in clients.iter().enumerate() {
            let sent = multicast(sending, NAMESPACES[sender]).await?;
            let expected = if sender <= at {
                Status::Delivered
            } else {
                Status::Failed
            };
            ensure!(sent.target_count == IDENTITIES.len() as u64, "{sent:?}");
            ensure!(
                sent.statuses.iter().all(|target| target.status == expected),
                "{at} {sender}: {sent:?}"
            );
        }
        for (owner, identity, session) in &mut sessions {
            let heard = timeout(PATIENCE, session.next()).await?;
            let Some(Ok(Event::Message(message))) = heard else {
                anyhow::bail!("`{identity}` of {} heard {heard:?}", NAMESPACES[*owner])
            };
            ensure!(message.payload == NAMESPACES[*owner].as_bytes(), "{message:?}");
        }
    }

    // What is removed here is there elsewhere.
    clients[0].registry.unregister("a").await?;
    for (at, client) in clients.iter().enumerate() {
        let everybody = IDENTITIES.map(str::to_owned);
        let expected = everybody
            .into_iter()
            .filter(|identity| at > 0 || identity != "a")
            .collect();
        ensure!(identities(client).await? == expected, "{}", NAMESPACES[at]);
    }
    Ok(())
}
