//! `grpc.health.v1` as probes use it.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use prism_core::id::InstanceId;
use prism_proxy::{
    health::HealthService,
    readiness::Readiness,
    route::{Table, Target},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    health_server::HealthServer,
};

struct Stage {
    client: HealthClient<HealthServer<HealthService>>,
    table: Arc<Table>,
    readiness: Arc<Readiness>,
    cut: CancellationToken,
}

fn stage() -> Stage {
    let (table, readiness) = (Arc::<Table>::default(), Arc::<Readiness>::default());
    let cut = CancellationToken::new();
    let server = HealthService::server(table.clone(), readiness.clone(), cut.clone());
    Stage {
        client: HealthClient::new(server),
        table,
        readiness,
        cut,
    }
}

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

fn serve(table: &Table, namespace: &str) {
    let target = Target {
        instance_id: InstanceId::generate("t", 1),
        endpoint: "h:1".into(),
        idempotent: Arc::default(),
        proof: None,
    };
    assert!(table.set(namespace, vec![target]));
}

#[tokio::test]
async fn the_whole_a_service_and_a_namespace_can_be_asked_for() {
    let Stage {
        mut client,
        table,
        readiness,
        ..
    } = stage();
    table.declare(["served", "unserved"]);
    serve(&table, "served");
    readiness.listening();
    let service = "prism.pattern.MulticastRegistryPattern";
    for (name, status) in [
        ("", ServingStatus::Serving),
        (service, ServingStatus::Serving),
        ("served", ServingStatus::Serving),
        ("unserved", ServingStatus::NotServing),
    ] {
        assert_eq!(
            client.check(ask(name)).await.unwrap().into_inner().status(),
            status,
            "{name}"
        );
    }
    assert_eq!(
        client.check(ask("unheard-of")).await.unwrap_err().code(),
        Code::NotFound
    );
    readiness.draining();
    for name in ["", service, "served"] {
        assert_eq!(
            client.check(ask(name)).await.unwrap().into_inner().status(),
            ServingStatus::NotServing
        );
    }
}

#[tokio::test]
async fn a_watch_tells_what_is_and_then_each_change() {
    let Stage {
        mut client,
        table,
        readiness,
        cut,
    } = stage();
    readiness.listening();
    let mut watch = client.watch(ask("a")).await.unwrap().into_inner();
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(20), watch.next())
            .await
            .expect("a change");
        next.map(|response| response.unwrap().status())
    };
    assert_eq!(next().await, Some(ServingStatus::ServiceUnknown));
    table.declare(["a"]);
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    // No change for this namespace, and so not told.
    table.declare(["a", "b"]);
    serve(&table, "a");
    assert_eq!(next().await, Some(ServingStatus::Serving));
    readiness.draining();
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    cut.cancel();
    assert_eq!(next().await, None);
}
