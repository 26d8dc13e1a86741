//! `Watch`: changes to the set that matches, as a stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use prism_core::failure::Failure;
use prism_proto::pattern::{self as proto, watch_response};
use prism_slot::{Cause, Position, Timestamp};
use tokio::time::Instant;
use tonic::Status;

use super::{page::Shown, wire};
use crate::{
    coordinator::Coordinator,
    directory::Row,
    watch::{Event, Kind, Watch, WatchItem},
};

/// The responses of one watch, which is over when this is dropped.
pub struct Watching(BoxStream<'static, Result<proto::WatchResponse, Status>>);

impl Stream for Watching {
    type Item = Result<proto::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

pub(super) async fn open(
    coordinator: Coordinator,
    request: proto::WatchRequest,
    deadline: Instant,
) -> Result<Watching, Failure> {
    let shown = if request.include_metadata.unwrap_or(true) {
        Shown::All
    } else {
        Shown::Nothing
    };
    let filter = wire::filter(&coordinator.config().limits(), request.filter)?;
    let resume_from = wire::position("resume_from", request.resume_from)?;
    let watch = coordinator.watch(filter.as_ref(), resume_from, deadline).await?;
    let items = futures::stream::unfold(Some(watch), move |watch| {
        let shown = shown.clone();
        async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(item) => Some((Ok(to_response(&watch, &item, &shown)), Some(watch))),
                Err(error) => Some((Err(Failure::from(error).into()), None)),
            }
        }
    });
    Ok(Watching(items.boxed()))
}

fn to_response(watch: &Watch, item: &WatchItem, shown: &Shown) -> proto::WatchResponse {
    match item {
        WatchItem::Present { row, expires_at } => to_present(row, *expires_at, shown),
        WatchItem::Changed(event) => to_change(event, watch.position(), shown),
        WatchItem::Bookmark(at) => to_bookmark(*at),
    }
}

fn cause(cause: Cause) -> watch_response::Cause {
    use watch_response::Cause as Wire;
    match cause {
        Cause::Registered => Wire::Registered,
        Cause::Replaced => Wire::Replaced,
        Cause::Updated => Wire::Updated,
        Cause::Unregistered => Wire::Unregistered,
        Cause::Expired => Wire::Expired,
        Cause::Evicted => Wire::Evicted,
    }
}

/// A registration that matched when a watch began. Nothing can be resumed from the middle of a snapshot.
fn to_present(row: &Row, expires_at: Option<Timestamp>, shown: &Shown) -> proto::WatchResponse {
    proto::WatchResponse {
        kind: watch_response::Kind::Enter.into(),
        identity: Some(wire::to_listed(row, expires_at, shown)),
        cause: watch_response::Cause::Unspecified.into(),
        position: None,
    }
}

fn to_change(event: &Event, at: Option<Position>, shown: &Shown) -> proto::WatchResponse {
    let kind = match event.kind {
        Kind::Enter => watch_response::Kind::Enter,
        Kind::Update => watch_response::Kind::Update,
        Kind::Leave => watch_response::Kind::Leave,
    };
    proto::WatchResponse {
        kind: kind.into(),
        identity: Some(wire::to_listed(&event.row, event.row.expires_at, shown)),
        cause: cause(event.cause).into(),
        position: at.map(wire::to_position),
    }
}

fn to_bookmark(at: Position) -> proto::WatchResponse {
    proto::WatchResponse {
        kind: watch_response::Kind::Bookmark.into(),
        position: Some(wire::to_position(at)),
        ..Default::default()
    }
}
