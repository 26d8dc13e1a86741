//! Histories that are wrong in one way each, and what the check says of them.

use std::time::{Duration, Instant};

use prism_client::{DeliverySemantics, DeliveryStatus, Stage, Status};

use super::{
    check::{Wrong, check},
    history::{Answer, Call, Diary, Entry, History, Manner, Tap, Totals, outstanding},
};

const WHO: &str = "a";

fn told(stage: Stage, status: Status, reason: Option<&str>) -> DeliveryStatus {
    DeliveryStatus {
        identity: WHO.to_owned(),
        status,
        stage,
        reason: reason.map(str::to_owned),
        error: None,
    }
}

/// One message to one consumer, of which one thing was told, and what is known of it otherwise.
#[derive(Clone)]
struct Run {
    delivery: DeliverySemantics,
    keyed: bool,
    told: DeliveryStatus,
    tapped: bool,
    manner: Manner,
    /// Multicast, attempt, and whether it was acknowledged before the answer was heard, after that, or not.
    came: Vec<(&'static str, u32, Option<bool>)>,
    /// How long after its end the consumer was told of a gap.
    gap: Option<Duration>,
}

impl Run {
    fn once(stage: Stage, status: Status) -> Self {
        Self {
            delivery: DeliverySemantics::AtMostOnce,
            keyed: false,
            told: told(stage, status, None),
            tapped: true,
            manner: Manner::Prompt,
            came: vec![("m", 1, Some(true))],
            gap: None,
        }
    }

    fn stored(stage: Stage, status: Status) -> Self {
        Self {
            delivery: DeliverySemantics::ExactlyOnce,
            keyed: true,
            ..Self::once(stage, status)
        }
    }

    fn history(&self) -> History {
        let began = Instant::now();
        let heard = began + Duration::from_secs(1);
        let answer = Answer {
            multicast: "m".to_owned(),
            heard,
            totals: Some(Totals::of(std::slice::from_ref(&self.told))),
            told: vec![self.told.clone()],
        };
        let mut tap = Tap::default();
        if self.tapped {
            let place = ("m".to_owned(), WHO.to_owned());
            tap.seen.insert(place.clone());
            tap.taken.insert(place);
        }
        let call = Call {
            number: 7,
            delivery: self.delivery,
            keyed: self.keyed,
            answers: vec![answer],
        };
        History {
            calls: vec![call],
            diaries: [(WHO.to_owned(), self.diary(began, heard + Duration::from_secs(1)))].into(),
            tap,
        }
    }

    fn diary(&self, before: Instant, after: Instant) -> Diary {
        let entry = |(multicast, attempt, acked): &(&str, u32, Option<bool>)| Entry {
            number: 7,
            multicast: (*multicast).to_owned(),
            attempt: *attempt,
            acked: acked.map(|early| if early { before } else { after }),
        };
        Diary {
            manner: self.manner,
            entries: self.came.iter().map(entry).collect(),
            suppressed: 0,
            gaps: self.gap.map(|apart| after + apart).into_iter().collect(),
        }
    }

