//! Messages that are sent once.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use integration::{
    PATIENCE,
    calls::{next_event, next_message, register},
};
use prism_client::{
    Credits, Event, GapReason, MulticastRequest, Reason, Stage, Status, SubscribeRequest, Subscription,
};
use prism_testkit::eventually;

use crate::{
    fixture::{Fixture, once, refusal, status_of, text, texts, to},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    publish_reaches_every_listener,
    messages_arrive_unchanged,
    identities_never_share_an_address,
    publish_knows_who_listens,
    publish_ends_by_its_deadline,
    accepted_messages_keep_their_order,
    a_listener_hears_from_the_start,
    a_slow_listener_gets_a_gap with {
        "slots": { "messaging": { "config": { "listener_queue": 4 } } },
        "behavior": { "retry_attempts": 2, "retry_delay_ms": 1 },
    },
    a_slow_listener_of_large_messages_gets_a_gap with {
        "slots": { "messaging": { "config": { "listener_queue_bytes": 50_000 } } },
        "behavior": { "retry_attempts": 2, "retry_delay_ms": 1 },
    },
    dropping_a_listener_ends_it,
    payloads_over_the_limit_are_not_sent if |slots| slots.max_payload() <= LARGEST_REQUEST,
    notes_reach_their_address,
    openings_reach_each_other if |slots| slots.are_shared(),
];

/// What a proxy lets through, headers excluded.
pub(crate) const LARGEST_REQUEST: usize = 3 << 20;

/// Names that address something else in one broker or other.
pub(crate) fn awkward_names() -> Vec<String> {
    let names = [
        "a", "a.b", "a.*", "a.>", "*", ">", ".", "a b", "a%20b", "a%2Eb", "%", "_", "__", "$SYS", "a_b", "A",
        "ключ", "a/b", "a\\b", "a=b", "=2E", "a=2Eb", "a:b", "{a}", "a'b", "\u{a0}",
    ];
    let long = "é".repeat(128);
    names.into_iter().map(str::to_owned).chain([long]).collect()
}

async fn publish_reaches_every_listener(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a", "b", "c"]).await?;
    let mut sessions = Vec::new();
    for name in ["a", "b", "c"] {
        sessions.push(client.registry.subscribe(name).await?);
    }
    let report = client.registry.multicast(once("to all")).await?;
    assert_eq!((report.target_count, report.delivered_count), (3, 3));
    assert!(
        report
            .statuses
            .iter()
            .all(|status| status.stage >= Stage::Accepted),
        "{report:?}"
    );
    let report = client.registry.multicast(to("b", once("to one"))).await?;
    assert_eq!((report.target_count, report.delivered_count), (1, 1));
    client.registry.multicast(once("the last")).await?;
    let expected: [&[&str]; 3] = [
        &["to all", "the last"],
        &["to all", "to one", "the last"],
        &["to all", "the last"],
    ];
    for (session, expected) in sessions.iter_mut().zip(expected) {
        assert_eq!(texts(session, expected.len()).await?, expected);
    }
    Ok(())
}

/// Everything that a sender can say.
pub(crate) fn full() -> MulticastRequest {
    let headers = [("x-note", "one: two"), ("X-Empty", "")];
    MulticastRequest {
        payload: (0..=255).collect(),
        content_type: Some("application/json; charset=utf-8".into()),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        reply_to: Some("questions.to/me".into()),
        expires_in: Some(Duration::from_secs(600)),
        ..Default::default()
    }
}

/// Holds a message against [`full`].
pub(crate) fn assert_full(message: &prism_client::Message, sent_at: SystemTime) {
    let sent = full();
    assert_eq!(message.payload[..], sent.payload);
    assert_eq!(Some(&message.content_type), sent.content_type.as_ref());
    assert_eq!(message.reply_to, sent.reply_to);
    let mut headers: BTreeMap<String, String> = message.headers.clone();
    assert!(headers.remove("traceparent").is_some(), "{headers:?}");
    assert_eq!(headers, sent.headers);
    let lives = message
        .expires_at
        .unwrap()
        .duration_since(message.published_at)
        .unwrap();
    assert_eq!(Some(lives), sent.expires_in);
    let age = message
        .published_at
        .duration_since(sent_at)
        .unwrap_or_else(|error| error.duration());
    assert!(age < PATIENCE, "{age:?}");
}

