//! The client.

use crate::{ClientBuilder, Registry, Result, raw::Raw};

/// A connection to the service, seen from one namespace. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    /// The multicast registry of the namespace.
    pub registry: Registry,
}

impl Client {
    /// Connects to the proxy that the environment's `PRISM_ENDPOINT` names, or to
    /// [`DEFAULT_ENDPOINT`](crate::DEFAULT_ENDPOINT).
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn new(namespace: impl Into<String>) -> Result<Self> {
        Self::builder().namespace(namespace).connect().await
    }

    /// For everything that [`new`](Self::new) leaves at its default.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn over(raw: Raw) -> Self {
        Self {
            registry: Registry::new(raw),
        }
    }

    /// The same connections, seen from another namespace.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when that cannot be the name of one.
    pub fn namespace(&self, namespace: &str) -> Result<Self> {
        Ok(Self {
            registry: self.registry.in_namespace(namespace)?,
        })
    }
}
