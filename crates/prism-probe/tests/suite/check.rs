//! `prism-probe check`

use std::{
    future::ready,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{against, program, run};
use axum::{Json, Router, http::StatusCode, routing::get};
use prism_client::{
    Reason,
    testing::{FakeRegistry, answers},
};
use prism_core::failure::Failure;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Barrier};
use tokio_util::task::AbortOnDropHandle;

/// An admin API that is ready, or not.
async fn admin(ready: bool) -> (SocketAddr, AbortOnDropHandle<()>) {
    let readiness = move || async move {
        match ready {
            true => (StatusCode::OK, "[+]runners ok\nready\n"),
            false => (
                StatusCode::SERVICE_UNAVAILABLE,
                "[+]listeners ok\n[-]namespace presence: no runner\n",
            ),
        }
    };
    let namespaces = json!({"generation": 1, "namespaces": [{"name": "presence", "serving": ["r-1"], "standing": "served"}]});
    let runners = json!({"generation": 1, "runners": [{"instance_id": "r-1", "state": "running"}]});
    let router = Router::new()
        .route("/readyz", get(readiness))
        .route("/api/v1/namespaces", get(move || async { Json(namespaces) }))
        .route("/api/v1/runners", get(move || async { Json(runners) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, AbortOnDropHandle::new(serve))
}

async fn serving() -> FakeRegistry {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_enumerate(|_| ready(Ok(answers::page(&["alice", "bob"]))));
    fake
}

fn states(tree: &Value) -> Vec<(&str, &str)> {
    let checks = tree["checks"].as_array().unwrap().iter();
    let first = |text: &'_ Value| {
        text.as_str()
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned()
            .leak() as &str
    };
    checks
        .map(|check| (first(&check["check"]), check["state"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn all_is_well() {
    let fake = serving().await;
    let (address, _admin) = admin(true).await;
    let address = address.to_string();
    let ran = run(against(&fake).args(["check", "--admin", &address]))
        .await
        .exits(0);
    for part in [
        "served, 2 identities",
        "ready",
        "NAMESPACE  STATE   SERVED BY\npresence   served  r-1\n",
        "RUNNER  STATE\nr-1     running\n",
    ] {
        assert!(ran.stdout.contains(part), "`{part}` is not in\n{}", ran.stdout);
    }
    let tree = run(against(&fake).args(["-o", "json", "check", "--admin", &address]))
        .await
        .exits(0)
        .json();
    assert_eq!(
        states(&tree),
        [("endpoint", "ok"), ("namespace", "ok"), ("admin", "ok")]
    );
    assert_eq!(tree["namespaces"][0]["name"], "presence");
    assert_eq!(tree["runners"][0]["state"], "running");
    let ran = run(against(&fake).args(["-o", "name", "check", "--admin", &address]))
        .await
        .exits(0);
    assert_eq!(ran.stdout, "presence\n");
}

#[tokio::test]
async fn a_namespace_that_nobody_serves_is_told_with_its_reason() {
    let fake = FakeRegistry::start().await.unwrap();
    let (address, _admin) = admin(false).await;
    for (reason, code) in [(Reason::NoRunner, 5), (Reason::UnknownNamespace, 3)] {
        fake.on_enumerate(move |_| ready(Err(Failure::new(reason, "sorry").into())));
        let line = ["-o", "json", "check", "--admin", &address.to_string()];
        let ran = run(against(&fake).args(line)).await.exits(code);
        let tree = ran.json();
        assert_eq!(
            states(&tree),
            [("endpoint", "ok"), ("namespace", "failed"), ("admin", "failed")]
        );
        assert!(
            tree["checks"][1]["detail"]
                .as_str()
                .unwrap()
                .contains(reason.as_str()),
            "{tree}"
        );
        assert_eq!(tree["checks"][2]["detail"], "[-]namespace presence: no runner");
        assert_eq!(ran.error()["reason"], "CHECK_FAILED");
    }
}

#[tokio::test]
async fn nobody_there_is_5_and_still_a_report() {
    let dead = format!("127.0.0.1:{}", prism_testkit::free_port());
    let line = ["--endpoint", &dead, "-o", "json", "check", "--admin", &dead];
    let ran = run(program().args(line)).await.exits(5);
    assert_eq!(
        states(&ran.json()),
        [
            ("endpoint", "failed"),
            ("namespace", "failed"),
            ("admin", "failed")
        ]
    );
}

#[tokio::test]
async fn each_of_several_endpoints_is_looked_at() {
    let fake = serving().await;
    let dead = format!("127.0.0.1:{}", prism_testkit::free_port());
    let both = format!("{},{dead}", fake.address());
    let (address, _admin) = admin(true).await;
    let line = [
        "--endpoint",
        &both,
        "-o",
        "json",
        "check",
        "--admin",
        &address.to_string(),
    ];
    let tree = run(program().args(line)).await.exits(5).json();
    let expected = [
        ("endpoint", "ok"),
        ("endpoint", "failed"),
        ("namespace", "ok"),
        ("admin", "ok"),
    ];
    assert_eq!(states(&tree), expected);
}

/// The admin port speaks HTTP, and the control port gRPC with other services: neither is what is to be checked.
#[tokio::test]
async fn another_port_is_not_well_and_is_named_as_such() {
    let (address, _admin) = admin(true).await;
    let admin = address.to_string();
    let ran = run(program().args(["--endpoint", &admin, "multicast", "get", "a"])).await;
    assert!(ran.exits(1).stderr.contains("data port"));
    let line = ["--endpoint", &admin, "-o", "json", "check", "--admin", &admin];
    let tree = run(program().args(line)).await.exits(1).json();
    assert_eq!(
        states(&tree),
        [("endpoint", "failed"), ("namespace", "failed"), ("admin", "ok")]
    );
    for check in &tree["checks"].as_array().unwrap()[..2] {
        assert!(check["detail"].as_str().unwrap().contains("data port"), "{check}");
    }

    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = listener.local_addr().unwrap().to_string();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let serve = tonic::transport::Server::builder()
        .add_service(health)
        .serve_with_incoming(incoming);
    let _control = AbortOnDropHandle::new(tokio::spawn(async move { serve.await.unwrap() }));
    let ran = run(program().args(["--endpoint", &control, "multicast", "get", "a"])).await;
    assert!(ran.exits(1).stderr.contains("data port"));
    let line = ["--endpoint", &control, "-o", "json", "check", "--admin", &admin];
    let tree = run(program().args(line)).await.exits(1).json();
    assert_eq!(
        states(&tree),
        [("endpoint", "ok"), ("namespace", "failed"), ("admin", "ok")]
    );
    assert!(
        tree["checks"][1]["detail"]
            .as_str()
            .unwrap()
            .contains("data port"),
        "{tree}"
    );
}

/// Both wait for each other before they answer.
#[tokio::test]
async fn everything_is_looked_at_at_a_time() {
    let meet = Arc::new(Barrier::new(2));
    let fake = FakeRegistry::start().await.unwrap();
    let here = meet.clone();
    fake.on_enumerate(move |_| {
        let here = here.clone();
        async move {
            here.wait().await;
            Ok(answers::page(&["alice"]))
        }
    });
    let readiness = get(move || async move {
        meet.wait().await;
        "ready\n"
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().route("/readyz", readiness);
    let _admin = AbortOnDropHandle::new(tokio::spawn(async move {
        axum::serve(listener, router).await.unwrap()
    }));
    let ran = run(against(&fake).args(["-o", "json", "check", "--admin", &address])).await;
    assert_eq!(
        states(&ran.json())[..3],
        [("endpoint", "ok"), ("namespace", "ok"), ("admin", "ok")]
    );
}

#[tokio::test]
async fn what_does_not_answer_costs_the_deadline_once() {
    // Connections are made, and nobody takes them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung = listener.local_addr().unwrap().to_string();
    let began = Instant::now();
    let line = [
        "--endpoint",
        &hung,
        "--deadline",
        "3s",
        "-o",
        "json",
        "check",
        "--admin",
        &hung,
    ];
    let ran = run(program().args(line)).await.exits(5);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(
        states(&ran.json()),
        [
            ("endpoint", "failed"),
            ("namespace", "failed"),
            ("admin", "failed")
        ]
    );
}
