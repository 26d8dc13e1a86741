//! Real servers and injected faults for tests.
//!
//! - [`RedisServer`] and [`NatsServer`]: the real thing on a free loopback port, to be stopped,
//!   frozen and restarted in the middle of a test;
//! - [`FaultProxy`]: a TCP proxy whose links go dark, slow, deaf or dead on command;
//! - [`give_up_calls`]: a gRPC client that changes its mind, hundreds of times at once;
//! - [`Process`]: one of this workspace's binaries, with its log lines to wait for;
//! - [`eventually`]: waits for a condition, and says what it waited for when that never came;
//! - [`seed`]: randomness that a failed test can be run with again.
//!
//! Everything ends with the value that stands for it, also when the test panics. Should the test
//! process itself be killed, a sentinel ends the processes that it started.
//!
//! Starting needs a tokio runtime with I/O and time enabled. A paused clock does not fit real
//! servers: tests with these use real time.

mod burst;
mod child;
mod eventually;
mod nats;
mod port;
mod process;
mod proxy;
mod redis;
mod seed;
mod server;

pub use burst::give_up_calls;
pub use eventually::{eventually, eventually_some};
pub use nats::NatsServer;
pub use port::free_port;
pub use process::{Process, workspace_binary};
pub use proxy::{Direction, FaultProxy, Flow};
pub use redis::RedisServer;
pub use rustix::process::Signal;
pub use seed::seed;
pub use server::Server;

/// The servers that can be started, and how to tell that each is ready.
pub mod flavour {
    pub use crate::{nats::Nats, redis::Redis, server::Flavour};
}
