//! `Subscribe`: a session as a stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use prism_core::failure::Failure;
use prism_proto::pattern as proto;
use prism_slot::Identity;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::wire;
use crate::coordinator::{Coordinator, Session, SessionEvent};

/// The responses of one session. The session ends when this is dropped.
pub struct Subscription(BoxStream<'static, Result<proto::SubscribeResponse, Status>>);

impl Stream for Subscription {
    type Item = Result<proto::SubscribeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

pub(super) async fn open(
    coordinator: Coordinator,
    mut requests: Streaming<proto::SubscribeRequest>,
    deadline: Instant,
) -> Result<Subscription, Failure> {
    let first = requests.message().await.ok().flatten();
    let (identity, generation) = wire::open(first)?;
    let session = coordinator
        .subscribe(identity.clone(), generation, deadline)
        .await?;
    let opened = futures::stream::once(std::future::ready(Ok(wire::to_opened(session.claim()))));
    let state = Live {
        session,
        requests: Some(requests),
        identity,
    };
    let events = futures::stream::unfold(state, |mut live| async move {
        let event = live.next().await?;
        Some((event, live))
    });
    Ok(Subscription(opened.chain(events).boxed()))
}

/// A session and the stream of its client's requests.
struct Live {
    session: Session,
    /// `None` once the client has said that it will send no more.
    requests: Option<Streaming<proto::SubscribeRequest>>,
    identity: Identity,
}

impl Live {
    async fn next(&mut self) -> Option<Result<proto::SubscribeResponse, Status>> {
        loop {
            tokio::select! {
                event = self.session.next() => {
                    return Some(match event? {
                        Ok(SessionEvent::Message(message)) => Ok(wire::to_delivery(&self.identity, &message)),
                        Ok(SessionEvent::Gap { dropped, reason }) => Ok(wire::to_gap(dropped, reason)),
                        Err(closed) => Err(Failure::from(closed).into()),
                    });
                }
                // The client's half is read so that its end is noticed.
                request = next_request(&mut self.requests) => match request {
                    Ok(Some(_)) => {
                        let failure = wire::unexpected_request();
                        return Some(Err(failure.into()));
                    }
                    Ok(None) => self.requests = None,
                    Err(_) => return None,
                },
            }
        }
    }
}

async fn next_request(
    requests: &mut Option<Streaming<proto::SubscribeRequest>>,
) -> Result<Option<proto::SubscribeRequest>, Status> {
    match requests {
        Some(requests) => requests.message().await,
        None => std::future::pending().await,
    }
}
