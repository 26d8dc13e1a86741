//! The promises of the slot traits, once more, as clients of the service have them: over a proxy and runners, on one
//! combination of backends after the other.
//!
//! A case has the name that it has in the suites of `prism-slot` where it states the same promise, and is chosen by what
//! the combination's slots declare. One that does not apply is reported ignored, and a combination for which none
//! applied fails. Each case has a namespace of its own on one system for all; one that ends runners, or changes the
//! configuration, has a proxy and runners of its own on the same servers.
//!
//! # What a client cannot observe
//!
//! - Request identifiers of the slot: `register_replay_returns_the_first_result`, `put_replay_returns_the_first_result`.
//!   A client repeats a registration by its session, and an update by `if_revision`.
//! - How much a call to the slot takes: `sync_is_bounded`, `query_is_bounded`, `keys_are_listed_in_pages`,
//!   `bodies_over_the_limit_are_not_written`.
//! - What a slot knows without being asked: `is_head_is_known_and_never_wrong`. A read that had to ask looks the same.
//! - That a slot is closed: `a_slot_answers_until_it_is_closed`, `closing_ends_listeners_and_calls`, `a_closed_slot_refuses`,
//!   `a_closed_ledger_refuses`. A runner that stops serving turns its clients away before it closes anything.
//! - What becomes of a call that reaches the slot too late: `late_calls_change_nothing`, `late_stores_store_nothing`,
//!   `late_writes_write_nothing`. A deadline so short ends in the proxy, or in the runner, first.
//! - How runners speak to each other: `notes_to_nobody_are_noticed`, `notes_to_every_post_reach_all`,
//!   `a_full_post_counts_what_it_drops`. A lost receipt leaves a lower stage, which is no error.
//! - A search that goes on in another epoch: `query_stays_in_its_epoch`. It needs a store that loses its history.
//! - Other owners: `another_holder_inherits_nothing`, `each_inbox_has_its_own_holder`. Nobody is authenticated, so everybody is the same owner.
//! - Versions of entries: `writes_keep_to_what_they_expect`; and what makes room where there is none,
//!   `entries_let_go_are_there_where_there_is_room`.
//! - That a session which was quiet for as long as messages live is forgotten: `quiet_sessions_open_again`. It opens again
//!   by itself.
//! - That a message may have been stored before: `what_may_have_been_stored_before_is_flagged`. It needs a store that
//!   forgets, as the stories of `truth` have it.
//! - What holds when something fails, which the stories of `truth` and `failures` hold the service to instead:
//!   `calls_end_in_the_dark`, `calls_end_while_the_backend_stands_still`, `lost_answers_are_given_again`,
//!   `a_batch_that_is_cut_is_told_one_by_one`, `a_feed_goes_on_or_says_that_it_cannot`,
//!   `acknowledged_records_outlive_a_restart`, `acknowledged_records_outlive_kills`,
//!   `a_lost_history_is_another_epoch`, `a_full_disk_refuses_and_loses_nothing`,
//!   `calls_end_while_the_broker_stands_still`, `lost_answers_leave_it_unknown`,
//!   `a_publish_to_many_that_is_cut_is_told_one_by_one`, `listeners_resume_after_a_restart`,
//!   `listeners_resume_after_kills`, `lost_answers_are_found_out`,
//!   `a_store_for_many_that_is_cut_is_told_one_by_one`, `a_cancellation_that_is_cut_is_told_one_by_one`,
//!   `verdicts_that_are_cut_hold_or_are_unknown`,
//!   `stored_messages_outlive_a_restart`, `stored_messages_outlive_kills`,
//!   `lost_messages_are_stored_as_new`,
//!   `what_lost_answers_said_is_read`, `acknowledged_entries_outlive_a_restart`,
//!   `acknowledged_entries_outlive_kills`, `lost_versions_are_not_given_again`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a case ends at the first surprise"
)]

mod apart;
mod combination;
mod dead;
mod finding;
mod fixture;
mod handing;
mod leases;
mod ledger;
mod messaging;
mod outliving;
mod records;
mod registering;
mod settling;
mod storing;
mod suite;
mod telling;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// How many cases of a combination run at a time, unless the command line says. They mostly wait.
const AT_A_TIME: usize = 12;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    let mut outcome = suite::check_names(&arguments);
    for combination in combination::ALL {
        let of_this = suite::run(&arguments, combination)?;
        if of_this != ExitCode::SUCCESS {
            outcome = of_this;
        }
    }
    Ok(outcome)
}
