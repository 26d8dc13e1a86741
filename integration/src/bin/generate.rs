//! Writes the files that are made from the code: the plugin's manifest and the configuration reference.
//!
//! With `--check` it writes nothing and fails where a file is stale.

use std::{path::Path, process::ExitCode};

use integration::generated;

#[allow(clippy::print_stderr)] // a tool for people
fn main() -> anyhow::Result<ExitCode> {
    let check = std::env::args().any(|argument| argument == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut stale = false;
    for (name, text) in generated()? {
        let path = root.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|written| written == text) {
            continue;
        }
        if check {
            eprintln!("{name} is stale, run `make generate`");
            stale = true;
        } else {
            std::fs::write(&path, text)?;
            eprintln!("{name} written");
        }
    }
    Ok(if stale {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
