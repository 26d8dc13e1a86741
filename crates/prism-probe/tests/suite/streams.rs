//! Output that goes on, and readers that do not.

use std::{future::ready, time::Duration};

use crate::support::{PATIENCE, against, finish, run};
use futures::{StreamExt, stream};
use prism_client::{
    Reason,
    testing::{FakeRegistry, answers, in_turn},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{
    Position, SubscribeResponse, WatchResponse,
    watch_response::{Cause, Kind},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

type Answer = Result<SubscribeResponse, tonic::Status>;

/// Sessions that yield these and stay open.
async fn session_of(answers: Vec<SubscribeResponse>) -> FakeRegistry {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_subscribe(move |_| {
        let answers: Vec<Answer> = answers.iter().cloned().map(Ok).collect();
        ready(Ok(stream::iter(answers).chain(stream::pending())))
    });
    fake
}

fn subscribe(fake: &FakeRegistry, format: &str, options: &[&str]) -> Command {
    let mut command = against(fake);
    command
        .args(["-o", format, "multicast", "subscribe", "alice"])
        .args(options);
    command
}

fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    assert!(
        std::process::Command::new("kill")
            .args([name, &id])
            .status()
            .unwrap()
            .success()
    );
}

fn three() -> Vec<SubscribeResponse> {
    vec![
        answers::opened(4),
        answers::message("one"),
        answers::gap(2, "SLOW_CONSUMER"),
        answers::message("two"),
        answers::message("three"),
    ]
}

/// A watch that is cut after an entry and cannot be resumed.
async fn watch_of(format: &str) -> crate::support::Ran {
    let fake = FakeRegistry::start().await.unwrap();
    let told = |kind: Kind, name: &str, cause: Cause, at: Option<u64>| WatchResponse {
        kind: kind.into(),
        identity: (!name.is_empty())
            .then(|| answers::found(name).identity)
            .flatten(),
        cause: cause.into(),
        position: at.map(|revision| Position { epoch: 255, revision }),
    };
    let cut: tonic::Status = Failure::new(Reason::Compacted, "gone").not_applied().into();
    let streams = in_turn([
        Ok(vec![
            Ok(told(Kind::Enter, "a", Cause::Unspecified, None)),
            Ok(told(Kind::Bookmark, "", Cause::Unspecified, Some(1))),
            Ok(told(Kind::Leave, "a", Cause::Expired, Some(2))),
            Err(cut),
        ]),
        Ok(vec![Ok(told(Kind::Enter, "b", Cause::Unspecified, None))]),
    ]);
    fake.on_watch(move |_| ready(streams().map(stream::iter::<Vec<_>>)));
    let mut command = against(&fake);
    command.args(["-o", format, "multicast", "watch", "--count", "3"]);
    run(&mut command).await.exits(0)
}

#[tokio::test]
async fn a_watch_shows_who_matches_and_what_changes() {
    let ran = watch_of("table").await;
    assert_eq!(
        ran.stdout,
        "PRESENT  a  -  -  {\"status\":\"online\"}\nLEAVE  a  EXPIRED  2  {\"status\":\"online\"}\n\
         PRESENT  b  -  -  {\"status\":\"online\"}\n"
    );
    let at = "00000000000000ff/1";
    assert!(
        ran.stderr.contains(&format!("--resume-from {at}")),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("follows anew"), "{}", ran.stderr);

    assert_eq!(watch_of("name").await.stdout, "a\na\nb\n");

    let ran = watch_of("json").await;
    let objects: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str()).collect();
    assert_eq!(
        kinds,
        [
            Some("ENTER"),
            Some("BOOKMARK"),
            Some("LEAVE"),
            None,
            Some("ENTER")
        ]
    );
    assert_eq!(objects[2]["cause"], json!("CAUSE_EXPIRED"));
    assert_eq!(objects[2]["position"], json!({"epoch": "255", "revision": "2"}));
    assert_eq!(objects[3], json!({"restarted": true}));
}

