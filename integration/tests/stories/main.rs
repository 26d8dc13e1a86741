//! What users do, on real processes and real servers.

mod architecture;
mod bad_input;
mod configuration;
mod demo;
mod documents;
mod failures;
mod plan;
mod tools;
mod tracing;
