//! Every command against a scripted registry: what it asks, what it shows, how it exits.

use std::future::ready;

use crate::support::{against, fake, keeper, multicast, multicast_as, run_with_input};
use prism_client::{
    Reason,
    testing::{FakeRegistry, answers},
};
use prism_core::failure::Failure;
use prism_proto::pattern;
use serde_json::json;

#[tokio::test]
async fn register_sends_what_is_said_and_shows_the_outcome() {
    let fake = fake().await;
    let (asked, keep) = keeper::<pattern::RegisterRequest>();
    fake.on_register(move |request| {
        keep(request.into_inner());
        ready(Ok(answers::registered(7)))
    });
    let line = [
        "register",
        "alice",
        "--metadata",
        r#"{"status": "online", "n": 3}"#,
        "--ttl",
        "30",
        "--replace",
    ];
    let ran = multicast(&fake, &line).await.exits(0);
    let expected = "\
IDENTITY     alice
OUTCOME      REGISTERED
REGISTERED   1970-01-01T00:01:00Z
EXPIRES      1970-01-01T00:01:30Z
LEASE        30000 ms
RENEW AFTER  10000 ms
GENERATION   0000000000005eed/7
";
    assert_eq!(ran.stdout, expected);
    let asked = asked.lock().take().unwrap();
    assert_eq!(
        (asked.identity.as_str(), asked.ttl_seconds, asked.replace),
        ("alice", Some(30), true)
    );
    assert_eq!((asked.metadata.len(), asked.session.len()), (2, 16));
    assert_eq!(fake.calls()[0].metadata("x-prism-namespace"), Some("presence"));

    let ran = multicast_as(&fake, "json", &line).await.exits(0);
    let expected = json!({
        "success": true,
        "registered_at": "1970-01-01T00:01:00Z",
        "expires_at": "1970-01-01T00:01:30Z",
        "outcome": "REGISTERED",
        "generation": {"epoch": "24301", "revision": "7"},
        "position": {"epoch": "24301", "revision": "7"},
        "renew_after_ms": "10000",
        "ttl_ms": "30000",
        "reason": "",
        "maybe_applied": false,
    });
    assert_eq!(ran.json(), expected);
    assert_eq!(
        multicast_as(&fake, "name", &line).await.exits(0).stdout,
        "alice\n"
    );
}

#[tokio::test]
async fn yaml_is_the_same_tree() {
    let fake = fake().await;
    fake.on_get(|_| ready(Ok(answers::found("alice"))));
    let ran = multicast_as(&fake, "yaml", &["get", "alice"]).await.exits(0);
    let read: serde_json::Value = serde_saphyr::from_str(&ran.stdout).unwrap();
    let json = multicast_as(&fake, "json", &["get", "alice"])
        .await
        .exits(0)
        .json();
    assert_eq!(read, json);
    assert!(ran.stdout.contains("status: online"), "{}", ran.stdout);
}

#[tokio::test]
async fn get_shows_one_identity() {
    let fake = fake().await;
    fake.on_get(|request| ready(Ok(answers::found(&request.get_ref().identity))));
    let ran = multicast(&fake, &["get", "alice"]).await.exits(0);
    let expected = r#"IDENTITY    alice
REGISTERED  1970-01-01T00:01:00Z
UPDATED     1970-01-01T00:01:00Z
EXPIRES     1970-01-01T00:01:30Z
GENERATION  0000000000005eed/1
REVISION    1
METADATA    {"status":"online"}
"#;
    assert_eq!(ran.stdout, expected);
    assert_eq!(ran.stderr, "");
    let tree = multicast_as(&fake, "json", &["get", "alice"])
        .await
        .exits(0)
        .json();
    assert_eq!(tree["identity"]["metadata"], json!({"status": "online"}));
}

#[tokio::test]
async fn update_sends_the_patch_with_its_nulls() {
    let fake = fake().await;
    let (asked, keep) = keeper::<pattern::UpdateRequest>();
    fake.on_update(move |request| {
        keep(request.into_inner());
        ready(Ok(answers::updated("alice")))
    });
    let ran = multicast(
        &fake,
        &[
            "update",
            "alice",
            "--patch",
            r#"{"room": null, "status": "away"}"#,
        ],
    )
    .await
    .exits(0);
    assert!(ran.stdout.contains("REVISION    2"), "{}", ran.stdout);
    let asked = asked.lock().take().unwrap();
    let room = asked.patch["room"].kind.clone().unwrap();
    assert!(matches!(room, prost_types::value::Kind::NullValue(_)));
    assert_eq!(
        multicast_as(&fake, "name", &["update", "alice", "--patch", "{}"])
            .await
            .exits(0)
            .stdout,
        "alice\n"
    );
}

