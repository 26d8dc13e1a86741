//! The functions as they are called, for measuring what the calls themselves cost.

use bytes::Bytes;
use prism_slot::Register;

use crate::{
    codec::{Common, Item},
    config::Config,
    keys::Keys,
    library::{Function, LIBRARY},
};

/// One `FCALL`.
#[derive(Debug, Clone)]
pub struct RawCall {
    /// The name of the function.
    pub function: String,
    /// The keys that it is given.
    pub keys: Vec<Bytes>,
    /// What follows the keys.
    pub arguments: Vec<Bytes>,
}

/// The call that [`RedisRegistry`](crate::RedisRegistry) makes to register one identity alone.
pub fn register(namespace: &str, config: &Config, request: &Register) -> RawCall {
    let keys = Keys::new(&config.prefix, namespace);
    let item = Item::register(request);
    RawCall {
        function: Function::Write.name().to_string(),
        keys: keys.names.to_vec(),
        arguments: [Common::new(namespace, config).bytes(None), item.head]
            .into_iter()
            .chain(item.metadata)
            .collect(),
    }
}

/// The text of the library, for `FUNCTION LOAD`.
pub fn library() -> &'static str {
    &LIBRARY.text
}
