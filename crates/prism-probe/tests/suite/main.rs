//! The program against scripted registries, and registries in this process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail as tests do"
)]

mod check;
mod commands;
mod delivery;
mod examples;
mod load;
mod program;
mod scenario;
mod schema;
mod streams;
mod support;
mod transfer;
