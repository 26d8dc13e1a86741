//! Multicasts, their receipts, and dead letters: what is sent, and what comes back.

use std::{future::ready, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use prism_client::{
    Applied, DeliverySemantics, Error, GetMulticastRequest, ListDeadLettersRequest, MulticastEvent,
    MulticastRequest, MulticastState, Priority, Reason, ReceiptsScope, RedriveRequest, Stage, Status,
    testing::{answers, in_turn},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{self, MulticastResponse};
use tokio::time::timeout;

use crate::support::{PATIENCE, started};

/// Keeps what was asked.
fn keeper<T>() -> (Arc<Mutex<Vec<T>>>, impl Fn(T) + Clone) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    (kept, move |asked| keep.lock().push(asked))
}

fn lost() -> tonic::Status {
    Failure::new(Reason::RunnerLost, "gone").maybe_applied().into()
}

#[tokio::test]
async fn everything_that_is_asked_for_is_sent_and_everything_that_is_known_is_read() {
    let (fake, client) = started().await;
    let (asked, keep) = keeper();
    fake.on_multicast(move |request| {
        keep(request.into_inner());
        ready(Ok(MulticastResponse {
            replayed: true,
            replies: vec![answers::reply("a", "21 °C")],
            reply_count: 1,
            ..answers::stored(&["a", "b"])
        }))
    });
    let request = MulticastRequest {
        delivery: Some(DeliverySemantics::AtLeastOnce),
        require: Some(Stage::Handed),
        idempotency_key: Some("order-7".into()),
        expires_in: Some(Duration::from_secs(60)),
        priority: Priority::High,
        headers: [("tenant".into(), "7".into())].into(),
        reply_to: Some("queue/answers".into()),
        max_per_second: Some(100),
        batch_size: Some(10),
        collect_replies: true,
        min_replies: Some(1),
        ..Default::default()
    };
    let result = client.registry.multicast(request).await.unwrap();
    assert_eq!(
        (result.state, result.replayed, result.pending_count),
        (MulticastState::Sent, true, 2)
    );
    assert_eq!(result.receipts_scope, Some(ReceiptsScope::Ledger));
    assert!(result.receipts_until.is_some() && result.next_cursor.is_none());
    assert_eq!(
        (&*result.replies[0].payload, result.reply_count),
        ("21 °C".as_bytes(), 1)
    );
    let expected = pattern::MulticastRequest {
        delivery: Some(pattern::DeliverySemantics::AtLeastOnce.into()),
        require: pattern::Stage::Handed.into(),
        idempotency_key: "order-7".into(),
        expires_in_ms: Some(60_000),
        priority: pattern::Priority::High.into(),
        headers: [("tenant".into(), "7".into())].into(),
        reply_to: "queue/answers".into(),
        max_per_second: Some(100),
        batch_size: Some(10),
        collect_replies: true,
        min_replies: Some(1),
        ..Default::default()
    };
    assert_eq!(*asked.lock(), [expected]);
}

#[tokio::test]
async fn a_multicast_is_made_again_where_the_service_would_know_it() {
    let (fake, client) = started().await;
    let (asked, keep) = keeper();
    fake.on_multicast(move |request| {
        keep(request.into_inner().idempotency_key);
        ready(Err(lost()))
    });
    let error = client.registry.multicast(MulticastRequest::default()).await;
    assert_eq!(error.unwrap_err().applied(), Applied::Unknown);
    assert_eq!(
        asked.lock().len(),
        1,
        "without a key it could reach everybody twice"
    );

    asked.lock().clear();
    let once = MulticastRequest {
        delivery: Some(DeliverySemantics::ExactlyOnce),
        ..Default::default()
    };
    client.registry.multicast(once).await.unwrap_err();
    let keys = std::mem::take(&mut *asked.lock());
    assert_eq!(keys.len(), 4);
    assert!(
        keys.iter().all(|key| !key.is_empty() && *key == keys[0]),
        "{keys:?}"
    );

    // What was refused for now has not been sent, so that it needs no key.
    let crowded = Failure::new(Reason::Overloaded, "too many targets wait")
        .not_applied()
        .retry_after(Duration::from_millis(30));
    let turns = in_turn([Err(crowded.into()), Ok(answers::delivered(&["a"]))]);
    fake.on_multicast(move |_| ready(turns()));
    let result = client.registry.multicast(MulticastRequest::default()).await;
    assert_eq!(result.unwrap().delivered_count, 1);
}

#[tokio::test]
async fn a_key_that_means_something_else_is_told_as_that() {
    let (fake, client) = started().await;
    fake.on_multicast(|_| {
        let mismatch = Failure::new(
            Reason::IdempotencyMismatch,
            "the key was used for another request",
        );
        ready(Err(mismatch.not_applied().into()))
    });
    let request = MulticastRequest {
        idempotency_key: Some("k".into()),
        ..Default::default()
    };
    let error = client.registry.multicast(request).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::IdempotencyMismatch));
    assert_eq!(fake.count("Multicast"), 1);
}

