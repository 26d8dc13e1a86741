//! What both ends of the control stream share.

pub mod args;
pub mod backoff;
pub mod caller;
pub mod config;
pub mod corked;
pub mod exposition;
pub mod failure;
pub mod id;
pub mod incoming;
pub mod lifecycle;
pub mod overload;
pub mod shutdown;
pub mod socket;
pub mod structure;
pub mod telemetry;
