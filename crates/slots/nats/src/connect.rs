//! Making connections.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::join_all};
use prism_core::{backoff::Policy, config::Secret};
use prism_slot::{Error, Result};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    Config,
    address::Prefix,
    config::{Address, InvalidConfig},
    error::{misconfigured, timeout, unavailable},
    health::Health,
    link::{Link, SUBSCRIPTION_QUEUE},
    rules::{self, Rules},
};

/// The longest pause between two attempts, unless the first one is configured to be longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many times longer the pauses are after the slot has been closed. async-nats cannot be told to give
/// up: it ends when it has a connection again, and until then calls a broker that nobody wants any more.
const QUIET: u32 = 100;

/// How long to wait for the reason of a refusal.
const REASON: Duration = Duration::from_millis(100);

/// Connects once, ready to connect again whenever the connection is lost.
pub(crate) async fn connect(namespace: &str, config: &Config, health: &Arc<Health>) -> Result<Client> {
    let addresses = config.addresses().map_err(refused)?;
    let servers: Vec<String> = addresses.iter().map(|address| address.text.clone()).collect();
    let options = log_in(options(namespace, config, &addresses, health), config, &addresses).await?;
    let client = options
        .connect(&*servers)
        .await
        .map_err(|error| explain(&error, &servers))?;
    if !client.server_info().headers {
        return Err(misconfigured(
            "the server knows no message headers; use NATS 2.2 or newer",
        ));
    }
    Ok(client)
}

/// A configuration that was found wanting.
pub(crate) fn refused(error: InvalidConfig) -> Error {
    misconfigured(error.to_string())
}

fn options(namespace: &str, config: &Config, addresses: &[Address], health: &Arc<Health>) -> ConnectOptions {
    let policy = Policy {
        base: config.reconnect_wait,
        cap: config.reconnect_wait.max(LONGEST_PAUSE),
    };
    let (pausing, reporting) = (health.clone(), health.clone());
    ConnectOptions::new()
        .name(format!("prism-multicast {namespace}"))
        .connection_timeout(config.timeout)
        .ping_interval(config.ping_interval)
        // Every server is tried once before it is too late.
        .max_reconnects(config.most_reconnects().map(|most| most.max(addresses.len())))
        .subscription_capacity(SUBSCRIPTION_QUEUE)
        // Servers that the cluster names come without a scheme.
        .require_tls(addresses.iter().all(|address| address.encrypted))
        // Ours are correct by construction.
        .skip_subject_validation(true)
        .reconnect_delay_callback(move |attempt| pause(&policy, attempt, &pausing))
        .event_callback(move |event| {
            reporting.report(event);
            std::future::ready(())
        })
}

/// Drawn at random, so that many runners which lost the same broker do not return at the same moment.
fn pause(policy: &Policy, attempt: usize, health: &Health) -> Duration {
    if health.is_closing() {
        return policy.base * QUIET;
    }
    // async-nats also asks before the very first attempt, when nobody has failed yet.
    if health.connection() == 0 {
        return Duration::ZERO;
    }
    let failures = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    rand::random_range(policy.range(failures))
}

async fn log_in(options: ConnectOptions, config: &Config, addresses: &[Address]) -> Result<ConnectOptions> {
    let mut options = options;
    if let Some(path) = &config.ca_file {
        readable("ca_file", path).await?;
        options = options.add_root_certificates(path.clone());
    }
    let in_address = addresses.iter().find_map(|address| address.login.clone());
    let configured = config.username.clone().zip(config.password.clone());
    if let Some((user, password)) = configured.or(in_address) {
        return Ok(options.user_and_password(user, password.expose().to_owned()));
    }
    if let Some(token) = &config.token {
        return Ok(options.token(token.expose().to_owned()));
    }
    if let Some(seed) = config.nkey.as_ref().map(Secret::expose) {
        return Ok(options.nkey(seed.to_owned()));
    }
    if let Some(path) = &config.creds_file {
        let credentials = readable("creds_file", path).await?;
        let unusable = |error| misconfigured(format!("`creds_file` {}: {error}", path.display()));
        return options.credentials(&credentials).map_err(unusable);
    }
    Ok(options)
}

async fn readable(key: &str, path: &std::path::Path) -> Result<String> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| misconfigured(format!("`{key}` {} cannot be read: {error}", path.display())))
}