#[tokio::test]
async fn renew_tells_which_lease_was_not() {
    let fake = fake().await;
    fake.on_renew(|request| {
        let result = |lease: pattern::renew_request::Lease| match lease.identity.as_str() {
            "gone" => answers::not_renewed("gone", Reason::NotRegistered),
            identity => answers::renewed(identity),
        };
        let results = request.into_inner().leases.into_iter().map(result).collect();
        ready(Ok(pattern::RenewResponse { results }))
    });
    multicast(&fake, &["renew", "alice", "bob"]).await.exits(0);
    let ran = multicast(&fake, &["renew", "alice", "gone"]).await.exits(3);
    let expected = "\
IDENTITY  RENEWED  EXPIRES               REASON
alice     yes      1970-01-01T00:01:30Z  -
gone      no       -                     NOT_FOUND
";
    assert_eq!(ran.stdout, expected);
    assert!(
        ran.stderr.contains("1 of 2 leases were not renewed"),
        "{}",
        ran.stderr
    );
    let ran = multicast_as(&fake, "json", &["renew", "alice", "gone"])
        .await
        .exits(3);
    assert_eq!(ran.json()["results"][1]["error"], "NOT_FOUND");
    assert_eq!(
        (ran.error()["reason"].clone(), ran.error()["exit_code"].clone()),
        (json!("NOT_FOUND"), json!(3))
    );
    assert_eq!(
        multicast_as(&fake, "name", &["renew", "alice", "gone"])
            .await
            .exits(3)
            .stdout,
        "alice\n"
    );
}

#[tokio::test]
async fn enumerate_counts() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_enumerate(|request| {
        let request = request.into_inner();
        assert_eq!(
            (request.count_only, request.facets, request.fields),
            (true, vec!["zone".to_owned()], vec!["a.b".to_owned()])
        );
        let bucket = |kind, count| prism_proto::pattern::facet::Bucket {
            value: Some(prost_types::Value { kind: Some(kind) }),
            count,
        };
        let facet = prism_proto::pattern::Facet {
            field: "zone".to_owned(),
            buckets: vec![
                bucket(prost_types::value::Kind::StringValue("eu".to_owned()), 7),
                bucket(prost_types::value::Kind::NumberValue(3.0), 2),
            ],
            value_count: 5,
            other_count: 0,
            missing_count: 4,
        };
        ready(Ok(prism_proto::pattern::EnumerateResponse {
            total_count: 13,
            facets: vec![facet],
            ..answers::page(&[])
        }))
    });
    let line = ["enumerate", "--count", "--facet", "zone", "--field", "a.b"];
    let ran = multicast_as(&fake, "table", &line).await.exits(0);
    let lines: Vec<Vec<&str>> = ran
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines,
        [
            vec!["FIELD", "VALUE", "COUNT"],
            vec!["zone", "\"eu\"", "7"],
            vec!["zone", "3", "2"],
            vec!["zone", "(3", "more", "values)", "-"],
            vec!["zone", "(missing)", "4"],
        ]
    );
    assert_eq!(ran.stderr, "13 match\n");
    let ran = multicast_as(&fake, "json", &line).await.exits(0);
    assert_eq!(ran.json()["facets"][0]["buckets"][0]["count"], "7");
}

