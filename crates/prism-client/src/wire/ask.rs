//! Requests.

use prism_proto::pattern;
use prost_types::Struct;

use super::value::object_to_wire;
use crate::{
    CheckSchemaRequest, Consistency, EnumerateRequest, Error, Lease, Position, RegisterRequest, Result,
    SessionId, UpdateRequest,
};

/// `session` is the client's, for requests without one of their own.
pub(crate) fn register(request: RegisterRequest, session: SessionId) -> Result<pattern::RegisterRequest> {
    Ok(pattern::RegisterRequest {
        identity: request.identity,
        metadata: object_to_wire("metadata", request.metadata)?,
        ttl_seconds: request.ttl.map(|ttl| whole("ttl", ttl)).transpose()?,
        ttl_ms: request.ttl_ms.map(|ttl| whole("ttl_ms", ttl)).transpose()?,
        replace: request.replace,
        session: request.session.unwrap_or(session).0.to_vec(),
    })
}

pub(crate) fn lease(lease: Lease) -> pattern::renew_request::Lease {
    pattern::renew_request::Lease {
        identity: lease.identity,
        generation: lease.generation.map(position),
    }
}

pub(crate) fn update(request: UpdateRequest) -> Result<pattern::UpdateRequest> {
    if request.if_revision == Some(0) {
        return Err(Error::invalid(
            "if_revision",
            "`if_revision` is 0, but revisions begin at 1",
        ));
    }
    Ok(pattern::UpdateRequest {
        identity: request.identity,
        patch: object_to_wire("patch", request.patch)?,
        generation: request.generation.map(position),
        if_revision: request.if_revision.unwrap_or_default(),
    })
}

pub(crate) fn enumerate(request: EnumerateRequest) -> Result<pattern::EnumerateRequest> {
    Ok(pattern::EnumerateRequest {
        filter: request.filter.as_ref().map(filter).transpose()?,
        pagination: Some(pattern::Pagination {
            offset: whole("offset", request.offset)?,
            ..page(request.limit, request.cursor)?
        }),
        include_metadata: Some(request.include_metadata),
        sort_by: request.sort_by,
        consistency: consistency(request.consistency).into(),
        min_position: request.min_position.map(position),
        fields: request.fields,
        count_only: request.count_only,
        facets: request.facets,
    })
}

pub(crate) fn check_schema(request: CheckSchemaRequest) -> Result<pattern::CheckSchemaRequest> {
    let schema = request
        .schema
        .map(|schema| object_to_wire("schema", schema))
        .transpose()?;
    Ok(pattern::CheckSchemaRequest {
        schema: schema.map(|fields| Struct {
            fields: fields.into_iter().collect(),
        }),
        limit: request.limit.unwrap_or_default(),
    })
}

pub(crate) fn position(position: Position) -> pattern::Position {
    pattern::Position {
        epoch: position.epoch,
        revision: position.revision,
    }
}

pub(super) fn consistency(consistency: Consistency) -> pattern::Consistency {
    match consistency {
        Consistency::Default => pattern::Consistency::Unspecified,
        Consistency::Consistent => pattern::Consistency::Consistent,
        Consistency::Stale => pattern::Consistency::Stale,
    }
}

pub(crate) fn filter(filter: &prism_filter::Filter) -> Result<pattern::Filter> {
    filter
        .to_proto()
        .map_err(|mistake| Error::invalid("filter", mistake.to_string()))
}

pub(super) fn page(limit: Option<u32>, cursor: Option<String>) -> Result<pattern::Pagination> {
    let limit = limit.unwrap_or_default();
    Ok(pattern::Pagination {
        limit: i32::try_from(limit)
            .map_err(|_| Error::invalid("limit", format!("`limit` is {limit}, at most 1000 fit a page")))?,
        offset: 0,
        cursor: cursor.unwrap_or_default(),
    })
}

/// Wire integers are signed.
pub(super) fn whole(field: &str, number: u64) -> Result<i64> {
    i64::try_from(number)
        .map_err(|_| Error::invalid(field, format!("`{field}` is {number}, which is too large")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SESSION: SessionId = SessionId([7; 16]);

    #[test]
    fn the_clients_session_stands_in_and_an_own_one_wins() {
        let request = register(RegisterRequest::new("a"), SESSION).unwrap();
        assert_eq!(request.session, vec![7; 16]);
        let own = RegisterRequest {
            session: Some(SessionId([9; 16])),
            ..RegisterRequest::new("a")
        };
        assert_eq!(register(own, SESSION).unwrap().session, vec![9; 16]);
    }

    #[test]
    fn defaults_stay_unset_on_the_wire() {
        let request = register(RegisterRequest::new("a"), SESSION).unwrap();
        assert_eq!(
            (request.ttl_seconds, request.ttl_ms, request.replace),
            (None, None, false)
        );
        let request = enumerate(EnumerateRequest::default()).unwrap();
        assert_eq!(request.include_metadata, Some(true));
        assert_eq!(request.pagination, Some(pattern::Pagination::default()));
    }

    #[test]
    fn what_does_not_fit_the_wire_is_named() {
        let long = RegisterRequest {
            ttl: Some(u64::MAX),
            ..RegisterRequest::new("a")
        };
        assert_eq!(register(long, SESSION).unwrap_err().field(), Some("ttl"));
        let list = RegisterRequest {
            metadata: json!([1]),
            ..RegisterRequest::new("a")
        };
        assert_eq!(register(list, SESSION).unwrap_err().field(), Some("metadata"));
        let far = EnumerateRequest {
            limit: Some(u32::MAX),
            ..Default::default()
        };
        assert_eq!(enumerate(far).unwrap_err().field(), Some("limit"));
        let never = UpdateRequest {
            if_revision: Some(0),
            ..Default::default()
        };
        assert_eq!(update(never).unwrap_err().field(), Some("if_revision"));
    }
}
