//! The binary `prism-proxy`; with `--embedded`, the whole system in one process.

fn main() {}
