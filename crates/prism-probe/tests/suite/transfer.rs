//! Lines out of a registry and into one, against registries in this process.

use std::{
    fs,
    future::{pending, ready},
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{
    Ran, against, finish, interrupt, run, run_with_input,
    store::{Store, not_registered, refused},
    terminal,
};
use parking_lot::Mutex;
use prism_client::{
    Reason,
    testing::{FakeRegistry, answers},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{RegisterManyResponse, RegisterRequest};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// A directory and a path in it.
fn file(name: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    (directory, path)
}

fn command(fake: &FakeRegistry, format: &str, line: &[&str]) -> Command {
    let mut command = against(fake);
    command.args(["-o", format, "multicast"]).args(line);
    command
}

async fn multicast(fake: &FakeRegistry, format: &str, line: &[&str]) -> Ran {
    run(&mut command(fake, format, line)).await
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn sensors(count: usize) -> impl Iterator<Item = (String, Value)> {
    (0..count).map(|number| (format!("s-{number:05}"), json!({ "number": number })))
}

fn lines(numbers: impl IntoIterator<Item = usize>) -> String {
    let line = |number| format!("{{\"identity\":\"s-{number:05}\",\"metadata\":{{\"number\":{number}}}}}\n");
    numbers.into_iter().map(line).collect()
}

/// The events on stdout, and the summary after them.
fn told(ran: &Ran) -> (Vec<Value>, Value) {
    let mut events: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let summary = events.pop().unwrap()["summary"].clone();
    (events, summary)
}

/// What was registered in each call.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Vec<RegisterRequest>>>>);

impl Calls {
    fn note(&self, requests: &[RegisterRequest]) -> usize {
        let mut calls = self.0.lock();
        calls.push(requests.to_vec());
        calls.len()
    }

    fn sizes(&self) -> Vec<usize> {
        self.0.lock().iter().map(Vec::len).collect()
    }
}

#[tokio::test]
async fn what_goes_out_comes_in_again() {
    let (store, fake) = Store::serve(sensors(35)).await;
    store.write(
        "odd \"one\" é",
        &json!({ "a": { "b": [1.5, null, -0.0, 1e300] }, "text": "\n\u{2028}" }),
    );
    store.lease("s-00003", Some(60_000));
    store.lease("s-00004", Some(1_500));
    let (_directory, path) = file("all.jsonl");
    let ran = multicast(&fake, "table", &["export", text(&path)]).await.exits(0);
    assert!(
        ran.stdout.contains("EXPORTED  36") && ran.stdout.contains("AS OF     0000000000005eed/1"),
        "{ran:?}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 36);

    let (copy, fake) = Store::serve([]).await;
    let ran = multicast(&fake, "json", &["import", text(&path)]).await.exits(0);
    let (events, summary) = told(&ran);
    assert!(events.is_empty());
    assert_eq!(
        (&summary["registered"], &summary["through"]),
        (&json!(36), &json!(36))
    );
    assert_eq!(copy.everything(), store.everything());
    // Through a pipe, and with what is there already taken over.
    let content = fs::read(&path).unwrap();
    let mut again = command(&fake, "table", &["import", "-", "--replace", "--ttl", "0"]);
    let ran = run_with_input(&mut again, &content).await.exits(0);
    assert!(ran.stdout.contains("REPLACED      36"), "{ran:?}");
    assert!(copy.everything().iter().all(|(_, _, ttl)| ttl.is_none()));
}

#[tokio::test]
async fn stdout_has_lines_and_nothing_else() {
    let (store, fake) = Store::serve(sensors(25)).await;
    let ran = multicast(&fake, "table", &["export", "--filter", r#"{"number.gte": 20}"#])
        .await
        .exits(0);
    let names: Vec<_> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["identity"].clone())
        .collect();
    assert_eq!(names, ["s-00020", "s-00021", "s-00022", "s-00023", "s-00024"]);
    assert_eq!(ran.stderr, "5 exported, as of 0000000000005eed/1\n");
    drop(store);
    let ran = multicast(&fake, "json", &["export", "-"]).await.exits(0);
    let summary: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(summary["summary"]["exported"], 25);
    assert_eq!(summary["summary"]["one_position"], true);
}

/// A file is the one before or the one after, and nothing is left beside it.
#[tokio::test]
async fn an_export_that_fails_leaves_the_file_as_it_was() {
    let (store, fake) = Store::serve(sensors(35)).await;
    let (directory, path) = file("all.jsonl");
    fs::write(&path, "before").unwrap();
    let count = AtomicUsize::new(0);
    fake.on_enumerate(move |request| {
        let broken = count.fetch_add(1, Ordering::Relaxed) == 2;
        ready(if broken {
            Err(refused(Reason::BackendUnavailable))
        } else {
            store.page(request.into_inner())
        })
    });
    let ran = multicast(&fake, "table", &["export", text(&path)]).await.exits(5);
    assert!(ran.stderr.contains("BACKEND_UNAVAILABLE"), "{ran:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let ran = multicast(&fake, "table", &["export", "/no/such/directory/x"])
        .await
        .exits(2);
    assert!(ran.stderr.contains("cannot be written"), "{ran:?}");
}

#[tokio::test]
async fn an_interrupted_export_leaves_the_file_as_it_was() {
    let (store, fake) = Store::serve(sensors(35)).await;
    let (directory, path) = file("all.jsonl");
    let asked = Arc::new(tokio::sync::Notify::new());
    let (count, ask) = (AtomicUsize::new(0), asked.clone());
    fake.on_enumerate(move |request| {
        let stuck = count.fetch_add(1, Ordering::Relaxed) == 2;
        let (page, ask) = (store.page(request.into_inner()), ask.clone());
        async move {
            if stuck {
                ask.notify_one();
                pending::<()>().await;
            }
            page
        }
    });
    let child = command(&fake, "table", &["export", text(&path)]).spawn().unwrap();
    asked.notified().await;
    interrupt(&child);
    let ran = finish(child).await.exits(130);
    assert!(ran.stderr.contains("the file is as it was"), "{ran:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Where the service cannot keep one moment for that long, nothing is missing and nothing is there twice, and
/// that it is no single moment is said.
#[tokio::test]
async fn an_export_goes_on_after_a_cursor_that_is_refused() {
    let (store, fake) = Store::serve(sensors(35)).await;
    let refusals = AtomicUsize::new(0);
    fake.on_enumerate(move |request| {
        let request = request.into_inner();
        let cursor = request.pagination.as_ref().map(|page| page.cursor.clone());
        let old = cursor.as_deref() == Some("s-00019") && refusals.fetch_add(1, Ordering::Relaxed) == 0;
        let at = 1 + refusals.load(Ordering::Relaxed) as u64;
        ready(if old {
            Err(refused(Reason::Compacted))
        } else {
            store
                .page(request)
                .map(|page| prism_proto::pattern::EnumerateResponse {
                    position: Some(answers::position(at)),
                    ..page
                })
        })
    });
    let (_directory, path) = file("all.jsonl");
    let ran = multicast(&fake, "json", &["export", text(&path)]).await.exits(0);
    let (_, summary) = told(&ran);
    assert_eq!(
        (&summary["exported"], &summary["one_position"]),
        (&json!(35), &json!(false))
    );
    assert_eq!(
        (&summary["first_position"], &summary["position"]),
        (&json!("0000000000005eed/1"), &json!("0000000000005eed/2"))
    );
    let mut names: Vec<_> = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["identity"].to_string())
        .collect();
    names.dedup();
    assert_eq!(names.len(), 35);
}

/// Longer than the attempts of one call.
#[tokio::test]
async fn an_export_is_as_fast_as_it_may_be() {
    let (store, fake) = Store::serve(sensors(15)).await;
    let count = AtomicUsize::new(0);
    fake.on_enumerate(move |request| {
        let limited = count.fetch_add(1, Ordering::Relaxed) < 7;
        let failure = Failure::new(Reason::RateLimited, "too often").not_applied();
        ready(if limited {
            Err(failure.retry_after(std::time::Duration::from_millis(5)).into())
        } else {
            store.page(request.into_inner())
        })
    });
    let ran = multicast(&fake, "table", &["export"]).await.exits(0);
    assert_eq!(ran.stdout.lines().count(), 15);
}

#[tokio::test]
async fn a_pipe_is_written_to_and_not_replaced() {
    let (_, fake) = Store::serve(sensors(3)).await;
    let (_directory, path) = file("all.jsonl");
    let pipe = path.with_file_name("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    // Open at both ends, so that nobody waits for the other.
    let mut reader = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    multicast(&fake, "table", &["export", text(&pipe)]).await.exits(0);
    let kind = fs::symlink_metadata(&pipe).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind));
    let mut part = [0; 4096];
    let count = reader.read(&mut part).unwrap();
    assert_eq!(part[..count].split(|byte| *byte == b'\n').count(), 4);
    // The shell has opened it, and has written to it.
    let mut redirected = command(&fake, "table", &["export", "/dev/stdout"]);
    fs::write(&path, "before\n").unwrap();
    redirected.stdout(fs::File::options().append(true).open(&path).unwrap());
    run(&mut redirected).await.exits(0);
    let kept = fs::read_to_string(&path).unwrap();
    assert!(
        kept.starts_with("before\n{") && kept.lines().count() >= 4,
        "{kept}"
    );
    let link = path.with_file_name("link");
    fs::write(&path, "").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    multicast(&fake, "table", &["export", text(&link)]).await.exits(0);
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn a_dry_run_looks_at_every_line_and_sends_nothing() {
    let (_, fake) = Store::serve([]).await;
    let (_directory, path) = file("in.jsonl");
    let content = format!(
        "{}{{\"identity\": \"x\", \"ttl\": 3}}\n\n{{\n{}",
        lines(0..2),
        lines(2..4)
    );
    fs::write(&path, content).unwrap();
    let ran = multicast(&fake, "json", &["import", text(&path), "--dry-run"])
        .await
        .exits(2);
    let (events, summary) = told(&ran);
    let numbers: Vec<_> = events.iter().map(|event| event["line"].clone()).collect();
    assert_eq!(numbers, [3, 5]);
    assert_eq!(events[0]["identity"], "x");
    assert!(
        events[0]["message"].as_str().unwrap().contains("`ttl`"),
        "{events:?}"
    );
    assert_eq!(
        summary,
        json!({ "dry_run": true, "valid": 4, "refused": 2, "through": 7 })
    );
    assert_eq!(ran.error()["reason"], "INVALID_LINE");
    assert!(fake.calls().is_empty());
    fs::write(&path, lines(0..4)).unwrap();
    let ran = multicast(&fake, "table", &["import", text(&path), "--dry-run"])
        .await
        .exits(0);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("FINE          4\nTHROUGH LINE  4\n", "")
    );
}

#[tokio::test]
async fn the_first_refusal_ends_an_import() {
    let (store, fake) = Store::serve([("s-00500".to_owned(), json!({ "mine": true }))]).await;
    let (_directory, path) = file("in.jsonl");
    fs::write(&path, lines(0..2_500)).unwrap();
    let ran = multicast(&fake, "json", &["import", text(&path)]).await.exits(1);
    let (events, summary) = told(&ran);
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0]["line"], &events[0]["reason"], &events[0]["applied"]),
        (&json!(501), &json!("ALREADY_EXISTS"), &json!("no"))
    );
    assert_eq!(
        (&summary["registered"], &summary["refused"], &summary["through"]),
        (&json!(999), &json!(1), &json!(500)),
        "what was sent with it is done, what comes after that is not begun"
    );
    assert_eq!(store.len(), 1_000);
    assert_eq!(ran.error()["reason"], "ALREADY_EXISTS");
    // On from there: nothing that was refused is passed over, unless that is asked for.
    let session = summary["session"].as_str().unwrap();
    let go_on = format!("go on with --skip 500 --session {session}, once line 501 is mended");
    assert!(ran.stderr.contains(&go_on), "{ran:?}");
    let rest = ["import", text(&path), "--skip", "500", "--session", session];
    let ran = multicast(&fake, "json", &rest).await.exits(1);
    let (events, summary) = told(&ran);
    assert_eq!(
        (&events[0]["line"], &summary["through"]),
        (&json!(501), &json!(500))
    );
    let rest = [&rest[..], &["--continue-on-error"]].concat();
    let (_, summary) = told(&multicast(&fake, "json", &rest).await.exits(1));
    assert_eq!(
        (&summary["renewed"], &summary["registered"], &summary["through"]),
        (&json!(999), &json!(1_000), &json!(2_500))
    );
    assert_eq!(store.metadata("s-00500"), json!({ "mine": true }));
}

/// A line that is wrong keeps those after it from being sent, and none before it.
#[tokio::test]
async fn a_mistake_ends_an_import_where_it_is() {
    let (store, fake) = Store::serve([]).await;
    let (_directory, path) = file("in.jsonl");
    fs::write(
        &path,
        format!("{}nonsense\n{}nonsense\n", lines(0..3), lines(3..6)),
    )
    .unwrap();
    let ran = multicast(&fake, "json", &["import", text(&path)]).await.exits(1);
    let (events, summary) = told(&ran);
    assert_eq!((events.len(), &events[0]["line"]), (1, &json!(4)));
    assert_eq!(
        (&summary["registered"], &summary["through"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(store.len(), 3);
}

/// What is told first need not come first: a line that came too soon is decided after those behind it.
#[tokio::test]
async fn the_first_of_the_lines_that_were_refused_is_where_to_go_on() {
    let (_, fake) = Store::serve([]).await;
    fake.on_register_many(|requests| {
        let results = requests.iter().map(|request| match request.identity.as_str() {
            "s-00001" if requests.len() > 1 => {
                let mut limited = not_registered(Reason::RateLimited);
                limited.retry_after_ms = Some(5);
                limited
            }
            "s-00001" | "s-00003" => not_registered(Reason::InvalidMetadata),
            _ => answers::registered(1),
        });
        ready(Ok(RegisterManyResponse {
            results: results.collect(),
        }))
    });
    let (directory, path) = file("in.jsonl");
    fs::write(&path, lines(0..5)).unwrap();
    let ran = multicast(&fake, "json", &["import", text(&path)]).await.exits(1);
    let (_, summary) = told(&ran);
    assert_eq!(summary["through"], 1, "{ran:?}");
    // Where all are looked at, nothing is left to do.
    let errors = directory.path().join("errors.jsonl");
    let line = ["import", text(&path), "--errors", text(&errors)];
    let ran = multicast(&fake, "json", &line).await.exits(1);
    assert_eq!(told(&ran).1["through"], 5);
    assert!(
        ran.error()["message"]
            .as_str()
            .unwrap()
            .contains("the first is line 2"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn refused_lines_are_kept_and_can_be_imported() {
    let (store, fake) = Store::serve(sensors(10)).await;
    store.write("s-00003", &json!({ "number": "mine" }));
    let (directory, path) = file("in.jsonl");
    let errors = directory.path().join("errors.jsonl");
    fs::write(&errors, "from another time\n").unwrap();
    fs::write(&path, format!("{}nonsense\n{}", lines(2..4), lines(8..2_000))).unwrap();
    let line = ["import", text(&path), "--errors", text(&errors)];
    let ran = multicast(&fake, "json", &line).await.exits(1);
    let (events, summary) = told(&ran);
    assert!(events.is_empty(), "they are in the file");
    assert_eq!(
        (&summary["registered"], &summary["refused"]),
        (&json!(1_990), &json!(5))
    );
    assert!(!ran.stderr.contains("--skip"), "nothing is left to do: {ran:?}");
    let kept: Vec<Value> = fs::read_to_string(&errors)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(kept.len(), 5);
    let of = |identity: &str| kept.iter().find(|line| line["identity"] == identity).unwrap();
    assert_eq!(
        *of("s-00003"),
        json!({
            "identity": "s-00003",
            "metadata": { "number": 3 },
            "error": { "line": 2, "reason": "ALREADY_EXISTS", "message": "as the test wants it", "applied": "no" },
        })
    );
    let mistake = kept.iter().find(|line| line.get("identity").is_none()).unwrap();
    assert_eq!(
        (&mistake["error"]["line"], &mistake["error"]["text"]),
        (&json!(3), &json!("nonsense"))
    );

    let line = ["import", text(&errors), "--replace", "--continue-on-error"];
    let (_, summary) = told(&multicast(&fake, "json", &line).await.exits(1));
    assert_eq!(
        (&summary["replaced"], &summary["refused"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(store.metadata("s-00003"), json!({ "number": 3 }));
    let line = ["import", text(&errors), "--errors", text(&errors)];
    let ran = multicast(&fake, "table", &line).await.exits(2);
    assert!(ran.stderr.contains("is what is imported"), "{ran:?}");
    assert_eq!(fs::read_to_string(&errors).unwrap().lines().count(), 5);
}

/// Who comes too often waits as long as it is told to, and only with what came too soon.
#[tokio::test]
async fn an_import_is_as_fast_as_it_may_be() {
    let (store, fake) = Store::serve([]).await;
    let calls = Calls::default();
    let (write, note) = (store.clone(), calls.clone());
    fake.on_register_many(move |requests| {
        note.note(&requests);
        // Four at a time.
        let results = requests.iter().enumerate().map(|(index, request)| {
            if index < 4 {
                return write.register(request);
            }
            let mut limited = not_registered(Reason::RateLimited);
            limited.retry_after_ms = Some(5);
            limited
        });
        ready(Ok(RegisterManyResponse {
            results: results.collect(),
        }))
    });
    let (_directory, path) = file("in.jsonl");
    fs::write(&path, lines(0..10)).unwrap();
    let (events, summary) = told(&multicast(&fake, "json", &["import", text(&path)]).await.exits(0));
    assert!(events.is_empty());
    assert_eq!(
        (&summary["registered"], &summary["refused"]),
        (&json!(10), &json!(0))
    );
    assert_eq!(calls.sizes(), [10, 6, 2]);
    // One that may never is refused.
    fake.on_register_many(|requests| {
        let results = vec![not_registered(Reason::RateLimited); requests.len()];
        ready(Ok(RegisterManyResponse { results }))
    });
    let (_, summary) = told(&multicast(&fake, "json", &["import", text(&path)]).await.exits(1));
    assert_eq!(summary["refused"], 10);
}

/// What nobody knows is said, never counted as done, and done once.
#[tokio::test]
async fn an_unknown_outcome_is_said_and_no_second_registration() {
    let (store, fake) = Store::serve([]).await;
    let (write, calls) = (store.clone(), Calls::default());
    let note = calls.clone();
    fake.on_register_many(move |requests| {
        let answer = write.register_many(&requests);
        // Carried out, and the answer is lost.
        let lost = note.note(&requests) > 1;
        let failure = Failure::new(Reason::RunnerLost, "gone").maybe_applied();
        ready(if lost { Err(failure.into()) } else { Ok(answer) })
    });
    let (directory, path) = file("in.jsonl");
    let errors = directory.path().join("errors.jsonl");
    fs::write(&path, lines(0..1_500)).unwrap();
    let line = ["import", text(&path), "--errors", text(&errors)];
    let ran = multicast(&fake, "json", &line).await.exits(5);
    let (_, summary) = told(&ran);
    assert_eq!(
        [
            &summary["registered"],
            &summary["unknown"],
            &summary["refused"],
            &summary["through"]
        ],
        [&json!(1_000), &json!(500), &json!(0), &json!(1_000)]
    );
    let kept = fs::read_to_string(&errors).unwrap();
    assert_eq!(kept.matches(r#""applied":"unknown""#).count(), 500);
    let requests = calls.0.lock().concat();
    assert!(
        requests
            .iter()
            .all(|request| request.session == requests[0].session && request.session.len() == 16)
    );

    let write = store.clone();
    fake.on_register_many(move |requests| ready(Ok(write.register_many(&requests))));
    let session = summary["session"].as_str().unwrap();
    let line = ["import", text(&path), "--skip", "1000", "--session", session];
    let (_, summary) = told(&multicast(&fake, "json", &line).await.exits(0));
    assert_eq!(
        (&summary["renewed"], &summary["registered"]),
        (&json!(500), &json!(0))
    );
}

/// One of many may have been registered: that is no refusal, and no success.
#[tokio::test]
async fn one_unknown_among_many_is_told_by_itself() {
    let (_, fake) = Store::serve([]).await;
    fake.on_register_many(|requests| {
        let mut results = vec![answers::registered(1); requests.len()];
        results[1] = not_registered(Reason::DeadlineExceeded);
        results[1].maybe_applied = true;
        ready(Ok(RegisterManyResponse { results }))
    });
    let ran = run_with_input(
        &mut command(&fake, "json", &["import", "-"]),
        lines(0..3).as_bytes(),
    )
    .await
    .exits(5);
    let (events, summary) = told(&ran);
    assert_eq!(
        (&events[0]["line"], &events[0]["applied"]),
        (&json!(2), &json!("unknown"))
    );
    assert_eq!(
        [&summary["registered"], &summary["unknown"], &summary["refused"]],
        [&json!(2), &json!(1), &json!(0)]
    );
}

/// Which comes first is known only of those that are not sent together.
#[tokio::test]
async fn lines_of_one_identity_are_taken_in_order() {
    let (store, fake) = Store::serve([]).await;
    let (write, calls) = (store.clone(), Calls::default());
    let note = calls.clone();
    fake.on_register_many(move |requests| {
        note.note(&requests);
        ready(Ok(write.register_many(&requests)))
    });
    let input = [1, 2, 3].map(|number| format!("{{\"identity\":\"a\",\"metadata\":{{\"n\":{number}}}}}\n"));
    let mut import = command(&fake, "json", &["import", "-"]);
    let (_, summary) = told(
        &run_with_input(&mut import, input.concat().as_bytes())
            .await
            .exits(0),
    );
    assert_eq!(
        (&summary["registered"], &summary["updated"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(store.metadata("a"), json!({ "n": 3 }));
    assert_eq!(calls.sizes(), [1, 1, 1]);
}

/// An interrupt ends it whatever it waits for, and the summary says what is known.
#[tokio::test]
async fn an_interrupted_import_tells_how_far_it_came() {
    let (store, fake) = Store::serve([]).await;
    let asked = Arc::new(tokio::sync::Notify::new());
    let (calls, ask) = (Calls::default(), asked.clone());
    fake.on_register_many(move |requests| {
        let (answer, ask) = (store.register_many(&requests), ask.clone());
        let stuck = calls.note(&requests) == 2;
        async move {
            if stuck {
                ask.notify_one();
                pending::<()>().await;
            }
            Ok(answer)
        }
    });
    let (_directory, path) = file("in.jsonl");
    fs::write(&path, lines(0..3_000)).unwrap();
    let child = command(&fake, "json", &["import", text(&path)]).spawn().unwrap();
    asked.notified().await;
    interrupt(&child);
    let ran = finish(child).await.exits(130);
    let (_, summary) = told(&ran);
    assert_eq!(
        [&summary["registered"], &summary["unknown"], &summary["through"]],
        [&json!(1_000), &json!(1_000), &json!(1_000)]
    );
    assert!(ran.stderr.contains("--skip 1000 --session"), "{ran:?}");
}

/// An interrupt while the last answer is under way comes too late to stop anything.
#[tokio::test]
async fn an_import_that_was_interrupted_at_its_end_is_done() {
    let (store, fake) = Store::serve([]).await;
    let (asked, go) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(tokio::sync::Notify::new()),
    );
    let (ask, may) = (asked.clone(), go.clone());
    fake.on_register_many(move |requests| {
        let (answer, may) = (store.register_many(&requests), may.clone());
        ask.notify_one();
        async move {
            may.notified().await;
            Ok(answer)
        }
    });
    let (_directory, path) = file("in.jsonl");
    fs::write(&path, lines(0..3)).unwrap();
    let child = command(&fake, "json", &["import", text(&path)]).spawn().unwrap();
    asked.notified().await;
    interrupt(&child);
    go.notify_one();
    let ran = finish(child).await.exits(0);
    assert_eq!(told(&ran).1["registered"], 3);
    assert!(!ran.stderr.contains("--skip"), "nothing is left to do: {ran:?}");
}

/// Nobody types, and nobody ever will.
#[tokio::test]
async fn an_import_that_waits_for_stdin_can_be_interrupted() {
    let (store, fake) = Store::serve([]).await;
    let done = Arc::new(tokio::sync::Notify::new());
    let note = done.clone();
    fake.on_register_many(move |requests| {
        note.notify_one();
        ready(Ok(store.register_many(&requests)))
    });
    let mut child = command(&fake, "json", &["import", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, lines(0..1_001).as_bytes())
        .await
        .unwrap();
    done.notified().await;
    interrupt(&child);
    let (_, summary) = told(&finish(child).await.exits(130));
    let registered = summary["registered"].as_u64().unwrap();
    // The answer may have been on its way.
    assert!(registered == 1_000 || registered == 0, "{summary}");
    drop(stdin);
}

#[tokio::test]
async fn a_line_of_any_length_is_a_line() {
    let (store, fake) = Store::serve([]).await;
    let (_directory, path) = file("in.jsonl");
    let long = format!("{{\"identity\": \"{}\"}}\n", "x".repeat(17 << 20));
    fs::write(&path, format!("{}{long}{}", lines(0..1), lines(1..2))).unwrap();
    let line = ["import", text(&path), "--continue-on-error"];
    let (events, summary) = told(&multicast(&fake, "json", &line).await.exits(1));
    assert_eq!(
        (&events[0]["line"], &summary["registered"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(store.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_read_is_wrong_usage() {
    let (_, fake) = Store::serve([]).await;
    for path in ["/no/such/file", "/"] {
        let ran = multicast(&fake, "table", &["import", path]).await.exits(2);
        assert!(ran.stderr.contains("cannot be read"), "{ran:?}");
    }
    assert!(fake.calls().is_empty());
    let ran = run_with_input(&mut command(&fake, "json", &["import", "-"]), b"")
        .await
        .exits(0);
    assert_eq!(told(&ran).1["registered"], 0);
}

#[tokio::test]
async fn who_watches_sees_how_far_it_is() {
    let (_, fake) = Store::serve(sensors(25)).await;
    let (_directory, path) = file("all.jsonl");
    for (line, parts) in [
        (["export", text(&path)], ["registrations [", "/25 "]),
        (["import", text(&path)], ["import [", " KiB"]),
    ] {
        let (mut screen, screen_line) = terminal();
        let mut command = command(&fake, "table", &line);
        command.env("TERM", "xterm").stderr(screen_line);
        run(&mut command).await;
        drop(command);
        let (mut seen, mut part) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = screen.read(&mut part) {
            seen.extend(&part[..count]);
        }
        let seen = String::from_utf8(seen).unwrap();
        assert!(parts.iter().all(|part| seen.contains(part)), "{seen:?}");
    }
}
