//! Checking and changing what registrations look like, against a registry in this process.

use std::{
    future::ready,
    io::Read,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::support::{
    Ran, against, run,
    store::{Store, refused},
    terminal,
};
use futures::stream;
use prism_client::{
    Reason,
    testing::{FakeRegistry, answers},
};
use prism_core::failure::Failure;
use prism_filter::Document;
use prism_proto::pattern::{CheckSchemaResponse, check_schema_response::Progress};
use serde_json::{Value, json};
use tonic::Status;

fn devices(count: usize) -> impl Iterator<Item = (String, Value)> {
    (0..count).map(|number| {
        (
            format!("d-{number:03}"),
            json!({ "fw": "1.0", "level": number.to_string() }),
        )
    })
}

async fn schema(fake: &FakeRegistry, format: &str, line: &[&str]) -> Ran {
    run(against(fake).args(["-o", format, "schema"]).args(line)).await
}

/// The last line of the output, and those before it.
fn lines(ran: &Ran) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.pop().unwrap();
    (lines, last["summary"].clone())
}

#[tokio::test]
async fn every_registration_is_migrated_once() {
    let (store, fake) = Store::serve(devices(25)).await;
    let line = [
        "migrate",
        "--rename",
        "fw=firmware_version",
        "--retype",
        "level=string:integer",
        "--default",
        "seen=0",
    ];
    let ran = schema(&fake, "table", &line).await.exits(0);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("", "25 of 25 changed\n")
    );
    for (number, (name, _)) in devices(25).enumerate() {
        let expected = json!({ "firmware_version": "1.0", "level": number, "seen": 0 });
        assert_eq!(store.metadata(&name), expected);
        assert_eq!(store.revision(&name), 2);
    }
    // Again does nothing.
    let ran = schema(&fake, "json", &line).await.exits(0);
    let (events, summary) = lines(&ran);
    assert!(events.is_empty());
    assert_eq!(
        (&summary["looked_at"], &summary["changed"]),
        (&json!(25), &json!(0))
    );
    assert_eq!(store.revision("d-000"), 2);
}

#[tokio::test]
async fn a_dry_run_shows_everything_and_changes_nothing() {
    let (store, fake) = Store::serve(devices(12)).await;
    let line = ["migrate", "--rename", "fw=firmware_version", "--dry-run"];
    let ran = schema(&fake, "json", &line).await.exits(0);
    let (mut events, summary) = lines(&ran);
    events.sort_by_key(|event| event["identity"].to_string());
    assert_eq!(events.len(), 12);
    assert_eq!(
        events[0],
        json!({ "identity": "d-000", "patch": { "fw": null, "firmware_version": "1.0" } })
    );
    assert_eq!(
        (&summary["changed"], &summary["dry_run"]),
        (&json!(12), &json!(true))
    );
    assert_eq!(fake.count("Update"), 0);
    assert_eq!(store.revision("d-000"), 1);
    let ran = schema(&fake, "table", &line).await.exits(0);
    assert!(
        ran.stdout
            .contains(r#"d-003  {"firmware_version":"1.0","fw":null}"#),
        "{}",
        ran.stdout
    );
    assert_eq!(ran.stderr, "12 of 12 would change\n");
}

#[tokio::test]
async fn what_cannot_be_done_exactly_is_told_and_left() {
    let mut all: Vec<_> = devices(3).collect();
    all[1].1 = json!({ "level": "high" });
    let (store, fake) = Store::serve(all).await;
    let line = ["migrate", "--retype", "level=string:integer"];
    let ran = schema(&fake, "json", &line).await.exits(1);
    let (events, summary) = lines(&ran);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["identity"], "d-001");
    assert!(
        events[0]["problem"]
            .as_str()
            .unwrap()
            .contains("not exactly a integer")
    );
    assert_eq!((&summary["changed"], &summary["left"]), (&json!(2), &json!(1)));
    assert_eq!(ran.error()["reason"], "PARTLY_MIGRATED");
    assert_eq!(store.metadata("d-001"), json!({ "level": "high" }));
}

