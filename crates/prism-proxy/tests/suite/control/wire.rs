//! Against scripted runners.

use std::time::Duration;

use prism_core::id::Digest;
use prism_proto::interfaces::{
    AppliedConfig, PatternMetadata, RegisterRequest, pattern_message::Message, proxy_command::Command,
};
use prism_proxy::control::Settings;
use prism_testkit::FaultProxy;
use serde_json::json;
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::{Proxy, SOON, desired, find, good, quick, scripted::Scripted};

fn is_start(command: &Command) -> bool {
    matches!(command, Command::Start(_))
}

#[tokio::test]
async fn a_foreign_runner_is_registered_configured_started_and_routed() {
    let proxy = Proxy::start(&[good("a")]).await;
    let (mut runner, ack) = Scripted::foreign(proxy.address).await;
    assert!(ack.success);
    assert!(
        ack.instance_id.starts_with("test-pattern-1-"),
        "{}",
        ack.instance_id
    );
    assert!(ack.session_token.len() >= 16);
    let obeyed = runner.obey_until(":50051", is_start).await;
    let Some(Command::Initialize(initialize)) = obeyed
        .iter()
        .find(|command| matches!(command, Command::Initialize(_)))
    else {
        panic!("{obeyed:?}");
    };
    assert_eq!(initialize.name, "a");
    assert_eq!(initialize.config_version, 1);
    assert_eq!(initialize.config_digest, good("a").digest.to_string());
    proxy.until_served("a", 1).await;
    assert_eq!(proxy.endpoints("a"), ["127.0.0.1:50051"]);
}

#[tokio::test]
async fn a_foreign_runner_with_all_its_quirks_is_lived_with() {
    let proxy = Proxy::start(&[good("a")]).await;
    let (mut runner, _) = Scripted::foreign(proxy.address).await;
    runner.obey_until(":50051", is_start).await;
    proxy.until_served("a", 1).await;
    // No heartbeat ever, an empty status in its health reports, many checks long.
    for _ in 0..10 {
        runner
            .obey_until(":50051", |command| matches!(command, Command::HealthCheck(_)))
            .await;
    }
    proxy.until_served("a", 1).await;
    // Its namespace goes. It answers the shutdown with a `stop_response` and stays.
    proxy.apply(&[]).await;
    let obeyed = runner.obey_to_the_end(":50051").await;
    assert!(
        obeyed
            .iter()
            .any(|command| matches!(command, Command::Shutdown(_))),
        "{obeyed:?}"
    );
    proxy.until("gone", |snapshot| snapshot.runners.is_empty()).await;
}

#[tokio::test]
async fn a_foreign_runner_is_acknowledged_when_it_drains_and_may_answer_nothing() {
    let proxy = Proxy::start(&[good("a")]).await;
    let (mut runner, _) = Scripted::foreign(proxy.address).await;
    runner.obey_until(":50051", is_start).await;
    proxy.until_served("a", 1).await;
    runner.beat(true).await;
    runner
        .obey_until(":50051", |command| matches!(command, Command::Drain(_)))
        .await;
    proxy.until_served("a", 0).await;
    proxy
        .until("drained", |snapshot| snapshot.runners[0].draining)
        .await;
    drop(runner);
    proxy.until("gone", |snapshot| snapshot.runners.is_empty()).await;
}

#[tokio::test]
async fn two_runners_with_the_same_process_id_are_told_apart() {
    let proxy = Proxy::start(&[]).await;
    let (_one, first) = Scripted::foreign(proxy.address).await;
    let (_two, second) = Scripted::foreign(proxy.address).await;
    assert_ne!(first.instance_id, second.instance_id);
    assert_ne!(first.session_token, second.session_token);
}