    fn wrongs(&self) -> Vec<Wrong> {
        let (_, findings) = check(&self.history());
        findings.iter().map(|finding| finding.wrong).collect()
    }
}

#[test]
fn what_is_true_is_not_found_wrong() {
    for (stage, status) in [
        (Stage::Accepted, Status::Delivered),
        (Stage::Handed, Status::Delivered),
        (Stage::Acked, Status::Delivered),
        (Stage::Resolved, Status::Timeout),
    ] {
        assert_eq!(Run::once(stage, status).wrongs(), []);
    }
    for (stage, status) in [
        (Stage::Stored, Status::Pending),
        (Stage::Handed, Status::Pending),
        (Stage::Acked, Status::Delivered),
        (Stage::Resolved, Status::Timeout),
    ] {
        assert_eq!(Run::stored(stage, status).wrongs(), []);
    }
    let again = Run {
        manner: Manner::Raw,
        came: vec![("m", 1, None), ("m", 2, Some(true)), ("m", 3, Some(false))],
        ..Run::stored(Stage::Acked, Status::Delivered)
    };
    assert_eq!(again.wrongs(), [], "what comes again and says so is no duplicate");
}

#[test]
fn a_false_accepted_is_found() {
    let run = Run {
        tapped: false,
        came: Vec::new(),
        ..Run::once(Stage::Accepted, Status::Delivered)
    };
    assert_eq!(run.wrongs(), [Wrong::FalseAccepted]);
}

#[test]
fn a_false_stored_is_found() {
    let run = Run {
        tapped: false,
        came: Vec::new(),
        ..Run::stored(Stage::Stored, Status::Pending)
    };
    assert_eq!(run.wrongs(), [Wrong::FalseStored, Wrong::AcknowledgedAndLost]);
}

#[test]
fn a_false_handed_is_found() {
    let run = Run {
        came: Vec::new(),
        ..Run::once(Stage::Handed, Status::Delivered)
    };
    assert_eq!(run.wrongs(), [Wrong::FalseHanded]);
    let told_of = |gap| Run {
        gap: Some(gap),
        ..run.clone()
    };
    assert_eq!(
        told_of(Duration::ZERO).wrongs(),
        [],
        "it may be lost with its session"
    );
    let later = told_of(Duration::from_secs(60));
    assert_eq!(later.wrongs(), [Wrong::FalseHanded], "but not with the next one");
}

/// Acknowledged later is not acknowledged when it was said to be.
#[test]
fn a_false_acked_is_found() {
    for acked in [None, Some(false)] {
        let run = Run {
            came: vec![("m", 1, acked)],
            ..Run::once(Stage::Acked, Status::Delivered)
        };
        assert_eq!(run.wrongs(), [Wrong::FalseAcked]);
    }
}

#[test]
fn what_was_said_not_to_happen_and_did_is_found() {
    for reason in ["NO_SUBSCRIBER", "NOT_SENT"] {
        let run = Run {
            told: told(Stage::Resolved, Status::Failed, Some(reason)),
            ..Run::once(Stage::Resolved, Status::Failed)
        };
        assert_eq!(run.wrongs(), [Wrong::FalseFailure], "{reason}");
    }
    let run = Run {
        told: told(Stage::Resolved, Status::Failed, Some("NOT_STORED")),
        came: Vec::new(),
        ..Run::stored(Stage::Resolved, Status::Failed)
    };
    assert_eq!(run.wrongs(), [Wrong::FalseFailure]);
}

#[test]
fn a_delivery_that_is_none_is_found() {
    assert_eq!(
        Run::once(Stage::Resolved, Status::Delivered).wrongs(),
        [Wrong::FalseTotals]
    );
    let mut history = Run::once(Stage::Accepted, Status::Delivered).history();
    history.calls[0].answers[0].totals = Some(Totals::default());
    let (_, findings) = check(&history);
    assert_eq!(findings[0].wrong, Wrong::FalseTotals);
}

#[test]
fn what_was_acknowledged_and_lost_is_found() {
    let run = Run {
        came: Vec::new(),
        ..Run::stored(Stage::Stored, Status::Pending)
    };
    assert_eq!(run.wrongs(), [Wrong::AcknowledgedAndLost]);
    let history = run.history();
    assert_eq!(outstanding(&history.calls, &history.diaries), [7].into());
}

#[test]
fn what_was_promised_and_lost_is_found() {
    let run = Run {
        tapped: false,
        came: Vec::new(),
        ..Run::stored(Stage::Resolved, Status::Pending)
    };
    assert_eq!(run.wrongs(), [Wrong::Lost]);
}

#[test]
fn a_second_time_at_most_once_is_found() {
    let run = Run {
        manner: Manner::Raw,
        came: vec![("m", 1, Some(true)), ("m", 2, Some(true))],
        ..Run::once(Stage::Accepted, Status::Delivered)
    };
    assert_eq!(run.wrongs(), [Wrong::MoreThanOnce]);
}

#[test]
fn a_call_that_became_two_multicasts_is_found() {
    let run = Run {
        manner: Manner::Raw,
        came: vec![("m", 1, Some(true)), ("n", 1, Some(true))],
        ..Run::stored(Stage::Stored, Status::Pending)
    };
    assert_eq!(run.wrongs(), [Wrong::SentUnderAnotherId]);
}

#[test]
fn a_duplicate_that_does_not_say_so_is_found() {
    for acked in [None, Some(true)] {
        let run = Run {
            manner: Manner::Raw,
            came: vec![("m", 1, acked), ("m", 1, Some(true))],
            ..Run::stored(Stage::Stored, Status::Pending)
        };
        assert_eq!(run.wrongs(), [Wrong::UnflaggedDuplicate]);
        // Nor is it excused where the broker took it for something new.
        let mut history = run.history();
        history.tap.stored_twice = history.tap.taken.clone();
        let (counts, findings) = check(&history);
        assert_eq!(
            (counts.stored_twice, findings[0].wrong),
            (1, Wrong::UnflaggedDuplicate)
        );
    }
}

#[test]
fn a_duplicate_behind_suppression_is_found() {
    let run = Run {
        came: vec![("m", 1, Some(true)), ("m", 2, Some(true))],
        ..Run::stored(Stage::Stored, Status::Pending)
    };
    assert_eq!(run.wrongs(), [Wrong::RepeatedBehindSuppression]);
}
