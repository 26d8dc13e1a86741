//! Clusters, and an address that moves from one server to another.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prism_slot::{Error, RegistryStore, Revision};
use prism_slot_redis::RedisRegistry;
use prism_testkit::{FaultProxy, RedisServer, eventually, eventually_some, free_port};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::support::*;

/// A cluster of primaries that share the slots evenly.
pub(super) async fn cluster(size: usize) -> Vec<RedisServer> {
    let mut nodes = Vec::new();
    for _ in 0..size {
        let bus = free_port().to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        nodes.push(RedisServer::start_with(&options).await.unwrap());
    }
    let first = Admin::to(nodes[0].addr()).await;
    for (index, node) in nodes.iter().enumerate() {
        let admin = Admin::to(node.addr()).await;
        let (from, to) = (16_384 * index / size, 16_384 * (index + 1) / size - 1);
        admin
            .run(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()])
            .await;
        // Each its own, or two nodes may claim one and resolve that in seconds.
        admin
            .run(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])
            .await;
        let bus = admin.run(&["CONFIG", "GET", "cluster-port"]).await.into_array()[1]
            .as_string()
            .unwrap();
        let port = node.addr().port().to_string();
        first.run(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
    }
    for node in &nodes {
        until_complete(node, size).await;
    }
    nodes
}

