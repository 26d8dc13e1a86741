//! What settings of slots look like to editors.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A number of bytes, for `schema_with`.
pub fn size_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "oneOf": [
            { "type": "string", "pattern": "^[0-9.]+ ?(B|[KMG]i?B?)?$" },
            { "type": "integer", "minimum": 1, "description": "in bytes" },
        ]
    })
}
