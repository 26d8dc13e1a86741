//! Requests and answers to and from what goes over the wire.
//!
//! The one place that knows both. An answer that lacks what it must have, or has what it must not,
//! fails as [`crate::Error::Malformed`] with the field's name.

mod answer;
mod ask;
mod dead;
mod delivery;
mod explain;
mod session;
mod value;
mod watch;

pub(crate) use value::to_object;

pub(crate) use answer::{
    found, page, registration, registrations, renewals, schema_finding, unregistered, updated,
};
pub(crate) use ask::{check_schema, enumerate, filter, lease, position, register, update};
pub(crate) use dead::{dead_letters, list_dead_letters, redrive, redriven};
pub(crate) use delivery::{dry_run, get_multicast, multicast, multicast_event, multicast_request};
pub(crate) use explain::{explanation, why};
pub(crate) use session::{CONNECTION_LOST, answer_to, event, listen};
pub(crate) use watch::{watch, watch_event};
