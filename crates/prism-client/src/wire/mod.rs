//! Requests and answers to and from what goes over the wire.
//!
//! The one place that knows both. An answer that lacks what it must have, or has what it must not,
//! fails as [`crate::Error::Malformed`] with the field's name.

mod answer;
mod ask;
mod explain;
mod value;
mod watch;

pub(crate) use answer::CONNECTION_LOST;

pub(crate) use value::to_object;

pub(crate) use answer::{
    event, found, multicast, page, registration, registrations, renewals, unregistered, updated,
};
pub(crate) use ask::{enumerate, filter, lease, multicast as multicast_request, position, register, update};
pub(crate) use explain::{explanation, why};
pub(crate) use watch::{watch, watch_event};
