//! How a client is set up.

use std::{env, fmt, sync::Arc, time::Duration};

use prism_core::backoff::Policy;
use tonic::metadata::MetadataMap;

use crate::{
    Client, Error, Result,
    by_namespace::ByNamespace,
    headers::{Common, Headers, Hook},
    raw::{Raw, Shared},
    transport::{Connections, Endpoint, Settings},
};

/// Where a proxy listens unless something else is said.
pub const DEFAULT_ENDPOINT: &str = "http://localhost:8980";

/// The namespace unless something else is said.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Sets up a [`Client`]. Every setting has a default; nothing is checked before
/// [`connect`](Self::connect).
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    namespace: Option<String>,
    timeout: Duration,
    attempts: u32,
    settings: Settings,
    metadata: Vec<(String, String)>,
    hooks: Vec<Hook>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            namespace: None,
            timeout: Duration::from_secs(10),
            attempts: 4,
            settings: Settings {
                connect_timeout: Duration::from_secs(3),
                keepalive: Some((Duration::from_secs(10), Duration::from_secs(5))),
                backoff: Policy {
                    base: Duration::from_millis(100),
                    cap: Duration::from_secs(2),
                },
                max_answer_bytes: 64 << 20,
            },
            metadata: Vec::new(),
            hooks: Vec::new(),
        }
    }
}

impl ClientBuilder {
    /// Adds an endpoint, or several separated by commas: `http://host:port`, `host:port` or `host`.
    ///
    /// With several, a connection goes to one of them, and the next connection to the next one that
    /// accepts. Without any, the environment's `PRISM_ENDPOINT` counts, and [`DEFAULT_ENDPOINT`] where
    /// that is not set.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// The namespace; without it the environment's `PRISM_NAMESPACE`, else [`DEFAULT_NAMESPACE`].
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// How long a call may take, all its attempts together: 10 s, and at most a day. The service is told.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many attempts a call may make, where another one is safe: 4. With 1 nothing is retried.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// How long to wait for one endpoint to accept a connection: 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How often to ask whether the other end is still there while a call or session is under way, and
    /// how long to wait for the answer: 10 s and 5 s. `None` never asks.
    pub fn keepalive(mut self, interval_and_timeout: Option<(Duration, Duration)>) -> Self {
        self.settings.keepalive = interval_and_timeout;
        self
    }

    /// The bounds of the pauses between attempts: the first is at most 100 ms, none is over 2 s. They
    /// double in between, and are jittered.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.backoff = Policy {
            base: first,
            cap: longest,
        };
        self
    }

    /// The largest answer that is read: 64 MiB.
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_answer_bytes = bytes;
        self
    }

    /// Adds request metadata to every call, for example an `authorization`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Lets a function see and change the metadata of every call before it is sent: for what differs
    /// from call to call. It must not block.
    pub fn on_request(mut self, hook: impl Fn(&mut MetadataMap) + Send + Sync + 'static) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Connects. Needs a tokio runtime, here and for as long as the client is used.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a setting that cannot be; [`Error::Unreachable`] when no endpoint accepts
    /// a connection.
    pub async fn connect(self) -> Result<Client> {
        let endpoints = self.resolve_endpoints(env_value)?;
        let headers = self.headers(env_value)?;
        let connections = Connections::connect(&endpoints, &self.settings).await?;
        Ok(self.client(connections, headers))
    }

    /// As [`connect`](Self::connect), with the connection made by the first call.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a setting that cannot be.
    pub fn connect_lazy(self) -> Result<Client> {
        let endpoints = self.resolve_endpoints(env_value)?;
        let headers = self.headers(env_value)?;
        let connections = Connections::lazy(&endpoints, &self.settings)?;
        Ok(self.client(connections, headers))
    }

    fn resolve_endpoints(&self, env: impl Fn(&str) -> Option<String>) -> Result<Vec<Endpoint>> {
        self.check()?;
        if self.endpoints.is_empty() {
            let text = env("PRISM_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
            return Endpoint::parse_list(&text);
        }
        let lists: Result<Vec<_>> = self
            .endpoints
            .iter()
            .map(|text| Endpoint::parse_list(text))
            .collect();
        Ok(lists?.concat())
    }

    fn check(&self) -> Result<()> {
        if self.timeout.is_zero() {
            return Err(Error::invalid(
                "timeout",
                "a call needs some time, the timeout must not be zero",
            ));
        }
        if self.attempts == 0 {
            return Err(Error::invalid("attempts", "a call needs at least one attempt"));
        }
        Ok(())
    }

    fn headers(&self, env: impl Fn(&str) -> Option<String>) -> Result<Headers> {
        let mut common = Common::default();
        for (key, value) in &self.metadata {
            common.add(key, value)?;
        }
        for hook in &self.hooks {
            common.hook(hook.clone());
        }
        let namespace = self.namespace.clone().or_else(|| env("PRISM_NAMESPACE"));
        Headers::new(
            namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
            Arc::new(common),
        )
    }

    fn client(self, connections: Connections, headers: Headers) -> Client {
        let shared = Shared {
            throttles: ByNamespace::default(),
            connections,
            attempts: self.attempts,
            backoff: self.settings.backoff,
        };
        Client::over(Raw::new(Arc::new(shared), headers, self.timeout))
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoints", &self.endpoints)
            .field("namespace", &self.namespace)
            .field("timeout", &self.timeout)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A variable that is set to nothing counts as not set.
fn env_value(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PRISM_ENDPOINT" => Some("a:1,b:2".to_owned()),
            "PRISM_NAMESPACE" => Some("from-env".to_owned()),
            _ => None,
        }
    }

    fn endpoints(builder: &ClientBuilder, env: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let endpoints = builder.resolve_endpoints(env).unwrap();
        endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_said_beats_the_environment_and_that_beats_the_default() {
        let plain = ClientBuilder::default();
        assert_eq!(endpoints(&plain, |_| None), [DEFAULT_ENDPOINT]);
        assert_eq!(endpoints(&plain, env), ["http://a:1", "http://b:2"]);
        assert_eq!(plain.headers(|_| None).unwrap().namespace(), DEFAULT_NAMESPACE);
        assert_eq!(plain.headers(env).unwrap().namespace(), "from-env");

        let said = plain.endpoint("c:3").endpoint("d:4").namespace("mine");
        assert_eq!(endpoints(&said, env), ["http://c:3", "http://d:4"]);
        assert_eq!(said.headers(env).unwrap().namespace(), "mine");
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        for (builder, field) in [
            (ClientBuilder::default().timeout(Duration::ZERO), "timeout"),
            (ClientBuilder::default().attempts(0), "attempts"),
            (ClientBuilder::default().endpoint("https://a"), "endpoint"),
            (ClientBuilder::default().namespace("two words"), "namespace"),
        ] {
            assert_eq!(builder.connect_lazy().unwrap_err().field(), Some(field));
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let builder = ClientBuilder::default().metadata("authorization", "Bearer secret");
        assert!(!format!("{builder:?}").contains("secret"));
    }
}
