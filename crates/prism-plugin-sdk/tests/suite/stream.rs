//! The control stream, against a proxy whose every move is scripted.

use std::time::Duration;

use crate::common::{
    Running, SOON, foreign_push, good, initial,
    plugin::{Client, SERVICE},
    proxy::{ScriptedProxy, drain, health_check, stop},
    push, quick,
};
use prism_core::id::Digest;
use prism_plugin_sdk::{ExitStatus, Settings};
use prism_proto::interfaces::{
    HealthStatus, InitializeRequest, RegisterRequest, ShutdownRequest, StartRequest,
    pattern_message::Message, proxy_command::Command,
};
use prism_testkit::{FaultProxy, eventually};
use serde_json::json;
use tokio::time::Instant;

fn digest(config: serde_json::Value) -> String {
    Digest::of(&crate::common::object(config)).to_string()
}

/// A runner with one proxy, registered, configured and started.
async fn serving() -> (ScriptedProxy, crate::common::proxy::Stream, Running) {
    let mut proxy = ScriptedProxy::start().await;
    let runner = Running::start(vec![proxy.address()]).await;
    let mut stream = proxy.registered().await;
    stream.initialize(push("presence", 1, good())).await.unwrap();
    stream.start().await.unwrap();
    (proxy, stream, runner)
}

#[tokio::test]
async fn the_first_message_says_everything_a_proxy_needs() {
    let mut proxy = ScriptedProxy::start().await;
    let _runner = Running::start_with(vec![proxy.address()], |runner| runner.process_id(42)).await;
    let register = proxy.stream().await.register().await;
    assert_eq!(register.pattern_name, "test-pattern");
    assert_eq!(register.pattern_version, "1.2.3");
    assert_eq!(register.process_id, 42);
    assert!(register.session_token.is_empty() && register.applied.is_empty());
    let metadata = register
        .metadata
        .expect("a proxy in the field crashes without metadata");
    assert_eq!(metadata.interfaces[0].name, SERVICE);
    assert_eq!(metadata.interfaces[0].metadata["prism.idempotent"], "Say");
    assert_eq!(metadata.extra["prism.namespaces"], "many");
}

#[tokio::test]
async fn a_whole_life_under_a_proxy() {
    let (_proxy, mut stream, mut runner) = serving().await;
    let Message::HealthResponse(health) = stream.ask(health_check()).await else {
        panic!("no health");
    };
    assert_eq!(health.status(), HealthStatus::Healthy);
    assert_eq!(
        Client::connect(runner.data).await.say("hello").await.unwrap(),
        "hello"
    );
    let Message::DrainResponse(drained) = stream.ask(drain(5)).await else {
        panic!("no drain response");
    };
    assert!(drained.success);
    assert_eq!(drained.drained_operations, 3);
    let Message::StopResponse(stopped) = stream.ask(stop(5)).await else {
        panic!("no stop response");
    };
    assert!(stopped.success);
    assert!(stream.message().await.is_none(), "the stream is closed in order");
    assert_eq!(runner.exit().await, ExitStatus::Clean);
    assert_eq!(
        runner.calls.all(),
        ["initialize presence", "start", "drain", "stop"]
    );
}

#[tokio::test]
async fn the_answer_to_start_is_where_it_serves() {
    let mut proxy = ScriptedProxy::start().await;
    let runner = Running::start(vec![proxy.address()]).await;
    let mut stream = proxy.registered().await;
    assert!(
        stream.start().await.unwrap_err().contains("initialize"),
        "nothing to serve yet"
    );
    stream.initialize(push("presence", 1, good())).await.unwrap();
    assert_eq!(stream.start().await.unwrap(), runner.data.to_string());
    assert_eq!(stream.start().await.unwrap(), runner.data.to_string());
    assert_eq!(runner.calls.count("start"), 1);
}

#[tokio::test]
async fn a_command_of_a_newer_proxy_is_answered() {
    let (_proxy, mut stream, _runner) = serving().await;
    stream.send_as("from the future", None).await;
    let Message::HealthResponse(health) = stream.answer("from the future").await else {
        panic!("an unknown command is answered with the health");
    };
    assert!(health.message.contains("does not know"), "{}", health.message);
}

