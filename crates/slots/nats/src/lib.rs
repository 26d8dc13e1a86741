//! The messaging slot on NATS.