fn explain(error: &ConnectError, servers: &[String]) -> Error {
    let servers = servers.join(", ");
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => misconfigured(
            format!("{servers} refused the login: {error}; check the slot's credentials"),
        ),
        ConnectErrorKind::Tls => {
            misconfigured(format!("cannot encrypt the connection: {error}; check `ca_file`"))
        }
        ConnectErrorKind::ServerParse => misconfigured(format!("{servers}: {error}")),
        ConnectErrorKind::TimedOut => timeout(),
        ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            unavailable(format!("cannot connect to {servers}: {error}"))
        }
    }
}

/// Makes sure that this login may publish and subscribe under the prefix, for every identity.
///
/// The broker says so only afterwards and to nobody in particular, so a namespace would come up and lose
/// everything.
pub(crate) async fn check_permissions<'a>(
    mut links: impl Iterator<Item = &'a Link>,
    prefix: &Prefix,
    deadline: Instant,
) -> Result<()> {
    // All of them log in alike.
    let Some(first) = links.next() else {
        return Ok(());
    };
    try_out(first, prefix, deadline).await?;
    let subjects = prefix.all();
    let asking = std::iter::once(first)
        .chain(links)
        .map(|link| link.learn_rules(&subjects));
    for rules in timeout_at(deadline, join_all(asking))
        .await
        .map_err(|_| timeout())?
    {
        match rules {
            Rules::Against(rule) => {
                return Err(misconfigured(format!(
                    "the broker does not let this login use all of `{subjects}`, {rule}; allow it"
                )));
            }
            Rules::Hidden => {
                tracing::warn!(
                    "nats does not say what it allows, which slows down; allow `{}`",
                    rules::SUBJECT
                );
            }
            Rules::None | Rules::Unsupported => {}
        }
    }
    Ok(())
}

/// Sends one message to a subject that is nobody's, there and back.
async fn try_out(link: &Link, prefix: &Prefix, deadline: Instant) -> Result<()> {
    let subject = prefix.unused_subject();
    let there_and_back = there_and_back(link, &subject, deadline);
    let checked = timeout_at(deadline, there_and_back)
        .await
        .unwrap_or_else(|_| Err(timeout()));
    if !matches!(checked, Ok(true)) {
        // The broker's reason follows, if it has one.
        sleep(REASON).await;
    }
    match (checked, link.health.last_error()) {
        // Whatever else was seen is the consequence of this.
        (_, Some(complaint)) => Err(misconfigured(format!(
            "{complaint}; allow the slot to use `{prefix}*` and `_INBOX.>`"
        ))),
        (Ok(true), None) => Ok(()),
        (Ok(false), None) => Err(misconfigured(format!(
            "the broker did not deliver a message of this slot to itself; allow it to use `{prefix}*`"
        ))),
        (Err(error), None) => Err(error),
    }
}

/// Whether a message to ourselves arrives.
async fn there_and_back(link: &Link, subject: &str, deadline: Instant) -> Result<bool> {
    let subscribed = link.client.subscribe(subject.to_owned()).await;
    let mut subscriber = subscribed.map_err(|error| unavailable(error.to_string()))?;
    let sent = link.client.publish(subject.to_owned(), Bytes::new()).await;
    sent.map_err(|error| unavailable(error.to_string()))?;
    link.barrier(deadline).await?;
    // What the broker sent before the echo is here before the echo.
    Ok(subscriber.next().now_or_never().flatten().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Counters;

    #[test]
    fn only_a_lost_connection_makes_wait_and_a_closed_slot_hardly_ever_calls() {
        let policy = Policy {
            base: Duration::from_millis(100),
            cap: LONGEST_PAUSE,
        };
        let health = Health::new("test", Arc::new(Counters::default()));
        assert_eq!(pause(&policy, 1, &health), Duration::ZERO);
        health.connected_for_the_first_time();
        let pauses: Vec<Duration> = (1..=200)
            .map(|attempt| pause(&policy, attempt, &health))
            .collect();
        assert!((Duration::from_millis(50)..=Duration::from_millis(100)).contains(&pauses[0]));
        assert!(
            pauses
                .iter()
                .all(|pause| *pause >= Duration::from_millis(50) && *pause <= LONGEST_PAUSE)
        );
        let different: std::collections::HashSet<_> = pauses.iter().collect();
        assert!(different.len() > 150, "hardly any jitter in {pauses:?}");
        health.end();
        assert_eq!(pause(&policy, 1, &health), Duration::from_secs(10));
    }
}
