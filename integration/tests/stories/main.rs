//! What users do, on real processes and real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may end itself")]

mod architecture;
mod bad_input;
mod configuration;
mod demo;
mod documents;
mod failures;
mod plan;
mod tools;
mod tracing;