#[tokio::test]
async fn a_dry_run_says_who_and_sends_nothing() {
    let (fake, client) = started().await;
    fake.on_multicast(|request| {
        assert!(request.get_ref().dry_run);
        let mut answer = answers::delivered(&["a", "b"]);
        answer.statuses.iter_mut().for_each(|status| status.status = 0);
        (answer.delivered_count, answer.state) = (0, 0);
        ready(Ok(answer))
    });
    let dry = client
        .registry
        .multicast_dry_run(MulticastRequest::default())
        .await
        .unwrap();
    assert_eq!(
        (dry.target_count, dry.identities),
        (2, vec!["a".into(), "b".into()])
    );
}

#[tokio::test]
async fn a_multicast_is_followed_from_its_beginning_to_its_end() {
    let (fake, client) = started().await;
    fake.on_multicast_stream(|_| {
        let answer = MulticastResponse {
            replies: vec![answers::reply("a", "yes")],
            ..answers::delivered_but_one(&["a", "b"])
        };
        ready(Ok(stream::iter(answers::told(answer).into_iter().map(Ok))))
    });
    let request = MulticastRequest::default();
    let mut progress = client.registry.multicast_stream(request).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = timeout(PATIENCE, progress.next()).await.unwrap() {
        told.push(match event.unwrap() {
            MulticastEvent::Started(started) => format!("{} targets", started.target_count),
            MulticastEvent::Target(target) => format!("{} {:?}", target.identity, target.status),
            MulticastEvent::Reply(reply) => format!("{} says {:?}", reply.identity, reply.payload),
            MulticastEvent::Ended(ended) => format!("{} of {}", ended.delivered_count, ended.target_count),
        });
    }
    let expected = [
        "2 targets",
        "a Delivered",
        "b Failed",
        "a says b\"yes\"",
        "1 of 2",
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_multicast_that_is_lost_from_sight_may_have_been_made() {
    let (fake, client) = started().await;
    let told = || answers::told(answers::delivered(&["a"])).into_iter().map(Ok);
    let broken = in_turn([
        Ok(told().take(2).collect::<Vec<_>>()),
        Ok(told().take(1).chain([Err(lost())]).collect()),
    ]);
    fake.on_multicast_stream(move |_| ready(broken().map(stream::iter)));
    for _ in 0..2 {
        let request = MulticastRequest::default();
        let progress = client.registry.multicast_stream(request).await.unwrap();
        let events: Vec<_> = timeout(PATIENCE, progress.collect()).await.unwrap();
        let error: &Error = events.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.applied(), Applied::Unknown, "{error:?}");
        assert!(events.len() <= 3);
    }
    fake.on_multicast_stream(|_| ready(Ok(stream::pending())));
    let registry = client.registry.with_timeout(Duration::from_millis(200));
    let mut mute = registry
        .multicast_stream(MulticastRequest::default())
        .await
        .unwrap();
    let error = timeout(PATIENCE, mute.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
}

#[tokio::test]
async fn all_receipts_are_one_stream() {
    let (fake, client) = started().await;
    let (asked, keep) = keeper();
    fake.on_get_multicast(move |request| {
        let request = request.into_inner();
        let is_first = request.pagination.as_ref().unwrap().cursor.is_empty();
        keep(request);
        let mut page = answers::delivered_but_one(if is_first { &["a", "b"] } else { &["c"] });
        page.next_cursor = is_first.then(|| "2".to_owned());
        ready(Ok(page))
    });
    let request = GetMulticastRequest {
        limit: Some(2),
        only: vec![Status::Failed, Status::Timeout],
        ..GetMulticastRequest::from("m-1")
    };
    let receipts: Vec<_> = client.registry.receipts(request).try_collect().await.unwrap();
    let names: Vec<_> = receipts.iter().map(|status| &*status.identity).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(receipts[1].reason.as_deref(), Some("NO_SUBSCRIBER"));
    let asked = std::mem::take(&mut *asked.lock());
    assert_eq!(
        (asked[0].multicast_id.as_str(), &*asked[0].only),
        ("m-1", &[2, 3][..])
    );
    assert_eq!(asked[1].pagination.as_ref().unwrap().cursor, "2");

    fake.on_cancel_multicast(|request| {
        assert_eq!(request.get_ref().multicast_id, "m-1");
        ready(Ok(MulticastResponse {
            state: pattern::multicast_response::State::Cancelled.into(),
            ..answers::delivered_but_one(&["a"])
        }))
    });
    let cancelled = client.registry.cancel_multicast("m-1").await.unwrap();
    assert_eq!(cancelled.state, MulticastState::Cancelled);
    fake.on_get_multicast(|_| {
        let unknown = Failure::new(Reason::UnknownMulticast, "no such multicast").not_applied();
        ready(Err(unknown.into()))
    });
    let error = client.registry.get_multicast("m-2").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::UnknownMulticast));
}

