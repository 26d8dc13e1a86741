//! Who shares a call with whom.

use prism_slot::{Epoch, Identity, Renew};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

type Answers = oneshot::Receiver<Vec<Result<Answer>>>;

fn item(name: &str) -> Item {
    Item::renew(&Renew {
        identity: Identity::new(name).unwrap(),
        generation: None,
    })
}

/// So many writes until `deadline`.
fn submission(count: usize, epoch: Option<Epoch>, deadline: Instant) -> (Submission, Answers) {
    let (reply, answers) = oneshot::channel();
    let submission = Submission {
        items: vec![item("a"); count],
        call: Call { epoch, deadline },
        ticket: Arc::default(),
        reply,
    };
    (submission, answers)
}

fn queue(submissions: Vec<Submission>) -> State {
    State {
        queued_writes: submissions.iter().map(|submission| submission.items.len()).sum(),
        queue: submissions.into(),
        ..State::default()
    }
}

fn sizes(group: &[Submission]) -> Vec<usize> {
    group.iter().map(|submission| submission.items.len()).collect()
}

#[test]
fn a_call_carries_as_many_as_it_may_and_the_first_always() {
    let now = Instant::now();
    let (submissions, _answers): (Vec<_>, Vec<_>) = [5, 90, 60, 30, 3]
        .map(|count| submission(count, None, now + SECOND))
        .into_iter()
        .unzip();
    let mut state = queue(submissions);
    assert_eq!(sizes(&take_group(&mut state, 128, now)), [5, 90, 30, 3]);
    assert_eq!((state.queue.len(), state.queued_writes), (1, 60));
    assert_eq!(
        sizes(&take_group(&mut state, 16, now)),
        [60],
        "more than a call carries"
    );
    assert_eq!(state.queued_writes, 0);
}

#[test]
fn those_of_another_epoch_or_with_far_less_time_take_another_call() {
    let now = Instant::now();
    let (epoch, other) = (Some(Epoch(1)), Some(Epoch(2)));
    let (submissions, _answers): (Vec<_>, Vec<_>) = [
        submission(1, epoch, now + 8 * SECOND),
        submission(2, other, now + 8 * SECOND),
        submission(3, epoch, now + 9 * SECOND),
        submission(4, epoch, now + SECOND),
        submission(5, None, now + 8 * SECOND),
    ]
    .into_iter()
    .unzip();
    let mut state = queue(submissions);
    let group = take_group(&mut state, 128, now);
    assert_eq!(sizes(&group), [1, 3]);
    let call = shared_call(&group).unwrap();
    assert_eq!(
        (call.epoch, call.deadline),
        (epoch, now + 8 * SECOND),
        "the first of their deadlines"
    );
    for alone in [2, 4, 5] {
        assert_eq!(sizes(&take_group(&mut state, 128, now)), [alone]);
    }
}

#[tokio::test]
async fn the_late_are_told_and_the_gone_are_dropped() {
    let now = Instant::now();
    let (late, its_answers) = submission(2, None, now);
    let (gone, its_caller) = submission(3, None, now + SECOND);
    drop(its_caller);
    let (abandoned, _waits) = submission(4, None, now + SECOND);
    assert!(abandoned.ticket.claim(ABANDONED));
    let (well, _answers) = submission(5, None, now + SECOND);
    let mut state = queue(vec![late, gone, abandoned, well]);
    assert_eq!(sizes(&take_group(&mut state, 128, now)), [5]);
    assert_eq!((state.queue.len(), state.queued_writes), (0, 0));
    let told: Vec<Error> = its_answers
        .await
        .unwrap()
        .into_iter()
        .map(Result::unwrap_err)
        .collect();
    assert_eq!(told, [timeout(Applied::No), timeout(Applied::No)]);
}
