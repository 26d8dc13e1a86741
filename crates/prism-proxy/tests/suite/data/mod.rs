//! The data port between scripted clients and scripted runners.

mod crowds;
mod limits;
mod overload;
mod passing;
mod retrying;
mod stopping;
pub(crate) mod support;
