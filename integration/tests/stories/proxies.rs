//! Two proxies in front of the same runners.

use anyhow::{Result, ensure};
use integration::{PATIENCE, Proxy, Runner, memory_namespace};
use prism_client::RegisterRequest;

/// A namespace whose data is in its runner stays there when one of the proxies starts anew, whichever runner reaches
/// that one first.
#[tokio::test]
async fn a_proxy_that_starts_takes_no_namespace_from_another() -> Result<()> {
    let namespaces = [memory_namespace("test")];
    let (first, second) = tokio::try_join!(Proxy::start(&namespaces), Proxy::start(&namespaces))?;
    let both = format!("{},{}", first.control, second.control);
    let mut owner = Runner::start(&["-proxy-addr", &both], &[]).await?;
    first.wait_for_runners("test", 1).await;
    let client = first.client("test")?;
    client.registry.register(RegisterRequest::new("alice")).await?;

    owner.process.freeze()?;
    let second = second.restart().await?;
    let empty = Runner::start(&["-proxy-addr", &both], &[]).await?;
    empty
        .process
        .stderr_line("registered with the proxy", PATIENCE)
        .await?;
    owner.process.thaw()?;
    second.wait_for_runners("test", 1).await;
    for proxy in [&first, &second] {
        let alice = proxy.client("test")?.registry.get("alice").await;
        ensure!(alice.is_ok(), "{alice:?}");
    }
    Ok(())
}
