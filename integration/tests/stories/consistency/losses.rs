//! Whatever makes the store forget is a new epoch, and the only thing that takes anything away.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use fred::{
    interfaces::ClientLike,
    prelude::{Builder, Client as Redis},
    types::{ClusterHash, CustomCommand, Value},
};
use integration::{PATIENCE, Proxy, Runner, shared_namespace_at};
use prism_client::EnumerateRequest;
use prism_testkit::{FaultProxy, NatsServer, RedisServer, eventually};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    callers::Callers,
    check::{check, check_nothing_of_before},
    history::Witness,
};

/// An address that leads to one server and later to another one, as names do.
struct Gateway {
    addr: SocketAddr,
    leads_to: Arc<watch::Sender<SocketAddr>>,
    _serve: AbortOnDropHandle<()>,
}

impl Gateway {
    async fn to(place: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (addr, leads_to) = (listener.local_addr()?, Arc::new(watch::Sender::new(place)));
        let places = leads_to.clone();
        let serve = tokio::spawn(async move {
            let mut relays = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut place = places.subscribe();
                let at = *place.borrow_and_update();
                relays.spawn(async move {
                    let mut server = TcpStream::connect(at).await?;
                    tokio::select! {
                        ended = tokio::io::copy_bidirectional(&mut client, &mut server) => ended.map(drop),
                        _ = place.changed() => Ok(()),
                    }
                });
            }
        });
        Ok(Self {
            addr,
            leads_to,
            _serve: AbortOnDropHandle::new(serve),
        })
    }
}

async fn admin(server: &RedisServer) -> Result<Redis> {
    let config = fred::types::config::Config::from_url(&server.url())?;
    let client = Builder::from_config(config).build()?;
    client.init().await?;
    Ok(client)
}

async fn run(admin: &Redis, words: &[&str]) -> Result<Value> {
    let arguments = words[1..].iter().map(|word| Value::from(*word)).collect();
    let command = CustomCommand::new(words[0].to_owned(), ClusterHash::Random, false);
    Ok(admin.custom(command, arguments).await?)
}

async fn replication(admin: &Redis, field: &str) -> Result<String> {
    let text = run(admin, &["INFO", "replication"]).await?;
    let text = text.as_string().context("INFO is text")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.unwrap_or_default().to_owned())
}

/// Waits until the watcher has been told of an epoch after this one, and of a hundred changes in it.
async fn told_of_another(witness: &Witness, before: Option<u64>) -> Option<u64> {
    eventually(PATIENCE * 2, "another epoch is told", async || {
        witness.reached().is_some_and(|at| Some(at.epoch) != before)
    })
    .await;
    told_of_more(witness, 100).await;
    witness.reached().map(|at| at.epoch)
}

async fn told_of_more(witness: &Witness, changes: u64) {
    let revision = || witness.reached().map_or(0, |at| at.revision);
    let goal = revision() + changes;
    eventually(PATIENCE * 2, "more changes are told", async || revision() >= goal).await;
}

/// Everything is flushed; the server is started again without what it had; a replica that has not seen the last
/// writes takes over. Eight clients and a watcher go on all the while.
#[tokio::test]
async fn nothing_is_lost_but_what_a_new_epoch_declares() -> Result<()> {
    let (mut primary, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let gateway = Gateway::to(primary.addr()).await?;
    let proxy = Proxy::start(&[shared_namespace_at("test", gateway.addr, nats.addr())]).await?;
    let _runners = [
        Runner::under(proxy.control).await?,
        Runner::under(proxy.control).await?,
    ];
    proxy.wait_for_runners("test", 2).await;
    let client = proxy.client("test")?;
    let witness = Witness::start(&client).await?;
    let callers = Callers::start(&client, 8);
    let first = told_of_another(&witness, None).await;

    run(&admin(&primary).await?, &["FLUSHALL"]).await?;
    let flushed = told_of_another(&witness, first).await;

    primary.restart_empty().await?;
    let restarted = told_of_another(&witness, flushed).await;

    let link = FaultProxy::start(primary.addr()).await?;
    let replica = RedisServer::start_replica_of(link.addr()).await?;
    let to_replica = admin(&replica).await?;
    eventually(PATIENCE, "the replica has a copy", async || {
        replication(&to_replica, "master_link_status")
            .await
            .is_ok_and(|state| state == "up")
    })
    .await;
    // With its first replica a server names its data anew. Nothing is lost by that, and nobody is told of it.
    told_of_more(&witness, 50).await;
    link.black_hole();
    // Acknowledged, and never seen by the replica.
    told_of_more(&witness, 50).await;
    primary.stop();
    link.cut();
    run(&to_replica, &["REPLICAOF", "NO", "ONE"]).await?;
    gateway.leads_to.send_replace(replica.addr());
    let promoted = told_of_another(&witness, restarted).await;

    let operations = callers.stop().await?;
    let last = client.registry.enumerate(EnumerateRequest::default()).await?;
    let history = witness.history(last.position).await?;
    let epochs: Vec<_> = history.eras.iter().map(|era| Some(era.epoch)).collect();
    assert_eq!(
        epochs,
        [first, flushed, restarted, promoted],
        "one for each loss, and no other"
    );
    let counts = check(&operations, &history)?;
    assert!(
        counts.written > 300 && counts.read > 50 && counts.listed > 20,
        "{counts:?}"
    );
    for emptied in [flushed, restarted].into_iter().flatten() {
        let checked = check_nothing_of_before(&operations, emptied)?;
        assert!(checked > 10, "{checked} answers in {emptied}");
    }
    Ok(())
}
