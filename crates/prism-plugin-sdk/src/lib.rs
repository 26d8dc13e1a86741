//! How any plugin lives under the proxy.
//!
//! A pattern implements [`Plugin`]; a [`Runner`] gives it a process: it dials the proxies, registers,
//! obeys, heartbeats, reconnects, serves the pattern's gRPC services with health, reflection and the
//! lifecycle beside them, and ends in order. `examples/echo-plugin` is the smallest whole one.
//!
//! Losing a control stream never stops the data endpoint, and nothing is configured anew that has not
//! changed.

mod engine;
mod lifecycle_service;
mod link;
mod observe;
mod plugin;
mod runner;
mod server;
mod settings;
mod wire;

pub use plugin::{Description, Initialize, Initialized, Interface, Plugin, Refusal};
pub use prism_core::lifecycle::{Drained, ExitStatus, Health, HealthStatus, Scope};
pub use runner::Runner;
pub use settings::{Limits, Settings};