async fn messages_arrive_unchanged(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let mut session = client.registry.subscribe("a").await?;
    let report = client.registry.multicast(full()).await?;
    let message = next_message(&mut session).await?;
    assert_full(&message, SystemTime::now());
    assert_eq!(
        (message.attempt, message.stored, message.expects_reply),
        (1, false, false)
    );
    assert_eq!(message.multicast_id, report.multicast_id);
    client.registry.multicast(MulticastRequest::default()).await?;
    let empty = next_message(&mut session).await?;
    assert_eq!(
        (&empty.payload[..], empty.reply_to, empty.expires_at),
        (&b""[..], None, None)
    );
    assert_eq!(empty.content_type, "application/octet-stream");
    Ok(())
}

async fn identities_never_share_an_address(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let names = awkward_names();
    let mut sessions = Vec::new();
    for name in &names {
        register(&client, &[name]).await?;
        sessions.push(client.registry.subscribe(name.as_str()).await?);
    }
    for name in &names {
        let report = client.registry.multicast(to(name, once(name))).await?;
        assert_eq!((report.target_count, report.delivered_count), (1, 1), "{name}");
    }
    // Whatever had reached a wrong session would be read before this.
    let report = client.registry.multicast(once("last")).await?;
    assert_eq!(report.delivered_count, names.len() as u64);
    for (name, session) in names.iter().zip(&mut sessions) {
        assert_eq!(texts(session, 2).await?, [name, "last"]);
    }
    Ok(())
}

async fn publish_knows_who_listens(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let names: Vec<String> = (0..60).map(|number| format!("id-{number}")).collect();
    let mut sessions: Vec<Subscription> = Vec::new();
    for (number, name) in names.iter().enumerate() {
        register(&client, &[name]).await?;
        if number % 2 == 0 {
            sessions.push(client.registry.subscribe(name.as_str()).await?);
        }
    }
    let report = client.registry.multicast(once("hello")).await?;
    assert_eq!((report.delivered_count, report.failed_count), (30, 30));
    for (number, name) in names.iter().enumerate() {
        let status = status_of(&report, name);
        let (verdict, reason) = match number % 2 {
            0 => (Status::Delivered, None),
            _ => (Status::Failed, Some("NO_SUBSCRIBER")),
        };
        assert_eq!(
            (status.status, status.reason.as_deref()),
            (verdict, reason),
            "{name}"
        );
    }
    let nobody = client.registry.multicast(to("nobody", once("hello"))).await?;
    assert_eq!((nobody.target_count, nobody.statuses.len()), (0, 0));
    Ok(())
}

/// What is not known by then is not known.
async fn publish_ends_by_its_deadline(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let mut session = client.registry.subscribe("a").await?;
    let patient = MulticastRequest {
        require: Some(Stage::Acked),
        timeout: Some(Duration::from_secs(1)),
        ..once("never acknowledged")
    };
    let report = client.registry.multicast(patient).await?;
    let status = status_of(&report, "a");
    assert_eq!(
        (status.status, status.reason.as_deref()),
        (Status::Timeout, Some("NOT_CONFIRMED"))
    );
    assert!(status.stage < Stage::Acked, "{status:?}");
    let hurried = MulticastRequest {
        timeout: Some(Duration::from_millis(1)),
        ..once("in a hurry")
    };
    let report = client.registry.multicast(hurried).await?;
    let sum = report.delivered_count + report.failed_count + report.pending_count + report.timeout_count;
    assert_eq!((report.target_count, sum), (1, 1));
    // Whatever came of it, the service goes on.
    let report = client.registry.multicast(once("in time")).await?;
    assert_eq!(report.delivered_count, 1);
    assert_eq!(text(&next_message(&mut session).await?), "never acknowledged");
    while text(&next_message(&mut session).await?) != "in time" {}
    Ok(())
}

async fn accepted_messages_keep_their_order(fixture: Fixture) -> Result<()> {
    let client = fixture.through_each_runner()?.remove(0);
    register(&client, &["a"]).await?;
    let mut session = fixture.client()?.registry.subscribe("a").await?;
    let sent: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    for payload in &sent {
        assert_eq!(client.registry.multicast(once(payload)).await?.delivered_count, 1);
    }
    assert_eq!(texts(&mut session, sent.len()).await?, sent);
    Ok(())
}

async fn a_listener_hears_from_the_start(fixture: Fixture) -> Result<()> {
    let clients = fixture.through_each_runner()?;
    for number in 0..20 {
        let name = format!("id-{number}");
        register(&clients[0], &[&name]).await?;
        let mut session = clients[0].registry.subscribe(name.as_str()).await?;
        let publisher = &clients[clients.len() - 1];
        let report = publisher.registry.multicast(to(&name, once(&name))).await?;
        assert_eq!(report.delivered_count, 1, "{name}");
        assert_eq!(text(&next_message(&mut session).await?), name);
    }
    Ok(())
}

