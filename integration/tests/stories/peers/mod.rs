//! Peers that this project did not write, with every habit that they are known for: a plugin under our
//! proxy, and a proxy over our runner.

mod over_our_runner;
mod plugin;
mod proxy;
mod under_our_proxy;
mod wire;
