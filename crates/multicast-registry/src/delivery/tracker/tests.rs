use prism_slot::{Epoch, MulticastId, Position, Revision};

use super::*;
use crate::delivery::Delivery;

fn tracker(names: &[&str]) -> Tracker {
    let cast = Cast {
        id: MulticastId(1),
        position: Position {
            epoch: Epoch(1),
            revision: Revision(1),
        },
        delivery: Delivery::AtMostOnce,
        required: Stage::Accepted,
        began_at: Timestamp(0),
        expires_at: None,
        kept_until: Timestamp(0),
        recorded: false,
        key_window: None,
    };
    let targets: Vec<Identity> = names.iter().map(|name| Identity::new(*name).unwrap()).collect();
    Tracker::new(cast, targets.into(), None, Vec::new())
}

fn reply(name: &str, payload: &'static str) -> Reply {
    Reply {
        identity: Identity::new(name).unwrap(),
        payload: payload.into(),
        content_type: "text/plain".into(),
        headers: Vec::new(),
    }
}

/// Each target's first, of targets alone, as far as there is room.
#[test]
fn answers_are_kept_as_far_as_they_count() {
    let tracker = tracker(&["a", "b", "c"]);
    tracker.answered(reply("a", "nobody asked"));
    tracker.collect(None, 2 * reply("a", "1234").size());
    for (name, payload) in [
        ("a", "1234"),
        ("a", "12"),
        ("else", "1"),
        ("b", "12345"),
        ("c", "1234"),
    ] {
        tracker.answered(reply(name, payload));
    }
    let kept = vec![reply("a", "1234"), reply("c", "1234")];
    assert_eq!(tracker.replies(), (kept, 3));
}

/// Whatever an answer consists of takes room.
#[test]
fn answers_have_no_room_but_their_own() {
    let tracker = tracker(&["a", "b", "c"]);
    tracker.collect(None, 1_000);
    let large = "x".repeat(1_000);
    let headers = Reply {
        headers: vec![("name".into(), large.clone())],
        ..reply("a", "")
    };
    let content_type = Reply {
        content_type: large,
        ..reply("b", "")
    };
    for reply in [headers, content_type, reply("c", "1234")] {
        tracker.answered(reply);
    }
    assert_eq!(tracker.replies(), (vec![reply("c", "1234")], 3));
}

/// Whoever reads them as they come gets all of them, however many there are.
#[tokio::test]
async fn an_answer_that_was_read_takes_no_room() {
    let names = ["a", "b", "c"];
    let tracker = tracker(&names);
    tracker.collect(None, reply("a", "1234").size());
    tracker.follow();
    for name in names {
        tracker.answered(reply(name, "1234"));
        let told = tracker.next_news(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(told, Some(Told::Reply(reply(name, "1234"))));
    }
    assert_eq!(tracker.replies(), (Vec::new(), 3));
}

/// A multicast is kept for long after its call, and answers are large.
#[test]
fn nothing_is_kept_for_nobody() {
    let tracker = tracker(&["a"]);
    tracker.collect(None, 8);
    tracker.answered(reply("a", "1234"));
    tracker.unattended();
    tracker.answered(reply("a", "1234"));
    assert_eq!(tracker.replies(), (Vec::new(), 0));
}

/// Whoever stops it waits for what is under way, and no longer than that.
#[tokio::test(start_paused = true)]
async fn a_cancellation_waits_for_the_end_of_sending() {
    let tracker = Arc::new(tracker(&["a"]));
    tracker.cancel();
    let soon = || Instant::now() + Duration::from_secs(1);
    assert_eq!(tracker.stopped(soon()).await, Phase::Running);
    let sender = tracker.clone();
    let sending = tokio::spawn(async move { sender.sent() });
    assert_eq!(tracker.stopped(soon()).await, Phase::Cancelled);
    sending.await.unwrap();
}
