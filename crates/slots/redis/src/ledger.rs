//! The ledger on Redis: what the trait asks, in terms of the functions.

mod codec;

use std::sync::LazyLock;

use bytes::Bytes;
use fred::types::Value;
use prism_slot::{
    Applied, Entry, Ledger, LedgerCapability, Listed, Result, Scope, Write, Wrote, capability::Survives,
};
use tokio::time::Instant;

use crate::{
    answer::Answer,
    config::ConnectionConfig,
    error::{BACKEND, Effect},
    keys,
    library::Library,
    link::Link,
};

/// How many entries one call takes.
const MAX_BATCH: usize = 128;
/// How many bytes of entries one call carries, about: what Redis stores in a millisecond or two.
const CALL_BYTES: usize = 1 << 20;
/// How many connections a ledger has at most: it is asked for little beside the slot next to it.
const CONNECTIONS: usize = 2;

/// One of the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Write,
    Read,
    List,
    Check,
}

const NAMES: [&str; 4] = ["write", "read", "list", "check"];

static LIBRARY: LazyLock<Library> =
    LazyLock::new(|| Library::new("ledger", include_str!("functions/ledger.lua"), &NAMES));

/// The ledger of one namespace in Redis.
#[derive(Debug)]
pub struct RedisLedger {
    link: Link,
    /// What the name of every key begins with.
    at: String,
    namespace: Bytes,
}

impl RedisLedger {
    /// What every one of them can do.
    ///
    /// A restart of Redis is survived as far as its persistence goes, which is the operator's choice and
    /// cannot be known here: so it is not promised.
    pub const CAPABILITY: LedgerCapability = LedgerCapability {
        backend: BACKEND,
        scope: Scope::Shared,
        survives: Survives::RunnerRestart,
        max_body: 1 << 20,
    };

    /// Connects, and checks that the server can keep the promises of the ledger. `config` is the `connection()` of
    /// the slot's beside it.
    ///
    /// # Errors
    /// [`Misconfigured`](prism_slot::Error::Misconfigured) for a setting that cannot be, a server that is too old
    /// or may evict keys, missing permissions, or keys that belong to somebody else;
    /// [`Unavailable`](prism_slot::Error::Unavailable) when the server cannot be reached within the configured
    /// timeouts.
    pub async fn open(namespace: &str, config: ConnectionConfig) -> Result<Self> {
        config.validate()?;
        let at = keys::key(&config.prefix, namespace, "ledger:");
        let slot = fred::util::redis_keyslot(at.as_bytes());
        let connections = config.pool_size.min(CONNECTIONS);
        let ledger = Self {
            link: Link::open(&config, connections, slot, &LIBRARY).await?,
            at,
            namespace: Bytes::copy_from_slice(namespace.as_bytes()),
        };
        let deadline = Instant::now() + config.dial_timeout + config.read_timeout;
        let arguments = [ledger.namespace.clone()];
        ledger
            .call(Function::Check, &[], &arguments, deadline, Effect::Read)
            .await?;
        Ok(ledger)
    }

    /// Calls a function. `entries` are the keys of entries that it needs.
    async fn call(
        &self,
        function: Function,
        entries: &[&str],
        arguments: &[Bytes],
        deadline: Instant,
        effect: Effect,
    ) -> Result<Answer> {
        let all = || {
            let mut all = Vec::with_capacity(3 + entries.len() + arguments.len());
            all.push(Value::String(LIBRARY.function(function as usize)));
            all.push(Value::Integer(1 + entries.len() as i64));
            all.push(Value::from(format!("{}head", self.at)));
            all.extend(
                entries
                    .iter()
                    .map(|key| Value::from(format!("{}entry:{key}", self.at))),
            );
            all.extend(arguments.iter().cloned().map(Value::Bytes));
            all
        };
        let frame = self.link.invoke(all, deadline, effect).await;
        let applied = match effect {
            Effect::Read => Applied::No,
            Effect::Write => Applied::Unknown,
        };
        let (letter, answer) = Answer::read(frame.map_err(|fault| fault.into_error(applied))?)?;
        match &letter[..] {
            b"K" => Ok(answer),
            other => Err(answer.refusal(other)),
        }
    }

