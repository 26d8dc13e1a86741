//! The admin port.

use std::sync::Arc;

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt;
use prism_core::id::{Digest, InstanceId};
use prism_proxy::{
    admin::Admin,
    control::{NamespaceView, Snapshot, Standing},
    metrics::Metrics,
    readiness::Readiness,
    route::{Table, Target},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

struct Stage {
    router: Router,
    table: Arc<Table>,
    readiness: Arc<Readiness>,
    publish: watch::Sender<Arc<Snapshot>>,
}

fn stage() -> Stage {
    let metrics = Arc::new(Metrics::new());
    let table = Arc::new(Table::new(Arc::default(), metrics.clone()));
    let readiness = Arc::new(Readiness::default());
    let (publish, control) = watch::channel(Arc::<Snapshot>::default());
    let admin = Admin {
        table: table.clone(),
        readiness: readiness.clone(),
        metrics,
        control,
    };
    Stage {
        router: admin.router(),
        table,
        readiness,
        publish,
    }
}

impl Stage {
    async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).unwrap()
    }
}

#[tokio::test]
async fn readiness_follows_the_life_of_the_proxy() {
    let stage = stage();
    assert_eq!(stage.get("/livez").await, (200, "ok\n".into()));
    assert_eq!(
        stage.get("/readyz").await,
        (
            503,
            "[-] listening failed: the proxy is starting\nnot ready\n".into()
        )
    );
    stage.readiness.listening();
    assert_eq!(stage.get("/readyz").await, (200, "ok\n".into()));
    assert_eq!(stage.get("/healthz").await.0, 200);
    stage.readiness.draining();
    assert_eq!(stage.get("/readyz").await.0, 503);
    assert_eq!(stage.get("/healthz").await.0, 503);
    assert_eq!(stage.get("/livez").await.0, 200, "a proxy that drains is alive");
}

#[tokio::test]
async fn a_verbose_probe_lists_every_check_and_namespace() {
    let stage = stage();
    stage.readiness.listening();
    stage.table.declare(["a", "b", "c"]);
    stage.table.hold("b");
    let target = Target {
        instance_id: InstanceId::generate("t", 1),
        endpoint: "h:1".into(),
        idempotent: Arc::default(),
        proof: None,
    };
    stage.table.set("c", vec![target.clone()]);
    let lines = "[+] listening ok\n[+] not-draining ok\n[i] namespace a has no runner\n[i] namespace b changes over\n\
                 [i] namespace c served by 1 runners\nok\n";
    assert_eq!(stage.get("/readyz?verbose").await, (200, lines.into()));
    assert_eq!(stage.get("/readyz?verbose=1&x").await, (200, lines.into()));
}

#[tokio::test]
async fn what_serves_what_is_shown_as_json() {
    let stage = stage();
    let namespace = NamespaceView {
        name: "a".into(),
        pattern: "multicast-registry".into(),
        version: 7,
        digest: Digest::of(&serde_json::Map::new()),
        standing: Standing::Unserved,
        scope: None,
        serving: Vec::new(),
        standby: Vec::new(),
        error: Some("slot `registry`: not there".into()),
    };
    let snapshot = Snapshot {
        generation: 3,
        runners: Vec::new(),
        namespaces: vec![namespace],
    };
    stage.publish.send(Arc::new(snapshot)).unwrap();
    let shown = stage.json("/api/v1/namespaces").await;
    assert_eq!(shown["generation"], 3);
    assert_eq!(shown["namespaces"][0]["name"], "a");
    assert_eq!(shown["namespaces"][0]["standing"], "unserved");
    assert_eq!(shown["namespaces"][0]["error"], "slot `registry`: not there");
    assert_eq!(
        stage.json("/api/v1/runners").await,
        json!({"generation": 3, "runners": []})
    );
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let stage = stage();
    stage.table.declare(["a"]);
    let (status, text) = stage.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(
        text.contains("# TYPE prism_proxy_retries_total counter\n")
            && text.contains("prism_proxy_namespace_targets{namespace=\"a\"} 0\n"),
        "{text}"
    );
}

#[tokio::test]
async fn there_is_nothing_else() {
    assert_eq!(stage().get("/").await.0, 404);
}