#[tokio::test]
async fn a_stream_has_to_register_first_and_soon() {
    let settings = Settings {
        register_within: Duration::from_millis(200),
        ..quick()
    };
    let proxy = Proxy::start_with("127.0.0.1:0".parse().unwrap(), settings, &[]).await;
    let mut hasty = Scripted::dial(proxy.address).await;
    hasty.beat(false).await;
    assert_eq!(hasty.command().await.unwrap_err().code(), Code::InvalidArgument);
    let mut mute = Scripted::dial(proxy.address).await;
    assert_eq!(mute.command().await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_registration_that_is_refused_says_why_and_ends() {
    let proxy = Proxy::start(&[]).await;
    let mut runner = Scripted::dial(proxy.address).await;
    runner
        .send("nameless", Some(Message::Register(RegisterRequest::default())))
        .await;
    let Some((correlation, Some(Command::RegisterAck(ack)))) = runner.command().await.unwrap() else {
        panic!("no acknowledgement");
    };
    assert_eq!(correlation, "nameless");
    assert!(!ack.success && ack.error.contains("pattern_name"));
    assert!(runner.command().await.unwrap().is_none());
}

#[tokio::test]
async fn a_token_brings_a_runner_back_as_itself_and_ends_its_old_stream() {
    let proxy = Proxy::start(&[good("a")]).await;
    let (mut old, ack) = Scripted::foreign(proxy.address).await;
    old.obey_until(":50051", is_start).await;
    proxy.until_served("a", 1).await;

    let mut back = Scripted::dial(proxy.address).await;
    let register = RegisterRequest {
        pattern_name: "test-pattern".to_owned(),
        process_id: 1,
        metadata: Some(PatternMetadata {
            extra: [("prism.namespaces".to_owned(), "many".to_owned())].into(),
            ..PatternMetadata::default()
        }),
        session_token: ack.session_token.clone(),
        applied: vec![AppliedConfig {
            namespace: "a".to_owned(),
            applied_digest: good("a").digest.to_string(),
            rejected_digest: String::new(),
        }],
        ..RegisterRequest::default()
    };
    back.send("again", Some(Message::Register(register))).await;
    let Some((_, Some(Command::RegisterAck(again)))) = back.command().await.unwrap() else {
        panic!("no acknowledgement");
    };
    assert_eq!(again.instance_id, ack.instance_id);
    assert_eq!(again.session_token, ack.session_token);
    old.obey_to_the_end(":50051").await;
    // All that comes now is health checks: nothing is configured or started anew.
    let obeyed = back
        .obey_until(":50051", |command| matches!(command, Command::HealthCheck(_)))
        .await;
    assert_eq!(obeyed.len(), 1, "{obeyed:?}");
    assert_eq!(proxy.control.snapshot().runners.len(), 1);
    assert_eq!(proxy.endpoints("a"), ["127.0.0.1:50051"]);
}

#[tokio::test]
async fn a_restarted_proxy_pushes_neither_what_runs_nor_what_was_refused() {
    let bad = desired("b", 1, json!({"bad": true}));
    let proxy = Proxy::start(&[good("a"), bad.clone()]).await;
    let mut runner = Scripted::dial(proxy.address).await;
    let applied = |name: &str, applied: Option<&Digest>, rejected: Option<&Digest>| AppliedConfig {
        namespace: name.to_owned(),
        applied_digest: applied.map(ToString::to_string).unwrap_or_default(),
        rejected_digest: rejected.map(ToString::to_string).unwrap_or_default(),
    };
    let register = RegisterRequest {
        pattern_name: "test-pattern".to_owned(),
        metadata: Some(PatternMetadata {
            extra: [("prism.namespaces".to_owned(), "many".to_owned())].into(),
            ..PatternMetadata::default()
        }),
        session_token: b"of the proxy before".to_vec(),
        applied: vec![
            applied("a", Some(&good("a").digest), None),
            applied("b", None, Some(&bad.digest)),
        ],
        ..RegisterRequest::default()
    };
    runner.send("back", Some(Message::Register(register))).await;
    let obeyed = runner
        .obey_until(":50051", |command| matches!(command, Command::HealthCheck(_)))
        .await;
    let pushes = obeyed
        .iter()
        .filter(|command| matches!(command, Command::Initialize(_)))
        .count();
    assert_eq!(pushes, 0, "{obeyed:?}");
    let snapshot = proxy.until_served("a", 1).await;
    assert!(find(&snapshot, "b").unwrap().serving.is_empty());
}

#[tokio::test]
async fn a_half_open_link_is_cut() {
    let proxy = Proxy::start(&[good("a")]).await;
    let link = FaultProxy::start(proxy.address).await.unwrap();
    let (mut runner, _) = Scripted::foreign(link.addr()).await;
    // Where nothing listens: the probe finds it dead.
    let nowhere = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    runner.obey_until(&nowhere.to_string(), is_start).await;
    proxy.until_served("a", 1).await;
    link.black_hole();
    let began = Instant::now();
    proxy
        .until("cut and gone", |snapshot| snapshot.runners.is_empty())
        .await;
    let settings = quick();
    let longest = settings.health_interval + 2 * settings.health_within + settings.probe_within;
    assert!(
        began.elapsed() < longest + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let defaults = Settings::default();
    assert!(defaults.health_interval + 2 * defaults.health_within < Duration::from_secs(15));
}

#[tokio::test]
async fn a_runner_that_speaks_and_does_not_hear_is_cut() {
    let proxy = Proxy::start(&[]).await;
    let link = FaultProxy::start(proxy.address).await.unwrap();
    let (mut runner, _) = Scripted::foreign(link.addr()).await;
    link.drop_replies();
    let mut heartbeats = 0;
    let speaking = async {
        loop {
            runner.beat(false).await;
            heartbeats += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = speaking => {}
        _ = proxy.until("cut", |snapshot| snapshot.runners.is_empty()) => {}
    }
    assert!(heartbeats > 5, "it was cut for another reason");
}

#[tokio::test]
async fn the_end_of_the_proxy_closes_streams_and_stops_nobody() {
    let proxy = Proxy::start(&[good("a")]).await;
    let (mut runner, _) = Scripted::foreign(proxy.address).await;
    runner.obey_until(":50051", is_start).await;
    let ended = tokio::spawn(proxy.stop());
    let obeyed = runner.obey_to_the_end(":50051").await;
    assert!(
        obeyed
            .iter()
            .all(|command| matches!(command, Command::HealthCheck(_))),
        "{obeyed:?}"
    );
    timeout(SOON, ended)
        .await
        .expect("the proxy does not end")
        .unwrap();
}
