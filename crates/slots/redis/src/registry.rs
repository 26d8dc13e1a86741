//! The slot: what the trait asks, in terms of the functions.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes};
use prism_slot::{
    Call, Claim, Error, Identity, Position, Put, Query, QueryPage, Read, Record, Register, Registered,
    RegistryCapability, RegistryStore, Renew, Renewed, Result, Revision, Scan, ScanPage, Scope, Sync,
    Timestamp, Unregister, Unregistered, capability::Survives,
};
use tokio::time::Instant;

use crate::{
    calls::Calls,
    codec::{self, Answer, Cursor, Item, LARGEST, Program},
    config::Config,
    error::{BACKEND, unreadable},
    group::Group,
    library::Function,
};

/// How many writes one call takes.
pub(crate) const MAX_BATCH: usize = 128;
/// How many records a page of a scan has at most, or about.
const PAGE: usize = 512;
/// How many leases are read in one call.
const LEASES: usize = 512;
/// How long a scan may ask the feed to be held at a time.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// The registry of one namespace in Redis.
#[derive(Debug)]
pub struct RedisRegistry {
    link: Arc<Calls>,
    writes: Group,
    read_timeout: Duration,
}

impl RedisRegistry {
    /// What every one of them can do.
    ///
    /// A restart of Redis is survived as far as its persistence goes, which is the operator's choice and
    /// cannot be known here: so it is not promised.
    pub const CAPABILITY: RegistryCapability = RegistryCapability {
        backend: BACKEND,
        interfaces: &[
            "KeyValueBasicInterface",
            "KeyValueScanInterface",
            "KeyValueTTLInterface",
        ],
        scope: Scope::Shared,
        survives: Survives::RunnerRestart,
        max_batch: MAX_BATCH,
        query: true,
    };

    /// Connects, checks that the server can keep the promises of the slot, and makes the namespace
    /// ready.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] for a setting that cannot be, a server that is too old or may evict
    /// keys, missing permissions, or keys that belong to somebody else; [`Error::Unavailable`] when
    /// the server cannot be reached within the configured timeouts.
    pub async fn open(namespace: &str, config: Config) -> Result<RedisRegistry, Error> {
        let link = Arc::new(Calls::open(namespace, &config).await?);
        let call = Call {
            epoch: None,
            deadline: Instant::now() + config.dial_timeout + config.read_timeout,
        };
        link.read(Function::Open, call, &[]).await?;
        Ok(Self {
            writes: Group::new(link.clone(), &config),
            link,
            read_timeout: config.read_timeout,
        })
    }

    /// Writes one item.
    async fn write(&self, call: Call, item: Item) -> Result<Answer> {
        let mut answers = self.writes.write(call, vec![item]).await;
        answers
            .pop()
            .unwrap_or_else(|| Err(unreadable("there was no answer")))
    }

    /// Writes items, again those that were not decided because due leases were in the way.
    async fn write_all(&self, call: Call, items: Vec<Item>) -> Vec<Result<Answer>> {
        let mut answers = self.writes.write(call, items.clone()).await;
        loop {
            let undecided: Vec<usize> = (0..answers.len())
                .filter(|&index| answers[index].as_ref().is_ok_and(Answer::is_undecided))
                .collect();
            if undecided.is_empty() {
                return answers;
            }
            let again = undecided.iter().map(|&index| items[index].clone()).collect();
            for (index, answer) in undecided.into_iter().zip(self.writes.write(call, again).await) {
                answers[index] = answer;
            }
        }
    }

    /// When the leases of the first of these identities end, of one at least: all of them, unless many are
    /// due.
    async fn some_leases(&self, call: Call, identities: &[Identity]) -> Result<Vec<Option<Timestamp>>> {
        let names: Vec<Bytes> = identities.iter().map(name).collect();
        let mut reply = self.link.read(Function::Leases, call, &names).await?;
        codec::leases(reply.text()?, names.len())
    }
}

impl RegistryStore for RedisRegistry {
    fn capability(&self) -> &RegistryCapability {
        &Self::CAPABILITY
    }

    async fn register(&self, call: Call, batch: Vec<Register>) -> Vec<Result<Registered>> {
        let items = batch.iter().map(Item::register).collect();
        let answers = self.write_all(call, items).await;
        let pairs = answers.into_iter().zip(&batch);
        pairs
            .map(|(answer, request)| codec::registered(answer?, &request.identity, request.max_identities))
            .collect()
    }

