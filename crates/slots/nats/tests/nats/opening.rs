//! Opening the slot: what is refused, how, and how soon.

use std::{path::PathBuf, time::Duration};

use prism_core::config::Secret;
use prism_slot::{Error, Messaging, Outcome};
use prism_slot_nats::{Config, NatsMessaging};
use prism_testkit::{FaultProxy, NatsServer, eventually, free_port};
use tokio::time::Instant;

use crate::{GRACE, LONG, SHORT, config, is_not_sent, listen, open, publish};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name)
}

async fn try_open(config: Config) -> Result<NatsMessaging, Error> {
    NatsMessaging::open("test", "test.multicast", config).await
}

/// The slot works all the way.
async fn works(config: Config) {
    let slot = try_open(config).await.unwrap();
    let _listener = listen(&slot, "a").await;
    assert_eq!(publish(&slot, "a", "x").await, Outcome::Accepted);
}

async fn misconfigured(config: Config, words: &str) {
    let error = try_open(config).await.unwrap_err();
    assert!(matches!(error, Error::Misconfigured { .. }), "{error:?}");
    assert!(error.to_string().contains(words), "{error}");
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_logs_in() {
    let server = NatsServer::start_with("authorization { user: al, password: 'p/w' }")
        .await
        .unwrap();
    let url = server.url();
    works(config(&url.replace("://", "://al:p%2Fw@"))).await;
    let login = Config {
        username: Some("al".into()),
        password: secret("p/w"),
        ..config(&url)
    };
    works(login.clone()).await;
    misconfigured(
        Config {
            password: secret("wrong"),
            ..login
        },
        "refused the login",
    )
    .await;
    misconfigured(config(&url), "refused the login").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_logs_in() {
    let server = NatsServer::start_with("authorization { token: tick }")
        .await
        .unwrap();
    works(Config {
        token: secret("tick"),
        ..config(&server.url())
    })
    .await;
    misconfigured(
        Config {
            token: secret("tock"),
            ..config(&server.url())
        },
        "refused the login",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nkey_logs_in() {
    let user = "UBUMTY7U232FMLHCW5OY6BMEPAZBWMXS6W2RLPP6CZQMY7TZCFWYCYRO";
    let seed = "SUAJ64DPQFGFLQSAUIH4ZBHKHNEDHXZU2FQYSF55ONJ4YS2AHMX6HYA2DU";
    let rules = format!("authorization {{ users: [{{ nkey: {user} }}] }}");
    let server = NatsServer::start_with(&rules).await.unwrap();
    works(Config {
        nkey: secret(seed),
        ..config(&server.url())
    })
    .await;
    misconfigured(
        Config {
            nkey: secret("SU"),
            ..config(&server.url())
        },
        "refused the login",
    )
    .await;
}

/// The fixtures are an operator, an account and a user made for this test, none of which expires.
#[tokio::test(flavor = "multi_thread")]
async fn a_credentials_file_logs_in() {
    let rules = std::fs::read_to_string(fixture("operator.conf")).unwrap();
    let server = NatsServer::start_with(&rules).await.unwrap();
    works(Config {
        creds_file: Some(fixture("user.creds")),
        ..config(&server.url())
    })
    .await;
    let absent = Config {
        creds_file: Some("/no/such.creds".into()),
        ..config(&server.url())
    };
    misconfigured(absent, "`creds_file` /no/such.creds cannot be read").await;
    let unusable = Config {
        creds_file: Some(fixture("ca.pem")),
        ..config(&server.url())
    };
    misconfigured(unusable, "`creds_file`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_encrypted() {
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let rules = format!(
        "tls {{ cert_file: '{}', key_file: '{}' }}",
        certificate.display(),
        key.display()
    );
    let server = NatsServer::start_with(&rules).await.unwrap();
    let url = server.url().replace("nats://", "tls://");
    works(Config {
        ca_file: Some(fixture("ca.pem")),
        ..config(&url)
    })
    .await;
    let stranger = try_open(config(&url)).await.unwrap_err();
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
    let absent = Config {
        ca_file: Some("/no/ca.pem".into()),
        ..config(&url)
    };
    misconfigured(absent, "`ca_file` /no/ca.pem cannot be read").await;
    // A broker that cannot encrypt is not talked to in the clear.
    let open_server = NatsServer::start().await.unwrap();
    let clear = open_server.url().replace("nats://", "tls://");
    assert!(
        try_open(Config {
            ca_file: Some(fixture("ca.pem")),
            ..config(&clear)
        })
        .await
        .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_are_noticed_at_once() {
    for (rules, words) in [
        (r#"publish: { deny: ["test.multicast.>"] }"#, "for Publish"),
        (r#"subscribe: { deny: ["test.multicast.>"] }"#, "for Subscription"),
        (r#"subscribe: { deny: ["_INBOX.>"] }"#, "_INBOX"),
        (r#"publish: { deny: ["_INBOX.>"] }"#, "_INBOX"),
    ] {
        let server = NatsServer::start_with(&authorization(rules)).await.unwrap();
        let login = Config {
            timeout: SHORT,
            ..config(&server.url().replace("://", "://u:p@"))
        };
        misconfigured(login, words).await;
    }
}

/// Such a message would be lost, and the broker's complaint may come after the verdict.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_about_single_identities_is_refused_by_name() {
    for (rules, words) in [
        (
            r#"publish: { deny: ["test.multicast.test.secret"] }"#,
            "publishing it denies `test.multicast.test.secret`",
        ),
        (
            r#"subscribe: { deny: ["*.*.*.secret"] }"#,
            "subscribing it denies `*.*.*.secret`",
        ),
        (
            r#"publish: { allow: ["_INBOX.>", "$SYS.REQ.USER.INFO", "test.multicast.test.%-*", "test.>"], deny: ["test.*.test.a"] }"#,
            "denies `test.*.test.a`",
        ),
    ] {
        let server = NatsServer::start_with(&authorization(rules)).await.unwrap();
        misconfigured(config(&server.url().replace("://", "://u:p@")), words).await;
    }
    // Rules about others do not matter.
    let rules =
        r#"publish: { deny: ["test.multicast.other.>"] }, subscribe: { deny: ["test.multicast.testing.*"] }"#;
    let server = NatsServer::start_with(&authorization(rules)).await.unwrap();
    works(config(&server.url().replace("://", "://u:p@"))).await;
}

fn authorization(rules: &str) -> String {
    format!("authorization {{ users: [{{ user: u, password: p, permissions: {{ {rules} }} }}] }}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_before_anything_is_tried() {
    let unnamed = Config {
        servers: Vec::new(),
        ..Config::default()
    };
    misconfigured(unnamed, "`servers`").await;
    let nowhere = config(&format!("nats://127.0.0.1:{}", free_port()));
    for prefix in ["", "a..b", "a.*", "$SYS"] {
        let error = NatsMessaging::open("test", prefix, nowhere.clone())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("the prefix `"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_broker_is_reported_at_once_and_a_mute_one_in_time() {
    let absent = try_open(config(&format!("nats://127.0.0.1:{}", free_port())))
        .await
        .unwrap_err();
    assert!(matches!(absent, Error::Unavailable { .. }), "{absent:?}");
    let server = NatsServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    proxy.black_hole();
    let begun = Instant::now();
    let impatient = Config {
        timeout: SHORT,
        ..config(&format!("nats://{}", proxy.addr()))
    };
    let mute = try_open(impatient).await.unwrap_err();
    assert!(matches!(mute, Error::Timeout { .. }), "{mute:?}");
    assert!(begun.elapsed() < SHORT + GRACE, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_of_the_list_will_do() {
    let server = NatsServer::start().await.unwrap();
    let absent = format!("nats://127.0.0.1:{}", free_port());
    let listed = Config {
        servers: vec![absent, server.url()],
        ..Config::default()
    };
    works(listed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gives_up_only_when_told_to() {
    let mut server = NatsServer::start().await.unwrap();
    let patient = open(&server.url()).await;
    let limited = Config {
        max_reconnects: 3,
        reconnect_wait: Duration::from_millis(5),
        ..config(&server.url())
    };
    let impatient = try_open(limited).await.unwrap();
    server.stop();
    eventually(LONG, "it has given up", || async {
        let error = impatient.probe(Instant::now() + SHORT).await.unwrap_err();
        error.to_string().contains("gave up connecting")
    })
    .await;
    server.restart().await.unwrap();
    eventually(LONG, "the patient one is back", || async {
        patient.probe(Instant::now() + SHORT).await.is_ok()
    })
    .await;
    assert!(is_not_sent(&publish(&impatient, "a", "x").await));
}

/// A connection that has gone silent is noticed by the pings.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_replaced() {
    let server = NatsServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let watchful = Config {
        ping_interval: Duration::from_millis(100),
        ..config(&format!("nats://{}", proxy.addr()))
    };
    let slot = try_open(watchful).await.unwrap();
    let before = proxy.accepted();
    proxy.black_hole();
    eventually(LONG, "it connects anew", || async { proxy.accepted() > before }).await;
    proxy.heal();
    eventually(LONG, "the slot works again", || async {
        slot.probe(Instant::now() + SHORT).await.is_ok() && slot.statistics().reconnections > 0
    })
    .await;
}
