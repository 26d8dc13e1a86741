//! Randomness that can be had again.

/// Names the seed that a test is to use instead of a random one.
const VARIABLE: &str = "PRISM_TEST_SEED";

/// The seed of a randomised test. Printed, so that a failure shows how to have it again.
///
/// # Panics
/// When `PRISM_TEST_SEED` is set to something else than a number.
#[allow(clippy::print_stdout, reason = "the harness shows it with a failure")]
pub fn seed() -> u64 {
    let seed = match std::env::var(VARIABLE) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("`{VARIABLE}` is `{text}`, which is no number")),
        Err(_) => rand::random(),
    };
    println!("to have this run again: {VARIABLE}={seed}");
    seed
}
