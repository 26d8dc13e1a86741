//! What the record is and becomes.

use prism_slot::{Address, Error, Identity};
use proptest::prelude::*;

use super::*;

fn consumer(epoch: u64, session_seq: u64) -> Consumer {
    Consumer {
        address: Address {
            identity: Identity::new("a").unwrap(),
            holder: Holder([7; 16]),
        },
        epoch: Epoch(epoch),
        session_seq,
    }
}

fn entry(multicast: u128, status: Status) -> Entry {
    Entry {
        rank: 1,
        multicast: MulticastId(multicast),
        attempt: 3,
        status,
    }
}

const NOW: Timestamp = Timestamp(1_000);
const ROOM: Room = Room { max_payload: 1 << 20 };

/// Whatever a server takes, and however much there is to say.
#[test]
fn a_full_record_fits_into_a_message() {
    for max_payload in [8 << 10, 60 << 10, 1 << 20, 64 << 20] {
        let room = Room::new(max_payload);
        let mut state = State::blank(1);
        assert!(state.open(&consumer(7, 1), NOW));
        let mut verdicts = Vec::new();
        for sequence in 0..room.entries() as u64 {
            let multicast = MulticastId(u128::from(sequence));
            let out = Status::Out(NOW);
            state.entries.insert(sequence, entry(multicast.0, out));
            let reason = "x".repeat(1_000);
            verdicts.push((multicast, Verdict::Term { reason }));
        }
        assert!(state.settle(&verdicts, room, NOW).1);
        let size = state.encode().len();
        assert!(size <= max_payload, "{size} of {max_payload}");
    }
}

#[test]
fn the_latest_session_of_an_epoch_stays() {
    let mut state = State::blank(1);
    assert!(state.open(&consumer(7, 5), NOW) && state.open(&consumer(7, 5), NOW));
    assert!(!state.open(&consumer(7, 4), NOW));
    assert!(state.is_consumer(&consumer(7, 5)));
    assert!(state.open(&consumer(8, 1), NOW));
    assert!(!state.is_consumer(&consumer(7, 5)));
}

#[test]
fn a_new_session_finds_due_what_was_out_and_waits_for_what_was_delayed() {
    let mut state = State::blank(1);
    state.entries.insert(1, entry(1, Status::Out(Timestamp(9_000))));
    state
        .entries
        .insert(2, entry(2, Status::Waiting(Timestamp(9_000))));
    state.entries.insert(3, entry(3, Status::Done));
    assert!(state.open(&consumer(7, 1), NOW));
    let due: Vec<_> = state.entries.values().map(Entry::due).collect();
    assert_eq!(due, [Some(NOW), Some(Timestamp(9_000)), None]);
    assert_eq!((state.next_due(NOW), state.out(NOW)), (Some(Duration::ZERO), 0));
}

#[test]
fn a_verdict_holds_once() {
    let mut state = State::blank(1);
    for multicast in 1..=3 {
        let out = Status::Out(Timestamp(9_000));
        state.entries.insert(multicast as u64, entry(multicast, out));
    }
    let reason = "é".repeat(MAX_REASON);
    let verdicts = [
        (MulticastId(1), Verdict::Ack),
        (
            MulticastId(2),
            Verdict::Nack {
                delay: Duration::from_secs(1),
            },
        ),
        (MulticastId(3), Verdict::Term { reason }),
        (MulticastId(4), Verdict::Ack),
        (MulticastId(1), Verdict::Ack),
    ];
    let (settled, changed) = state.settle(&verdicts, ROOM, NOW);
    let (done, gone) = (Settled::Done, Settled::Gone);
    assert_eq!((settled, changed), (vec![done, done, done, gone, gone], true));
    assert_eq!(state.entries[&2].status, Status::Waiting(Timestamp(2_000)));
    let Status::Dying(DeadReason::Terminated(reason)) = &state.entries[&3].status else {
        panic!("{:?}", state.entries[&3]);
    };
    assert_eq!(reason.len(), MAX_REASON);
    assert_eq!(state.intents().len(), 2);
    assert_eq!(state.settle(&verdicts[..1], ROOM, NOW), (vec![gone], false));
    state.drop_intents();
    assert_eq!(state.entries.len(), 1);
}

