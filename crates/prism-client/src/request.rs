//! What a caller asks for.

use prism_filter::Filter;
use serde::Serialize;
use serde_json::Value;

mod multicast;
mod subscribe;

pub use multicast::{
    DeliverySemantics, GetMulticastRequest, ListDeadLettersRequest, MulticastRequest, Priority,
    RedriveRequest,
};
pub use subscribe::{Credits, SubscribeRequest};

use crate::{Identity, Position, Registration, Result, wire};

/// Registers an identity.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RegisterRequest {
    /// 1 to 256 bytes without control characters, unique in the namespace.
    pub identity: String,
    /// A JSON object; null is an empty one. See [`with_metadata`](Self::with_metadata) for types of
    /// your own.
    pub metadata: Value,
    /// The lease in seconds. `None`: the namespace's default. 0: no lease.
    pub ttl: Option<u64>,
    /// The lease in milliseconds, for shorter ones; wins over `ttl`.
    pub ttl_ms: Option<u64>,
    /// Take the identity over from whoever holds it.
    pub replace: bool,
    /// Registering again with the same session is a renewal. `None`: the client's own, which makes a
    /// retry after a lost answer safe.
    pub session: Option<SessionId>,
}

impl RegisterRequest {
    /// A request for an identity, without metadata.
    pub fn new(identity: impl Into<String>) -> Self {
        Self {
            identity: identity.into(),
            ..Self::default()
        }
    }

    /// The same with a type of the caller's as metadata.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when it does not serialize to a JSON object.
    pub fn with_metadata(mut self, metadata: &impl Serialize) -> Result<Self> {
        self.metadata = wire::to_object("metadata", metadata)?;
        Ok(self)
    }
}

/// 16 bytes that tell the registrations of one client from those of all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// One that nobody else has.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

/// A lease to renew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lease {
    /// The identity.
    pub identity: String,
    /// Of the registration to renew. `None`: whichever is there.
    pub generation: Option<Position>,
}

/// Changes the metadata of an identity.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UpdateRequest {
    /// The identity.
    pub identity: String,
    /// A JSON merge patch (RFC 7396): an object whose nulls remove fields.
    pub patch: Value,
    /// Refuse unless this is the registration.
    pub generation: Option<Position>,
    /// Refuse unless the identity's last write has this revision.
    pub if_revision: Option<u64>,
}

/// Removes an identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnregisterRequest {
    /// The identity.
    pub identity: String,
    /// Refuse unless this is the registration. `None`: whichever is there.
    pub generation: Option<Position>,
}

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// As the namespace is configured.
    #[default]
    Default,
    /// Reflects every write that was acknowledged before the call.
    Consistent,
    /// At once from the view; the answer says how old that is.
    Stale,
}

/// Lists the identities that match.
#[derive(Debug, Clone)]
pub struct EnumerateRequest {
    /// Which. `None`: all.
    pub filter: Option<Filter>,
    /// How many a page. `None`: 100.
    pub limit: Option<u32>,
    /// How many to skip, at most 10,000. Prefer the cursor.
    pub offset: u64,
    /// [`Page::next_cursor`](crate::Page::next_cursor) of the page before.
    pub cursor: Option<String>,
    /// Whether to return metadata.
    pub include_metadata: bool,
    /// `<path> [asc|desc]`, at most 8. Ties go by identity.
    pub sort_by: Vec<String>,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// Answer from this position or later.
    pub min_position: Option<Position>,
    /// Return metadata only at these dotted paths, at most 64. Empty: all of it.
    pub fields: Vec<String>,
    /// Return the total and facets, and no identities.
    pub count_only: bool,
    /// Dotted paths, at most 8: count how often each value there occurs among all that match. First page only.
    pub facets: Vec<String>,
}

impl Default for EnumerateRequest {
    fn default() -> Self {
        Self {
            filter: None,
            limit: None,
            offset: 0,
            cursor: None,
            include_metadata: true,
            sort_by: Vec::new(),
            consistency: Consistency::Default,
            min_position: None,
            fields: Vec::new(),
            count_only: false,
            facets: Vec::new(),
        }
    }
}

/// Watches a filter.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchRequest {
    /// Which identities. `None`: all.
    pub filter: Option<Filter>,
    /// Go on after this position instead of beginning with everything that matches.
    pub resume_from: Option<Position>,
    /// Whether to return metadata.
    pub include_metadata: bool,
}

impl Default for WatchRequest {
    fn default() -> Self {
        Self {
            filter: None,
            resume_from: None,
            include_metadata: true,
        }
    }
}

/// Checks which registrations violate a schema.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckSchemaRequest {
    /// What to check by, as `identity_schema` in the configuration. `None`: the namespace's own schema.
    pub schema: Option<Value>,
    /// How many violations to report; the others are counted. `None`: all.
    pub limit: Option<u32>,
}

macro_rules! named_by_identity {
    ($($request:ident)*) => {$(
        impl From<&str> for $request {
            fn from(identity: &str) -> Self {
                identity.to_owned().into()
            }
        }

        impl From<String> for $request {
            fn from(identity: String) -> Self {
                Self { identity, ..Self::default() }
            }
        }

        impl From<&Registration> for $request {
            /// Fenced: for this registration and no other one.
            fn from(registration: &Registration) -> Self {
                Self {
                    generation: Some(registration.generation),
                    ..registration.identity.clone().into()
                }
            }
        }

        impl From<&Identity> for $request {
            /// Fenced: for this registration and no other one.
            fn from(identity: &Identity) -> Self {
                Self {
                    generation: Some(identity.generation),
                    ..identity.identity.clone().into()
                }
            }
        }
    )*};
}

named_by_identity!(Lease UnregisterRequest SubscribeRequest);
