use prism_client::{DeliveryStatus, MulticastState, Position, Reason, Stage};
use prism_core::failure::Failure;

use super::*;

struct Bench {
    run: Run,
    ledger: Ledger,
}

impl Bench {
    fn new() -> Self {
        let run = Run::random();
        Self {
            run,
            ledger: Ledger::new(run),
        }
    }

    /// An answer with these targets, and so many more that are counted only.
    fn answer(&self, targets: &[(u32, Status)], left_out: u64) -> Multicast {
        let count = |status| targets.iter().filter(|(_, is)| *is == status).count() as u64;
        Multicast {
            target_count: targets.len() as u64 + left_out,
            delivered_count: count(Status::Delivered) + left_out,
            failed_count: count(Status::Failed),
            pending_count: count(Status::Pending),
            timeout_count: count(Status::Timeout),
            statuses: targets
                .iter()
                .map(|&(number, status)| DeliveryStatus {
                    identity: self.run.name(number),
                    status,
                    stage: Stage::Accepted,
                    reason: (status != Status::Delivered).then(|| "NO_SUBSCRIBER".to_owned()),
                    error: None,
                })
                .collect(),
            multicast_id: "m".to_owned(),
            position: Position {
                epoch: 1,
                revision: 1,
            },
            state: MulticastState::Sent,
            replayed: false,
            receipts_scope: None,
            receipts_until: None,
            replies: Vec::new(),
            reply_count: 0,
            next_cursor: None,
        }
    }

    fn delivered(&self, numbers: &[u32]) -> Multicast {
        let all: Vec<_> = numbers
            .iter()
            .map(|&number| (number, Status::Delivered))
            .collect();
        self.answer(&all, 0)
    }

    fn receive(&self, multicast: u32, who: u32) -> bool {
        self.ledger.receive(multicast, who, Instant::now())
    }
}

#[test]
fn receipts_count_before_and_after_the_answer() {
    let bench = Bench::new();
    let mut through = bench.ledger.begin(0);
    assert!(bench.receive(0, 1));
    bench.ledger.answer(0, &bench.delivered(&[1, 2]));
    let sums = bench.ledger.sums();
    assert_eq!((sums.targets, sums.received(), sums.false_claims), (2, 1, 1));
    assert_eq!(sums.percent(), Some(50.0));
    assert!(through.try_recv().is_err());
    assert!(bench.receive(0, 2));
    assert!(through.try_recv().is_ok());
    let sums = bench.ledger.sums();
    assert_eq!(
        (sums.missing, sums.false_claims, sums.percent()),
        (0, 0, Some(100.0))
    );
    assert_eq!(bench.ledger.at(), (2, 2));
}

#[test]
fn what_comes_twice_or_to_a_stranger_is_no_delivery() {
    let bench = Bench::new();
    drop(bench.ledger.begin(0));
    assert!(bench.receive(0, 7));
    bench.ledger.answer(0, &bench.delivered(&[1]));
    assert!(bench.receive(0, 1));
    assert!(!bench.receive(0, 1));
    assert!(bench.receive(0, 8));
    let sums = bench.ledger.sums();
    assert_eq!((sums.duplicates, sums.unlisted, sums.missing), (1, 2, 0));
}

#[test]
fn a_claim_is_false_in_either_direction() {
    let bench = Bench::new();
    drop(bench.ledger.begin(0));
    let told = [
        (1, Status::Delivered),
        (2, Status::Failed),
        (3, Status::Failed),
        (4, Status::Timeout),
    ];
    assert!(bench.receive(0, 2));
    bench.ledger.answer(0, &bench.answer(&told, 0));
    assert!(bench.receive(0, 3));
    let sums = bench.ledger.sums();
    assert_eq!((sums.false_claims, sums.false_failures, sums.missing), (1, 2, 2));
    assert_eq!(sums.reasons.get("NO_SUBSCRIBER"), Some(&3));
    let claims = Claims {
        delivered: 1,
        pending: 0,
        failed: 2,
        timeout: 1,
    };
    assert_eq!(sums.claimed, claims);
    assert_eq!(sums.incomplete, 1);
    drop(bench.ledger.begin(1));
    bench.ledger.answer(
        1,
        &bench.answer(&[(1, Status::Delivered), (2, Status::Pending)], 0),
    );
    assert_eq!(
        bench.ledger.sums().incomplete,
        1,
        "what is on its way may still arrive"
    );
}

