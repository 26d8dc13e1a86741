//! Gives what the gRPC library refuses by itself the shape of our own refusals.
//!
//! A request that is too large or cannot be decoded never reaches a method. The library answers with a
//! bare status (`INTERNAL`, for what is the client's mistake), in which no program can look up why.

use std::task::{Context, Poll};

use futures::{TryFutureExt, future::MapOk};
use prism_core::failure::{Failure, Reason};
use tonic::{Code, Status, body::Body, codegen::Service, server::NamedService};

use super::MAX_REQUEST_BYTES;

/// A service whose every refusal says why.
#[derive(Debug, Clone)]
pub struct Shaped<S>(pub S);

impl<S: NamedService> NamedService for Shaped<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Shaped<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(http::Response<Body>) -> http::Response<Body>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.0.call(request).map_ok(shape)
    }
}

fn shape(response: http::Response<Body>) -> http::Response<Body> {
    // A refusal has its status among the headers, an answer after its body.
    if !response.headers().contains_key("grpc-status") {
        return response;
    }
    let refused = Status::from_header_map(response.headers());
    match refused.as_ref().and_then(explain) {
        Some(failure) => Status::from(failure).into_http(),
        None => response,
    }
}

/// Our words for a status that is not ours. It was made before any method was called.
fn explain(status: &Status) -> Option<Failure> {
    if Failure::from_status(status).is_some() {
        return None;
    }
    let message = status.message();
    let failure = match status.code() {
        Code::Internal => Failure::new(
            Reason::InvalidRequest,
            format!("the request cannot be read: {message}"),
        ),
        Code::OutOfRange => {
            let message = format!("the request is too large, at most {MAX_REQUEST_BYTES} bytes are taken");
            Failure::new(Reason::PayloadTooLarge, message).with("limit", MAX_REQUEST_BYTES)
        }
        Code::Unimplemented => Failure::new(Reason::NotImplemented, format!("not available: {message}")),
        _ => return None,
    };
    Some(failure.not_applied())
}
