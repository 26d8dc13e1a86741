//! No call outlives its deadline, none is applied twice, and none is called failed that was not.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use prism_slot::{Applied, Error, RegistryStore};
use prism_slot_redis::RedisRegistry;
use prism_testkit::{FaultProxy, RedisServer, eventually, free_port};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};

use super::support::*;

const SLACK: Duration = Duration::from_millis(400);

struct Behind {
    server: RedisServer,
    proxy: FaultProxy,
    slot: RedisRegistry,
}

/// A slot that reaches its server through a proxy.
async fn behind_a_proxy(more: serde_json::Value) -> Behind {
    let server = RedisServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let slot = open_with(proxy.addr(), more).await;
    Behind { server, proxy, slot }
}

/// Runs a call that must end by its deadline.
async fn timed<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let result = work.await;
    let took = started.elapsed();
    assert!(took < limit + SLACK, "took {took:?} instead of {limit:?}");
    result
}

async fn working(slot: &RedisRegistry) {
    eventually(SOON, "the slot works again", || async {
        register(slot, request(&format!("probe-{:x}", rand::random::<u64>())))
            .await
            .is_ok()
    })
    .await;
}

/// What waits behind calls that are under way is known not to be applied, and never is.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_deadline_passed_in_the_queue_is_never_sent() {
    let mut server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "group_calls": 1 })).await;
    server.freeze().unwrap();
    let first = register(&slot, request("first"));
    let limit = Duration::from_millis(200);
    let waiting = timed(limit, register_in(&slot, within(limit), request("late")));
    tokio::pin!(first);
    let late = tokio::select! {
        biased;
        first = &mut first => panic!("{first:?}"),
        late = waiting => late.unwrap_err(),
    };
    assert_eq!(
        late,
        Error::Timeout {
            backend: "redis",
            applied: Applied::No
        }
    );
    server.thaw().unwrap();
    // The first is applied before anything that would have followed it.
    let _ = first.await;
    working(&slot).await;
    assert_eq!(get(&slot, "late").await, None);
}

/// A writer that is blocked by full buffers keeps commands queued in the client: they are dropped at
/// their deadline and not sent when the way is free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_deadline_passed_in_the_client_is_never_sent() {
    let patient = json!({ "pool_size": 1, "read_timeout": "30s", "write_timeout": "30s", "group_calls": 64 });
    let Behind {
        server: _server,
        proxy,
        slot,
    } = behind_a_proxy(patient).await;
    proxy.black_hole();
    let flood = async {
        let batches = (0..24).map(|batch| {
            let big = (0..128).map(|number| {
                let mut request = request(&format!("big-{batch}-{number}"));
                request.metadata = vec![b'x'; 4_000].into();
                request
            });
            slot.register(within(Duration::from_secs(25)), big.collect())
        });
        futures::future::join_all(batches).await
    };
    let late = async {
        // Long enough for the flood to fill the buffers of both ends.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let limit = Duration::from_millis(400);
        let lost = timed(limit, register_in(&slot, within(limit), request("late")))
            .await
            .unwrap_err();
        assert!(matches!(lost, Error::Timeout { .. }), "{lost:?}");
        proxy.heal();
    };
    let (flooded, ()) = tokio::join!(flood, late);
    let lost = flooded.iter().flatten().find(|result| result.is_err());
    assert_eq!(lost, None, "the flood went through in the end");
    assert_eq!(get(&slot, "late").await, None);
}

/// The client's own watch measures silence from the last command sent, which steady traffic renews for
/// ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_is_given_up_under_steady_traffic() {
    let Behind {
        server: _server,
        proxy,
        slot,
    } = behind_a_proxy(json!({ "pool_size": 1, "max_retries": 0 })).await;
    let before = proxy.accepted();
    proxy.black_hole();
    let connected_anew = AtomicBool::new(false);
    let traffic = async {
        while !connected_anew.load(Ordering::Relaxed) {
            let _ = slot.get(within(Duration::from_millis(300)), identity("a")).await;
        }
    };
    let seen = async {
        eventually(Duration::from_secs(3), "it connects anew", || async {
            proxy.accepted() > before
        })
        .await;
        connected_anew.store(true, Ordering::Relaxed);
    };
    tokio::join!(traffic, seen);
    proxy.heal();
    working(&slot).await;
}

