//! What holds for every order of commands, events, answers, losses and cuts.

mod both_ends;
mod machine;
mod peer;

use super::Mark;
use crate::id::Digest;

/// Content `3` is one that every plugin of these tests refuses.
const BAD: u8 = 3;

fn mark(version: i64, content: u8) -> Mark {
    Mark {
        version,
        digest: digest(content),
    }
}

fn digest(content: u8) -> Digest {
    Digest::from_wire(&content.to_string()).unwrap()
}

fn namespace(index: u8) -> String {
    format!("namespace-{index}")
}
