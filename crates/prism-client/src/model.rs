//! What the service answers.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Error;

/// A point in a namespace's history. Comparable only within one epoch, and so not ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which history. A new one says that history may have been lost.
    pub epoch: u64,
    /// The number of the last write that is included.
    pub revision: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.epoch, self.revision)
    }
}

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was none.
    Registered,
    /// It took the place of another one.
    Replaced,
    /// The same session had registered it with other metadata.
    Updated,
    /// The same session had registered it so before: only the lease moved.
    Renewed,
}

/// A registered identity, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub identity: String,
    /// What the call did.
    pub outcome: Outcome,
    /// When it was registered.
    pub registered_at: SystemTime,
    /// When the lease ends unless it is renewed; `None` without a lease.
    pub expires_at: Option<SystemTime>,
    /// Names this registration and no other one.
    pub generation: Position,
    /// Of this write; for a renewal, of the write before it.
    pub position: Position,
    /// When to renew; `None` without a lease.
    pub renew_after: Option<Duration>,
    /// The lease that was granted, which may be shorter than the one that was asked for; `None` without one.
    pub ttl: Option<Duration>,
}

/// The lease of one registration after an attempt to renew it.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// The identity.
    pub identity: String,
    /// Its lease, or why it was not renewed.
    pub result: Result<Renewed, Error>,
}

/// A renewed lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// When it ends now; `None` for a registration without a lease.
    pub expires_at: Option<SystemTime>,
    /// When to renew again.
    pub renew_after: Option<Duration>,
}

/// A registered identity, as everybody sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Its name.
    pub identity: String,
    /// Its metadata; empty when the request did not ask for any.
    pub metadata: Map<String, Value>,
    /// When it was registered.
    pub registered_at: SystemTime,
    /// When its metadata was last written.
    pub updated_at: SystemTime,
    /// When its lease ends, as far as is known; `None` without a lease.
    pub expires_at: Option<SystemTime>,
    /// The length of its lease; `None` without one.
    pub ttl: Option<Duration>,
    /// Names this registration and no other one.
    pub generation: Position,
    /// The revision of the last write.
    pub revision: u64,
}

impl Identity {
    /// The metadata as a type of the caller's.
    ///
    /// # Errors
    /// As `serde_json` says, when the metadata does not have that shape.
    pub fn metadata_as<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        T::deserialize(Value::Object(self.metadata.clone()))
    }
}

/// An identity as it was at a position.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The identity.
    pub identity: Identity,
    /// When it was so.
    pub position: Position,
}

/// A page of identities.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Those on this page.
    pub identities: Vec<Identity>,
    /// How many match, on all pages.
    pub total_count: u64,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<String>,
    /// The set is as it was here.
    pub position: Position,
    /// With [`Consistency::Stale`](crate::Consistency::Stale): the time since the view was known to be
    /// current.
    pub view_age: Option<Duration>,
    /// What was asked for, in that order.
    pub facets: Vec<Facet>,
}

/// How often each value of a field occurs.
#[derive(Debug, Clone, PartialEq)]
pub struct Facet {
    /// The field.
    pub field: String,
    /// Scalars, and of a list each of its elements once; the most frequent first, at most 100.
    pub buckets: Vec<(Value, u64)>,
    /// How many different values there are, of which `buckets` may hold only some.
    pub value_count: u64,
    /// How many identities have an object here, or a text that is too long.
    pub other_count: u64,
    /// How many identities have nothing here.
    pub missing_count: u64,
}

impl IntoIterator for Page {
    type Item = Identity;
    type IntoIter = std::vec::IntoIter<Identity>;

    fn into_iter(self) -> Self::IntoIter {
        self.identities.into_iter()
    }
}

impl<'a> IntoIterator for &'a Page {
    type Item = &'a Identity;
    type IntoIter = std::slice::Iter<'a, Identity>;

    fn into_iter(self) -> Self::IntoIter {
        self.identities.iter()
    }
}

/// What a removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unregistered {
    /// Whether there was a registration to remove.
    pub existed: bool,
    /// Of the removal, or the last write when there was nothing to remove.
    pub position: Position,
}

/// What a check of the schema yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaFinding {
    /// Something is wrong with a registration.
    Violation(SchemaViolation),
    /// How far the check is; the last one is done.
    Progress(SchemaProgress),
}

/// Something that is wrong with the metadata of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaViolation {
    /// The identity.
    pub identity: String,
    /// The field, as a path; an item of a list as `path[index]`.
    pub field: String,
    /// What is wrong, for people.
    pub violation: String,
}

/// How far a check of the schema is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaProgress {
    /// How many registrations were looked at.
    pub checked: u64,
    /// How many of them violate the schema.
    pub nonconforming: u64,
    /// How many there were when the check began.
    pub total: u64,
    /// Whether all were looked at.
    pub done: bool,
    /// Where the namespace stood when the check began.
    pub position: Position,
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// It matched when the watch began.
    Present(Identity),
    /// It matches, and did not before.
    Entered(Change),
    /// It matched before and still does.
    Updated(Change),
    /// It does not match any more, or is gone; shown as it last matched.
    Left(Change),
    /// Everything up to here has been told. The first one ends the snapshot.
    Bookmark(Position),
    /// What was told before is void: the watch begins anew.
    Restarted,
}

/// A change to a registration.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The registration.
    pub identity: Identity,
    /// What was written.
    pub cause: Cause,
    /// When. [`WatchRequest::resume_from`](crate::WatchRequest::resume_from) takes it.
    pub position: Position,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It was registered.
    Registered,
    /// It was registered in place of another.
    Replaced,
    /// Its metadata was changed.
    Updated,
    /// It was unregistered.
    Unregistered,
    /// Its lease ended.
    Expired,
    /// It was removed to make room.
    Evicted,
}