    async fn put(&self, call: Call, put: Put) -> Result<Arc<Record>> {
        let answer = self.write(call, Item::put(&put)).await?;
        codec::put(answer, put)
    }

    async fn renew(&self, call: Call, batch: Vec<Renew>) -> Vec<Result<Renewed>> {
        let items = batch.iter().map(Item::renew).collect();
        let answers = self.writes.write(call, items).await;
        let pairs = answers.into_iter().zip(&batch);
        pairs
            .map(|(answer, request)| codec::renewed(answer?, &request.identity))
            .collect()
    }

    async fn unregister(&self, call: Call, request: Unregister) -> Result<Unregistered> {
        let answer = self.write(call, Item::unregister(&request)).await?;
        codec::unregistered(answer, &request.identity)
    }

    async fn get(&self, call: Call, identity: Identity) -> Result<Read> {
        let mut reply = self.link.read(Function::Get, call, &[name(&identity)]).await?;
        let record = match reply.optional_text()? {
            Some(bytes) => Some(codec::read_record(identity, bytes)?),
            None => None,
        };
        Ok(Read {
            record,
            head: reply.head,
        })
    }

    async fn leases(&self, call: Call, identities: Vec<Identity>) -> Result<Vec<Option<Timestamp>>> {
        let mut all = Vec::with_capacity(identities.len());
        while let Some(rest) = identities.get(all.len()..).filter(|rest| !rest.is_empty()) {
            let some = &rest[..rest.len().min(LEASES)];
            all.extend(self.some_leases(call, some).await?);
        }
        Ok(all)
    }

    async fn sync(&self, call: Call, from: Revision, limit: usize) -> Result<Sync> {
        let mut arguments = Vec::with_capacity(16);
        arguments.put_u64(from.0.min(LARGEST));
        arguments.put_u64((limit as u64).min(LARGEST));
        let reply = self.link.read(Function::Sync, call, &[arguments.into()]).await?;
        codec::sync(reply, from, limit)
    }

    async fn changed(&self, call: Call, from: Revision) -> Result<()> {
        self.link.changed(from, call.deadline).await
    }

    async fn scan(&self, call: Call, scan: Scan) -> Result<ScanPage> {
        let cursor = scan.cursor.map_or(Ok(Cursor::default()), Cursor::read)?;
        let hold = scan.hold.min(LONGEST_HOLD).as_millis();
        let mut arguments = Vec::with_capacity(24);
        arguments.put_u64(scan.limit.clamp(1, PAGE) as u64);
        arguments.put_u64(cursor.since.0);
        arguments.put_u64(u64::try_from(hold).unwrap_or_default());
        // A page of another epoch would not continue the pages before it.
        let call = Call {
            epoch: call.epoch.or(cursor.epoch),
            ..call
        };
        let reply = self
            .link
            .read(Function::Scan, call, &[cursor.position, arguments.into()])
            .await?;
        codec::scan_page(reply)
    }

    async fn query(&self, call: Call, query: Query) -> Result<QueryPage> {
        let cursor = query.cursor.map_or(Ok(Cursor::default()), Cursor::read)?;
        let program = Program::of(query.filter.as_deref());
        let mut bounds = Vec::with_capacity(17);
        bounds.put_u64(query.limit.clamp(1, PAGE) as u64);
        bounds.put_u64(program.parts);
        bounds.put_u8(u8::from(program.reads_metadata));
        let mut arguments = vec![cursor.position, bounds.into()];
        arguments.extend(program.arguments);
        let call = Call {
            epoch: call.epoch.or(cursor.epoch),
            ..call
        };
        codec::query_page(self.link.read(Function::Query, call, &arguments).await?)
    }

    async fn claim_session(
        &self,
        call: Call,
        identity: Identity,
        generation: Option<Position>,
    ) -> Result<Claim> {
        let answer = self.write(call, Item::claim(&identity, generation)).await?;
        codec::claim(answer, &identity)
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.link.ping(deadline).await
    }

    async fn close(&self) {
        self.writes.close(self.read_timeout).await;
        self.link.close().await;
    }
}

fn name(identity: &Identity) -> Bytes {
    Bytes::copy_from_slice(identity.as_str().as_bytes())
}
