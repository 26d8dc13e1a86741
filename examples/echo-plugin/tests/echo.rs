//! The plugin as its users run it, under a real control plane.
#![allow(clippy::unwrap_used)]

use std::{process::Command, sync::Arc, time::Duration};

use prism_core::id::Digest;
use prism_proxy::{
    control::{Control, DesiredNamespace, Settings},
    route::Table,
};
use prism_testkit::{Process, Signal};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, time::timeout};
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};

const SOON: Duration = Duration::from_secs(10);

fn namespace(version: i64, config: Map<String, Value>) -> DesiredNamespace {
    DesiredNamespace {
        name: "echoes".to_owned(),
        pattern: "echo".to_owned(),
        pattern_version: String::new(),
        digest: Digest::of(&config),
        config,
        version,
        discard_on_move: false,
    }
}

async fn say(endpoint: &str, text: &str) -> String {
    let channel = Channel::from_shared(format!("http://{endpoint}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/prism.examples.Echo/Say");
    let codec = tonic_prost::ProstCodec::<String, String>::default();
    let request = tonic::Request::new(text.to_owned());
    client.unary(request, path, codec).await.unwrap().into_inner()
}

#[tokio::test]
async fn it_lives_under_a_proxy_from_registration_to_exit_code() {
    let table = Arc::new(Table::default());
    let control = Control::new(table.clone(), Settings::default());
    let address = control
        .serve(TcpListener::bind("127.0.0.1:0").await.unwrap())
        .unwrap();
    table.declare(["echoes"]);
    control.apply(vec![namespace(1, Map::new())]).await;

    let mut command = Command::new(env!("CARGO_BIN_EXE_echo-plugin"));
    command.arg(address.to_string());
    let mut plugin = Process::spawn_command(command).unwrap();
    let mut watch = control.watch();
    let served = watch.wait_for(|shown| {
        shown
            .namespaces
            .iter()
            .any(|namespace| !namespace.serving.is_empty())
    });
    drop(
        timeout(SOON, served)
            .await
            .expect("the plugin never serves")
            .unwrap(),
    );
    let (_, targets) = table.snapshot().remove("echoes").unwrap();
    assert_eq!(say(&targets[0].endpoint, "hello").await, "hello");

    let Value::Object(config) = json!({"volume": 11}) else {
        unreachable!()
    };
    control.apply(vec![namespace(2, config)]).await;
    let refused = watch.wait_for(|shown| shown.namespaces.iter().any(|namespace| namespace.error.is_some()));
    let refused = timeout(SOON, refused).await.expect("no refusal").unwrap().clone();
    assert!(
        refused.namespaces[0]
            .error
            .as_deref()
            .unwrap()
            .contains("`volume`")
    );
    assert_eq!(say(&targets[0].endpoint, "still here").await, "still here");

    plugin.signal(Signal::TERM).unwrap();
    assert_eq!(plugin.wait(SOON).await.unwrap().code(), Some(0));
    let gone = watch.wait_for(|shown| shown.runners.is_empty());
    drop(
        timeout(SOON, gone)
            .await
            .expect("the runner is still there")
            .unwrap(),
    );
}
