//! What is handed out of what was read.

use std::{sync::Arc, time::Duration};

use prism_slot::{Message, MulticastId};

use super::*;

const NOW: Timestamp = Timestamp(1_000);
const HOLDER: Holder = Holder([1; 16]);

fn found(sequence: u64, rank: usize, size: usize) -> Found {
    Found {
        sequence,
        rank,
        expires_at: Timestamp(2),
        letter: Some(Letter {
            holder: HOLDER,
            stored_at: Timestamp(1),
            message: Arc::new(Message::new(MulticastId(u128::from(sequence)), vec![0; size])),
        }),
    }
}

fn fresh(found: Vec<Found>) -> Read {
    Read {
        fresh: Some(found),
        ..Read::default()
    }
}

fn fetch(max_messages: usize) -> Fetch {
    Fetch {
        max_messages,
        max_bytes: 1_000,
        ack_timeout: Duration::from_secs(1),
        max_deliver: 3,
    }
}

/// Which messages were handed out, and whether there is more.
fn handed_out(state: &mut State, fetch: Fetch, read: Vec<Read>) -> (Vec<u64>, bool) {
    let mut plan = Plan::new(state, HOLDER, fetch, NOW);
    plan.hand_out(read);
    let deliveries = plan.fetched.deliveries.iter();
    let numbers = deliveries.map(|delivery| u64::try_from(delivery.message.multicast.0).unwrap());
    (numbers.collect(), plan.fetched.more)
}

fn entry(sequence: u64, attempt: u32, status: Status) -> Entry {
    Entry {
        rank: 1,
        multicast: MulticastId(u128::from(sequence)),
        attempt,
        status,
    }
}

#[test]
fn the_urgent_come_first_and_nothing_passes_what_waits() {
    let read = || {
        vec![
            fresh(vec![found(9, 0, 1)]),
            fresh(vec![found(3, 1, 1), found(4, 1, 1)]),
            fresh(vec![found(1, 2, 1)]),
        ]
    };
    let mut state = State::blank(1);
    assert_eq!(
        handed_out(&mut state, fetch(10), read()),
        (vec![9, 3, 4, 1], false)
    );
    assert_eq!(state.seen, [9, 4, 1]);
    let mut state = State::blank(1);
    assert_eq!(handed_out(&mut state, fetch(2), read()), (vec![9, 3], true));
    assert_eq!(state.seen, [9, 3, 0]);
    // Not all that is urgent has been read.
    let mut state = State::blank(1);
    let mut read = read();
    read[0].more = true;
    assert_eq!(handed_out(&mut state, fetch(10), read), (vec![9], true));
}

#[test]
fn what_was_taken_back_is_passed_over_also_where_it_is_still_found() {
    let mut state = State::blank(1);
    state.entries.insert(3, entry(3, 0, Status::Done));
    state.session = Some(super::super::state::Session {
        holder: HOLDER,
        epoch: prism_slot::Epoch(1),
        seq: 1,
    });
    state.drop_intents();
    let read = vec![Read::default(), fresh(vec![found(3, 1, 1), found(5, 1, 1)])];
    assert_eq!(handed_out(&mut state, fetch(10), read), (vec![5], false));
    state.drop_intents();
    assert!(!state.entries.contains_key(&3) && state.seen[1] == 5);
    // And where it is not found any more, it is not waited for.
    state.entries.insert(8, entry(8, 0, Status::Done));
    // Not before it was looked for what comes first.
    handed_out(&mut state, fetch(10), vec![Read::default(), Read::default()]);
    state.drop_intents();
    assert!(state.entries.contains_key(&8) && state.seen[1] == 5);
    handed_out(&mut state, fetch(10), vec![fresh(vec![]), fresh(vec![])]);
    state.drop_intents();
    assert!(!state.entries.contains_key(&8) && state.seen[1] == 8);
}

#[test]
fn what_is_due_again_counts_on_or_dies_or_is_forgotten() {
    let mut state = State::blank(1);
    state.seen[1] = 4;
    for (sequence, attempt) in [(1, 2), (2, 3), (3, 1), (4, 1)] {
        state
            .entries
            .insert(sequence, entry(sequence, attempt, Status::Waiting(NOW)));
    }
    let mut foreign = found(4, 1, 1);
    foreign.letter.as_mut().unwrap().holder = Holder([2; 16]);
    let due = vec![
        (1, Some(found(1, 1, 1))),
        (2, Some(found(2, 1, 1))),
        (3, None),
        (4, Some(foreign)),
    ];
    let read = Read {
        due,
        ..Read::default()
    };
    let mut plan = Plan::new(&mut state, HOLDER, fetch(10), NOW);
    plan.hand_out(vec![Read::default(), read]);
    let reasons: Vec<_> = plan
        .fetched
        .dead
        .iter()
        .map(|(_, reason)| reason.clone())
        .collect();
    assert_eq!(reasons, [DeadReason::MaxDeliver, DeadReason::OtherHolder]);
    assert_eq!(
        (plan.fetched.deliveries.len(), plan.fetched.deliveries[0].attempt),
        (1, 3)
    );
    assert_eq!(plan.fetched.next_due, Some(Duration::from_secs(1)));
    assert_eq!(plan.dying.len(), 2);
    assert_eq!(state.entries.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
}

#[test]
fn bytes_bound_what_is_handed_out_but_the_first() {
    let small = Fetch {
        max_bytes: 10,
        ..fetch(10)
    };
    let read = || vec![fresh(vec![found(1, 0, 11), found(2, 0, 1)])];
    let mut state = State::blank(1);
    assert_eq!(handed_out(&mut state, small, read()), (vec![1], true));
    let mut state = State::blank(1);
    let none = Fetch {
        max_messages: 0,
        ..small
    };
    assert_eq!(handed_out(&mut state, none, read()), (vec![], true));
    assert_eq!(state, State::blank(1));
}

#[test]
fn what_cannot_be_read_is_removed() {
    let mut state = State::blank(1);
    let mut unreadable = found(1, 1, 1);
    unreadable.letter = None;
    let read = vec![Read::default(), fresh(vec![unreadable, found(2, 1, 1)])];
    assert_eq!(handed_out(&mut state, fetch(10), read), (vec![2], false));
    assert_eq!(state.intents().len(), 1);
}
