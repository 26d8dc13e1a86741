//! What can be done to inboxes.

use std::time::Duration;

use prism_slot::{InboxLimits, Overflow, Priority, Verdict};
use proptest::prelude::*;

/// How many milliseconds pass at a time.
pub(super) const TICK: u64 = 1_200;
/// Half a tick more than some whole ones: the moments that real calls take do not matter.
const TIMES: [u64; 3] = [600, 1_800, 3_000];
const LONG: u64 = 3_600_600;
/// How many dead letters there are at most. Not changed on the way: memory lets go of too many with the next one only.
pub(super) const DEAD: usize = 3;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Pass {
        ticks: u64,
    },
    Store(Order),
    Open(Session),
    Fetch {
        session: Session,
        how: How,
    },
    Settle {
        session: Session,
        verdicts: Vec<(u8, Verdict)>,
    },
    Cancel {
        what: u8,
        who: Vec<u8>,
    },
    Discard {
        who: u8,
        holder: u8,
    },
    Depth {
        who: Option<u8>,
    },
    Dead {
        after: usize,
        whose: Option<u8>,
        limit: usize,
    },
    Redrive {
        which: Vec<usize>,
        wrong: bool,
        order: Order,
    },
    Configure(Limits),
}

#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) who: Vec<u8>,
    pub(super) holder: u8,
    pub(super) what: u8,
    /// Says the same to somebody else.
    pub(super) variant: bool,
    pub(super) priority: Priority,
    pub(super) ttl: Duration,
}

/// Of an inbox; `None` is the one that opened it last.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) who: u8,
    pub(super) other: Option<(u8, u64, u64)>,
}

#[derive(Debug, Clone)]
pub(super) struct How {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) ack_timeout: Duration,
    pub(super) max_deliver: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) messages: u32,
    pub(super) drop_oldest: bool,
    pub(super) dedupe: Duration,
}

pub(super) fn limits(redrives: bool) -> InboxLimits {
    InboxLimits {
        max_messages: 3,
        overflow: Overflow::Reject,
        dedupe: Duration::from_millis(if redrives { LONG } else { TIMES[1] }),
        max_dead_letters: DEAD,
        ..InboxLimits::default()
    }
}

fn who() -> impl Strategy<Value = u8> + Clone {
    0..4_u8
}

fn what() -> impl Strategy<Value = u8> + Clone {
    0..8_u8
}

fn time() -> impl Strategy<Value = Duration> + Clone {
    prop::sample::select(TIMES.to_vec()).prop_map(Duration::from_millis)
}

fn order() -> impl Strategy<Value = Order> {
    let priority = prop::sample::select(vec![
        Priority::Low,
        Priority::Normal,
        Priority::Normal,
        Priority::High,
    ]);
    let ttl = prop_oneof![time(), Just(Duration::from_millis(LONG))];
    (
        prop::collection::vec(who(), 1..6),
        prop::sample::select(vec![0, 0, 0, 1]),
        what(),
        prop::bool::weighted(0.2),
        priority,
        ttl,
    )
        .prop_map(|(who, holder, what, variant, priority, ttl)| Order {
            who,
            holder,
            what,
            variant,
            priority,
            ttl,
        })
}

fn session() -> impl Strategy<Value = Session> {
    let other = prop::option::weighted(0.1, (0..2_u8, 1..3_u64, 1..4_u64));
    (who(), other).prop_map(|(who, other)| Session { who, other })
}

fn new_session() -> impl Strategy<Value = Session> {
    let other = (prop::sample::select(vec![0, 0, 0, 1_u8]), 1..3_u64, 1..4_u64);
    (who(), other).prop_map(|(who, other)| Session {
        who,
        other: Some(other),
    })
}

fn how() -> impl Strategy<Value = How> {
    let bytes = prop::sample::select(vec![1_usize, 25, 1 << 20, 1 << 20]);
    (0..5_usize, bytes, time(), 1..4_u32).prop_map(|(messages, bytes, ack_timeout, max_deliver)| How {
        messages,
        bytes,
        ack_timeout,
        max_deliver,
    })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let delay = prop_oneof![Just(Duration::ZERO), time()];
    prop_oneof![
        3 => Just(Verdict::Ack),
        2 => delay.prop_map(|delay| Verdict::Nack { delay }),
        2 => Just(Verdict::Term { reason: "no\0 \u{fffd}".to_owned() }),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let limits = (1..5_u32, any::<bool>(), time());
    let limits = limits.prop_map(|(messages, drop_oldest, dedupe)| Limits {
        messages,
        drop_oldest,
        dedupe,
    });
    prop_oneof![
        3 => (1..4_u64).prop_map(|ticks| Step::Pass { ticks }),
        12 => order().prop_map(Step::Store),
        4 => new_session().prop_map(Step::Open),
        10 => (session(), how()).prop_map(|(session, how)| Step::Fetch { session, how }),
        8 => (session(), prop::collection::vec((what(), verdict()), 0..5))
            .prop_map(|(session, verdicts)| Step::Settle { session, verdicts }),
        2 => (what(), prop::collection::vec(who(), 1..4)).prop_map(|(what, who)| Step::Cancel { what, who }),
        1 => (who(), 0..2_u8).prop_map(|(who, holder)| Step::Discard { who, holder }),
        2 => prop::option::of(who()).prop_map(|who| Step::Depth { who }),
        2 => (0..6_usize, prop::option::of(who()), 0..4_usize)
            .prop_map(|(after, whose, limit)| Step::Dead { after, whose, limit }),
        3 => (prop::collection::vec(0..6_usize, 1..4), prop::bool::weighted(0.1), order())
            .prop_map(|(which, wrong, order)| Step::Redrive { which, wrong, order }),
        1 => limits.prop_map(Step::Configure),
    ]
}
