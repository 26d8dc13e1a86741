//! What is done with every call of the pattern: it is counted as open, from its first byte to the end of its
//! answer, and what it says of its caller is taken out where nobody vouches for it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tonic::service::Routes;

use super::Proofs;

/// Receives the calls to these routes.
pub(super) fn received(routes: Routes, calls: watch::Sender<usize>, proofs: Proofs) -> Routes {
    let layer = middleware::from_fn_with_state((calls, proofs), receive);
    Routes::from(routes.into_axum_router().layer(layer))
}

async fn receive(
    State((calls, proofs)): State<(watch::Sender<usize>, Proofs)>,
    mut request: Request,
    next: Next,
) -> Response {
    let open = Open::new(calls);
    proofs.keep_what_is_vouched_for(request.headers_mut());
    let response = next.run(request).await;
    response.map(|body| Body::new(Counted { body, _open: open }))
}

struct Open(watch::Sender<usize>);

impl Open {
    fn new(calls: watch::Sender<usize>) -> Self {
        calls.send_modify(|calls| *calls += 1);
        Self(calls)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

struct Counted {
    body: Body,
    _open: Open,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
