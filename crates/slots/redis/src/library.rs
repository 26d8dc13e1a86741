//! The functions that run inside Redis.

use std::sync::LazyLock;

use fred::bytes_utils::Str;
use sha2::{Digest, Sha256};

/// Redis wants a library to be one text.
const SOURCE: &str = concat!(
    include_str!("functions/prelude.lua"),
    "\n",
    include_str!("functions/head.lua"),
    "\n",
    include_str!("functions/feed.lua"),
    "\n",
    include_str!("functions/leases.lua"),
    "\n",
    include_str!("functions/records.lua"),
    "\n",
    include_str!("functions/operations.lua"),
    "\n",
    include_str!("functions/filters.lua"),
    "\n",
    include_str!("functions/query.lua"),
    "\n",
    include_str!("functions/calls.lua"),
);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// Writes of any kind.
    Write,
    /// Writes that go on when Redis is out of memory.
    Relieve,
    Open,
    Get,
    Leases,
    Sync,
    Scan,
    Query,
}

const NAMES: [&str; 8] = [
    "write", "relieve", "open", "get", "leases", "sync", "scan", "query",
];

impl Function {
    /// Its name inside Redis.
    pub(crate) fn name(self) -> Str {
        LIBRARY.functions[self as usize].clone()
    }
}

/// The library under a name that holds the hash of its text. Function names are global in Redis, so
/// each holds it too: runners of different versions bring different functions, and each calls its own.
pub(crate) struct Library {
    /// What to load.
    pub(crate) text: String,
    functions: [Str; 8],
}

pub(crate) static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let digest = Sha256::digest(SOURCE.as_bytes());
    let name = format!("prism_registry_{}", hex::encode(&digest[..8]));
    Library {
        text: SOURCE.replace("@LIBRARY@", &name),
        functions: NAMES.map(|function| Str::from(format!("{name}_{function}"))),
    }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_registered_under_its_name() {
        let all = [
            Function::Write,
            Function::Relieve,
            Function::Open,
            Function::Get,
            Function::Leases,
            Function::Sync,
            Function::Scan,
            Function::Query,
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