#[tokio::test]
async fn messages_are_data_and_the_rest_is_talk() {
    let fake = session_of(three()).await;
    let ran = run(&mut subscribe(&fake, "table", &["--count", "2"]))
        .await
        .exits(0);
    assert_eq!(
        ran.stdout,
        "1970-01-01T00:01:01Z  m-1  once  one\n1970-01-01T00:01:01Z  m-1  once  two\n"
    );
    let expected = "listening as `alice`, session 4\n2 or more messages are missing here: SLOW_CONSUMER\n";
    assert_eq!(ran.stderr, expected);
    let ran = run(&mut subscribe(&fake, "name", &["--count", "2"]))
        .await
        .exits(0);
    assert_eq!(ran.stdout, "alice\nalice\n");
}

#[tokio::test]
async fn a_stream_of_json_is_one_object_a_line() {
    let fake = session_of(three()).await;
    let ran = run(&mut subscribe(&fake, "json", &["--count", "3"]))
        .await
        .exits(0);
    let lines: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["opened"]["session_seq"], "4");
    assert_eq!(lines[1]["delivery"]["payload"], "b25l");
    assert_eq!(
        lines[2]["gap"],
        json!({"dropped": "2", "reason": "SLOW_CONSUMER"})
    );
    let ran = run(&mut subscribe(&fake, "yaml", &["--count", "3"]))
        .await
        .exits(0);
    assert_eq!(ran.stdout.matches("---\n").count(), 5);
}

#[tokio::test]
async fn a_payload_cannot_drive_the_terminal() {
    let mut binary = answers::message("x");
    if let Some(prism_proto::pattern::subscribe_response::Message::Delivery(delivery)) = &mut binary.message {
        delivery.payload = vec![0xff, 0xfe].into();
        delivery.content_type = "image/png".to_owned();
    }
    let fake = session_of(vec![answers::opened(1), answers::message("\u{1b}[2J\n"), binary]).await;
    let ran = run(&mut subscribe(&fake, "table", &["--count", "2"]))
        .await
        .exits(0);
    assert!(ran.stdout.contains(r"\u{1b}[2J\n"), "{:?}", ran.stdout);
    assert!(ran.stdout.contains("<2 bytes of image/png>"), "{:?}", ran.stdout);
}

#[tokio::test]
async fn an_interrupt_is_the_normal_end_and_an_early_one_with_a_count() {
    let fake = session_of(vec![answers::opened(1), answers::message("one")]).await;
    for (options, signalled, code) in [
        (&[][..], "-INT", 0),
        (&[][..], "-TERM", 0),
        (&["--count", "2"][..], "-INT", 130),
    ] {
        let mut child = subscribe(&fake, "json", options).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            timeout(PATIENCE, lines.next_line())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
        }
        signal(&child, signalled);
        let ran = finish(child).await.exits(code);
        assert_eq!(ran.stderr, "", "{options:?} {signalled}");
    }
}

#[tokio::test]
async fn the_end_of_the_registration_is_an_error() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_subscribe(|_| {
        let gone = Failure::new(Reason::Unregistered, "the registration is gone");
        let answers: [Answer; 2] = [Ok(answers::opened(1)), Err(gone.into())];
        ready(Ok(stream::iter(answers)))
    });
    let ran = run(&mut subscribe(&fake, "json", &[])).await.exits(1);
    assert_eq!(ran.error()["reason"], "UNREGISTERED");
    let nobody = FakeRegistry::start().await.unwrap();
    nobody.on_subscribe(|_| {
        let absent = Failure::new(Reason::NotRegistered, "`alice` is not registered");
        ready(Err::<stream::Empty<Answer>, _>(absent.into()))
    });
    run(&mut subscribe(&nobody, "table", &[])).await.exits(3);
}

#[tokio::test]
async fn a_lost_session_is_opened_again_and_the_gap_is_shown() {
    let fake = FakeRegistry::start().await.unwrap();
    let turns = in_turn([
        Ok((vec![Ok(answers::opened(1)), Ok(answers::message("one"))], 0)),
        Ok((vec![Ok(answers::opened(2)), Ok(answers::message("two"))], 1)),
    ]);
    fake.on_subscribe(move |_| {
        // The second one stays.
        let session = |(answers, stays): (Vec<Answer>, usize)| {
            let rest = stream::pending().take(stays);
            stream::iter(answers).chain(rest)
        };
        ready(turns().map(session))
    });
    let ran = run(&mut subscribe(&fake, "table", &["--count", "2"]))
        .await
        .exits(0);
    assert!(
        ran.stdout.contains("one") && ran.stdout.contains("two"),
        "{ran:?}"
    );
    let talk: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(
        talk[1..],
        [
            "the connection was lost and is being made again: the service ended the session without saying why",
            "listening as `alice`, session 2",
            "messages may be missing here: CONNECTION_LOST"
        ]
    );
}

