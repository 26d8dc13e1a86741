//! The registry slot on Redis.
