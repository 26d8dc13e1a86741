//! The runner of a plugin against a scripted proxy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail as tests do"
)]

mod common;
mod crowds;
mod endpoint;
mod stream;
