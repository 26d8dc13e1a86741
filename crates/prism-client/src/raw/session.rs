//! One session, from its opening to its end.

use std::sync::Arc;

use futures::stream;
use prism_core::telemetry::{self, TraceContext};
use prism_proto::pattern::{
    SubscribeRequest, SubscribeResponse, subscribe_request, subscribe_response::Message,
};
use tokio::sync::mpsc;
use tonic::Streaming;
use tracing::Instrument;

use super::Raw;
use crate::{
    Applied, Error, Result,
    call::{self, Repeat},
    transport::Lane,
};

/// How many requests may wait for the transport.
const REQUESTS: usize = 16;

/// An open session.
pub(super) struct Session {
    answers: Streaming<SubscribeResponse>,
    raw: Raw,
    /// What is said in it. Its end is the end of the session for the service; and while it is open the transport
    /// does not tell that nobody reads any more.
    requests: mpsc::Sender<SubscribeRequest>,
    /// Keeps the connection open.
    _lane: Arc<Lane>,
}

impl Session {
    /// Opens a session within the call's deadline, and returns it with the answer that says so.
    ///
    /// A second attempt does no harm: of two sessions that one client opens the newer one wins.
    pub(super) async fn open(raw: &Raw, open: &subscribe_request::Open) -> Result<(Self, SubscribeResponse)> {
        let plan = raw.plan("Subscribe", Repeat::Harmless);
        let (span, trace) = telemetry::call_span(plan.method);
        call::run(plan, |_| Self::attempt(raw, open.clone(), trace))
            .instrument(span)
            .await
    }

    async fn attempt(
        raw: &Raw,
        open: subscribe_request::Open,
        trace: TraceContext,
    ) -> Result<(Self, SubscribeResponse)> {
        let (mut stub, lane) = raw.shared.connections.for_session();
        let open = SubscribeRequest {
            message: Some(subscribe_request::Message::Open(open)),
        };
        let (requests, said) = mpsc::channel(REQUESTS);
        let said = stream::unfold((Some(open), said), |(open, mut said)| async move {
            let next = match open {
                Some(open) => open,
                None => said.recv().await?,
            };
            Some((next, (None, said)))
        });
        // No deadline travels with it, as it would end the session and not just its opening.
        let request = raw.headers.request(said, trace, None);
        let answers = stub.subscribe(request).await;
        let mut session = Self {
            answers: answers
                .map_err(|status| Error::from_status(&status, raw.timeout))?
                .into_inner(),
            raw: raw.clone(),
            requests,
            _lane: lane,
        };
        let first = session.next().await?;
        match first.message {
            Some(Message::Opened(_)) => Ok((session, first)),
            _ => Err(Error::malformed("message", "does not begin with `opened`")),
        }
    }

    /// For saying something in it.
    pub(super) fn requests(&self) -> mpsc::Sender<SubscribeRequest> {
        self.requests.clone()
    }

    /// The next answer. An end without an error is one too: nobody asked for it. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<SubscribeResponse> {
        match self.answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Error::ConnectionLost {
                message: "the service ended the session without saying why".to_owned(),
                applied: Applied::No,
            }),
            Err(status) => Err(Error::from_status(&status, self.raw.timeout)),
        }
    }
}