#[tokio::test]
async fn enumerate_asks_for_a_page_and_says_where_the_next_begins() {
    let fake = fake().await;
    let (asked, keep) = keeper::<pattern::EnumerateRequest>();
    fake.on_enumerate(move |request| {
        keep(request.into_inner());
        let mut page = answers::page(&["alice", "bob"]);
        page.total_count = 9;
        page.next_cursor = Some("more".to_owned());
        ready(Ok(page))
    });
    let line = [
        "enumerate",
        "--filter",
        r#"{"status": "online", "battery.lt": 0.2}"#,
        "--sort",
        "room desc",
        "--sort",
        "name",
        "--limit",
        "2",
        "--cursor",
        "here",
    ];
    let ran = multicast(&fake, &line).await.exits(0);
    let expected = r#"IDENTITY  REGISTERED            EXPIRES               METADATA
alice     1970-01-01T00:01:00Z  1970-01-01T00:01:30Z  {"status":"online"}
bob       1970-01-01T00:01:00Z  1970-01-01T00:01:30Z  {"status":"online"}
"#;
    assert_eq!(ran.stdout, expected);
    assert_eq!(ran.stderr, "2 of 9, continue with --cursor more\n");
    let request = asked.lock().take().unwrap();
    let pagination = request.pagination.unwrap();
    assert_eq!((pagination.limit, pagination.cursor.as_str()), (2, "here"));
    assert_eq!(request.sort_by, ["room desc", "name"]);
    assert_eq!(request.include_metadata, Some(true));
    assert!(
        matches!(request.filter.unwrap().node, Some(pattern::filter::Node::And(list)) if list.filters.len() == 2)
    );

    let ran = multicast_as(&fake, "json", &["enumerate"]).await.exits(0);
    assert_eq!(ran.json()["total_count"], "9");
    assert_eq!(ran.json()["identities"][1]["identity"], "bob");
    assert_eq!(ran.stderr, "");
    let ran = multicast_as(&fake, "name", &["enumerate"]).await.exits(0);
    assert_eq!(ran.stdout, "alice\nbob\n");
    assert_eq!(asked.lock().take().unwrap().include_metadata, Some(false));
}

#[tokio::test]
async fn publish_delivers_everything_with_0_and_anything_less_with_4() {
    let fake = fake().await;
    let (asked, keep) = keeper::<pattern::MulticastRequest>();
    fake.on_multicast(move |request| {
        let request = request.into_inner();
        let answer = match request.filter {
            None => answers::delivered(&["alice", "bob"]),
            Some(_) => answers::delivered_but_one(&["alice", "bob"]),
        };
        keep(request);
        ready(Ok(answer))
    });
    let ran = multicast(
        &fake,
        &[
            "publish",
            "--payload",
            "hello",
            "--content-type",
            "text/plain",
            "--timeout",
            "250",
        ],
    )
    .await;
    let until = "until 1970-01-01T01:01:00Z `prism-probe multicast receipts m-1` shows more\n";
    assert_eq!(ran.exits(0).stderr, format!("2 of 2 delivered\n{until}"));
    let request = asked.lock().take().unwrap();
    assert_eq!(
        (&*request.payload, request.content_type.as_deref()),
        (&b"hello"[..], Some("text/plain"))
    );
    assert_eq!(request.timeout_ms, Some(250));

    let partial = [
        "publish",
        "--filter",
        r#"{"status": "online"}"#,
        "--payload",
        "hello",
    ];
    let ran = multicast(&fake, &partial).await.exits(4);
    let expected = "\
IDENTITY  STATUS     STAGE     REASON
alice     DELIVERED  ACCEPTED  -
bob       FAILED     RESOLVED  NO_SUBSCRIBER
";
    assert_eq!(ran.stdout, expected);
    assert!(
        ran.stderr
            .starts_with(&format!("1 of 2 delivered, 1 failed\n{until}error: 1 of 2")),
        "{}",
        ran.stderr
    );
    let ran = multicast_as(&fake, "json", &partial).await.exits(4);
    assert_eq!(ran.json()["failed_count"], "1");
    assert_eq!(ran.json()["pending_count"], "0");
    assert_eq!(ran.json()["statuses"][1]["status"], "FAILED");
    assert_eq!(ran.error()["reason"], "PARTIAL_DELIVERY");
    assert_eq!(
        multicast_as(&fake, "name", &partial).await.exits(4).stdout,
        "alice\n"
    );
}