async fn a_slow_listener_gets_a_gap(fixture: Fixture) -> Result<()> {
    falls_behind(&fixture, 1).await
}

async fn a_slow_listener_of_large_messages_gets_a_gap(fixture: Fixture) -> Result<()> {
    falls_behind(&fixture, 10_000).await
}

/// Of 50 messages of a size only some find room with somebody who does not read.
async fn falls_behind(fixture: &Fixture, size: usize) -> Result<()> {
    const COUNT: u64 = 50;
    let client = fixture.client()?;
    register(&client, &["slow", "quick"]).await?;
    let request = SubscribeRequest {
        credits: Credits::Manual(0),
        ..SubscribeRequest::from("slow")
    };
    let mut slow = client.registry.subscribe(request).await?;
    let mut quick = client.registry.subscribe("quick").await?;
    for number in 0..COUNT {
        let sent = format!("{number:size$}");
        client.registry.multicast(once(&sent)).await?;
        assert_eq!(text(&next_message(&mut quick).await?), sent);
    }
    slow.grant(1_000);
    let (mut received, mut missed) = (0, 0);
    while received + missed < COUNT {
        match next_event(&mut slow).await? {
            Event::Message(_) => received += 1,
            Event::Gap(gap) => {
                assert_eq!(gap.reason, GapReason::SlowConsumer);
                missed += gap.dropped;
            }
            Event::Opened(_) => {}
        }
    }
    assert_eq!(received + missed, COUNT);
    assert!(
        missed > 0 && received >= 4,
        "{received} received, {missed} missed"
    );
    assert_eq!(client.registry.multicast(once("after")).await?.delivered_count, 2);
    assert_eq!(text(&next_message(&mut slow).await?), "after");
    Ok(())
}

async fn dropping_a_listener_ends_it(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    drop(client.registry.subscribe("a").await?);
    eventually(PATIENCE, "nobody listens any more", async || {
        let report = client.registry.multicast(once("anyone?")).await;
        report.is_ok_and(|report| status_of(&report, "a").reason.as_deref() == Some("NO_SUBSCRIBER"))
    })
    .await;
    Ok(())
}

async fn payloads_over_the_limit_are_not_sent(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let mut session = client.registry.subscribe("a").await?;
    let most = fixture.slots().max_payload();
    let sized = |size| MulticastRequest {
        payload: vec![7; size],
        ..Default::default()
    };
    let refused = client.registry.multicast(sized(most + 1)).await;
    assert_eq!(refusal(refused), Some(Reason::PayloadTooLarge));
    assert_eq!(client.registry.multicast(sized(most)).await?.delivered_count, 1);
    assert_eq!(next_message(&mut session).await?.payload.len(), most);
    Ok(())
}

/// What a consumer says travels to the runner that sent, also where another one has the session.
async fn notes_reach_their_address(fixture: Fixture) -> Result<()> {
    let clients = fixture.through_each_runner()?;
    register(&clients[0], &["a"]).await?;
    let mut session = clients[0].registry.subscribe("a").await?;
    for sender in &clients {
        let question = MulticastRequest {
            require: Some(Stage::Acked),
            timeout: Some(PATIENCE / 2),
            collect_replies: true,
            ..once("how are you?")
        };
        let asking = sender.registry.with_timeout(PATIENCE);
        let (report, answered) = tokio::join!(asking.multicast(question), async {
            let message = next_message(&mut session).await?;
            assert!(message.expects_reply);
            message.answer("fine").await?;
            anyhow::Ok(())
        });
        answered?;
        let report = report?;
        assert_eq!((report.delivered_count, report.reply_count), (1, 1));
        assert_eq!(status_of(&report, "a").stage, Stage::Acked);
        assert_eq!(
            (
                report.replies[0].identity.as_str(),
                &report.replies[0].payload[..]
            ),
            ("a", &b"fine"[..])
        );
    }
    Ok(())
}

/// A session on one runner and a multicast through another is the normal case.
async fn openings_reach_each_other(fixture: Fixture) -> Result<()> {
    let clients = fixture.through_each_runner()?;
    register(&clients[0], &["a", "b"]).await?;
    let mut sessions = [
        clients[0].registry.subscribe("a").await?,
        clients[1].registry.subscribe("b").await?,
    ];
    for sender in &clients {
        assert_eq!(
            sender.registry.multicast(once("across")).await?.delivered_count,
            2
        );
        for session in &mut sessions {
            assert_eq!(texts(session, 1).await?, ["across"]);
        }
    }
    Ok(())
}