/// Whoever writes between our reading and our writing is not overwritten.
#[tokio::test]
async fn concurrent_writers_are_not_overwritten() {
    let (store, fake) = Store::serve(devices(5)).await;
    let (write, times) = (store.clone(), AtomicUsize::new(0));
    fake.on_update(move |request| {
        let request = request.into_inner();
        // Somebody else is faster, three times.
        if request.identity == "d-002" && times.fetch_add(1, Ordering::Relaxed) < 3 {
            let mut metadata = write.metadata("d-002");
            metadata["count"] = json!(metadata["count"].as_i64().unwrap_or(0) + 1);
            write.write("d-002", &metadata);
        }
        ready(write.update(&request))
    });
    schema(&fake, "table", &["migrate", "--rename", "fw=firmware"])
        .await
        .exits(0);
    assert_eq!(
        store.metadata("d-002"),
        json!({ "firmware": "1.0", "level": "2", "count": 3 })
    );
    // One that is written each time is left, not fought for.
    let write = store.clone();
    fake.on_update(move |request| {
        let request = request.into_inner();
        let metadata = write.metadata(&request.identity);
        write.write(&request.identity, &metadata);
        ready(write.update(&request))
    });
    let ran = schema(&fake, "table", &["migrate", "--default", "x=1"])
        .await
        .exits(1);
    assert!(
        ran.stdout.contains("d-004  it is written all the time"),
        "{}",
        ran.stdout
    );
}

/// A migration that breaks off says how far it came, and a second one does the rest.
#[tokio::test]
async fn a_migration_that_breaks_off_goes_on() {
    let (store, fake) = Store::serve(devices(40)).await;
    let (write, times) = (store.clone(), AtomicUsize::new(0));
    fake.on_update(move |request| {
        let broken = times.fetch_add(1, Ordering::Relaxed) >= 25;
        ready(if broken {
            Err(refused(Reason::BackendUnavailable))
        } else {
            write.update(&request.into_inner())
        })
    });
    let line = ["migrate", "--rename", "fw=firmware"];
    let ran = schema(&fake, "table", &line).await.exits(5);
    assert!(ran.stderr.contains("with --after `d-019`"), "{}", ran.stderr);
    let write = store.clone();
    fake.on_update(move |request| ready(write.update(&request.into_inner())));
    let ran = schema(&fake, "table", &[&line[..], &["--after", "d-019"]].concat())
        .await
        .exits(0);
    assert!(ran.stderr.contains("of 20 changed"), "{}", ran.stderr);
    for (name, _) in devices(40) {
        assert_eq!(store.revision(&name), 2, "{name}: once, and only once");
    }
}

/// An answer that was lost says nothing about whether the update was made; looking does.
#[tokio::test]
async fn a_lost_answer_is_looked_after() {
    let (store, fake) = Store::serve(devices(6)).await;
    let (write, times) = (store.clone(), AtomicUsize::new(0));
    fake.on_update(move |request| {
        let done = write.update(&request.into_inner());
        let lost = times.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let lost = lost.then(|| Status::from(Failure::new(Reason::RunnerLost, "gone").maybe_applied()));
        ready(lost.map_or(done, Err))
    });
    let ran = schema(&fake, "table", &["migrate", "--rename", "fw=firmware"])
        .await
        .exits(0);
    assert_eq!(ran.stderr, "6 of 6 changed\n");
    for (name, _) in devices(6) {
        assert_eq!(store.revision(&name), 2, "{name}: once, and only once");
    }
}

/// Cursors become too old while a large namespace is migrated.
#[tokio::test]
async fn a_cursor_that_is_too_old_is_no_end() {
    let (store, fake) = Store::serve(devices(35)).await;
    let list = store.clone();
    fake.on_enumerate(move |request| {
        let request = request.into_inner();
        let is_first = request
            .pagination
            .as_ref()
            .is_none_or(|page| page.cursor.is_empty());
        ready(if is_first {
            list.page(request)
        } else {
            Err(refused(Reason::Compacted))
        })
    });
    let filter = r#"{"level.exists": true}"#;
    let line = ["migrate", "--rename", "fw=firmware", "--filter", filter];
    let ran = schema(&fake, "table", &line).await.exits(0);
    assert_eq!(ran.stderr, "35 of 35 changed\n");
    assert!(devices(35).all(|(name, _)| store.revision(&name) == 2));
}

#[tokio::test]
async fn who_is_gone_meanwhile_is_no_failure() {
    let (store, fake) = Store::serve(devices(3)).await;
    let write = store.clone();
    fake.on_update(move |request| {
        let request = request.into_inner();
        if request.identity == "d-001" {
            write.remove("d-001");
        }
        ready(write.update(&request))
    });
    let ran = schema(&fake, "table", &["migrate", "--rename", "fw=firmware"])
        .await
        .exits(0);
    assert_eq!(ran.stderr, "2 of 3 changed, 1 are gone meanwhile\n");
}