#[test]
fn targets_that_are_counted_and_not_listed_are_waited_for_too() {
    let bench = Bench::new();
    drop(bench.ledger.begin(0));
    assert!(bench.receive(0, 10));
    bench
        .ledger
        .answer(0, &bench.answer(&[(1, Status::Delivered)], 2));
    assert_eq!(bench.ledger.sums().missing, 2);
    assert!(bench.receive(0, 11));
    assert!(bench.receive(0, 1));
    assert!(bench.receive(0, 12));
    let sums = bench.ledger.sums();
    assert_eq!((sums.missing, sums.unlisted, sums.false_claims), (0, 1, 0));
}

#[test]
fn a_target_that_is_none_of_ours_is_never_reached() {
    let bench = Bench::new();
    drop(bench.ledger.begin(0));
    let mut told = bench.delivered(&[1]);
    told.statuses[0].identity = "alice".to_owned();
    bench.ledger.answer(0, &told);
    assert_eq!(bench.ledger.sums().missing, 1);
}

#[tokio::test]
async fn a_multicast_that_failed_is_not_waited_for() {
    let bench = Bench::new();
    for number in 0..2 {
        drop(bench.ledger.begin(number));
    }
    let refused = Failure::new(Reason::Overloaded, "x").not_applied();
    bench.ledger.fail(0, &refused.into());
    bench
        .ledger
        .fail(1, &Failure::new(Reason::RunnerLost, "x").maybe_applied().into());
    bench.ledger.settle(Duration::from_secs(3_600)).await;
    assert!(bench.receive(0, 1), "it was said not to be made");
    assert!(bench.receive(1, 1));
    let sums = bench.ledger.sums();
    assert_eq!(
        (sums.unlisted, sums.unanswered, sums.unanswered_receipts),
        (1, 1, 1)
    );
    assert_eq!((sums.targets, sums.percent()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn settling_ends_with_the_last_receipt_or_with_patience() {
    let bench = Bench::new();
    drop(bench.ledger.begin(0));
    bench.ledger.answer(0, &bench.delivered(&[1]));
    let began = tokio::time::Instant::now();
    bench.ledger.settle(Duration::from_secs(5)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    let settled = bench.ledger.settle(Duration::from_secs(3_600));
    let received = async {
        tokio::task::yield_now().await;
        bench.receive(0, 1);
    };
    tokio::join!(settled, received);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

/// However long ago it failed: nobody has had it before.
#[test]
fn what_comes_of_a_failure_that_is_forgotten_is_no_duplicate() {
    let bench = Bench::new();
    let refused: Error = Failure::new(Reason::Overloaded, "x").not_applied().into();
    let lost: Error = Failure::new(Reason::RunnerLost, "x").maybe_applied().into();
    for number in 0..3 * REMEMBERED as u32 {
        drop(bench.ledger.begin(number));
        let error = if number == 1 { &refused } else { &lost };
        bench.ledger.fail(number, error);
    }
    assert!(bench.receive(0, 7) && bench.receive(1, 7) && bench.receive(2_500, 7));
    let sums = bench.ledger.sums();
    assert_eq!(
        (sums.duplicates, sums.unlisted, sums.unanswered_receipts),
        (0, 1, 2)
    );
}

#[test]
fn memory_is_bounded_by_what_is_open() {
    let bench = Bench::new();
    for number in 0..3 * REMEMBERED as u32 {
        drop(bench.ledger.begin(number));
        bench.receive(number, 1);
        bench.ledger.answer(number, &bench.delivered(&[1]));
    }
    assert!(!bench.receive(0, 1), "forgotten, and a duplicate all the same");
    assert_eq!(bench.ledger.book.lock().entries.len(), REMEMBERED);
    let sums = bench.ledger.sums();
    assert_eq!((sums.received(), sums.duplicates), (3 * REMEMBERED as u64, 1));
}
