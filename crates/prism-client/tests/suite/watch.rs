//! Watches: what they yield, what they survive, what ends them.

use std::{collections::VecDeque, future::ready, sync::Arc};

use futures::stream;
use parking_lot::Mutex;
use prism_client::{
    Reason, Watch, WatchEvent, WatchRequest,
    testing::{FakeRegistry, answers},
};
use prism_core::failure::Failure;
use prism_proto::pattern::{
    self, WatchResponse,
    watch_response::{Cause, Kind},
};
use tokio::time::timeout;
use tonic::Status;

use crate::support::{PATIENCE, builder};

type Answer = Result<WatchResponse, Status>;

/// Streams in turn, and what was asked for each of them.
struct Script {
    fake: FakeRegistry,
    asked: Arc<Mutex<Vec<Option<u64>>>>,
}

impl Script {
    async fn of(streams: Vec<Result<Vec<Answer>, Status>>) -> Self {
        let fake = FakeRegistry::start().await.unwrap();
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let (seen, streams) = (asked.clone(), Mutex::new(VecDeque::from(streams)));
        fake.on_watch(move |request| {
            seen.lock().push(request.resume_from.map(|at| at.revision));
            let answers = streams.lock().pop_front();
            let answers = answers.unwrap_or_else(|| Err(refusal(Reason::InvalidFilter)));
            ready(answers.map(stream::iter))
        });
        Self { fake, asked }
    }

    async fn watch(&self, request: WatchRequest) -> Watch {
        let client = builder(self.fake.endpoint()).connect().await.unwrap();
        client.registry.watch(request).await.unwrap()
    }
}

fn refusal(reason: Reason) -> Status {
    Failure::new(reason, "so it is").not_applied().into()
}

fn told(kind: Kind, name: &str, at: Option<u64>) -> Answer {
    Ok(WatchResponse {
        kind: kind.into(),
        identity: answers::found(name).identity,
        cause: if at.is_some() {
            Cause::Registered
        } else {
            Cause::Unspecified
        }
        .into(),
        position: at.map(|revision| pattern::Position { epoch: 7, revision }),
    })
}

fn bookmark(at: u64) -> Answer {
    told(Kind::Bookmark, "", Some(at))
}

/// Everything up to the error that ends it.
async fn read(watch: &mut Watch) -> (Vec<String>, Option<Reason>) {
    let mut events = Vec::new();
    while let Some(event) = timeout(PATIENCE, watch.next()).await.expect("an event") {
        events.push(match event {
            Ok(WatchEvent::Present(identity)) => format!("{} is there", identity.identity),
            Ok(WatchEvent::Entered(change)) => {
                format!("{} at {}", change.identity.identity, change.position.revision)
            }
            Ok(WatchEvent::Bookmark(at)) => format!("all up to {}", at.revision),
            Ok(WatchEvent::Restarted) => "restarted".to_owned(),
            Ok(other) => format!("{other:?}"),
            Err(error) => return (events, error.reason()),
        });
    }
    panic!("it ended without an error")
}

#[tokio::test]
async fn a_lost_stream_goes_on_after_the_last_position() {
    let script = Script::of(vec![
        Ok(vec![
            told(Kind::Enter, "a", None),
            bookmark(3),
            told(Kind::Enter, "b", Some(5)),
            Err(refusal(Reason::SlowConsumer)),
        ]),
        Ok(vec![told(Kind::Enter, "c", Some(6))]),
        Err(refusal(Reason::RunnerLost)),
        Ok(vec![bookmark(9)]),
    ])
    .await;
    let mut watch = script.watch(WatchRequest::default()).await;
    let (events, ended) = read(&mut watch).await;
    assert_eq!(
        events,
        ["a is there", "all up to 3", "b at 5", "c at 6", "all up to 9"]
    );
    assert_eq!(ended, Some(Reason::InvalidFilter));
    assert_eq!(*script.asked.lock(), [None, Some(5), Some(6), Some(6), Some(9)]);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn what_is_not_known_any_more_begins_anew_and_says_so() {
    for reason in [Reason::Compacted, Reason::EpochChanged] {
        let script = Script::of(vec![
            Ok(vec![bookmark(3), Err(refusal(Reason::Draining))]),
            Err(refusal(reason)),
            Ok(vec![told(Kind::Enter, "a", None), bookmark(8)]),
        ])
        .await;
        let mut watch = script.watch(WatchRequest::default()).await;
        let (events, _) = read(&mut watch).await;
        assert_eq!(events, ["all up to 3", "restarted", "a is there", "all up to 8"]);
        assert_eq!(*script.asked.lock(), [None, Some(3), None, Some(8)]);
    }
}

/// A snapshot is not taken up in the middle.
#[tokio::test]
async fn a_snapshot_that_is_lost_begins_anew() {
    let script = Script::of(vec![
        Ok(vec![told(Kind::Enter, "a", None), Err(refusal(Reason::Draining))]),
        Ok(vec![told(Kind::Enter, "a", None), bookmark(2)]),
    ])
    .await;
    let mut watch = script.watch(WatchRequest::default()).await;
    let (events, _) = read(&mut watch).await;
    assert_eq!(events, ["a is there", "restarted", "a is there", "all up to 2"]);
}

#[tokio::test]
async fn a_caller_may_resume_what_another_one_watched() {
    let script = Script::of(vec![
        Ok(vec![Err(refusal(Reason::Compacted))]),
        Ok(vec![bookmark(9)]),
    ])
    .await;
    let resume_from = Some(prism_client::Position {
        epoch: 7,
        revision: 4,
    });
    let request = WatchRequest {
        resume_from,
        ..Default::default()
    };
    let mut watch = script.watch(request).await;
    let (events, _) = read(&mut watch).await;
    // What the other one knew is void, too.
    assert_eq!(events, ["restarted", "all up to 9"]);
    assert_eq!(*script.asked.lock(), [Some(4), None, Some(9)]);
}
