//! Scenarios against a registry in this process.

use std::{fs, future::ready, path::PathBuf};

use crate::support::{
    PATIENCE, Ran, against, finish, program, run,
    town::{Lie, Town},
};
use prism_client::{
    Reason,
    testing::{FakeRegistry, answers, in_turn},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{
    self,
    subscribe_request::{Ack, Message as Word, Nack, Term},
};
use prism_testkit::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tonic::Status;

struct Desk {
    town: Town,
    fake: FakeRegistry,
    directory: TempDir,
}

impl Desk {
    async fn new() -> Self {
        let (town, fake) = Town::serve().await;
        Self {
            town,
            fake,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn run(&self, text: &str, more: &[&str]) -> Ran {
        run(&mut self.command(text, more)).await
    }

    fn command(&self, text: &str, more: &[&str]) -> Command {
        let file = self.file("story.yaml");
        fs::write(&file, text).unwrap();
        let mut command = against(&self.fake);
        command
            .args(["-o", "json", "scenario", "run"])
            .arg(file)
            .args(more);
        command
    }

    /// What the sessions said about messages.
    fn said(&self) -> Vec<Word> {
        let said = self.fake.said().into_iter();
        said.filter(|word| !matches!(word, Word::Credit(_))).collect()
    }
}

fn results(told: &Value) -> Vec<&str> {
    let steps = told["steps"].as_array().unwrap().iter();
    steps.map(|step| step["result"].as_str().unwrap()).collect()
}

const STORY: &str = r#"
name: two in a room
steps:
  - register: { identity: alice, metadata: { room: engineering, seats: 2 } }
    expect: { outcome: REGISTERED }
  - register: { identity: bob, metadata: { room: engineering } }
  - subscribe: { identity: alice, as: phone }
  - get: { identity: alice }
    expect: { metadata: { seats: 2.0 } }
  - enumerate: { filter: { room: engineering } }
    expect: { count: 2, identities: [bob, alice] }
    within: 2s
  - publish: { filter: { room: engineering }, payload: lunch }
    expect:
      targets: 2
      delivered: 1
      statuses: { alice: DELIVERED, bob: FAILED }
      reasons: { bob: NO_SUBSCRIBER }
  - receive: { by: phone, payload: lunch, within: 5s }
  - silence: { by: phone, for: 20ms }
  - renew: { identities: [alice, carol] }
    expect: { renewed: 1, reasons: { carol: NOT_FOUND } }
  - update: { identity: alice, patch: { room: null } }
  - get: { identity: carol }
    expect: { error: NOT_FOUND }
  - close: { session: phone }
  - wait: 1ms
  - unregister: { identity: alice }
    expect: { existed: true }
"#;

#[tokio::test]
async fn a_story_that_comes_true_passes_and_leaves_nothing() {
    let desk = Desk::new().await;
    let report = desk.file("report.xml");
    let ran = desk
        .run(STORY, &["--junit", report.to_str().unwrap()])
        .await
        .exits(0);
    let told = ran.json();
    assert_eq!(
        (&told["passed"], &told["passed_steps"]),
        (&json!(true), &json!(14))
    );
    assert_eq!(told["steps"][0]["line"], json!(4));
    let report = fs::read_to_string(report).unwrap();
    assert!(
        report.contains(r#"tests="14""#) && report.contains(r#"failures="0""#),
        "{report}"
    );
    assert_eq!(desk.town.store.len(), 0);
}

#[tokio::test]
async fn the_first_step_that_does_not_come_true_ends_it() {
    let desk = Desk::new().await;
    *desk.town.liar.lock() = Some(Lie::Lost('e'));
    let report = desk.file("report.xml");
    let story = STORY.replace("within: 5s", "within: 20ms");
    let ran = desk
        .run(&story, &["--junit", report.to_str().unwrap()])
        .await
        .exits(1);
    let error = ran.error();
    assert_eq!(error["reason"], "EXPECTATION_FAILED");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("story.yaml:19: receive phone: received 0 of 1"),
        "{message}"
    );
    let told = ran.json();
    let results: Vec<_> = told["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["result"])
        .collect();
    assert_eq!(
        (results[5], results[6], results[7]),
        (&json!("passed"), &json!("failed"), &json!("skipped"))
    );
    let report = fs::read_to_string(report).unwrap();
    assert!(
        report.contains(r#"failures="1""#) && report.contains("<skipped"),
        "{report}"
    );
    assert_eq!(desk.town.store.len(), 0, "it is tidied up all the same");
}

#[tokio::test]
async fn what_is_found_and_what_was_expected_are_told() {
    let desk = Desk::new().await;
    desk.town.store.write("alice", &json!({ "room": "a" }));
    for (step, part) in [
        (
            "get: { identity: alice }\n    expect: { metadata: { room: b } }",
            "`metadata.room` is `\"a\"`, expected `\"b\"`",
        ),
        (
            "get: { identity: alice }\n    expect: { error: NOT_FOUND }",
            "expected the error `NOT_FOUND`",
        ),
        ("get: { identity: bob }", "reason `NOT_FOUND`"),
        ("get: { identity: bob }\n    within: 60ms", ", for 60ms"),
        ("enumerate: {}\n    expect: { count: 2 }", "found 1, expected 2"),
        (
            "publish: { payload: x }\n    expect: { statuses: { bob: DELIVERED } }",
            "`bob` is no target",
        ),
        (
            "unregister: { identity: bob }\n    expect: { existed: true }",
            "found false, expected true",
        ),
        ("register: { identity: alice }", "reason `ALREADY_EXISTS`"),
    ] {
        let ran = desk.run(&format!("steps:\n  - {step}\n"), &[]).await.exits(1);
        let message = ran.error()["message"].to_string().replace("\\\"", "\"");
        assert!(message.contains(part), "{step}: {message}");
    }
    assert_eq!(desk.town.store.len(), 1, "what was there before stays");
}

#[tokio::test]
async fn a_file_that_is_no_scenario_is_told_with_its_place() {
    let desk = Desk::new().await;
    let ran = desk
        .run("steps:\n  - regsiter: { identity: a }\n", &[])
        .await
        .exits(2);
    let message = ran.error()["message"].to_string();
    assert!(
        message
            .contains("story.yaml:2:5: steps[0].regsiter: unknown key `regsiter`, did you mean `register`?"),
        "{message}"
    );
    let ran = desk
        .run("steps: [{ wait: 1ms }]", &["--junit", "/no/such/folder/x"])
        .await
        .exits(2);
    assert_eq!(ran.error()["field"], "junit");
    let mut missing = against(&desk.fake);
    let ran = run(missing.args(["-o", "json", "scenario", "run", "/no/such/file"]))
        .await
        .exits(2);
    assert_eq!(ran.error()["field"], "file");
    assert_eq!(desk.fake.calls().len(), 0);
}

#[tokio::test]
async fn what_is_to_be_kept_stays() {
    let desk = Desk::new().await;
    let ran = desk
        .run("steps: [{ register: { identity: a, ttl: 0 } }]", &["--keep"])
        .await
        .exits(0);
    assert_eq!(ran.json()["steps"][0]["name"], "register a");
    assert_eq!(desk.town.store.len(), 1);
}

#[tokio::test]
async fn what_was_received_is_acknowledged_unless_the_step_says_otherwise() {
    let ids = || vec!["m-0/alice".to_owned()];
    let nack = Nack {
        delivery_ids: ids(),
        delay_ms: 2_000,
    };
    let term = Term {
        delivery_ids: ids(),
        reason: "no thanks".to_owned(),
    };
    for (with, said) in [
        ("", vec![Word::Ack(Ack { delivery_ids: ids() })]),
        (", ack: true", vec![Word::Ack(Ack { delivery_ids: ids() })]),
        (", ack: false", vec![]),
        (", nack: 2s", vec![Word::Nack(nack)]),
        (", term: no thanks", vec![Word::Term(term)]),
    ] {
        let desk = Desk::new().await;
        let story = format!(
            "steps:\n  - register: {{ identity: alice }}\n  - subscribe: {{ identity: alice }}\n  - publish: {{ payload: hi }}\n  \
             - receive: {{ by: alice, payload: hi{with} }}\n"
        );
        desk.run(&story, &[]).await.exits(0);
        assert_eq!(desk.said(), said, "{with}");
    }
}

#[tokio::test]
async fn what_was_not_expected_is_left_to_whoever_wants_it() {
    let desk = Desk::new().await;
    let story = "steps:\n  - register: { identity: alice }\n  - subscribe: { identity: alice }\n  - publish: { payload: hi }\n  \
                 - receive: { by: alice, payload: ho }\n";
    desk.run(story, &[]).await.exits(1);
    assert_eq!(desk.said(), []);
}

const STORED: &str = r#"
steps:
  - publish:
      payload: offer
      delivery: exactly-once
      require: stored
      idempotency_key: o-1
      expires: 2h
      headers: { sender: shop }
      as: offer
    expect: { targets: 1, pending: 1, replayed: true, state: SENT, statuses: { alice: PENDING }, reason_counts: {} }
  - receipts: { of: offer }
    expect: { failed: 1, reason_counts: { NO_SUBSCRIBER: 1 } }
    within: 2s
  - cancel: { of: offer }
    expect: { state: CANCELLED }
  - dead_letters: { identity: alice }
    expect: { count: 1, payloads: [hello], reason_counts: { TERMINATED: 1 } }
  - redrive: { identity: alice }
    expect: { redriven: 2, full: 1, gone: 0 }
  - redrive: { all: true }
"#;

#[tokio::test]
async fn stored_deliveries_are_followed_stopped_and_put_back() {
    let desk = Desk::new().await;
    desk.fake.on_multicast(|request| {
        let expected = pattern::MulticastRequest {
            payload: "offer".into(),
            delivery: Some(pattern::DeliverySemantics::ExactlyOnce.into()),
            require: pattern::Stage::Stored.into(),
            idempotency_key: "o-1".to_owned(),
            expires_in_ms: Some(7_200_000),
            headers: [("sender".to_owned(), "shop".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(request.get_ref(), &expected);
        let mut answer = answers::stored(&["alice"]);
        answer.replayed = true;
        ready(Ok(answer))
    });
    // More is known a little later.
    let early = in_turn([Ok(answers::stored(&["alice", "bob"]))]);
    desk.fake.on_get_multicast(move |request| {
        assert_eq!(request.get_ref().multicast_id, "m-1");
        ready(early().or_else(|_| Ok(answers::delivered_but_one(&["alice", "bob"]))))
    });
    desk.fake.on_cancel_multicast(|request| {
        assert_eq!(request.get_ref().multicast_id, "m-1");
        let mut answer = answers::stored(&["alice"]);
        answer.state = pattern::multicast_response::State::Cancelled.into();
        ready(Ok(answer))
    });
    desk.fake.on_list_dead_letters(|request| {
        assert_eq!(request.get_ref().identity.as_deref(), Some("alice"));
        ready(Ok(pattern::ListDeadLettersResponse {
            letters: vec![answers::dead_letter("17", "alice")],
            next_cursor: None,
        }))
    });
    desk.fake.on_redrive_dead_letters(|request| {
        let request = request.into_inner();
        assert!(request.all != (request.identity.as_deref() == Some("alice")));
        ready(Ok(pattern::RedriveDeadLettersResponse {
            redriven_count: 2,
            full_count: 1,
            gone_count: 0,
        }))
    });
    desk.run(STORED, &[]).await.exits(0);
    for (holds, fails) in [
        ("replayed: true", "replayed: false"),
        ("state: CANCELLED", "state: SENT"),
        ("TERMINATED: 1", "TERMINATED: 2"),
        ("count: 1", "count: 2"),
        ("full: 1", "full: 0"),
    ] {
        desk.run(&STORED.replace(holds, fails), &[]).await.exits(1);
    }
}

/// A broken environment is no failed expectation: for the exit code, and for whoever reads the report.
#[tokio::test]
async fn a_service_that_is_not_there_is_an_error_and_no_failure() {
    let desk = Desk::new().await;
    let report = desk.file("report.xml");
    let junit = ["--junit", report.to_str().unwrap(), "--deadline", "500ms"];
    let story = "steps:\n  - wait: 1ms\n  - get: { identity: alice }\n    expect: { error: NOT_FOUND }\n  - wait: 1ms\n";
    let refused = |reason| Status::from(Failure::new(reason, "sorry").not_applied());
    for (status, code, reason) in [
        (Some(refused(Reason::UnknownNamespace)), 3, "UNKNOWN_NAMESPACE"),
        (
            Some(refused(Reason::BackendUnavailable)),
            5,
            "BACKEND_UNAVAILABLE",
        ),
        (Some(Status::permission_denied("no")), 6, ""),
        (None, 5, "DEADLINE_EXCEEDED"),
    ] {
        desk.fake.on_get(move |_| {
            let status = status.clone();
            async move {
                match status {
                    Some(status) => Err(status),
                    None => std::future::pending().await,
                }
            }
        });
        let ran = desk.run(story, &junit).await.exits(code);
        let error = ran.error();
        assert_eq!(error["reason"], reason, "{error}");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("story.yaml:3: get alice: "),
            "{error}"
        );
        assert_eq!(results(&ran.json()), ["passed", "error", "skipped"]);
        let report = fs::read_to_string(&report).unwrap();
        for part in [r#"errors="1""#, r#"failures="0""#, "<error"] {
            assert!(report.contains(part), "{part} is missing in\n{report}");
        }
    }
    let nobody = format!("127.0.0.1:{}", prism_testkit::free_port());
    let mut command = program();
    command
        .args(["--endpoint", &nobody, "-o", "json", "scenario", "run"])
        .arg(desk.file("story.yaml"))
        .args(junit);
    let ran = run(&mut command).await.exits(5);
    assert_eq!(results(&ran.json()), ["passed", "error", "skipped"]);
}

/// A session goes on by itself while its connection is lost, and receives nothing.
#[tokio::test]
async fn what_is_not_received_from_a_service_that_is_gone_is_an_error() {
    let desk = Desk::new().await;
    let story = "steps:\n  - register: { identity: alice }\n  - subscribe: { identity: alice }\n  \
                 - receive: { by: alice, within: 20ms }\n";
    desk.run(story, &["--keep"]).await.exits(1);
    let gone = Status::from(Failure::new(Reason::NoRunner, "sorry").not_applied());
    desk.fake.on_get(move |_| ready(Err(gone.clone())));
    desk.town.store.remove("alice");
    let ran = desk.run(story, &["--deadline", "500ms"]).await.exits(5);
    assert_eq!(results(&ran.json()), ["passed", "passed", "error"]);
}

#[tokio::test]
async fn an_interrupt_leaves_what_is_known_by_then() {
    let desk = Desk::new().await;
    desk.fake
        .on_get(|_| std::future::pending::<Result<pattern::GetResponse, Status>>());
    let report = desk.file("report.xml");
    let story = "steps:\n  - register: { identity: alice }\n  - get: { identity: alice }\n  - wait: 1ms\n";
    let child = desk
        .command(story, &["--junit", report.to_str().unwrap()])
        .spawn()
        .unwrap();
    eventually(PATIENCE, "the second step has begun", || {
        let begun = desk.fake.count("Get") > 0;
        async move { begun }
    })
    .await;
    let id = child.id().unwrap().to_string();
    let killed = std::process::Command::new("kill").args(["-INT", &id]).status();
    assert!(killed.unwrap().success());
    let ran = finish(child).await.exits(130);
    let told = ran.json();
    assert_eq!(results(&told), ["passed", "interrupted", "skipped"]);
    assert_eq!(told["passed"], json!(false));
    let report = fs::read_to_string(report).unwrap();
    for part in [
        r#"tests="3""#,
        r#"errors="1""#,
        r#"failures="0""#,
        r#"skipped="1""#,
        "INTERRUPTED",
    ] {
        assert!(report.contains(part), "{part} is missing in\n{report}");
    }
    assert_eq!(desk.town.store.len(), 0, "it is tidied up all the same");
}
