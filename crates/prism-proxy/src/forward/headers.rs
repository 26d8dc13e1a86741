//! What of a request's and a response's headers concerns the proxy, and what passes through.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{
        CONNECTION, CONTENT_TYPE, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
    uri::{Authority, Scheme},
};
use prism_core::{
    caller,
    failure::{Failure, Reason},
};

/// The request metadata that names a namespace.
pub const NAMESPACE: HeaderName = HeaderName::from_static("x-prism-namespace");

const NAMESPACE_ALIAS: HeaderName = HeaderName::from_static("x-namespace");

/// What only a proxy may say of a caller. From outside it is a lie.
const PRINCIPAL: HeaderName = HeaderName::from_static(caller::PRINCIPAL);
const PEER: HeaderName = HeaderName::from_static(caller::PEER);
const PROOF: HeaderName = HeaderName::from_static(caller::PROOF);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Why a request is no gRPC call: what to answer over plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotGrpc {
    pub(crate) status: StatusCode,
    pub(crate) message: &'static str,
}

/// Whether a request is a gRPC call.
pub(crate) fn check_grpc<B>(request: &Request<B>) -> Result<(), NotGrpc> {
    let refuse = |status, message| Err(NotGrpc { status, message });
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let grpc = kind
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')));
    if !grpc && request.method() != Method::POST {
        return refuse(
            StatusCode::NOT_FOUND,
            "this port speaks gRPC; health and metrics are on the admin port\n",
        );
    }
    if !grpc {
        return refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "this port speaks gRPC: use content-type `application/grpc`\n",
        );
    }
    if request.version() != Version::HTTP_2 {
        return refuse(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2\n");
    }
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "a gRPC call is a POST\n");
    }
    Ok(())
}

/// The namespace that a request is for.
pub(crate) fn namespace(headers: &HeaderMap) -> Result<&str, Failure> {
    let refuse = |message: &str| {
        Err(Failure::new(Reason::InvalidRequest, message)
            .field(NAMESPACE)
            .not_applied())
    };
    let Some(value) = headers.get(NAMESPACE).or_else(|| headers.get(NAMESPACE_ALIAS)) else {
        return refuse("the call names no namespace, add the metadata `x-prism-namespace`");
    };
    match value.to_str() {
        Ok("") => refuse("the metadata `x-prism-namespace` is empty, put the namespace's name there"),
        Ok(namespace) => Ok(namespace),
        Err(_) => refuse("the metadata `x-prism-namespace` is not printable ASCII"),
    }
}

/// Refuses headers that are too large in words that a gRPC client understands. The port, which cannot
/// speak gRPC, cuts off only what is far beyond.
pub(crate) fn check_size(headers: &HeaderMap, limit: usize) -> Result<(), Failure> {
    /// What an entry costs beside its name and value, by the standard.
    const ENTRY: usize = 32;
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ENTRY)
        .sum();
    if size <= limit {
        return Ok(());
    }
    let message = format!(
        "the call's metadata of `{size}` bytes is larger than the `{limit}` that this proxy takes: send less, \
         or raise its `limits.header_size`"
    );
    Err(Failure::new(Reason::InvalidRequest, message)
        .field("metadata")
        .with("key", "limits.header_size")
        .with("limit", limit)
        .not_applied())
}

/// Prepares a request's headers for any runner: what was meant for this hop stays here, nobody can
/// claim to be somebody or somewhere, and the namespace stands there once, under its own name: a runner must
/// not read another than the call was routed by.
pub(crate) fn for_runner(headers: &mut HeaderMap, peer: Option<HeaderValue>) {
    strip_hop(headers);
    for name in [PRINCIPAL, PEER, PROOF] {
        headers.remove(name);
    }
    if let Some(peer) = peer {
        headers.insert(PEER, peer);
    }
    let alias = headers.remove(NAMESPACE_ALIAS);
    if let Some(namespace) = headers.remove(NAMESPACE).or(alias) {
        headers.insert(NAMESPACE, namespace);
    }
}

/// Shows one runner that this proxy forwards the call.
pub(crate) fn prove(headers: &mut HeaderMap, proof: &HeaderValue) {
    headers.insert(PROOF, proof.clone());
}

/// Prepares a response's headers, or trailers, for the client.
pub(crate) fn for_client(headers: &mut HeaderMap) {
    strip_hop(headers);
}

