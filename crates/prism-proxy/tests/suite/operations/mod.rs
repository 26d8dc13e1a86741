//! What operators, probes and load balancers see.

mod admin;
mod health;
mod living;
mod reloading;
mod supervising;
