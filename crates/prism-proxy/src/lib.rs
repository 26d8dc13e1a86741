//! The control-plane server, the router, the admin endpoint.
//!
//! A proxy knows namespaces and who serves them; it does not know what a call says. Bodies pass through
//! as bytes, in both directions, and nothing here can decode them.
//!
//! - [`Proxy`]: all of it together, from three listeners to an orderly end,
//! - [`config`]: the one YAML file, strict; [`watch`] notices when it changes,
//! - [`control`]: who is there and what they are told to serve,
//! - [`route`]: which runners serve which namespace,
//! - [`forward`]: the way of one call, its limits, deadlines and the one retry that it may have,
//! - [`serve`]: a port, from bind to drain; [`listen`] opens it,
//! - [`health`], [`admin`], [`readiness`]: what probes and operators see,
//! - [`descriptors`]: how many connections there can be at all,
//! - [`supervisor`]: runners that the proxy starts itself,
//! - [`metrics`]: every exported name.

pub mod admin;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod forward;
pub mod health;
pub mod listen;
pub mod metrics;
mod patience;
mod proxy;
pub mod readiness;
mod reload;
pub mod route;
pub mod serve;
pub mod supervisor;
pub mod watch;

pub use proxy::{Addresses, Builder, Listeners, Proxy, StartError};