#[tokio::test]
async fn shutdown_ends_the_process() {
    let (_proxy, mut stream, mut runner) = serving().await;
    let shutdown = ShutdownRequest {
        timeout_seconds: 5,
        reason: "test".to_owned(),
    };
    let Message::StopResponse(stopped) = stream.ask(Command::Shutdown(shutdown)).await else {
        panic!("no stop response");
    };
    assert!(stopped.success);
    assert_eq!(runner.exit().await, ExitStatus::Clean);
    assert_eq!(runner.calls.all()[2..], ["drain", "stop"]);
}

#[tokio::test]
async fn a_slow_configuration_holds_up_nothing_else() {
    let mut proxy = ScriptedProxy::start().await;
    let runner = Running::start(vec![proxy.address()]).await;
    let mut stream = proxy.registered().await;
    let slow = stream.send(push("slow", 1, json!({"hang": true}))).await;
    assert!(matches!(
        stream.ask(health_check()).await,
        Message::HealthResponse(_)
    ));
    stream.initialize(push("quick", 1, good())).await.unwrap();
    stream.start().await.unwrap();
    assert_eq!(runner.calls.count("initialize slow"), 1);
    let drain = stream.send(drain(5)).await;
    assert!(matches!(stream.answer(&slow).await, Message::InitializeResponse(response) if !response.success));
    assert!(matches!(stream.answer(&drain).await, Message::DrainResponse(_)));
}

#[tokio::test]
async fn a_bad_configuration_names_slot_and_key_and_the_good_one_keeps_serving() {
    let (_proxy, mut stream, runner) = serving().await;
    let refusal = stream
        .initialize(push("presence", 2, json!({"refuse": "no such host"})))
        .await
        .unwrap_err();
    assert_eq!(refusal, "slot `registry`: key `config.address`: no such host");
    assert_eq!(
        Client::connect(runner.data)
            .await
            .say("still here")
            .await
            .unwrap(),
        "still here"
    );
    let again = stream
        .initialize(push("presence", 2, json!({"refuse": "no such host"})))
        .await
        .unwrap_err();
    assert_eq!(again, refusal);
    assert_eq!(
        runner.calls.count("initialize presence"),
        2,
        "the same version is not tried twice"
    );
    stream.initialize(push("presence", 3, good())).await.unwrap();
    assert_eq!(
        runner.calls.count("initialize presence"),
        2,
        "what serves is not applied twice"
    );
}

#[tokio::test]
async fn a_panic_and_a_hang_refuse_only_their_own_namespace() {
    let mut proxy = ScriptedProxy::start().await;
    let settings = Settings {
        initialize_within: Duration::from_millis(200),
        ..quick()
    };
    let _runner = Running::start_with(vec![proxy.address()], |runner| runner.settings(settings)).await;
    let mut stream = proxy.registered().await;
    assert!(
        stream
            .initialize(push("a", 1, json!({"panic": true})))
            .await
            .unwrap_err()
            .contains("panicked")
    );
    assert!(
        stream
            .initialize(push("b", 1, json!({"hang": true})))
            .await
            .unwrap_err()
            .contains("200ms")
    );
    stream.initialize(push("c", 1, good())).await.unwrap();
    stream.start().await.unwrap();
}

#[tokio::test]
async fn numbers_that_do_not_fit_are_refused_by_name() {
    let (_proxy, mut stream, _runner) = serving().await;
    let mut config = prism_core::structure::from_json(&crate::common::object(good())).unwrap();
    let value = prost_types::Value {
        kind: Some(prost_types::value::Kind::NumberValue(f64::INFINITY)),
    };
    config.fields.insert("pool_size".to_owned(), value);
    let request = InitializeRequest {
        name: "presence".to_owned(),
        config: Some(config),
        ..InitializeRequest::default()
    };
    let refusal = stream.initialize(Command::Initialize(request)).await.unwrap_err();
    assert!(refusal.contains("`pool_size`"), "{refusal}");
}

#[tokio::test]
async fn what_a_namespace_offers_travels_with_the_answer() {
    let mut proxy = ScriptedProxy::start().await;
    let _runner = Running::start(vec![proxy.address()]).await;
    let mut stream = proxy.registered().await;
    let Message::InitializeResponse(response) = stream.ask(push("presence", 1, good())).await else {
        panic!("no initialize response");
    };
    let metadata = response.metadata.unwrap();
    assert_eq!(metadata.extra["prism.scope.presence"], "shared");
    assert_eq!(metadata.extra["test.extra"], "yes");
    assert_eq!(metadata.name, "test-pattern");
}

