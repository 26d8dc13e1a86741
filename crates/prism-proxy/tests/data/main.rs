//! The data port between scripted clients and scripted runners.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

mod crowds;
mod limits;
mod overload;
mod passing;
mod retrying;
mod stopping;
mod support;
