//! What can be done to a registry.

use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Time goes by: of none of the calls around it, but of the leases.
    Pass {
        millis: u64,
    },
    Register {
        who: u8,
        what: u8,
        ttl: u8,
        replace: bool,
        session: u8,
        principal: bool,
        most: u64,
        again: bool,
    },
    Put {
        who: u8,
        what: u8,
        revision: Guess,
        generation: Guess,
        again: bool,
    },
    Renew {
        who: Vec<u8>,
        generation: Guess,
    },
    Unregister {
        who: u8,
        generation: Guess,
    },
    Get {
        who: u8,
    },
    Leases,
    Claim {
        who: u8,
        generation: Guess,
    },
    Sync {
        from: u64,
        limit: usize,
    },
    Scan,
}

/// What a caller believes of the record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Guess {
    None,
    Right,
    Wrong,
}

fn guess() -> impl Strategy<Value = Guess> {
    prop_oneof![2 => Just(Guess::None), 5 => Just(Guess::Right), 2 => Just(Guess::Wrong)]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let who = 0..6_u8;
    let register = (
        who.clone(),
        0..3_u8,
        0..4_u8,
        any::<bool>(),
        0..3_u8,
        any::<bool>(),
        2..8_u64,
        0..6_u8,
    );
    prop_oneof![
        8 => register.prop_map(|(who, what, ttl, replace, session, principal, most, again)| Step::Register {
            who, what, ttl, replace, session, principal, most, again: again == 0,
        }),
        4 => (who.clone(), 0..3_u8, guess(), guess(), 0..6_u8).prop_map(|(who, what, revision, generation, again)| {
            Step::Put { who, what, revision, generation, again: again == 0 }
        }),
        3 => (prop::collection::vec(who.clone(), 1..5), guess()).prop_map(|(who, generation)| Step::Renew { who, generation }),
        3 => (who.clone(), guess()).prop_map(|(who, generation)| Step::Unregister { who, generation }),
        2 => who.clone().prop_map(|who| Step::Get { who }),
        1 => Just(Step::Leases),
        1 => (who, guess()).prop_map(|(who, generation)| Step::Claim { who, generation }),
        2 => (0..40_u64, 0..8_usize).prop_map(|(from, limit)| Step::Sync { from, limit }),
        1 => Just(Step::Scan),
        // The longer one is an interruption.
        4 => prop_oneof![3 => Just(800), 1 => Just(5_000)].prop_map(|millis| Step::Pass { millis }),
    ]
}
