//! The filter language: does this record match this filter?
//!
//! A [`Filter`] is read from JSON, from protobuf or built in code, checked against [`Limits`], compiled
//! once and then asked about any number of records. Metadata is a [`Document`].
//!
//! ```
//! use prism_filter::{Document, Filter, Limits, Record};
//!
//! struct Device(Document);
//!
//! impl Record for Device {
//!     fn identity(&self) -> &str { "sensor-1" }
//!     fn registered_at(&self) -> i64 { 1_700_000_000_000 }
//!     fn updated_at(&self) -> i64 { 1_700_000_000_000 }
//!     fn expires_at(&self) -> Option<i64> { None }
//!     fn document(&self) -> &Document { &self.0 }
//! }
//!
//! let limits = Limits::default();
//! let device = Device(Document::from_json(br#"{"status": "online", "battery": 0.15}"#)?);
//! let filter = Filter::parse_str(r#"{"status": "online", "battery.lt": 0.2}"#, &limits)?;
//! assert!(filter.compile(&limits)?.matches(&device));
//! assert_eq!(filter, Filter::new().lt("battery", 0.2).eq("status", "online"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The JSON form
//!
//! An object; all of its members must hold, and `{}` matches everything.
//!
//! | member | meaning |
//! |---|---|
//! | `"status": "online"` | equality |
//! | `"battery.lt": 0.2` | the [`Operator`] as the last segment of the path |
//! | `"battery": {"$gte": 0.1, "$lt": 0.2}` | the same as an object, for several operators at once |
//! | `"$and": [{…}, …]`, `"$or": [{…}, …]`, `"$not": {…}` | combinations; of none, `$and` is true and `$or` false |
//! | `"status": "*"` | the field exists; with `ne`, it does not |
//! | `"location.exists": true`, `"metadata.exists": "location"` | likewise |
//! | `"location": null` | the field exists and is null |
//! | `"firmware.semver.gte": "1.2.0"`, `"firmware": {"$semver.gte": "1.2.0"}` | an operator of two segments |
//! | `"seen.gt": "now-5m"` | a time relative to the moment of the call |
//!
//! Where a text could be read in two ways:
//!
//! - The last segment of a path with several segments *is* the operator if it names one. The object form
//!   never takes it as one: `{"limits.lt": {"$eq": 3}}` is about a field called `lt`. So is any path of
//!   one segment: `{"type": "sensor"}` is about a field called `type`. Two segments name an operator in the
//!   same way: `{"firmware.semver.gte": "1.2.0"}`; with `semver` alone before it, the operator is `gte`.
//! - An object whose keys begin with `$` holds operators; any other object is a value to be equal to.
//!   `{"labels": {"$eq": {"$x": 1}}}` compares with an object that has such a key.
//! - `"*"` is a pattern only as the plain value or as the operand of a final `.eq` or `.ne`:
//!   `{"status": {"$eq": "*"}}` compares with the asterisk itself.
//!
//! Paths are described at [`Path`], what operators do at [`Operator`].
//!
//! # Types
//!
//! Numbers compare as numbers, strings by their bytes, and nothing is converted: a comparison across
//! types is false, and so is every comparison with a missing field. `ne`, `nin` and `$not` are exact
//! negations and so true in those cases. `$registered_at`, `$updated_at` and `$expires_at` are compared
//! with an RFC 3339 time or a whole number of milliseconds since 1970; any other operand is refused.
//!
//! # Relative times
//!
//! `now`, `now-5m`, `now+1h`, as the operand of `lt`, `lte`, `gt` or `gte`, is a point in time relative to the
//! moment of the call. The value at the path is then read as a point in time as well, whether it is a number
//! of milliseconds since 1970 or an RFC 3339 text; any other value is of another type. Such a filter is
//! compiled for one moment, with [`Filter::compile_at`].

mod compiled;
mod document;
mod error;
mod filter;
mod limits;
mod location;
pub mod notation;
mod operand;
mod operator;
mod path;
mod wire;

pub use compiled::{Compiled, Record, Verdict};
pub use document::{ArrayRef, Document, DocumentError, Kind, ObjectRef, ValueRef, merge_patch};
pub use error::Error;
pub use filter::{Clause, Filter, Node};
pub use limits::Limits;
pub use operand::Operand;
pub use operator::Operator;
pub use path::{Path, PathError, SystemField};
