//! Counts the calls that are open, from their first byte to the end of their answer.

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

/// Counts the calls to these routes.
pub(super) fn counted(routes: Routes, calls: watch::Sender<usize>) -> Routes {
    Routes::from(
        routes
            .into_axum_router()
            .layer(middleware::from_fn_with_state(calls, count)),
    )
}

async fn count(State(calls): State<watch::Sender<usize>>, request: Request, next: Next) -> Response {
    let open = Open::new(calls);
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
