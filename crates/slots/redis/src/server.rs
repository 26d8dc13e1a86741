//! What the server must be for the promises of this slot to hold.

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{
        InfoKind,
        config::{Options, Server},
    },
};
use prism_slot::Result;
use tracing::warn;

use crate::{config::Target, connect::refused, error::misconfigured};

/// The first version with functions.
const OLDEST: u64 = 7;

/// Checks the server, or every primary of a cluster.
pub(crate) async fn check_servers(client: &Client, target: &Target) -> Result<()> {
    if !target.cluster {
        return check_server(client, target, None).await;
    }
    for node in client.active_connections() {
        check_server(client, target, Some(node)).await?;
    }
    Ok(())
}

async fn check_server(client: &Client, target: &Target, node: Option<Server>) -> Result<()> {
    let options = Options {
        cluster_node: node,
        ..Options::default()
    };
    let client = client.with_options(&options);
    let server: String = client
        .info(Some(InfoKind::Server))
        .await
        .map_err(|error| refused(target, &error))?;
    check_version(field(&server, "redis_version"))?;
    let memory: String = client
        .info(Some(InfoKind::Memory))
        .await
        .map_err(|error| refused(target, &error))?;
    check_policy(field(&memory, "maxmemory_policy"))
}

fn check_version(version: Option<&str>) -> Result<()> {
    let major = version.and_then(|version| version.split('.').next()?.parse::<u64>().ok());
    if major.is_some_and(|major| major >= OLDEST) {
        return Ok(());
    }
    let found = version.unwrap_or("unknown");
    Err(misconfigured(format!(
        "redis 7.0 or later is required, this one is `{found}`; upgrade it"
    )))
}

/// An evicted key would be a loss that nobody was told of.
fn check_policy(policy: Option<&str>) -> Result<()> {
    match policy {
        Some("noeviction") => Ok(()),
        Some(other) => Err(misconfigured(format!(
            "`maxmemory-policy` is `{other}`, under which redis drops what it was given to keep; set it to `noeviction`"
        ))),
        None => {
            warn!("redis does not tell its `maxmemory-policy`; it must be `noeviction`");
            Ok(())
        }
    }
}

/// The value of a field in the answer to `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))?;
    Some(line[name.len() + 1..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_functions_are_refused() {
        for version in [Some("7.0.15"), Some("8.2.1"), Some("10.0.0")] {
            assert_eq!(check_version(version), Ok(()));
        }
        for version in [Some("6.2.14"), Some("beta"), None] {
            let refused = check_version(version).unwrap_err().to_string();
            assert!(refused.contains("7.0 or later") && refused.contains(version.unwrap_or("unknown")));
        }
    }

    #[test]
    fn only_noeviction_will_do() {
        let info = "# Memory\r\nused_memory:1\r\nmaxmemory_policy_x:1\r\nmaxmemory_policy:allkeys-lru\r\n";
        let refused = check_policy(field(info, "maxmemory_policy"))
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("`allkeys-lru`") && refused.contains("`noeviction`"),
            "{refused}"
        );
        assert_eq!(check_policy(Some("noeviction")), Ok(()));
        assert_eq!(check_policy(field("# Memory\r\n", "maxmemory_policy")), Ok(()));
    }
}
