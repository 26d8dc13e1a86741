//! How much a filter may ask for.

/// How much a filter may ask for. Whatever exceeds a limit is refused with an [`Error`](crate::Error)
/// that names the clause and the limit, before it costs more than reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many `$and`, `$or` and `$not` may be inside each other. Default 5.
    pub max_depth: usize,
    /// How many clauses there may be in all; a combination of nothing counts as one. Default 20.
    pub max_clauses: usize,
    /// The longest path in bytes. Default 512.
    pub max_path_bytes: usize,
    /// The largest operand in bytes, as encoded in memory. Default 64 KiB.
    pub max_operand_bytes: usize,
    /// How many values `in` and `nin` may list. Default 1,000.
    pub max_in_values: usize,
    /// How many bytes the regular expressions of one filter may have together: reading them, with Unicode
    /// classes in any case, takes up to 60 µs a byte. Default 256.
    pub max_regex_bytes: usize,
    /// How much memory the compiled regular expressions of one filter may take together, without the
    /// caches of their engines. Default 256 KiB.
    pub max_regex_program_bytes: usize,
    /// The largest JSON form in bytes, as encoded in memory. Default 256 KiB.
    pub max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_depth: 5,
            max_clauses: 20,
            max_path_bytes: 512,
            max_operand_bytes: 64 << 10,
            max_in_values: 1_000,
            max_regex_bytes: 256,
            max_regex_program_bytes: 256 << 10,
            max_bytes: 256 << 10,
        }
    }
}
