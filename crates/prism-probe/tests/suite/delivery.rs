//! Deliveries that are followed, read later and acknowledged, against a scripted registry.

use std::{
    collections::VecDeque,
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crate::support::{
    PATIENCE, Ran, Way, against, fake, finish, interrupt, keeper, multicast, multicast_as, program, run,
};
use futures::{StreamExt, stream};
use prism_client::{
    Reason,
    testing::{FakeRegistry, Words, answers},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{
    self, MulticastRequest, MulticastResponse, SubscribeResponse,
    multicast_response::State,
    subscribe_request::Message as Said,
    subscribe_response::{Message, Settled},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    sync::Notify,
    time::timeout,
};

fn lines(ran: &Ran) -> Vec<Value> {
    let lines = ran.stdout.lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn publish_asks_for_what_the_line_says() {
    let fake = fake().await;
    let (asked, keep) = keeper::<MulticastRequest>();
    fake.on_multicast(move |request| {
        keep(request.into_inner());
        ready(Ok(answers::stored(&["a"])))
    });
    let line = "publish --payload x --delivery at-least-once --require stored --idempotency-key k --expires 2h \
                --header a=1 --header b=2=3 --priority high --reply-to there --max-per-second 50 --batch-size 10 \
                --collect-replies";
    let line: Vec<_> = line.split_whitespace().collect();
    multicast(&fake, &line).await.exits(4);
    let expected = MulticastRequest {
        payload: "x".into(),
        delivery: Some(pattern::DeliverySemantics::AtLeastOnce.into()),
        require: pattern::Stage::Stored.into(),
        idempotency_key: "k".to_owned(),
        expires_in_ms: Some(7_200_000),
        headers: [("a", "1"), ("b", "2=3")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        priority: pattern::Priority::High.into(),
        reply_to: "there".to_owned(),
        max_per_second: Some(50),
        batch_size: Some(10),
        collect_replies: true,
        ..Default::default()
    };
    assert_eq!(asked.lock().take().unwrap(), expected);

    let once = ["publish", "--payload", "x", "--delivery", "exactly-once"];
    multicast(&fake, &once).await.exits(0);
    assert_eq!(asked.lock().take().unwrap().idempotency_key.len(), 32);
}

/// Whoever does not know whether it was sent can have it sent once nevertheless.
#[tokio::test]
async fn the_key_that_was_made_up_is_told_where_nobody_knows_what_came_of_it() {
    let fake = fake().await;
    let (asked, keep) = keeper::<String>();
    fake.on_multicast(move |request| {
        keep(request.into_inner().idempotency_key);
        ready(Err(Failure::new(Reason::RunnerLost, "gone")
            .maybe_applied()
            .into()))
    });
    let once = ["publish", "--payload", "x", "--delivery", "exactly-once"];
    let ran = multicast(&fake, &once).await;
    let key = asked.lock().take().unwrap();
    assert!(
        ran.stderr.contains(&format!("--idempotency-key {key}")),
        "{}",
        ran.stderr
    );
    let ran = multicast_as(&fake, "json", &once).await;
    let key = asked.lock().take().unwrap();
    assert_eq!(ran.error()["details"]["idempotency_key"], key);
}

#[tokio::test]
async fn what_is_stored_is_got_unless_more_was_required() {
    let fake = fake().await;
    fake.on_multicast(|_| {
        ready(Ok(MulticastResponse {
            replayed: true,
            ..answers::stored(&["alice"])
        }))
    });
    let ran = multicast(&fake, &["publish", "--payload", "x"]).await.exits(0);
    assert!(
        ran.stderr.contains("0 of 1 delivered, 1 pending"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("an earlier call"), "{}", ran.stderr);
    let required = ["publish", "--payload", "x", "--require", "acked"];
    let ran = multicast_as(&fake, "json", &required).await.exits(4);
    assert_eq!(ran.error()["reason"], "PARTIAL_DELIVERY");
    assert_eq!(ran.json()["replayed"], true);
}

#[tokio::test]
async fn a_dry_run_shows_who_would_get_it() {
    let fake = fake().await;
    fake.on_multicast(|request| {
        assert!(request.get_ref().dry_run);
        let mut answer = answers::delivered(&["alice", "bob"]);
        answer.statuses.iter_mut().for_each(|status| status.status = 0);
        (answer.delivered_count, answer.state, answer.multicast_id) = (0, 0, String::new());
        ready(Ok(answer))
    });
    let line = ["publish", "--payload", "x", "--dry-run"];
    let ran = multicast(&fake, &line).await.exits(0);
    assert_eq!(ran.stdout, "IDENTITY\nalice\nbob\n");
    assert_eq!(ran.stderr, "2 would get it, nothing was sent\n");
    assert_eq!(
        multicast_as(&fake, "name", &line).await.exits(0).stdout,
        "alice\nbob\n"
    );
    let ran = multicast_as(&fake, "json", &line).await.exits(0);
    assert_eq!(ran.json()["target_count"], "2");
    multicast(&fake, &["publish", "--payload", "x", "--dry-run", "--follow"])
        .await
        .exits(2);
}

#[tokio::test]
async fn answers_are_shown_beside_the_statuses() {
    let fake = fake().await;
    fake.on_multicast(|_| {
        ready(Ok(MulticastResponse {
            replies: vec![answers::reply("alice", "21 C")],
            reply_count: 1,
            ..answers::delivered(&["alice", "bob"])
        }))
    });
    let line = ["publish", "--payload", "x", "--collect-replies"];
    let ran = multicast(&fake, &line).await.exits(0);
    assert!(
        ran.stdout.ends_with("\nIDENTITY  ANSWER\nalice     21 C\n"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr.starts_with("2 of 2 delivered, 1 answered\n"),
        "{}",
        ran.stderr
    );
    let two = [&line[..], &["--min-replies", "2"]].concat();
    let ran = multicast_as(&fake, "json", &two).await.exits(4);
    assert_eq!(ran.error()["reason"], "FEW_REPLIES");
    multicast(&fake, &["publish", "--payload", "x", "--min-replies", "2"])
        .await
        .exits(2);
}

/// A multicast that one of two gets, and answers.
async fn followed() -> FakeRegistry {
    let fake = fake().await;
    fake.on_multicast_stream(|request| {
        // As long as the deadline allows, so that acknowledgements are seen.
        assert_eq!(request.get_ref().timeout_ms, Some(9_000));
        let answer = MulticastResponse {
            replies: vec![answers::reply("alice", "thanks")],
            reply_count: 1,
            ..answers::delivered_but_one(&["alice", "bob"])
        };
        ready(Ok(stream::iter(answers::told(answer).into_iter().map(Ok))))
    });
    fake
}

#[tokio::test]
async fn a_multicast_that_is_followed_ends_with_who_did_not_get_it_and_why() {
    let fake = followed().await;
    let line = ["publish", "--payload", "x", "--follow"];
    let ran = multicast(&fake, &line).await.exits(4);
    let expected = "\
alice  thanks
STATUS  REASON         TARGETS  IDENTITIES
FAILED  NO_SUBSCRIBER  1        bob
";
    assert_eq!(ran.stdout, expected);
    assert!(
        ran.stderr.starts_with("1 of 2 delivered, 1 failed\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        multicast_as(&fake, "name", &line).await.exits(4).stdout,
        "alice\n"
    );
    let ran = multicast_as(&fake, "json", &line).await.exits(4);
    let kinds: Vec<String> = lines(&ran)
        .iter()
        .map(|object| object.as_object().unwrap().keys().next().unwrap().clone())
        .collect();
    assert_eq!(kinds, ["started", "status", "status", "reply", "summary"]);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    let ran = multicast_as(&fake, "yaml", &line).await.exits(4);
    assert_eq!(ran.stdout.matches("---\n").count(), 5);
}

#[tokio::test]
async fn a_multicast_that_is_left_goes_on_and_can_be_found() {
    let fake = fake().await;
    fake.on_multicast_stream(|_| {
        let told = answers::told(answers::delivered(&["alice", "bob"]));
        let some = told.into_iter().take(2).map(Ok);
        ready(Ok(stream::iter(some).chain(stream::pending())))
    });
    let mut command = against(&fake);
    command.args(["-o", "name", "multicast", "publish", "--payload", "x", "--follow"]);
    let mut child = command.spawn().unwrap();
    assert_eq!(first_line(&mut child).await, "alice");
    interrupt(&child);
    let ran = finish(child).await.exits(130);
    assert!(ran.stderr.contains("multicast cancel m-1"), "{}", ran.stderr);

    fake.on_multicast_stream(|_| {
        let told = answers::told(answers::delivered(&["alice"])).into_iter();
        let lost = Failure::new(Reason::RunnerLost, "gone").maybe_applied();
        let told = told.take(1).map(Ok).chain([Err(lost.into())]);
        ready(Ok(stream::iter(told.collect::<Vec<_>>())))
    });
    let ran = multicast(&fake, &["publish", "--payload", "x", "--follow"])
        .await
        .exits(5);
    assert!(ran.stderr.contains("multicast receipts m-1"), "{}", ran.stderr);
    assert!(ran.stderr.contains("may go on"), "{}", ran.stderr);
    assert!(ran.stderr.contains("may have been carried out"), "{}", ran.stderr);
}

/// The first line that a program shows, as it shows it.
async fn first_line(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    line.unwrap_or_default()
}

/// Who was answered once has the right port, whatever becomes of the connection.
#[tokio::test]
async fn a_connection_that_is_lost_after_an_answer_is_no_doubt_about_the_port() {
    let fake = fake().await;
    fake.on_multicast_stream(|_| {
        let told = answers::told(answers::delivered(&["alice", "bob"]));
        let some = told.into_iter().take(2).map(Ok);
        ready(Ok(stream::iter(some).chain(stream::pending())))
    });
    let way = Way::to(&fake).await;
    let mut command = program();
    command.args(["--endpoint", &way.address.to_string(), "-o", "name", "multicast"]);
    command.args(["publish", "--payload", "x", "--follow"]);
    let mut child = command.spawn().unwrap();
    assert_eq!(first_line(&mut child).await, "alice");
    way.cut();
    let ran = finish(child).await.exits(5);
    assert!(ran.stderr.contains("CONNECTION_LOST"), "{}", ran.stderr);
    assert!(ran.stderr.contains("may go on"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("data port"), "{}", ran.stderr);
}

/// Nobody knows what becomes of it then, and whoever interrupts is told how to find out.
#[tokio::test]
async fn a_multicast_that_is_interrupted_before_its_answer_may_go_on() {
    let fake = fake().await;
    let asked = Arc::new(Notify::new());
    let (ask, again) = (asked.clone(), asked.clone());
    fake.on_multicast(move |_| {
        ask.notify_one();
        pending()
    });
    fake.on_multicast_stream(move |_| {
        again.notify_one();
        pending::<Result<stream::Empty<_>, _>>()
    });
    let interrupted = async |format: &str, line: &[&str]| {
        let mut command = against(&fake);
        command.args(["-o", format, "multicast", "publish", "--payload", "x"]);
        let child = command.args(line).spawn().unwrap();
        timeout(PATIENCE, asked.notified()).await.unwrap();
        interrupt(&child);
        finish(child).await.exits(130)
    };
    for line in [&[][..], &["--follow"]] {
        let ran = interrupted("table", line).await;
        assert!(ran.stderr.contains("may go on"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("--idempotency-key"), "{}", ran.stderr);
    }
    let ran = interrupted("table", &["--idempotency-key", "order-7"]).await;
    assert!(ran.stderr.contains("--idempotency-key order-7"), "{}", ran.stderr);
    let ran = interrupted("json", &["--delivery", "exactly-once"]).await;
    assert_eq!(ran.error()["reason"], "INTERRUPTED");
    let key = ran.error()["details"]["idempotency_key"].clone();
    assert_eq!(key.as_str().map(str::len), Some(32), "{ran:?}");
    let ran = interrupted("table", &["--dry-run"]).await;
    assert!(!ran.stderr.contains("may"), "nothing was to be sent: {ran:?}");
}

#[tokio::test]
async fn receipts_are_read_and_a_multicast_is_stopped() {
    let fake = fake().await;
    let (asked, keep) = keeper::<pattern::GetMulticastRequest>();
    fake.on_get_multicast(move |request| {
        keep(request.into_inner());
        let mut page = answers::delivered_but_one(&["alice", "bob"]);
        page.next_cursor = Some("2".to_owned());
        ready(Ok(page))
    });
    let line = ["receipts", "m-1", "--only", "failed,timeout", "--limit", "2"];
    let ran = multicast(&fake, &line).await.exits(0);
    assert!(
        ran.stdout
            .ends_with("bob       FAILED     RESOLVED  NO_SUBSCRIBER\n")
    );
    let talk = "sent: 1 of 2 delivered, 1 failed, 0 pending, 0 unknown\ncontinue with --cursor 2\n";
    assert_eq!(ran.stderr, talk);
    let request = asked.lock().take().unwrap();
    assert_eq!(
        (request.multicast_id.as_str(), &*request.only),
        ("m-1", &[2, 3][..])
    );
    assert_eq!(request.pagination.unwrap().limit, 2);
    let ran = multicast_as(&fake, "json", &line).await.exits(0);
    assert_eq!(ran.json()["receipts_scope"], "RUNNER");
    let ran = multicast_as(&fake, "name", &line).await.exits(0);
    assert_eq!(ran.stdout, "alice\nbob\n");

    fake.on_cancel_multicast(|_| {
        ready(Ok(MulticastResponse {
            state: State::Cancelled.into(),
            ..answers::delivered_but_one(&["alice", "bob"])
        }))
    });
    let ran = multicast(&fake, &["cancel", "m-1"]).await.exits(0);
    assert!(
        ran.stderr.starts_with("cancelled: 1 of 2 delivered"),
        "{}",
        ran.stderr
    );
    fake.on_get_multicast(|_| {
        let unknown = Failure::new(Reason::UnknownMulticast, "no multicast is known by that").not_applied();
        ready(Err(unknown.into()))
    });
    let ran = multicast(&fake, &["receipts", "m-2"]).await.exits(3);
    assert!(ran.stderr.contains("receipts_window"), "{}", ran.stderr);
}

/// Whoever it is stored for will get it, and is one of those that can be worked with.
#[tokio::test]
async fn names_are_those_of_targets_that_are_not_known_to_have_failed() {
    let fake = fake().await;
    let line = ["publish", "--payload", "x"];
    fake.on_multicast(|_| ready(Ok(answers::stored(&["alice", "bob"]))));
    let ran = multicast_as(&fake, "name", &line).await.exits(0);
    assert_eq!(ran.stdout, "alice\nbob\n");
    fake.on_multicast(|_| ready(Ok(answers::delivered_but_one(&["alice", "bob"]))));
    let ran = multicast_as(&fake, "name", &line).await.exits(4);
    assert_eq!(ran.stdout, "alice\n");
    fake.on_get_multicast(|_| ready(Ok(answers::delivered_but_one(&["alice", "bob"]))));
    for (line, names) in [
        (&["receipts", "m-1"][..], "alice\n"),
        // Those that were asked for.
        (&["receipts", "m-1", "--only", "delivered,failed"], "alice\nbob\n"),
    ] {
        let ran = multicast_as(&fake, "name", line).await.exits(0);
        assert_eq!(ran.stdout, names, "{line:?}");
    }
    fake.on_multicast_stream(|_| {
        let told = answers::told(answers::stored(&["alice", "bob"])).into_iter();
        ready(Ok(stream::iter(told.map(Ok))))
    });
    let ran = multicast_as(&fake, "name", &["publish", "--payload", "x", "--follow"])
        .await
        .exits(0);
    assert_eq!(ran.stdout, "alice\nbob\n");
}

/// What the help says is the most is held to before anything is sent.
#[tokio::test]
async fn more_than_the_most_is_wrong_usage() {
    let fake = fake().await;
    for line in [
        &["publish", "--payload", "x", "--batch-size", "1025"][..],
        &["enumerate", "--limit", "1001"],
        &["receipts", "m-1", "--limit", "1001"],
        &["dlq", "ls", "--limit", "1001"],
    ] {
        multicast(&fake, line).await.exits(2);
    }
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn dead_letters_are_listed_and_put_back() {
    let fake = fake().await;
    fake.on_list_dead_letters(|request| {
        let request = request.into_inner();
        assert_eq!(request.identity.as_deref(), Some("alice"));
        ready(Ok(pattern::ListDeadLettersResponse {
            letters: vec![answers::dead_letter("17", "alice")],
            next_cursor: Some("17".to_owned()),
        }))
    });
    let line = ["dlq", "ls", "--identity", "alice", "--limit", "1"];
    let ran = multicast(&fake, &line).await.exits(0);
    let expected = "\
LETTER  IDENTITY  DIED                  REASON                    ATTEMPTS  CONTENT
17      alice     1970-01-01T00:02:00Z  TERMINATED: no such room  2         hello
";
    assert_eq!(ran.stdout, expected);
    assert_eq!(ran.stderr, "continue with --cursor 17\n");
    let ran = multicast_as(&fake, "json", &line).await.exits(0);
    assert_eq!(ran.json()["letters"][0]["letter_id"], "17");

    let (asked, keep) = keeper::<pattern::RedriveDeadLettersRequest>();
    fake.on_redrive_dead_letters(move |request| {
        let request = request.into_inner();
        let full_count = i64::from(request.all);
        keep(request);
        ready(Ok(pattern::RedriveDeadLettersResponse {
            redriven_count: 2,
            full_count,
            gone_count: 0,
        }))
    });
    let ran = multicast(&fake, &["dlq", "redrive", "17", "18"]).await.exits(0);
    assert_eq!(ran.stdout, "PUT BACK    2\nINBOX FULL  0\nGONE        0\n");
    assert_eq!(asked.lock().take().unwrap().letter_ids, ["17", "18"]);
    multicast(&fake, &["dlq", "redrive", "--identity", "alice"])
        .await
        .exits(0);
    assert_eq!(asked.lock().take().unwrap().identity.as_deref(), Some("alice"));
    let ran = multicast_as(&fake, "json", &["dlq", "redrive", "--all"])
        .await
        .exits(4);
    assert_eq!(ran.error()["reason"], "PARTIAL_REDRIVE");
    for wrong in [&[][..], &["17", "--all"], &["--all", "--identity", "alice"]] {
        multicast(&fake, &[&["dlq", "redrive"], wrong].concat())
            .await
            .exits(2);
    }
}

/// Sessions that yield these and stay open.
async fn session_of(answers: Vec<SubscribeResponse>) -> FakeRegistry {
    let fake = fake().await;
    fake.on_subscribe(move |_| {
        let answers: Vec<_> = answers.iter().cloned().map(Ok).collect();
        ready(Ok(stream::iter(answers).chain(stream::pending())))
    });
    fake
}

#[tokio::test]
async fn what_is_shown_is_acknowledged_before_the_end() {
    let fake = session_of(vec![
        answers::opened(1),
        answers::stored_message("one", 1),
        answers::stored_message("two", 3),
    ])
    .await;
    let line = ["subscribe", "alice", "--count", "2"];
    let ran = multicast(&fake, &line).await.exits(0);
    let expected = "\
1970-01-01T00:01:01Z  m-1  stored  one
1970-01-01T00:01:01Z  m-1  stored,attempt=3  two
";
    assert_eq!(ran.stdout, expected);
    let acked: Vec<String> = fake
        .said()
        .into_iter()
        .filter_map(|said| match said {
            Said::Ack(ack) => Some(ack.delivery_ids),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(acked, ["m-1/one", "m-1/two"]);
    let ran = multicast_as(&fake, "json", &line).await.exits(0);
    assert_eq!(lines(&ran)[2]["delivery"]["attempt"], 3);
    assert_eq!(lines(&ran).len(), 3, "{ran:?}");
}

#[tokio::test]
async fn what_is_only_looked_at_or_asked_for_again_is_not_acknowledged() {
    let fake = session_of(vec![answers::opened(1), answers::stored_message("one", 1)]).await;
    let line = ["subscribe", "alice", "--count", "1", "--no-ack"];
    multicast(&fake, &line).await.exits(0);
    assert!(fake.said().iter().all(|said| matches!(said, Said::Credit(_))));

    let line = ["subscribe", "alice", "--count", "1", "--nack", "5s"];
    multicast(&fake, &line).await.exits(0);
    let Some(Said::Nack(nack)) = fake.said().pop() else {
        panic!("{:?}", fake.said())
    };
    assert_eq!(nack.delay_ms, 5_000);
    multicast(&fake, &["subscribe", "alice", "--no-ack", "--nack", "5s"])
        .await
        .exits(2);
}

#[tokio::test]
async fn a_question_is_answered_and_anything_else_acknowledged() {
    let mut question = answers::message("how warm?");
    if let Some(Message::Delivery(delivery)) = &mut question.message {
        delivery.expects_reply = true;
    }
    let fake = session_of(vec![answers::opened(1), question, answers::message("charge!")]).await;
    let line = ["subscribe", "alice", "--count", "2", "--answer", "21 C"];
    multicast(&fake, &line).await.exits(0);
    let said: Vec<_> = fake
        .said()
        .into_iter()
        .filter(|said| !matches!(said, Said::Credit(_)))
        .collect();
    assert!(
        matches!(&said[0], Said::Answer(answer) if answer.payload == "21 C" && answer.delivery_id == "m-1/how warm?")
    );
    assert!(matches!(&said[1], Said::Ack(ack) if ack.delivery_ids == ["m-1/charge!"]));
}

#[tokio::test]
async fn credits_are_asked_for() {
    let fake = fake().await;
    let (asked, keep) = keeper();
    fake.on_subscribe(move |open| {
        keep(open.credits);
        let answers = (0..9).map(|number| answers::message(&number.to_string()));
        let answers = std::iter::once(answers::opened(1)).chain(answers);
        ready(Ok(
            stream::iter(answers.map(Ok).collect::<Vec<_>>()).chain(stream::pending())
        ))
    });
    let line = ["subscribe", "alice", "--count", "9", "--credits", "7"];
    multicast(&fake, &line).await.exits(0);
    assert_eq!(asked.lock().take().unwrap(), Some(7));
}

/// An inbox: it sends as much as it may, and again what is asked for again.
struct Inbox {
    credit: u32,
    waiting: VecDeque<(String, u32)>,
    settled: VecDeque<SubscribeResponse>,
    words: Words,
    sent: Arc<AtomicUsize>,
}

impl Inbox {
    /// One with these stored messages; how many attempts were made in all.
    async fn serve(texts: &'static [&'static str]) -> (FakeRegistry, Arc<AtomicUsize>) {
        let (fake, sent) = (fake().await, Arc::new(AtomicUsize::new(0)));
        let count = sent.clone();
        fake.on_session(move |open, words| {
            let inbox = Self {
                credit: open.credits.unwrap_or_default(),
                waiting: texts.iter().map(|text| ((*text).to_owned(), 1)).collect(),
                settled: VecDeque::from([answers::opened(1)]),
                words,
                sent: count.clone(),
            };
            ready(Ok(stream::unfold(inbox, Self::next)))
        });
        (fake, sent)
    }

    async fn next(mut self) -> Option<(Result<SubscribeResponse, tonic::Status>, Self)> {
        loop {
            if let Some(settled) = self.settled.pop_front() {
                return Some((Ok(settled), self));
            }
            if let Some((text, attempt)) = self.waiting.pop_front_if(|_| self.credit > 0) {
                self.credit -= 1;
                self.sent.fetch_add(1, SeqCst);
                return Some((Ok(answers::stored_message(&text, attempt)), self));
            }
            let delivery_ids = match self.words.recv().await? {
                Said::Credit(credit) => {
                    self.credit += credit.deliveries;
                    continue;
                }
                Said::Nack(nack) => {
                    let again = nack.delivery_ids.iter();
                    let again = again.map(|id| (id.trim_start_matches("m-1/").to_owned(), 2));
                    self.waiting.extend(again);
                    nack.delivery_ids
                }
                Said::Ack(ack) => ack.delivery_ids,
                _ => continue,
            };
            self.settled.push_back(SubscribeResponse {
                message: Some(Message::Settled(Settled {
                    delivery_ids,
                    gone_ids: Vec::new(),
                })),
            });
        }
    }
}

/// Whatever is sent uses up an attempt, whether or not anybody sees it.
#[tokio::test]
async fn what_is_not_to_be_shown_is_not_sent() {
    let (fake, sent) = Inbox::serve(&["a", "b", "c", "d", "e", "f"]).await;
    for (line, shown) in [
        (&["--count", "2"][..], 2),
        (&["--count", "1", "--credits", "1"], 1),
        (&["--count", "5", "--credits", "2"], 5),
        (&["--count", "3", "--credits", "64", "--no-ack"], 3),
    ] {
        let line = [&["subscribe", "alice"], line].concat();
        let ran = multicast(&fake, &line).await.exits(0);
        assert_eq!(ran.stdout.lines().count(), shown, "{line:?}: {ran:?}");
        assert_eq!(sent.swap(0, SeqCst), shown, "{line:?}");
    }
}

#[tokio::test]
async fn what_is_asked_for_again_comes_again_only_to_be_shown() {
    let (fake, sent) = Inbox::serve(&["a"]).await;
    let line = ["subscribe", "alice", "--count", "2", "--nack", "1ms"];
    let ran = multicast(&fake, &line).await.exits(0);
    assert!(ran.stdout.ends_with("stored,attempt=2  a\n"), "{}", ran.stdout);
    assert_eq!(sent.load(SeqCst), 2);
}

/// An acknowledgement that nobody confirmed may not have been heard, and the message comes again then.
#[tokio::test]
async fn an_acknowledgement_that_is_not_confirmed_is_an_error_where_the_message_comes_again() {
    for (message, code) in [(answers::stored_message("x", 1), 5), (answers::message("x"), 0)] {
        let fake = fake().await;
        fake.on_session(move |_, _| {
            let answers = [answers::opened(1), message.clone()];
            ready(Ok(stream::iter(answers.map(Ok)).chain(stream::pending())))
        });
        let mut command = against(&fake);
        command.args(["--deadline", "300ms", "-o", "json"]);
        command.args(["multicast", "subscribe", "alice", "--count", "1"]);
        let ran = run(&mut command).await.exits(code);
        if code != 0 {
            assert_eq!(ran.error()["reason"], json!("DEADLINE_EXCEEDED"));
        }
    }
}
