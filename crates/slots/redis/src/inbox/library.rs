//! The functions of the inboxes.

use std::sync::LazyLock;

use fred::bytes_utils::Str;

use crate::library::Library;

/// Redis wants a library to be one text.
const SOURCE: &str = concat!(
    include_str!("../functions/inbox/prelude.lua"),
    "\n",
    include_str!("../functions/inbox/head.lua"),
    "\n",
    include_str!("../functions/inbox/books.lua"),
    "\n",
    include_str!("../functions/inbox/entries.lua"),
    "\n",
    include_str!("../functions/inbox/dead.lua"),
    "\n",
    include_str!("../functions/inbox/ends.lua"),
    "\n",
    include_str!("../functions/inbox/store.lua"),
    "\n",
    include_str!("../functions/inbox/session.lua"),
    "\n",
    include_str!("../functions/inbox/fetch.lua"),
    "\n",
    include_str!("../functions/inbox/settle.lua"),
    "\n",
    include_str!("../functions/inbox/letters.lua"),
    "\n",
    include_str!("../functions/inbox/calls.lua"),
);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Store,
    Redrive,
    Open,
    Fetch,
    Settle,
    Cancel,
    Discard,
    Depth,
    Letters,
    Sweep,
    Check,
}

const NAMES: [&str; 11] = [
    "store", "redrive", "open", "fetch", "settle", "cancel", "discard", "depth", "letters", "sweep", "check",
];

impl Function {
    /// Its name inside Redis.
    pub(super) fn name(self) -> Str {
        LIBRARY.function(self as usize)
    }
}

/// A library of its own: whoever has a registry on this server does not load it, nor the other way round.
pub(super) static LIBRARY: LazyLock<Library> = LazyLock::new(|| Library::new("inbox", SOURCE, &NAMES));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_registered_under_its_name() {
        let all = [
            Function::Store,
            Function::Redrive,
            Function::Open,
            Function::Fetch,
            Function::Settle,
            Function::Cancel,
            Function::Discard,
            Function::Depth,
            Function::Letters,
            Function::Sweep,
            Function::Check,
        ];
        for (function, expected) in all.into_iter().zip(NAMES) {
            let name = function.name();
            assert!(name.ends_with(expected), "{name}");
            assert!(
                LIBRARY.text.contains(&format!("'{name}'")),
                "{name} is not in the text"
            );
        }
        assert!(!LIBRARY.text.contains("@LIBRARY@"));
    }
}
