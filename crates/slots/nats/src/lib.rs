//! The messaging slot on NATS, the durability slot and the ledger on JetStream.
//!
//! # Messaging
//!
//! "Accepted" here means that the broker has processed the message and knew of a subscriber. Neither a
//! publish that returns nor a flush says that: both are local to the client library. Instead each message
//! carries a reply subject, to which the broker answers at once when nobody is subscribed, and after each
//! group of messages goes one to ourselves, whose return proves that the broker is through with the group.
//!
//! # Consumers at the broker
//!
//! An identity may also listen at the broker itself, with any NATS client: it subscribes to
//! `<topic prefix>.<namespace>.<identity>`, the last two [escaped](escape). A message is the payload as its body,
//! `Content-Type` unless it is `application/octet-stream`, the message's own headers such as `traceparent`, and
//! `Prism-Multicast: v=1;id=<multicast id>;at=<milliseconds since 1970>` with further words behind it. A message whose
//! `Prism-Multicast` has `;superseded=` is a word between runners and no data: a consumer skips it.
//!
//! Replying to a message acknowledges it, if its sender waits for that; the body may be empty or anything. It counts for
//! that message only, for a minute after it was sent, and while the runner that sent it runs. For this a consumer has to be
//! allowed to publish to `_INBOX.>`.
//!
//! What others publish to an identity's subject is dropped and counted. With
//! headers that are none, they can end the connections over which this slot listens, because async-nats takes
//! such a message for the end: listeners are told of a gap, and publishing goes on over other connections. So
//! let nobody else publish there.
//!
//! # What the login needs
//!
//! The login must be free to use all subjects of the namespace: rules about single identities are refused when
//! the slot is opened. For that it asks at `$SYS.REQ.USER.INFO`, and publishes more slowly where it may not.
//!
//! In a cluster, other nodes than the listener's know of a listener a moment after `listen` has returned.
//!
//! # Durability
//!
//! [`JetStreamInbox`] and [`JetStreamLedger`] need JetStream on NATS 2.11 or newer, and nothing else: they make their
//! streams themselves, change them when limits or replicas are configured otherwise, and make them again if they are
//! gone. Their login has to be allowed `$JS.API.>`, `<queue prefix>.<namespace>.>` and `_INBOX.>`. No version of the
//! server is needed for a cluster but that one; `replicas` says how many of its servers keep each message.
//!
//! What is promised is what JetStream promises, and this is known to be weaker:
//!
//! - `max_messages` counts each priority by itself, and what expires or makes room for others is not told.
//! - A server that is told of a lower `max_messages` removes what is over it. So it is told when the slot is opened or
//!   configured and no inbox has more than half of that. Until then whoever stores counts first, which costs a question for
//!   each inbox: stores at the same moment may be over the limit by as many as they are, and a runner that was opened
//!   before holds to the limit of then.
//! - Times to live are whole seconds, rounded up, and a server takes about a second to remove what has expired.
//! - That a message was stored before is noticed within `dedupe`, also after the server was restarted or the leader has
//!   changed; but what was *settled* before a restart of all servers is not noticed any more: they learn what they know
//!   from what they still have.
//! - An acknowledged message is in the server's file and survives the server's end; to survive that of its machine, the
//!   server needs `sync_interval: always`, or replicas. What was read is known by sequence: where a stream of messages
//!   has lost its end, the stream of sessions has to be removed, or new messages are taken for read.
//! - With replicas, messages are read from any of them, and what one does not have is asked of their leader before it is
//!   taken for gone: one question more for each priority that was read to its end. One that lags may show what was dropped
//!   with its inbox a moment ago, to the next session of the same holder.
//! - JetStream lets mirrors of a stream answer for it. Where there is one replica, nobody else is asked, so do not mirror
//!   these streams without replicas.
//! - Whether a message is due is judged by the clock of the runner that its identity's session is on.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use prism_slot::{Error, Identity, Messaging};
//! use prism_slot_nats::{Config, NatsMessaging};
//! use tokio::time::Instant;
//!
//! # async fn example() -> Result<(), Error> {
//! let config = Config { servers: vec!["nats://localhost:4222".into()], ..Config::default() };
//! let slot = NatsMessaging::open("default", "prism.multicast", config).await?;
//! # let alice = Identity::new("user-alice").unwrap();
//! let mut listener = slot.listen(&alice, Instant::now() + Duration::from_secs(1)).await?;
//! while let Some(received) = listener.next().await {
//!     println!("{received:?}");
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod answers;
mod codec;
mod config;
mod connect;
mod error;
mod health;
mod inbox;
mod jetstream;
mod ledger;
mod link;
mod listen;
mod messaging;
mod percent;
mod posts;
mod publish;
mod replies;
mod rules;
mod statistics;
mod summary;

pub use address::{escape, unescape};
pub use config::{Config, InvalidConfig};
pub use inbox::{INBOX_CAPABILITY, JetStreamInbox};
pub use jetstream::{JetStreamConfig, Storage};
pub use ledger::{JetStreamLedger, LEDGER_CAPABILITY};
pub use messaging::{CAPABILITY, NatsMessaging};
pub use statistics::Statistics;