/// A caller in a hurry must not cost the others their connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_deadline_alone_does_not_condemn_a_connection() {
    let Behind {
        mut server,
        proxy,
        slot,
    } = behind_a_proxy(json!({ "pool_size": 1, "read_timeout": "5s" })).await;
    let before = proxy.accepted();
    server.freeze().unwrap();
    let patient = register(&slot, request("patient"));
    let hurried = async {
        for _ in 0..3 {
            let limit = Duration::from_millis(100);
            let late = timed(limit, slot.get(within(limit), identity("a"))).await;
            assert!(late.is_err());
        }
        server.thaw().unwrap();
    };
    let (patient, ()) = tokio::join!(patient, hurried);
    assert!(patient.is_ok(), "{patient:?}");
    assert_eq!(proxy.accepted(), before);
}

/// A writer blocked by full buffers watches for nothing: the kernel must give the connection up.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_takes_nothing_is_given_up() {
    let Behind {
        server: _server,
        proxy,
        slot,
    } = behind_a_proxy(json!({
        "pool_size": 1, "write_timeout": "500ms", "group_calls": 64, "max_retries": 0,
    }))
    .await;
    let before = proxy.accepted();
    proxy.black_hole();
    let batches = (0..24).map(|batch| {
        let big = (0..128).map(|number| {
            let mut request = request(&format!("big-{batch}-{number}"));
            request.metadata = vec![b'x'; 4_000].into();
            request
        });
        slot.register(within(Duration::from_secs(1)), big.collect())
    });
    let lost = timed(Duration::from_secs(1), futures::future::join_all(batches)).await;
    assert!(lost.iter().flatten().all(Result::is_err));
    eventually(Duration::from_secs(8), "it connects anew", || async {
        proxy.accepted() > before
    })
    .await;
    proxy.heal();
    working(&slot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_clearly_while_the_server_is_down_and_recover_by_themselves() {
    let mut server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "pool_timeout": "100ms" })).await;
    register(&slot, request("a")).await.unwrap();
    server.stop();
    eventually(SOON, "the loss is noticed", || async {
        register(&slot, request("b"))
            .await
            .is_err_and(|error| error.applied() == Applied::No)
    })
    .await;
    let limit = Duration::from_millis(800);
    let refused = timed(
        limit,
        register_in(&slot, within(Duration::from_secs(5)), request("b")),
    )
    .await
    .unwrap_err();
    let Error::Unavailable { message, applied, .. } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(*applied, Applied::No);
    assert!(message.contains(&server.addr().to_string()), "{message}");
    server.restart().await.unwrap();
    let down = Instant::now();
    working(&slot).await;
    assert!(
        down.elapsed() < Duration::from_secs(3),
        "recovery took {:?}",
        down.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_fails_clearly_and_in_time() {
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let limit = Duration::from_secs(1);
    let refused = timed(limit, RedisRegistry::open(NAMESPACE, config(nobody, json!({}))))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(
        text.contains(&nobody.to_string()) && text.contains("connection refused"),
        "{text}"
    );

    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = json!({ "dial_timeout": "400ms", "read_timeout": "200ms" });
    let opening = RedisRegistry::open(NAMESPACE, config(mute.local_addr().unwrap(), settings));
    let refused = timed(Duration::from_millis(600), opening).await.unwrap_err();
    assert!(
        matches!(refused, Error::Unavailable { .. } | Error::Timeout { .. }),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_slot_refuses() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    slot.close().await;
    let write = register(&slot, request("a")).await.unwrap_err();
    let read = slot.get(call(), identity("a")).await.unwrap_err();
    let probe = slot.probe(Instant::now() + SOON).await.unwrap_err();
    for refused in [write, read, probe] {
        assert!(refused.to_string().contains("closed"), "{refused}");
        assert_eq!(refused.applied(), Applied::No);
    }
    let admin = Admin::to(server.addr()).await;
    eventually(SOON, "its connections are gone", || async {
        admin.info("clients", "connected_clients").await == "1"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slot_leaves_no_connection() {
    let server = RedisServer::start().await.unwrap();
    drop(open(server.addr()).await);
    let admin = Admin::to(server.addr()).await;
    eventually(SOON, "its connections are gone", || async {
        admin.info("clients", "connected_clients").await == "1"
    })
    .await;
}