#[tokio::test]
async fn namespaces_come_and_go() {
    let (_proxy, mut stream, runner) = serving().await;
    let remove = |version| {
        Command::Initialize(InitializeRequest {
            name: "second".to_owned(),
            remove: true,
            config_version: version,
            ..InitializeRequest::default()
        })
    };
    stream.initialize(push("second", 5, good())).await.unwrap();
    assert!(stream.initialize(remove(4)).await.unwrap_err().contains("older"));
    stream.initialize(remove(6)).await.unwrap();
    stream.initialize(remove(6)).await.unwrap();
    assert_eq!(runner.calls.count("remove second"), 1);
    assert_eq!(runner.calls.count("start"), 1, "a start belongs to the runner");
}

#[tokio::test]
async fn heartbeats_say_how_it_does() {
    let (_proxy, mut stream, _runner) = serving().await;
    let first = stream.heartbeat().await;
    let second = stream.heartbeat().await;
    assert!(second.timestamp >= first.timestamp && first.timestamp > 1_600_000_000_000);
    assert_eq!(second.status(), HealthStatus::Healthy);
    assert!(!second.draining);
}

#[tokio::test]
async fn after_a_cut_it_comes_back_with_its_token_and_restarts_nothing() {
    let (mut proxy, mut stream, runner) = serving().await;
    stream
        .initialize(push("presence", 2, json!({"refuse": "bad"})))
        .await
        .unwrap_err();
    drop(stream);
    let mut client = Client::connect(runner.data).await;
    assert_eq!(client.say("meanwhile").await.unwrap(), "meanwhile");

    let mut stream = proxy.stream().await;
    let register = stream.register().await;
    assert_eq!(register.session_token, b"0123456789abcdef");
    assert_eq!(register.applied[0].namespace, "presence");
    assert_eq!(register.applied[0].applied_digest, digest(good()));
    assert_eq!(
        register.applied[0].rejected_digest,
        digest(json!({"refuse": "bad"}))
    );
    assert_eq!(register.metadata.unwrap().extra["prism.scope.presence"], "shared");
    stream.acknowledge(b"0123456789abcdef").await;
    stream.initialize(push("presence", 1, good())).await.unwrap();
    assert_eq!(stream.start().await.unwrap(), runner.data.to_string());
    assert_eq!(runner.calls.count("start"), 1);
    assert_eq!(runner.calls.count("initialize presence"), 2);
}

#[tokio::test]
async fn a_foreign_proxy_may_initialize_again_with_the_same_content() {
    let mut proxy = ScriptedProxy::start().await;
    let runner = Running::start(vec![proxy.address()]).await;
    let mut stream = proxy.registered_foreign().await;
    stream
        .initialize(foreign_push("presence", json!({"port": 6379.0, "db": 0})))
        .await
        .unwrap();
    stream.start().await.unwrap();
    drop(stream);
    let mut stream = proxy.registered_foreign().await;
    stream
        .initialize(foreign_push("presence", json!({"db": 0.0, "port": 6379})))
        .await
        .unwrap();
    stream.start().await.unwrap();
    assert_eq!(runner.calls.all(), ["initialize presence", "start"]);
    stream
        .initialize(foreign_push("presence", json!({"db": 1, "port": 6379})))
        .await
        .unwrap();
    assert_eq!(
        runner.calls.count("initialize presence"),
        2,
        "another content is applied"
    );
}

#[tokio::test]
async fn an_outcome_that_nobody_could_be_told_is_registered_anew() {
    let mut proxy = ScriptedProxy::start().await;
    let runner = Running::start(vec![proxy.address()]).await;
    let mut stream = proxy.registered().await;
    stream.send(push("presence", 1, json!({"wait": true}))).await;
    runner.calls.noted("initialize presence").await;
    drop(stream);

    let mut stream = proxy.stream().await;
    assert!(
        stream.register().await.applied.is_empty(),
        "it is not known yet how it will end"
    );
    stream.acknowledge(b"0123456789abcdef").await;
    stream.heartbeat().await;
    runner.gate.add_permits(1);
    let register = proxy.stream().await.register().await;
    assert_eq!(register.applied[0].applied_digest, digest(json!({"wait": true})));
}

