//! What every request carries beside its message.

use std::{fmt, sync::Arc, time::Duration};

use prism_core::telemetry::{TRACEPARENT, TraceContext};
use tonic::{
    Request,
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
};

use crate::{Error, Result};

/// Names the namespace of a call.
const NAMESPACE: &str = "x-prism-namespace";

/// A function that may change the metadata of every call.
pub(crate) type Hook = Arc<dyn Fn(&mut MetadataMap) + Send + Sync>;

/// The metadata of every call in one namespace.
#[derive(Clone)]
pub(crate) struct Headers {
    namespace: MetadataValue<Ascii>,
    common: Arc<Common>,
}

/// The metadata that does not depend on the namespace.
#[derive(Default)]
pub(crate) struct Common {
    fixed: MetadataMap,
    hooks: Vec<Hook>,
}

impl Common {
    /// Adds an entry to every call.
    pub(crate) fn add(&mut self, key: &str, value: &str) -> Result<()> {
        let parsed = key.parse::<MetadataKey<Ascii>>().ok().zip(value.parse().ok());
        let Some((name, value)) = parsed.filter(|(name, _)| name != NAMESPACE) else {
            // The value may be a secret, so it is not shown.
            return Err(Error::invalid(
                "metadata",
                format!(
                    "`{key}` cannot be sent with its value: both must be visible ASCII, and `{NAMESPACE}` is set by the client"
                ),
            ));
        };
        self.fixed.append(name, value);
        Ok(())
    }

    /// Adds a function that may change the metadata of every call.
    pub(crate) fn hook(&mut self, hook: Hook) {
        self.hooks.push(hook);
    }
}

impl Headers {
    pub(crate) fn new(namespace: &str, common: Arc<Common>) -> Result<Self> {
        Ok(Self {
            namespace: namespace_value(namespace)?,
            common,
        })
    }

    /// The same for another namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Result<Self> {
        Self::new(namespace, self.common.clone())
    }

    /// Of the calls that carry these.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.to_str().unwrap_or_default()
    }

    /// A request with these and, for a call that ends, its deadline.
    ///
    /// A hook that sets a `traceparent` of its own overrides `trace`.
    pub(crate) fn request<T>(
        &self,
        message: T,
        trace: TraceContext,
        timeout: Option<Duration>,
    ) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let metadata = request.metadata_mut();
        for entry in self.common.fixed.iter() {
            if let tonic::metadata::KeyAndValueRef::Ascii(key, value) = entry {
                metadata.append(key, value.clone());
            }
        }
        metadata.insert(NAMESPACE, self.namespace.clone());
        if let Ok(value) = trace.to_string().parse() {
            metadata.insert(TRACEPARENT, value);
        }
        for hook in &self.common.hooks {
            hook(metadata);
        }
        request
    }
}

fn namespace_value(namespace: &str) -> Result<MetadataValue<Ascii>> {
    let visible = !namespace.is_empty() && namespace.bytes().all(|byte| byte.is_ascii_graphic());
    namespace.parse().ok().filter(|_| visible).ok_or_else(|| {
        let message =
            format!("`{namespace}` is not the name of a namespace: use visible ASCII without spaces");
        Error::invalid("namespace", message)
    })
}

impl fmt::Debug for Headers {
    /// Shows no metadata: that is where credentials are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers")
            .field("namespace", &self.namespace())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_namespace_deadline_fixed_entries_and_what_hooks_add() {
        let mut common = Common::default();
        common.add("authorization", "Bearer secret").unwrap();
        common.hook(Arc::new(|metadata| {
            metadata.insert("x-request", MetadataValue::from_static("7"));
        }));
        let headers = Headers::new("presence", Arc::new(common)).unwrap();
        let request = headers.request((), TraceContext::new_root(), Some(Duration::from_millis(250)));
        let read = |key| request.metadata().get(key).and_then(|value| value.to_str().ok());
        assert_eq!(read("x-prism-namespace"), Some("presence"));
        assert_eq!(read("authorization"), Some("Bearer secret"));
        assert_eq!(read("x-request"), Some("7"));
        assert!(TraceContext::parse(read("traceparent").unwrap()).is_some());
        assert_eq!(read("grpc-timeout"), Some("250000u"));
        assert!(!format!("{headers:?}").contains("secret"));
    }

    #[test]
    fn names_that_cannot_be_sent_are_refused() {
        for name in ["", "two words", "schön", "a\nb"] {
            let error = Headers::new(name, Arc::default()).unwrap_err();
            assert_eq!(error.field(), Some("namespace"), "`{name}`");
        }
        let mut common = Common::default();
        for (key, value) in [
            ("Ümlaut", "s3cret"),
            ("x", "line\nbreak"),
            ("x-prism-namespace", "s3cret"),
        ] {
            let error = common.add(key, value).unwrap_err();
            assert!(!error.to_string().contains(value), "{error}");
        }
    }
}