    /// Writes what one call takes.
    async fn write_some(&self, writes: &[Write], deadline: Instant) -> Result<Vec<Result<Wrote>>> {
        let entries: Vec<&str> = writes.iter().map(|write| write.key.as_str()).collect();
        let mut arguments = vec![self.namespace.clone()];
        for write in writes {
            arguments.push(codec::head(write));
            arguments.push(write.body.clone().unwrap_or_default());
        }
        let called = self.call(Function::Write, &entries, &arguments, deadline, Effect::Write);
        codec::wrote(called.await?, writes.len())
    }
}

impl Ledger for RedisLedger {
    fn capability(&self) -> &LedgerCapability {
        &Self::CAPABILITY
    }

    async fn read(&self, keys: Vec<String>, deadline: Instant) -> Result<Vec<Option<Entry>>> {
        let mut entries = Vec::with_capacity(keys.len());
        while let Some(rest) = keys.get(entries.len()..).filter(|rest| !rest.is_empty()) {
            let some: Vec<&str> = rest.iter().take(MAX_BATCH).map(String::as_str).collect();
            let answer = self
                .call(Function::Read, &some, &[], deadline, Effect::Read)
                .await?;
            entries.extend(codec::entries(answer, some.len())?);
        }
        Ok(entries)
    }

    async fn write(&self, writes: Vec<Write>, deadline: Instant) -> Vec<Result<Wrote>> {
        let mut outcomes = Vec::with_capacity(writes.len());
        while let Some(rest) = writes.get(outcomes.len()..).filter(|rest| !rest.is_empty()) {
            let some = &rest[..first_part(rest)];
            match self.write_some(some, deadline).await {
                Ok(done) => outcomes.extend(done),
                Err(error) => outcomes.extend(vec![Err(error); some.len()]),
            }
        }
        outcomes
    }

    async fn list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Listed> {
        let mut after = after.filter(|after| *after >= prefix).unwrap_or_default();
        let mut keys = Vec::new();
        loop {
            // One more, to know whether there is one.
            let most = limit.saturating_add(1) - keys.len();
            let arguments = codec::list(&self.namespace, &prefix, &after, most);
            let called = self.call(Function::List, &[], &arguments, deadline, Effect::Read);
            let mut answer = called.await?;
            let (is_more, last) = (answer.number()? == 1, codec::text(answer.text()?)?);
            while let Some(key) = answer.optional_text()? {
                keys.push(codec::text(key)?);
            }
            if keys.len() > limit || !is_more {
                let more = keys.len() > limit;
                keys.truncate(limit);
                return Ok(Listed { keys, more });
            }
            after = last;
        }
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

/// How many of the first writes go into one call; at least one.
fn first_part(writes: &[Write]) -> usize {
    let mut bytes = 0;
    let fitting = writes.iter().take(MAX_BATCH).take_while(|write| {
        bytes += write.body.as_ref().map_or(0, Bytes::len);
        bytes <= CALL_BYTES
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prism_slot::Expect;

    use super::*;

    #[test]
    fn every_function_is_registered_under_its_name() {
        for (function, expected) in [Function::Write, Function::Read, Function::List, Function::Check]
            .into_iter()
            .zip(NAMES)
        {
            let name = LIBRARY.function(function as usize);
            assert!(name.ends_with(expected), "{name}");
            assert!(
                LIBRARY.text.contains(&format!("'{name}'")),
                "{name} is not in the text"
            );
        }
    }

    #[test]
    fn a_call_carries_what_it_may_and_one_write_always() {
        let write = |size: usize| Write {
            key: "a".to_owned(),
            expect: Expect::Anything,
            body: Some(vec![0; size].into()),
            ttl: Duration::from_secs(1),
        };
        assert_eq!(first_part(&vec![write(10); 300]), MAX_BATCH);
        assert_eq!(first_part(&vec![write(CALL_BYTES / 3); 10]), 3);
        assert_eq!(first_part(&[write(2 * CALL_BYTES), write(1)]), 1);
    }
}