#[tokio::test]
async fn targets_that_the_answer_leaves_out_are_not_left_out_in_silence() {
    let fake = fake().await;
    fake.on_multicast(|_| {
        let mut answer = answers::delivered(&["alice", "bob"]);
        (answer.target_count, answer.delivered_count) = (5, 5);
        ready(Ok(answer))
    });
    let line = ["publish", "--payload", "x"];
    for format in ["table", "name"] {
        let ran = multicast_as(&fake, format, &line).await.exits(0);
        assert!(
            ran.stderr.contains("3 of the targets are counted and not listed"),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(multicast_as(&fake, "json", &line).await.exits(0).stderr, "");
}

#[tokio::test]
async fn a_payload_comes_from_the_line_a_file_or_stdin() {
    let fake = fake().await;
    let (asked, keep) = keeper::<pattern::MulticastRequest>();
    fake.on_multicast(move |request| {
        keep(request.into_inner());
        ready(Ok(answers::delivered(&[])))
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"from \xff file").unwrap();
    let named = format!("@{}", file.path().display());
    for (argument, input, expected) in [
        ("-x", &b""[..], &b"-x"[..]),
        (&named, b"", b"from \xff file"),
        ("-", b"from \xfe stdin", b"from \xfe stdin"),
    ] {
        let mut command = against(&fake);
        run_with_input(
            command.args(["multicast", "publish", "--payload", argument]),
            input,
        )
        .await
        .exits(0);
        assert_eq!(asked.lock().take().unwrap().payload, expected, "{argument}");
    }
}

#[tokio::test]
async fn explain_tells_how_a_filter_is_answered() {
    let fake = fake().await;
    let (asked, keep) = keeper::<pattern::ExplainRequest>();
    fake.on_explain(move |request| {
        keep(request.into_inner());
        ready(Ok(answers::explained()))
    });
    let line = [
        "explain",
        "--filter",
        r#"{"status": "online", "battery.lt": 0.2}"#,
    ];
    let ran = multicast(&fake, &line).await.exits(0);
    let expected = "\
PLAN         index(status eq)
INDEXES      status
NO INDEX ON  battery
LEFT OVER    battery lt 0.2
EXACT        no
EXPECTED     120
CANDIDATES   118
ASKED        118
MATCHES      7
REGISTERED   10000
TOOK         85µs
POSITION     0000000000005eed/1
";
    assert_eq!(ran.stdout, expected);
    let request = asked.lock().take().unwrap();
    assert!(request.filter.is_some() && request.identity.is_none());
    let tree = multicast_as(&fake, "json", &line).await.exits(0).json();
    assert_eq!(tree["plan"]["candidate_count"], "118");
    assert_eq!(tree["plan"]["residual"], json!(["battery lt 0.2"]));
    assert!(tree.get("why").is_none(), "{tree}");
    assert_eq!(multicast_as(&fake, "name", &line).await.exits(0).stdout, "");

    fake.on_explain(|_| {
        let mut answer = answers::explained();
        (answer.plan.as_mut().unwrap().steps, answer.view_age_ms) = (None, Some(12));
        ready(Ok(answer))
    });
    let ran = multicast(&fake, &["explain"]).await.exits(0);
    assert!(
        ran.stdout.starts_with("PLAN         every registration\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.ends_with("VIEW AGE     12 ms\n"), "{}", ran.stdout);
}

#[tokio::test]
async fn explain_tells_why_an_identity_does_not_match() {
    let fake = fake().await;
    let (asked, keep) = keeper::<pattern::ExplainRequest>();
    fake.on_explain(move |request| {
        keep(request.into_inner());
        ready(Ok(answers::explained_why()))
    });
    let line = ["explain", "sensor-1", "--filter", r#"{"status": "online"}"#];
    let ran = multicast(&fake, &line).await.exits(0);
    let expected = r#"IDENTITY  sensor-1
MATCHES   no
POSITION  0000000000005eed/1

HOLDS  PART                  VALUE
no     $and                  -
yes      status eq "online"  "online"
no       battery lt 0.2      0.7
no       zone eq "a"         -
"#;
    assert_eq!(ran.stdout, expected);
    assert_eq!(asked.lock().take().unwrap().identity.as_deref(), Some("sensor-1"));
    let tree = multicast_as(&fake, "yaml", &line).await.exits(0).stdout;
    let tree: serde_json::Value = serde_saphyr::from_str(&tree).unwrap();
    assert_eq!(tree["why"]["verdicts"][2]["value"], "0.7");
    assert!(tree["why"]["verdicts"][3].get("value").is_none());
    assert_eq!(multicast_as(&fake, "name", &line).await.exits(0).stdout, "");
    fake.on_explain(|_| {
        let mut answer = answers::explained_why();
        answer.why.as_mut().unwrap().matches = true;
        ready(Ok(answer))
    });
    assert_eq!(
        multicast_as(&fake, "name", &line).await.exits(0).stdout,
        "sensor-1\n"
    );
}

#[tokio::test]
async fn unregister_says_whether_there_was_something() {
    let fake = fake().await;
    fake.on_unregister(|request| ready(Ok(answers::unregistered(request.get_ref().identity == "alice"))));
    let ran = multicast(&fake, &["unregister", "alice"]).await.exits(0);
    assert_eq!(ran.stdout, "IDENTITY  alice\nEXISTED   yes\n");
    let ran = multicast_as(&fake, "json", &["unregister", "nobody"])
        .await
        .exits(0);
    assert_eq!(ran.json()["existed"], false);
}

#[tokio::test]
async fn each_failure_has_its_exit_code_and_is_told() {
    let fake = fake().await;
    for (failure, code) in [
        (
            Failure::new(Reason::NotRegistered, "`a` is not registered").into(),
            3,
        ),
        (
            Failure::new(Reason::UnknownNamespace, "there is no namespace `presence`").into(),
            3,
        ),
        (Failure::new(Reason::Overloaded, "too much").into(), 1),
        (
            Failure::new(Reason::InvalidIdentity, "not an identity")
                .field("identity")
                .into(),
            1,
        ),
        (
            Failure::new(Reason::BackendUnavailable, "redis is away").into(),
            5,
        ),
        (Failure::new(Reason::DeadlineExceeded, "too late").into(), 5),
        (tonic::Status::permission_denied("not yours"), 6),
        (tonic::Status::unauthenticated("who are you"), 6),
        (tonic::Status::unimplemented("not here"), 1),
    ] {
        let told = failure.message().to_owned();
        fake.on_get(move |_| ready(Err(failure.clone())));
        let ran = multicast(&fake, &["get", "a"]).await.exits(code);
        assert!(ran.stderr.contains(&format!("error: {told}")), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
        let ran = multicast_as(&fake, "json", &["get", "a"]).await.exits(code);
        assert_eq!(
            (ran.error()["message"].clone(), ran.error()["exit_code"].clone()),
            (json!(told), json!(code))
        );
        assert_eq!(ran.stdout, "");
    }
}

#[tokio::test]
async fn an_error_object_has_everything_a_program_needs() {
    let fake = fake().await;
    fake.on_register(|_| {
        let failure = Failure::new(Reason::AlreadyRegistered, "`a` is taken")
            .field("identity")
            .with("limit", 1);
        ready(Err(failure.not_applied().into()))
    });
    let ran = multicast_as(&fake, "json", &["register", "a"]).await.exits(1);
    let expected = json!({
        "message": "`a` is taken",
        "reason": "ALREADY_EXISTS",
        "code": "AlreadyExists",
        "field": "identity",
        "details": {"field": "identity", "limit": "1"},
        "applied": "no",
        "hint": "--replace takes it over",
        "exit_code": 1,
    });
    assert_eq!(ran.error(), expected);
}

#[tokio::test]
async fn wrong_values_are_found_before_anybody_is_called() {
    let fake = fake().await;
    for (line, part) in [
        (&["register", "a", "--metadata", r#"{"a": 1,}"#][..], "column"),
        (
            &["register", "a", "--metadata", r#"{"a": 9007199254740993}"#],
            "`a`",
        ),
        (&["register", "a", "--ttl", "-3"], "--ttl"),
        (&["update", "a", "--patch", "[]"], "object"),
        (
            &["enumerate", "--filter", r#"{"$or": [{"x": {"$nope": 1}}]}"#],
            "$or[0].x",
        ),
        (&["publish", "--payload", "@/no/such/file"], "/no/such/file"),
        (&["--endpoint", "https://x", "get", "a"], "plaintext"),
        (&["--namespace", "two words", "get", "a"], "two words"),
    ] {
        let ran = multicast(&fake, line).await.exits(2);
        assert!(ran.stderr.contains(part), "`{part}` is not in {}", ran.stderr);
        let ran = multicast_as(&fake, "json", line).await.exits(2);
        assert_eq!(ran.error()["exit_code"], 2, "{ran:?}");
        assert!(ran.error()["message"].as_str().unwrap().contains(part), "{ran:?}");
    }
    assert!(fake.calls().is_empty());
}

/// Nobody asks what a read may have changed.
#[tokio::test]
async fn a_failed_read_says_nothing_of_its_effect_and_a_failed_write_does() {
    let fake = fake().await;
    let lost = || tonic::Status::from(Failure::new(Reason::RunnerLost, "gone").maybe_applied());
    fake.on_get(move |_| ready(Err(lost())));
    fake.on_update(move |_| ready(Err(lost())));
    let ran = multicast_as(&fake, "json", &["get", "a"]).await.exits(5);
    assert!(ran.error().get("applied").is_none(), "{ran:?}");
    let ran = multicast_as(&fake, "json", &["update", "a", "--patch", "{}"])
        .await
        .exits(5);
    assert_eq!(ran.error()["applied"], "unknown");
}
