//! The demonstration that the README shows.

use std::{process::Command, time::Duration};

use anyhow::Result;
use prism_testkit::{Process, workspace_binary};

/// `make demo` without the build.
#[tokio::test]
async fn the_demo_shows_the_whole_story() -> Result<()> {
    let binaries = workspace_binary("prism-proxy")?;
    let mut command = Command::new("bash");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/demo.sh"))
        .arg("memory");
    command.env("PRISM_BINARIES", binaries.parent().unwrap_or(&binaries));
    let mut demo = Process::spawn_command(command)?;
    let status = demo.wait(Duration::from_secs(60)).await?;
    let told = demo.stdout().join("\n");
    assert!(status.success(), "{told}\n{}", demo.stderr().join("\n"));
    for step in ["register", "enumerate", "multicast", "received", "DELIVERED"] {
        assert!(told.contains(step), "`{step}` is missing in\n{told}");
    }
    Ok(())
}
