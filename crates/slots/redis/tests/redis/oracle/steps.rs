//! What can be done to a registry.

use proptest::prelude::*;

/// How many milliseconds pass at a time: no sum of them comes near the longest step of the lease clock, two
/// seconds.
pub(super) const TICK: u64 = 1_200;
/// How many lengths of leases there are to choose from.
pub(super) const TTLS: usize = 5;

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Time goes by: of none of the calls around it, but of the leases.
    Pass {
        millis: u64,
    },
    Register(Vec<Registration>),
    Put(Rewrite),
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

#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub(super) who: u8,
    pub(super) what: u8,
    pub(super) ttl: u8,
    pub(super) replace: bool,
    pub(super) session: u8,
    pub(super) principal: bool,
    pub(super) most: u64,
    pub(super) again: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Rewrite {
    pub(super) who: u8,
    pub(super) what: u8,
    pub(super) revision: Guess,
    pub(super) generation: Guess,
    pub(super) again: bool,
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

fn registration() -> impl Strategy<Value = Registration> {
    let owner = (0..3_u8, any::<bool>());
    let lease = 0..TTLS as u8;
    (0..6_u8, 0..3_u8, lease, any::<bool>(), owner, 2..8_u64, 0..6_u8).prop_map(
        |(who, what, ttl, replace, (session, principal), most, again)| Registration {
            who,
            what,
            ttl,
            replace,
            session,
            principal,
            most,
            again: again == 0,
        },
    )
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let who = 0..6_u8;
    prop_oneof![
        8 => prop::collection::vec(registration(), 1..4).prop_map(Step::Register),
        4 => (who.clone(), 0..3_u8, guess(), guess(), 0..6_u8).prop_map(|(who, what, revision, generation, again)| {
            Step::Put(Rewrite { who, what, revision, generation, again: again == 0 })
        }),
        3 => (prop::collection::vec(who.clone(), 1..5), guess()).prop_map(|(who, generation)| Step::Renew { who, generation }),
        3 => (who.clone(), guess()).prop_map(|(who, generation)| Step::Unregister { who, generation }),
        2 => who.clone().prop_map(|who| Step::Get { who }),
        1 => Just(Step::Leases),
        1 => (who, guess()).prop_map(|(who, generation)| Step::Claim { who, generation }),
        2 => (0..40_u64, 0..8_usize).prop_map(|(from, limit)| Step::Sync { from, limit }),
        1 => Just(Step::Scan),
        // The longer one is an interruption.
        4 => prop_oneof![3 => Just(TICK), 1 => Just(5_000)].prop_map(|millis| Step::Pass { millis }),
    ]
}
