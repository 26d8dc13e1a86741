//! The messaging slot in memory: every listener is a queue in this process.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::RwLock;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::MessagingConfig;
use crate::{
    Applied, Arrival, EVERY_POST, Error, Identity, Listener, ListenerSink, Message, Messaging,
    MessagingCapability, Outcome, Post, PostSink, Result, Scope, capability::AcceptedBy, listener, post,
};

const BACKEND: &str = "memory";
const CLOSED: &str = "the slot is closed";

/// A messaging slot that reaches the listeners of this value and no others.
pub struct MemoryMessaging {
    shared: Arc<Shared>,
}

struct Shared {
    table: RwLock<Table>,
}

struct Table {
    config: MessagingConfig,
    closed: bool,
    next: u64,
    listeners: HashMap<Identity, Listeners>,
    posts: HashMap<Arc<str>, PostSink>,
}

/// An identity rarely has more than one listener: a second one is a session about to take over.
type Listeners = SmallVec<[(u64, ListenerSink); 1]>;

impl MemoryMessaging {
    /// The capability of every memory messaging slot.
    pub const CAPABILITY: MessagingCapability = MessagingCapability {
        backend: BACKEND,
        interfaces: &["PubSubInterface"],
        scope: Scope::Process,
        accepted_by: AcceptedBy::ListenerQueue,
        max_payload: 64 << 20,
    };

    /// One without listeners.
    pub fn new(config: MessagingConfig) -> Self {
        let table = Table {
            config,
            closed: false,
            next: 0,
            listeners: HashMap::new(),
            posts: HashMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                table: RwLock::new(table),
            }),
        }
    }

    /// Applies other settings; listeners that are there keep theirs.
    pub fn configure(&self, config: &MessagingConfig) {
        self.shared.table.write().config = config.clone();
    }
}

impl Messaging for MemoryMessaging {
    fn capability(&self) -> &MessagingCapability {
        &Self::CAPABILITY
    }

    async fn publish_batch(
        &self,
        targets: &[Identity],
        message: Arc<Message>,
        _deadline: Instant,
    ) -> Vec<Outcome> {
        let table = self.shared.table.read();
        if table.closed {
            return vec![Outcome::NotSent(CLOSED.to_owned()); targets.len()];
        }
        // All are looked up before anything is pushed: a push has the processor wait for what it has begun to read.
        let found: Vec<Option<&Listeners>> =
            targets.iter().map(|target| table.listeners.get(target)).collect();
        found
            .into_iter()
            .map(|listeners| publish(listeners, &message))
            .collect()
    }

    async fn listen(&self, identity: &Identity, _deadline: Instant) -> Result<Listener> {
        let mut table = self.shared.table.write();
        table.check_open()?;
        table.next += 1;
        let number = table.next;
        let entry = Entry {
            shared: Arc::downgrade(&self.shared),
            identity: identity.clone(),
            number,
        };
        let (sink, listener) = listener(table.config.room(), entry);
        table
            .listeners
            .entry(identity.clone())
            .or_default()
            .push((number, sink));
        Ok(listener)
    }

    async fn post(&self, _deadline: Instant) -> Result<Post> {
        let address: Arc<str> = format!("{:032x}", rand::random::<u128>()).into();
        let pigeonhole = Pigeonhole {
            shared: Arc::downgrade(&self.shared),
            address: address.clone(),
        };
        // Made without the lock, which dropping it takes.
        let capacity = self.shared.table.read().config.listener_queue;
        let (sink, post) = post(address.clone(), capacity, pigeonhole);
        let mut table = self.shared.table.write();
        let open = table.check_open();
        if open.is_ok() {
            table.posts.insert(address, sink);
        }
        drop(table);
        open.map(|()| post)
    }

    async fn send(&self, address: &str, note: Bytes, _deadline: Instant) -> Outcome {
        let table = self.shared.table.read();
        if table.closed {
            return Outcome::NotSent(CLOSED.to_owned());
        }
        if address == EVERY_POST {
            return table.send_to_all(&note);
        }
        match table.posts.get(address) {
            None => Outcome::NoSubscriber,
            Some(sink) if sink.push(Arrival::Note(note)) => Outcome::Accepted,
            Some(_) => Outcome::NotSent("the post is full".to_owned()),
        }
    }

    async fn probe(&self, _deadline: Instant) -> Result<()> {
        self.shared.table.read().check_open()
    }

    async fn close(&self) {
        let mut table = self.shared.table.write();
        table.closed = true;
        table.posts.clear();
        for (_, sink) in std::mem::take(&mut table.listeners).into_values().flatten() {
            sink.close();
        }
    }
}

impl Table {
    fn check_open(&self) -> Result<()> {
        if !self.closed {
            return Ok(());
        }
        Err(Error::Unavailable {
            backend: BACKEND,
            message: CLOSED.to_owned(),
            applied: Applied::No,
        })
    }

    fn send_to_all(&self, note: &Bytes) -> Outcome {
        let took = |sink: &&PostSink| sink.push(Arrival::NoteToAll(note.clone()));
        match self.posts.values().filter(took).count() {
            0 => Outcome::NoSubscriber,
            _ => Outcome::Accepted,
        }
    }
}

fn publish(listeners: Option<&Listeners>, message: &Arc<Message>) -> Outcome {
    let Some(listeners) = listeners else {
        return Outcome::NoSubscriber;
    };
    let taken = listeners
        .iter()
        .filter(|(_, sink)| sink.push(message.clone()))
        .count();
    if taken > 0 {
        return Outcome::Accepted;
    }
    Outcome::NotSent("the listener's queue is full".to_owned())
}

/// A post's place in the table, given up when the post is dropped.
struct Pigeonhole {
    shared: Weak<Shared>,
    address: Arc<str>,
}

impl Drop for Pigeonhole {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.table.write().posts.remove(&self.address);
        }
    }
}

/// A listener's place in the table, given up when the listener is dropped.
struct Entry {
    shared: Weak<Shared>,
    identity: Identity,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut table = shared.table.write();
        if let Some(listeners) = table.listeners.get_mut(&self.identity) {
            listeners.retain(|(number, _)| *number != self.number);
            if listeners.is_empty() {
                table.listeners.remove(&self.identity);
            }
        }
    }
}
