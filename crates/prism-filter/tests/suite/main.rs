//! The promises of the filter language, from outside.

#![allow(clippy::unwrap_used, reason = "a helper of a test may end the test")]

mod builder;
mod cases;
mod document;
mod properties;
mod reference;
mod refusals;
mod support;
mod wire;
