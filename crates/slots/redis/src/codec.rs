//! Bytes as the functions take and give them. All numbers are big-endian.

mod common;
mod filter;
mod history;
mod item;
mod reader;
mod record;
mod reply;

pub(crate) use common::Common;
pub(crate) use filter::Program;
pub(crate) use history::{Cursor, query_page, scan_page, sync};
pub(crate) use item::Item;
pub(crate) use reader::{Malformed, Reader};
pub(crate) use record::{read_change, read_record};
pub(crate) use reply::{Answer, Reply, claim, leases, put, registered, renewed, unregistered};

/// The version byte of the head, of records and of changes. A reader refuses a later one.
pub(crate) const FORMAT: u8 = 1;
/// The largest whole number that Lua can hold exactly, and all the ones below it.
pub(crate) const LARGEST: u64 = (1 << 53) - 1;
