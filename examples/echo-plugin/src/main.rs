//! A pattern in fifty lines: it echoes.

fn main() {}