#[tokio::test]
async fn it_is_back_within_two_seconds_of_its_proxy() {
    let mut proxy = ScriptedProxy::start().await;
    let address = proxy.address;
    let _runner = Running::start(vec![proxy.address()]).await;
    let mut slowest = Duration::ZERO;
    for round in 0..5_u64 {
        let stream = proxy.registered().await;
        drop((stream, proxy));
        // Different lengths of absence meet different states of the backoff.
        tokio::time::sleep(Duration::from_millis(300 * round)).await;
        proxy = ScriptedProxy::start_at(address).await;
        let back = Instant::now();
        let mut stream = proxy.stream().await;
        slowest = slowest.max(back.elapsed());
        assert!(!stream.register().await.session_token.is_empty());
        stream.acknowledge(b"0123456789abcdef").await;
        // The next round begins with a stream of its own.
        drop(stream);
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

#[tokio::test]
async fn a_mute_proxy_is_given_up_and_tried_again() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings {
        connect_within: Duration::from_millis(200),
        ..quick()
    };
    let address = mute.local_addr().unwrap().to_string();
    let _runner = Running::start_with(vec![address], |runner| runner.settings(settings)).await;
    let (first, _) = mute.accept().await.unwrap();
    let (_second, _) = tokio::time::timeout(crate::common::SOON, mute.accept())
        .await
        .expect("the runner hangs on a proxy that never speaks")
        .unwrap();
    drop(first);
}

#[tokio::test]
async fn an_address_that_is_none_ends_it_with_1() {
    let mut runner = Running::start(vec!["localhost:9090".to_owned(), "localhost".to_owned()]).await;
    assert_eq!(runner.exit().await, ExitStatus::Failed);
}

#[tokio::test]
async fn a_proxy_that_does_not_acknowledge_is_tried_again() {
    let mut proxy = ScriptedProxy::start().await;
    let settings = Settings {
        connect_within: Duration::from_millis(200),
        ..quick()
    };
    let _runner = Running::start_with(vec![proxy.address()], |runner| runner.settings(settings)).await;
    let mut first = proxy.stream().await;
    first.register().await;
    let mut second = proxy.stream().await;
    second.register().await;
}

#[tokio::test]
async fn a_refused_registration_is_tried_again_without_the_token() {
    let (mut proxy, stream, _runner) = serving().await;
    drop(stream);
    let mut stream = proxy.stream().await;
    assert!(!stream.register().await.session_token.is_empty());
    stream.refuse("no room").await;
    let mut stream = proxy.stream().await;
    assert!(stream.register().await.session_token.is_empty());
}

#[tokio::test]
async fn a_half_open_link_to_a_proxy_of_ours_is_noticed() {
    assert!(Settings::default().silence < Duration::from_secs(15));
    assert!(Settings::default().heartbeat + Settings::default().unacknowledged < Duration::from_secs(15));

    let mut proxy = ScriptedProxy::start().await;
    let link = FaultProxy::start(proxy.address).await.unwrap();
    let settings = Settings {
        silence: Duration::from_millis(600),
        ..quick()
    };
    let _runner =
        Running::start_with(vec![link.addr().to_string()], |runner| runner.settings(settings)).await;
    let mut stream = proxy.registered().await;
    stream.ask(health_check()).await;
    link.black_hole();
    let began = Instant::now();
    eventually(crate::common::SOON, "a second connection", async || {
        link.accepted() > 1
    })
    .await;
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "cut too early: {:?}",
        began.elapsed()
    );
    link.heal();
    let mut back = proxy.stream().await;
    assert!(!back.register().await.session_token.is_empty());
}

#[tokio::test]
async fn a_foreign_proxy_may_be_silent_for_ever() {
    let mut proxy = ScriptedProxy::start().await;
    let settings = Settings {
        silence: Duration::from_millis(100),
        ..quick()
    };
    let _runner = Running::start_with(vec![proxy.address()], |runner| runner.settings(settings)).await;
    let mut stream = proxy.registered_foreign().await;
    assert!(!proxy.is_dialled_within(Duration::from_millis(800)).await);
    stream.initialize(foreign_push("presence", good())).await.unwrap();
}