/// Waits until a node knows so many, and who has which slot.
async fn until_complete(node: &RedisServer, size: usize) {
    let admin = Admin::to(node.addr()).await;
    eventually(SOON, "the cluster is complete", || async {
        let state = admin.run(&["CLUSTER", "INFO"]).await.as_string().unwrap();
        state.contains("cluster_state:ok") && state.contains(&format!("cluster_known_nodes:{size}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_live_on_every_node_of_a_cluster() {
    let nodes = cluster(3).await;
    for number in 0..12 {
        let config = config(
            nodes[number % 3].addr(),
            json!({ "cluster": true, "pool_size": 1 }),
        );
        let slot = RedisRegistry::open(&format!("namespace-{number}"), config)
            .await
            .unwrap();
        let batch = (0..50)
            .map(|number| leased(&format!("id-{number}"), 60_000))
            .collect();
        assert!(slot.register(call(), batch).await.iter().all(Result::is_ok));
        assert_eq!(history(&slot, Revision::ZERO).await.len(), 50);
        assert!(slot.probe(call().deadline).await.is_ok());
        slot.close().await;
    }
    for node in &nodes {
        let admin = Admin::to(node.addr()).await;
        let functions = admin.run(&["FUNCTION", "LIST"]).await.into_array();
        assert_eq!(functions.len(), 1, "the library is on every primary");
        assert!(
            admin.run(&["DBSIZE"]).await.as_u64().unwrap() > 0,
            "some namespaces are here"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_to_another_node_is_followed() {
    let nodes = cluster(2).await;
    let slot = open_with(nodes[0].addr(), json!({ "cluster": true, "pool_size": 2 })).await;
    let before = register(&slot, request("a")).await.unwrap();
    let mut admins = Vec::new();
    for node in &nodes {
        admins.push(Admin::to(node.addr()).await);
    }
    let keyslot = admins[0]
        .run(&["CLUSTER", "KEYSLOT", &key("head")])
        .await
        .as_string()
        .unwrap();
    let owner = usize::from(admins[0].try_run(&["GET", &key("head")]).await.is_err());
    let heir = admins[1 - owner]
        .run(&["CLUSTER", "MYID"])
        .await
        .as_string()
        .unwrap();
    // Its keys do not move along: what is left behind is lost, and must be noticed as that.
    admins[owner].run(&["FLUSHALL"]).await;
    admins[1 - owner].run(&["FUNCTION", "FLUSH"]).await;
    for at in [1 - owner, owner] {
        admins[at]
            .run(&["CLUSTER", "SETSLOT", &keyslot, "NODE", &heir])
            .await;
    }
    let refused = register_in(&slot, in_epoch(before.position.epoch), request("b")).await;
    assert!(matches!(refused, Err(Error::EpochChanged { .. })), "{refused:?}");
    assert!(register(&slot, request("a")).await.is_ok());
    assert!(
        admins[1 - owner]
            .run(&["GET", &key("head")])
            .await
            .as_bytes()
            .is_some()
    );
}

/// Which of the nodes has the namespace.
async fn owner(nodes: &[RedisServer]) -> usize {
    for (index, node) in nodes.iter().enumerate() {
        let admin = Admin::to(node.addr()).await;
        if admin.try_run(&["GET", &key("head")]).await.is_ok() {
            return index;
        }
    }
    panic!("no node has the slot")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_that_forgets_is_a_new_epoch() {
    let mut nodes = cluster(2).await;
    let slot = open_with(nodes[0].addr(), json!({ "cluster": true, "pool_size": 2 })).await;
    let owner = owner(&nodes).await;
    let mut last = register(&slot, leased("a", 60_000)).await.unwrap();
    for way in ["flush", "restart"] {
        match way {
            "flush" => drop(Admin::to(nodes[owner].addr()).await.run(&["FLUSHALL"]).await),
            _ => nodes[owner].restart().await.unwrap(),
        }
        let refused = eventually_some(SOON, "the node is asked", || async {
            match slot.get(in_epoch(last.position.epoch), identity("a")).await {
                Err(Error::Unavailable { .. } | Error::Timeout { .. }) => None,
                answer => Some(answer),
            }
        })
        .await;
        assert!(
            matches!(refused, Err(Error::EpochChanged { .. })),
            "{way}: {refused:?}"
        );
        assert_eq!(get(&slot, "a").await, None, "{way}");
        last = register(&slot, leased("a", 60_000)).await.unwrap();
        assert_eq!(last.position.revision, Revision(1), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_in_a_cluster_is_a_new_epoch() {
    let mut nodes = cluster(2).await;
    let owner = owner(&nodes).await;
    let bus = free_port().to_string();
    let options = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-replica-validity-factor",
        "0",
    ];
    let replica = RedisServer::start_with(&options).await.unwrap();
    let (to_owner, to_replica) = (
        Admin::to(nodes[owner].addr()).await,
        Admin::to(replica.addr()).await,
    );
    let port = replica.addr().port().to_string();
    to_owner.run(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
    for node in nodes.iter().chain([&replica]) {
        until_complete(node, 3).await;
    }
    let id = to_owner.run(&["CLUSTER", "MYID"]).await.as_string().unwrap();
    eventually(SOON, "it is a replica", || async {
        to_replica.try_run(&["CLUSTER", "REPLICATE", &id]).await.is_ok()
    })
    .await;
    eventually(SOON, "it has a copy", || async {
        to_replica.info("replication", "master_link_status").await == "up"
    })
    .await;
    let slot = open_with(
        nodes[1 - owner].addr(),
        json!({ "cluster": true, "pool_size": 2 }),
    )
    .await;
    let before = register(&slot, request("a")).await.unwrap();
    eventually(SOON, "it was copied", || async {
        let ours = to_owner.info("replication", "master_repl_offset").await;
        to_replica.info("replication", "slave_repl_offset").await == ours
    })
    .await;

    nodes[owner].stop();
    to_replica.run(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
    let taken = eventually_some(SOON, "the slot finds it", || async {
        slot.get(call(), identity("a")).await.ok()
    })
    .await;
    assert_eq!(taken.record.expect("was copied").generation, before.generation);
    assert_ne!(
        taken.head.epoch, before.position.epoch,
        "a fail-over is a new epoch"
    );
    let refused = register_in(&slot, in_epoch(before.position.epoch), request("b")).await;
    assert!(matches!(refused, Err(Error::EpochChanged { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_not_announced_is_named() {
    let nodes = cluster(2).await;
    let mut refusals = Vec::new();
    for node in &nodes {
        refusals.push(
            RedisRegistry::open(NAMESPACE, config(node.addr(), json!({})))
                .await
                .err(),
        );
    }
    let refused = refusals
        .into_iter()
        .flatten()
        .next()
        .expect("one of them has not the slot");
    assert!(refused.to_string().contains("`cluster: true`"), "{refused}");
}

/// An address that leads elsewhere: each new connection to the next of several places, in turn.
struct Gateway {
    addr: SocketAddr,
    leads_to: Arc<watch::Sender<Vec<SocketAddr>>>,
    _serve: AbortOnDropHandle<()>,
}

impl Gateway {
    async fn to(places: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, leads_to) = (listener.local_addr().unwrap(), Arc::new(watch::channel(places).0));
        let places = leads_to.clone();
        let serve = tokio::spawn(async move {
            let (mut relays, mut turn) = (JoinSet::new(), 0);
            while let Ok((mut client, _)) = listener.accept().await {
                let place = {
                    let places = places.borrow();
                    places[turn % places.len()]
                };
                turn += 1;
                relays.spawn(async move {
                    let mut server = TcpStream::connect(place).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self {
            addr,
            leads_to,
            _serve: AbortOnDropHandle::new(serve),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_among_several_is_avoided() {
    let server = RedisServer::start().await.unwrap();
    let dead = FaultProxy::start(server.addr()).await.unwrap();
    let well = server.addr();
    let gateway = Gateway::to(vec![dead.addr(), well, well, well]).await;
    let slot = open_with(gateway.addr, json!({ "read_timeout": "30s", "max_retries": 0 })).await;
    dead.black_hole();
    let mut lost = 0;
    for _ in 0..200 {
        let limit = within(Duration::from_millis(100));
        lost += u32::from(slot.get(limit, identity("a")).await.is_err());
    }
    assert!((1..=4).contains(&lost), "{lost} of 200 calls took the dead one");
}

/// The old primary stays up as a replica, and old connections stay connected to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_primary_is_left_for_the_new_one() {
    let (old, new) = (
        RedisServer::start().await.unwrap(),
        RedisServer::start().await.unwrap(),
    );
    let gateway = Gateway::to(vec![old.addr()]).await;
    let slot = open_with(gateway.addr, json!({ "max_retries": 10 })).await;
    let before = register(&slot, request("a")).await.unwrap();
    let (to_old, to_new) = (Admin::to(old.addr()).await, Admin::to(new.addr()).await);
    let follow = async |who: &Admin, whom: SocketAddr| {
        who.run(&["REPLICAOF", &whom.ip().to_string(), &whom.port().to_string()])
            .await;
        eventually(SOON, "it has a copy", || async {
            who.info("replication", "master_link_status").await == "up"
        })
        .await;
    };
    follow(&to_new, old.addr()).await;
    to_new.run(&["REPLICAOF", "NO", "ONE"]).await;
    gateway.leads_to.send_replace(vec![new.addr()]);
    follow(&to_old, new.addr()).await;

    eventually(SOON, "the slot writes to the new primary", || async {
        register(&slot, request("b")).await.is_ok()
    })
    .await;
    let read = slot.get(call(), identity("a")).await.unwrap();
    assert_eq!(read.record.expect("was copied").generation, before.generation);
    assert_ne!(
        read.head.epoch, before.position.epoch,
        "a fail-over is a new epoch"
    );
}
