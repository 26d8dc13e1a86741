//! What operators, probes and load balancers see.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

mod admin;
mod health;
mod living;
mod reloading;
mod supervising;