#[tokio::test]
async fn told_to_end_it_says_so_at_once_and_serves_until_acknowledged() {
    let settings = Settings {
        heartbeat: Duration::from_secs(3_600),
        announce_within: Duration::from_secs(3_600),
        ..Settings::default()
    };
    let mut proxy = ScriptedProxy::start().await;
    let mut runner = Running::start_with(vec![proxy.address()], |runner| runner.settings(settings)).await;
    let mut stream = proxy.registered().await;
    stream.initialize(push("presence", 1, good())).await.unwrap();
    stream.start().await.unwrap();
    stream.heartbeats.clear();

    runner.leave();
    let heartbeat = stream.heartbeat_that(|heartbeat| heartbeat.draining).await;
    assert_eq!(
        heartbeat.status(),
        HealthStatus::Unhealthy,
        "the only way to tell a foreign proxy"
    );
    let mut client = Client::connect(runner.data).await;
    assert_eq!(client.say("a new call").await.unwrap(), "a new call");
    assert!(
        stream
            .initialize(push("late", 1, good()))
            .await
            .unwrap_err()
            .contains("draining")
    );

    let Message::DrainResponse(drained) = stream.ask(drain(5)).await else {
        panic!("no drain response");
    };
    assert!(drained.success);
    assert_eq!(runner.exit().await, ExitStatus::Clean);
    assert_eq!(
        runner.calls.all(),
        ["initialize presence", "start", "drain", "stop"]
    );
}

#[tokio::test]
async fn a_proxy_that_does_not_acknowledge_does_not_hold_up_the_end() {
    let mut proxy = ScriptedProxy::start().await;
    let settings = Settings {
        announce_within: Duration::from_millis(300),
        ..quick()
    };
    let mut runner = Running::start_with(vec![proxy.address()], |runner| runner.settings(settings)).await;
    let mut stream = proxy.registered_foreign().await;
    stream.initialize(foreign_push("presence", good())).await.unwrap();
    stream.start().await.unwrap();
    let began = Instant::now();
    runner.leave();
    stream.closed().await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    drop(stream);
    assert_eq!(runner.exit().await, ExitStatus::Clean);
}

#[tokio::test]
async fn a_drain_past_its_deadline_ends_with_2() {
    let mut proxy = ScriptedProxy::start().await;
    let mut runner = Running::start(vec![proxy.address()]).await;
    let mut stream = proxy.registered().await;
    stream
        .initialize(push("presence", 1, json!({"drain": "hang"})))
        .await
        .unwrap();
    stream.start().await.unwrap();
    let Message::DrainResponse(drained) = stream.ask(drain(1)).await else {
        panic!("no drain response");
    };
    assert!(
        !drained.success && drained.error.contains("deadline"),
        "{drained:?}"
    );
    stream.ask(stop(1)).await;
    assert_eq!(runner.exit().await, ExitStatus::DrainOverran);
}

#[tokio::test]
async fn an_error_while_stopping_ends_with_1() {
    let mut proxy = ScriptedProxy::start().await;
    let mut runner = Running::start(vec![proxy.address()]).await;
    let mut stream = proxy.registered().await;
    stream
        .initialize(push("presence", 1, json!({"stop": "refuse"})))
        .await
        .unwrap();
    let Message::StopResponse(stopped) = stream.ask(stop(5)).await else {
        panic!("no stop response");
    };
    assert_eq!((stopped.success, stopped.error.as_str()), (false, "cannot stop"));
    assert_eq!(runner.exit().await, ExitStatus::Failed);
}

#[tokio::test]
async fn two_proxies_agree_by_version_and_digest() {
    let (mut one, mut two) = (ScriptedProxy::start().await, ScriptedProxy::start().await);
    let runner = Running::start(vec![one.address(), two.address()]).await;
    let (mut first, mut second) = (one.registered().await, two.registered().await);
    first.initialize(push("presence", 5, good())).await.unwrap();
    second.initialize(push("presence", 3, good())).await.unwrap();
    assert!(
        second
            .initialize(push("presence", 4, json!({"b": 1})))
            .await
            .unwrap_err()
            .contains("older")
    );
    assert!(
        second
            .initialize(push("presence", 5, json!({"b": 1})))
            .await
            .unwrap_err()
            .contains("higher")
    );
    second
        .initialize(push("presence", 6, json!({"b": 1})))
        .await
        .unwrap();
    assert_eq!(first.start().await.unwrap(), second.start().await.unwrap());
    assert_eq!(
        runner.calls.all(),
        ["initialize presence", "initialize presence", "start"]
    );
}

