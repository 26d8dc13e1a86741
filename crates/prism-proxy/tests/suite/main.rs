//! The proxy's planes over real sockets, each against scripted peers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail as tests do"
)]

mod control;
mod data;
mod operations;
