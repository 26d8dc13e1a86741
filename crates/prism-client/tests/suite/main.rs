//! The client against scripted registries.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail as tests do"
)]

mod acks;
mod attempts;
mod calls;
mod handle;
mod multicast;
mod schema;
mod subscription;
mod support;
mod watch;