/// The address of a request as HTTP/2 wants it: with a scheme and an authority, the client's if it
/// gave one.
pub(crate) fn absolute(uri: &Uri, endpoint: &str) -> Uri {
    if uri.scheme().is_some() && uri.authority().is_some() {
        return uri.clone();
    }
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    if parts.authority.is_none() {
        parts.authority = Authority::try_from(endpoint).ok();
    }
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn strip_hop(headers: &mut HeaderMap) {
    // Names that `connection` lists are meant for this hop as well; HTTP/2 has none.
    if let Some(listed) = headers.remove(CONNECTION) {
        let listed = listed.to_str().unwrap_or_default().to_owned();
        for name in listed
            .split(',')
            .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        {
            headers.remove(name);
        }
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TRANSFER_ENCODING,
        UPGRADE,
        HOST,
    ] {
        headers.remove(name);
    }
    // gRPC demands `te: trailers`, and HTTP/2 allows nothing else there.
    if headers.get(TE).is_some_and(|value| value != "trailers") {
        headers.remove(TE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn what_is_meant_for_one_hop_stays_here() {
        let mut given = headers(&[
            ("connection", "x-private, close"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("proxy-authorization", "secret"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("host", "example"),
            ("te", "trailers"),
            ("x-prism-principal", "root"),
            ("x-prism-peer", "10.0.0.1"),
            ("x-prism-proof", "believe me"),
            ("authorization", "mine"),
            ("x-custom-bin", "AAAA"),
        ]);
        for_runner(&mut given, Some(HeaderValue::from_static("192.0.2.7")));
        assert_eq!(
            given,
            headers(&[
                ("x-prism-peer", "192.0.2.7"),
                ("te", "trailers"),
                ("authorization", "mine"),
                ("x-custom-bin", "AAAA")
            ])
        );
        let mut given = headers(&[("te", "gzip")]);
        for_runner(&mut given, None);
        assert_eq!(given, HeaderMap::new());
    }

    #[test]
    fn the_alias_becomes_the_name() {
        let mut given = headers(&[("x-namespace", "a")]);
        assert_eq!(namespace(&given), Ok("a"));
        for_runner(&mut given, None);
        assert_eq!(given, headers(&[("x-prism-namespace", "a")]));
        let mut given = headers(&[
            ("x-namespace", "a"),
            ("x-prism-namespace", "b"),
            ("x-prism-namespace", "c"),
        ]);
        assert_eq!(namespace(&given), Ok("b"));
        for_runner(&mut given, None);
        assert_eq!(given, headers(&[("x-prism-namespace", "b")]));
    }

    #[test]
    fn a_call_without_namespace_is_told_what_to_do() {
        for given in [headers(&[]), headers(&[("x-prism-namespace", "")])] {
            let failure = namespace(&given).unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidRequest);
            assert!(failure.message.contains("x-prism-namespace"));
        }
    }

    #[test]
    fn only_grpc_is_forwarded() {
        let check = |method: Method, kind: &'static str, version| {
            let request = Request::builder()
                .method(method)
                .header(CONTENT_TYPE, kind)
                .version(version);
            check_grpc(&request.body(()).unwrap()).map_err(|not| not.status.as_u16())
        };
        assert_eq!(check(Method::POST, "application/grpc", Version::HTTP_2), Ok(()));
        assert_eq!(
            check(Method::POST, "application/grpc+proto", Version::HTTP_2),
            Ok(())
        );
        assert_eq!(
            check(Method::POST, "application/grpc; x=y", Version::HTTP_2),
            Ok(())
        );
        assert_eq!(
            check(Method::POST, "application/grpc-web", Version::HTTP_2),
            Err(415)
        );
        assert_eq!(
            check(Method::POST, "application/json", Version::HTTP_11),
            Err(415)
        );
        assert_eq!(check(Method::GET, "text/html", Version::HTTP_11), Err(404));
        assert_eq!(
            check(Method::POST, "application/grpc", Version::HTTP_11),
            Err(505)
        );
        assert_eq!(check(Method::GET, "application/grpc", Version::HTTP_2), Err(405));
    }

    #[test]
    fn an_address_gains_what_it_lacks() {
        let uri = |text: &'static str| Uri::from_static(text);
        assert_eq!(absolute(&uri("http://a:1/s/M"), "h:2"), uri("http://a:1/s/M"));
        assert_eq!(absolute(&uri("/s/M"), "h:2"), uri("http://h:2/s/M"));
    }
}