#[tokio::test]
async fn dead_letters_are_read_and_put_back() {
    let (fake, client) = started().await;
    fake.on_list_dead_letters(|request| {
        let request = request.into_inner();
        assert_eq!(request.identity.as_deref(), Some("alice"));
        let (letter, next) = match request.pagination.unwrap().cursor.as_str() {
            "" => ("1", Some("1".to_owned())),
            _ => ("2", None),
        };
        ready(Ok(pattern::ListDeadLettersResponse {
            letters: vec![answers::dead_letter(letter, "alice")],
            next_cursor: next,
        }))
    });
    let request = ListDeadLettersRequest {
        identity: Some("alice".into()),
        ..Default::default()
    };
    let letters: Vec<_> = client.registry.dead_letters(request).try_collect().await.unwrap();
    assert_eq!((letters.len(), &*letters[1].letter_id), (2, "2"));
    assert_eq!(letters[0].detail.as_deref(), Some("no such room"));

    let (asked, keep) = keeper();
    fake.on_redrive_dead_letters(move |request| {
        keep(request.into_inner());
        ready(Ok(pattern::RedriveDeadLettersResponse {
            redriven_count: 2,
            full_count: 1,
            gone_count: 0,
        }))
    });
    for which in [
        RedriveRequest::Letters(vec!["1".into()]),
        RedriveRequest::Deliveries(vec!["m-1/a".into()]),
        RedriveRequest::OfIdentity("alice".into()),
        RedriveRequest::All,
    ] {
        let redriven = client.registry.redrive_dead_letters(which).await.unwrap();
        assert_eq!((redriven.redriven_count, redriven.full_count), (2, 1));
    }
    let asked = asked.lock();
    assert_eq!(asked[0].letter_ids, ["1"]);
    assert_eq!(asked[1].delivery_ids, ["m-1/a"]);
    assert_eq!(asked[2].identity.as_deref(), Some("alice"));
    assert!(asked[3].all && !asked[2].all);
}