#[test]
fn only_what_is_not_out_and_not_gone_is_cancelled() {
    let mut state = State::blank(1);
    state.seen = [0, 10, 0];
    state.entries.insert(1, entry(1, Status::Out(Timestamp(9_000))));
    state.entries.insert(2, entry(2, Status::Out(Timestamp(500))));
    state.entries.insert(3, entry(3, Status::Done));
    let mut cancel = |sequence: u64| state.cancel(sequence, 1, MulticastId(u128::from(sequence)), NOW);
    assert_eq!(
        [1, 2, 3, 4, 11, 11].map(&mut cancel),
        [false, true, false, false, true, false]
    );
    assert_eq!(state.intents().len(), 3);
}

#[test]
fn a_newer_record_is_refused_and_a_damaged_one_noticed() {
    let mut bytes = State::blank(1).encode().to_vec();
    bytes[0] = 2;
    let newer = State::decode(bytes.clone().into());
    assert!(
        matches!(&newer, Err(Error::Unreadable { message, .. }) if message.contains("upgrade")),
        "{newer:?}"
    );
    bytes[0] = 1;
    bytes.pop();
    assert!(State::decode(bytes.into()).is_err());
    assert!(State::decode(bytes::Bytes::new()).is_err());
}

fn statuses() -> impl Strategy<Value = Status> {
    prop_oneof![
        any::<i64>().prop_map(|until| Status::Out(Timestamp(until))),
        any::<i64>().prop_map(|until| Status::Waiting(Timestamp(until))),
        Just(Status::Done),
        Just(Status::Dying(DeadReason::MaxDeliver)),
        Just(Status::Dying(DeadReason::OtherHolder)),
        "\\PC{0,20}".prop_map(|reason| Status::Dying(DeadReason::Terminated(reason))),
    ]
}

fn entries() -> impl Strategy<Value = Entry> {
    (0..3_usize, any::<u128>(), any::<u32>(), statuses()).prop_map(|(rank, multicast, attempt, status)| {
        Entry {
            rank,
            multicast: MulticastId(multicast),
            attempt,
            status,
        }
    })
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(
        generation: u64,
        session in proptest::option::of((any::<[u8; 16]>(), any::<u64>(), any::<u64>())),
        seen: [u64; 3],
        entries in proptest::collection::btree_map(any::<u64>(), entries(), 0..8),
    ) {
        let session = session.map(|(holder, epoch, seq)| Session { holder: Holder(holder), epoch: Epoch(epoch), seq });
        let state = State { generation, session, seen, entries, ..State::default() };
        let bytes = state.encode();
        prop_assert_eq!(State::decode(bytes.clone()), Ok(state));
        for cut in 1..bytes.len() {
            // Whatever it is taken for, nothing panics.
            let _ = State::decode(bytes.slice(..cut));
        }
    }
}

/// Not before its session was silent for long, nor before what it speaks of.
#[test]
fn a_record_ends_after_all_that_it_is_for() {
    let idle = Duration::from_secs(10);
    let (quiet, message) = (Timestamp(21_000), Timestamp(60_000));
    let mut state = State::blank(1);
    assert!(state.is_ending(idle, NOW));
    assert_eq!(state.ends(idle, NOW), quiet);
    state.outlives(message);
    assert_eq!(state.ends(idle, NOW), quiet, "it speaks of nothing any more");
    state.entries.insert(7, entry(7, Status::Done));
    assert_eq!(state.ends(idle, NOW), message);
    state.outlives(Timestamp(5_000));
    assert_eq!(state.ends(idle, NOW), message, "of another one, too");
    state.until = quiet;
    for (now, is_ending) in [(1_000, false), (11_000, false), (11_001, true), (30_000, true)] {
        assert_eq!(state.is_ending(idle, Timestamp(now)), is_ending, "{now}");
    }
    // Of the version before, which did not say when.
    state.until = NEVER;
    assert_eq!(state.ends(idle, NOW), NEVER);
    assert!(!state.is_ending(idle, NOW));
    state.entries.clear();
    assert!(state.is_ending(idle, NOW));
}
