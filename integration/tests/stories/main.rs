//! What users do, on real processes and real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may end itself")]

mod answers;
mod architecture;
mod bad_input;
mod configuration;
mod consistency;
mod delivering;
mod demo;
mod documented;
mod documents;
mod draining;
mod failures;
mod finding;
mod freezing;
mod isolation;
mod leases;
mod limits;
mod load;
mod operations;
mod peers;
mod plan;
mod proxies;
mod schemas;
mod searching;
mod supervision;
mod telemetry;
mod tools;
mod tracing;
mod transfer;
mod truth;
mod unanswered;
mod use_cases;
mod validation;
mod watching;