/// People who watch see how far it is; programs, and files, get nothing of that.
#[tokio::test]
async fn progress_is_shown_on_a_terminal_and_nowhere_else() {
    let (_, fake) = Store::serve(devices(25)).await;
    let seen = async |format: &str| {
        let (mut screen, line) = terminal();
        let mut command = against(&fake);
        command.args(["-o", format, "schema", "migrate", "--default", "x=1"]);
        command.env("TERM", "xterm").stderr(line);
        run(&mut command).await.exits(0);
        drop(command);
        // The screen ends with the last one who could write to it.
        let (mut seen, mut part) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = screen.read(&mut part) {
            seen.extend(&part[..count]);
        }
        String::from_utf8(seen).unwrap()
    };
    let people = seen("table").await;
    assert!(
        people.contains("registrations [") && people.contains("/25 "),
        "{people:?}"
    );
    assert!(
        people.ends_with("25 of 25 changed\r\n") || people.ends_with("0 of 25 changed\r\n"),
        "{people:?}"
    );
    assert_eq!(seen("json").await, "");
}

fn violation(identity: &str) -> CheckSchemaResponse {
    CheckSchemaResponse {
        identity: identity.to_owned(),
        field: "level".to_owned(),
        violation: "the field `level` is no int: `\"high\"`".to_owned(),
        progress: None,
    }
}

fn progress(nonconforming: u64, done: bool) -> CheckSchemaResponse {
    let progress = Progress {
        checked: 10,
        nonconforming,
        total: 10,
        done,
        position: Some(answers::position(7)),
    };
    CheckSchemaResponse {
        progress: Some(progress),
        ..Default::default()
    }
}

#[tokio::test]
async fn violations_are_shown_and_counted() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_check_schema(|request| {
        assert!(request.schema.is_none());
        let answers = [
            violation("a"),
            progress(1, false),
            violation("b"),
            progress(2, true),
        ];
        ready(Ok(stream::iter(answers.map(Ok))))
    });
    let ran = schema(&fake, "table", &["check"]).await.exits(1);
    let expected = "a  the field `level` is no int: `\"high\"`\nb  the field `level` is no int: `\"high\"`\n";
    assert_eq!(ran.stdout, expected);
    assert!(
        ran.stderr.contains("2 of 10 registrations violate the schema"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("SCHEMA_VIOLATED"));
    assert_eq!(schema(&fake, "name", &["check"]).await.exits(1).stdout, "a\nb\n");
    let ran = schema(&fake, "json", &["check"]).await.exits(1);
    let events: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((events.len(), &events[1]["identity"]), (3, &json!("b")));
    assert_eq!(events[2]["progress"]["nonconforming"], "2");

    fake.on_check_schema(|_| ready(Ok(stream::iter([Ok(progress(0, true))]))));
    let ran = schema(&fake, "table", &["check"]).await.exits(0);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("", "all 10 registrations satisfy the schema\n")
    );
}

#[tokio::test]
async fn a_schema_to_come_is_read_from_a_file() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_check_schema(|request| {
        let schema = Document::from_proto(&request.schema.unwrap().fields).unwrap();
        assert_eq!(schema.to_value(), json!({ "level": "int" }));
        assert_eq!(request.limit, 3);
        ready(Ok(stream::iter([Ok(progress(0, true))])))
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("next.yaml");
    let check = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        schema(&fake, "table", &["check", "--schema", &file, "--limit", "3"]).await
    };
    check("level: int\n").await.exits(0);
    check("namespaces:\n  - name: presence\n    identity_schema: { level: int }\n")
        .await
        .exits(0);
    let ran = check("namespaces: [{ name: other }]\n").await.exits(2);
    assert!(ran.stderr.contains("none called `presence`"), "{}", ran.stderr);
    let ran = check("level: [\n").await.exits(2);
    assert!(ran.stderr.contains("next.yaml"), "{}", ran.stderr);
    let ran = schema(&fake, "json", &["check", "--schema", "/nowhere.yaml"])
        .await
        .exits(2);
    assert_eq!(ran.error()["field"], "schema");
}

/// A check that broke off is not one that found nothing.
#[tokio::test]
async fn a_check_that_breaks_off_fails() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_check_schema(|_| ready(Ok(stream::iter([Ok(progress(0, false))]))));
    schema(&fake, "table", &["check"]).await.exits(5);
}
