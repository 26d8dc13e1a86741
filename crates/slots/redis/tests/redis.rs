//! What the conformance suite cannot know: how the slot behaves when Redis, or the way to it, does not.

#[cfg(test)]
mod redis {
    mod clock;
    mod faults;
    mod feed;
    mod groups;
    mod history;
    mod inbox;
    mod ledger;
    mod oracle;
    mod outages;
    mod query;
    mod setup;
    mod support;
    mod topology;
}