/// What one proxy takes away stays for the other one, which would go on sending calls here.
#[tokio::test]
async fn a_namespace_goes_with_the_last_proxy_that_wants_it() {
    let (mut one, mut two) = (ScriptedProxy::start().await, ScriptedProxy::start().await);
    let runner = Running::start(vec![one.address(), two.address()]).await;
    let (mut first, mut second) = (one.registered().await, two.registered().await);
    first.initialize(push("presence", 5, good())).await.unwrap();
    let remove = |version| {
        Command::Initialize(InitializeRequest {
            name: "presence".to_owned(),
            remove: true,
            config_version: version,
            ..InitializeRequest::default()
        })
    };
    second.initialize(remove(6)).await.unwrap();
    assert_eq!(runner.calls.all(), ["initialize presence"]);
    second.initialize(push("presence", 6, good())).await.unwrap();
    first.initialize(remove(7)).await.unwrap();
    assert_eq!(runner.calls.all(), ["initialize presence"]);
    second.initialize(remove(7)).await.unwrap();
    assert_eq!(runner.calls.all(), ["initialize presence", "remove presence"]);
}

/// One that is not there has no say.
#[tokio::test]
async fn a_namespace_does_not_stay_for_a_proxy_that_is_gone() {
    let (mut one, mut two) = (ScriptedProxy::start().await, ScriptedProxy::start().await);
    let runner = Running::start(vec![one.address(), two.address()]).await;
    let (mut first, mut second) = (one.registered().await, two.registered().await);
    first.initialize(push("presence", 5, good())).await.unwrap();
    drop((first, one));
    let removed = async {
        while !runner.calls.all().contains(&"remove presence".to_owned()) {
            let remove = InitializeRequest {
                name: "presence".to_owned(),
                remove: true,
                config_version: 6,
                ..InitializeRequest::default()
            };
            second.initialize(Command::Initialize(remove)).await.unwrap();
        }
    };
    tokio::time::timeout(SOON, removed).await.unwrap();
}

/// Each proxy is to choose the same of several processes.
#[tokio::test]
async fn a_process_has_one_name_for_all_its_proxies() {
    let (mut one, mut two) = (ScriptedProxy::start().await, ScriptedProxy::start().await);
    let _runner = Running::start(vec![one.address(), two.address()]).await;
    let (first, second) = (
        one.stream().await.register().await,
        two.stream().await.register().await,
    );
    let name = |register: RegisterRequest| register.metadata.unwrap().extra.remove("prism.process");
    let name_at_first = name(first);
    assert!(name_at_first.is_some());
    assert_eq!(name_at_first, name(second));
    let mut only = ScriptedProxy::start().await;
    let _runner = Running::start(vec![only.address()]).await;
    assert_eq!(name(only.stream().await.register().await), None);
}

#[tokio::test]
async fn a_runner_with_its_own_configuration_needs_no_proxy_and_yields_to_one() {
    let mut proxy = ScriptedProxy::start().await;
    let runner = Running::start_with(vec![proxy.address()], |runner| {
        runner.initial(vec![initial("presence", good())])
    })
    .await;
    runner.calls.noted("start").await;
    let mut stream = proxy.registered().await;
    stream
        .initialize(push("presence", 1, json!({"other": true})))
        .await
        .unwrap();
    assert!(stream.start().await.is_ok());
    assert_eq!(runner.calls.count("start"), 1);
}

#[tokio::test]
async fn any_listener_is_advertised_as_the_proxy_can_reach_it() {
    let mut proxy = ScriptedProxy::start().await;
    let any = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = any.local_addr().unwrap().port();
    let _runner = Running::start_with(vec![proxy.address()], |runner| runner.data_listener(any)).await;
    let mut stream = proxy.registered().await;
    stream.initialize(push("presence", 1, good())).await.unwrap();
    assert_eq!(stream.start().await.unwrap(), format!("127.0.0.1:{port}"));

    let mut proxy = ScriptedProxy::start().await;
    let public = Some("runner.example:50051".to_owned());
    let _runner = Running::start_with(vec![proxy.address()], |runner| runner.advertise(public)).await;
    let mut stream = proxy.registered().await;
    stream.initialize(push("presence", 1, good())).await.unwrap();
    assert_eq!(
        stream.ask(Command::Start(StartRequest {})).await,
        started("runner.example:50051")
    );
}

fn started(endpoint: &str) -> Message {
    Message::StartResponse(prism_proto::interfaces::StartResponse {
        success: true,
        error: String::new(),
        data_endpoint: endpoint.to_owned(),
    })
}
