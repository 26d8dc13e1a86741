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
        LIBRARY.function(self as usize)
    }
}

/// The library under a name that holds the hash of its text. Function names are global in Redis, so
/// each holds it too: runners of different versions bring different functions, and each calls its own.
#[derive(Debug)]
pub(crate) struct Library {
    /// What to load.
    pub(crate) text: String,
    functions: Vec<Str>,
}

impl Library {
    /// `kind` says whose functions they are.
    pub(crate) fn new(kind: &str, source: &str, functions: &[&str]) -> Self {
        let digest = Sha256::digest(source.as_bytes());
        let name = format!("prism_{kind}_{}", hex::encode(&digest[..8]));
        let full_name = |function: &&str| Str::from(format!("{name}_{function}"));
        Self {
            text: source.replace("@LIBRARY@", &name),
            functions: functions.iter().map(full_name).collect(),
        }
    }

    /// The name inside Redis of the function that was given at this place.
    pub(crate) fn function(&self, place: usize) -> Str {
        self.functions[place].clone()
    }
}

/// The registry's.
pub(crate) static LIBRARY: LazyLock<Library> = LazyLock::new(|| Library::new("registry", SOURCE, &NAMES));

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