#[tokio::test]
async fn a_watch_that_goes_on_says_where_it_did_not() {
    let fake = FakeRegistry::start().await.unwrap();
    let told = |kind: Kind, revision: u64| {
        Ok(WatchResponse {
            kind: kind.into(),
            identity: answers::found("a").identity,
            position: Some(Position { epoch: 255, revision }),
            ..Default::default()
        })
    };
    let streams = in_turn([Ok(vec![told(Kind::Enter, 1)]), Ok(vec![told(Kind::Leave, 2)])]);
    fake.on_watch(move |_| ready(streams().map(stream::iter::<Vec<_>>)));
    let mut command = against(&fake);
    command.args(["multicast", "watch", "--count", "2"]);
    let ran = run(&mut command).await.exits(0);
    let talk = "the connection was lost and is being made again: the service ended the watch without saying why\n\
                the connection is there again\n";
    assert_eq!(ran.stderr, talk);
}

/// While it is lost, and not when it is back.
#[tokio::test]
async fn a_lost_connection_is_told_at_once() {
    let fake = FakeRegistry::start().await.unwrap();
    let sessions = in_turn([Ok(vec![Ok(answers::opened(1))])]);
    fake.on_subscribe(move |_| {
        let session = sessions().map(stream::iter::<Vec<Answer>>);
        async move {
            match session {
                Ok(session) => Ok(session),
                Err(_) => std::future::pending().await,
            }
        }
    });
    let watches = in_turn([Ok(Vec::new())]);
    fake.on_watch(move |_| {
        let watch = watches().map(stream::iter::<Vec<Result<WatchResponse, tonic::Status>>>);
        async move {
            match watch {
                Ok(watch) => Ok(watch),
                Err(_) => std::future::pending().await,
            }
        }
    });
    for line in [&["subscribe", "alice"][..], &["watch"]] {
        let mut child = against(&fake).arg("multicast").args(line).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let told = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.starts_with("the connection was lost and is being made again: ") {
                    return;
                }
            }
            panic!("it is not told");
        };
        timeout(PATIENCE, told).await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_leaves_ends_it_quietly() {
    // More than a pipe holds.
    let many = (0..20_000).map(|number| answers::message(&number.to_string()));
    let fake = session_of(std::iter::once(answers::opened(1)).chain(many).collect()).await;
    let mut child = subscribe(&fake, "json", &[]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut some = [0; 100];
    timeout(PATIENCE, stdout.read_exact(&mut some))
        .await
        .unwrap()
        .unwrap();
    drop(stdout);
    assert_eq!(finish(child).await.exits(0).stderr, "");
}

#[tokio::test]
async fn a_reader_that_leaves_a_document_does_not_hide_a_partial_delivery() {
    let fake = FakeRegistry::start().await.unwrap();
    let names: Vec<_> = (0..20_000).map(|number| format!("user-{number}")).collect();
    let names: &'static [String] = names.leak();
    fake.on_enumerate(move |_| {
        ready(Ok(answers::page(
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        )))
    });
    fake.on_multicast(move |_| {
        ready(Ok(answers::delivered_but_one(
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        )))
    });
    for (line, code) in [(&["enumerate"][..], 0), (&["publish", "--payload", "x"], 4)] {
        let mut child = against(&fake).arg("multicast").args(line).spawn().unwrap();
        drop(child.stdout.take());
        let ran = finish(child).await.exits(code);
        assert!(
            !ran.stderr.contains("panicked") && !ran.stderr.contains("pipe"),
            "{}",
            ran.stderr
        );
    }
}

#[tokio::test]
async fn an_idle_session_waits() {
    let fake = session_of(vec![answers::opened(1)]).await;
    let mut command = subscribe(&fake, "json", &[]);
    command.args(["--deadline", "200ms"]);
    let mut child = command.spawn().unwrap();
    // The deadline is that of the opening and not of the session.
    assert!(timeout(Duration::from_millis(800), child.wait()).await.is_err());
    signal(&child, "-INT");
    finish(child).await.exits(0);
}
