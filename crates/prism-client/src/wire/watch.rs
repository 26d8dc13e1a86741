//! Watches.

use prism_proto::pattern::{
    self, WatchResponse,
    watch_response::{Cause as WireCause, Kind},
};

use super::answer::{identity, missing, position, unknown};
use crate::{Cause, Change, Result, WatchEvent, WatchRequest, raw::Watched, wire};

pub(crate) fn watch(request: WatchRequest) -> Result<pattern::WatchRequest> {
    Ok(pattern::WatchRequest {
        filter: request.filter.as_ref().map(wire::filter).transpose()?,
        resume_from: request.resume_from.map(wire::position),
        include_metadata: Some(request.include_metadata),
    })
}

pub(crate) fn watch_event(watched: Watched) -> Result<WatchEvent> {
    let answer = match watched {
        Watched::Told(answer) => *answer,
        Watched::Restarted => return Ok(WatchEvent::Restarted),
    };
    match Kind::try_from(answer.kind) {
        Ok(Kind::Enter) if answer.position.is_none() => {
            let found = answer.identity.ok_or_else(|| missing("identity"))?;
            Ok(WatchEvent::Present(identity("identity", found)?))
        }
        Ok(Kind::Enter) => Ok(WatchEvent::Entered(change(answer)?)),
        Ok(Kind::Update) => Ok(WatchEvent::Updated(change(answer)?)),
        Ok(Kind::Leave) => Ok(WatchEvent::Left(change(answer)?)),
        Ok(Kind::Bookmark) => Ok(WatchEvent::Bookmark(position("position", answer.position)?)),
        Ok(Kind::Unspecified) | Err(_) => Err(unknown("kind", answer.kind)),
    }
}

fn change(answer: WatchResponse) -> Result<Change> {
    let found = answer.identity.ok_or_else(|| missing("identity"))?;
    Ok(Change {
        identity: identity("identity", found)?,
        cause: match WireCause::try_from(answer.cause) {
            Ok(WireCause::Registered) => Cause::Registered,
            Ok(WireCause::Replaced) => Cause::Replaced,
            Ok(WireCause::Updated) => Cause::Updated,
            Ok(WireCause::Unregistered) => Cause::Unregistered,
            Ok(WireCause::Expired) => Cause::Expired,
            Ok(WireCause::Evicted) => Cause::Evicted,
            Ok(WireCause::Unspecified) | Err(_) => return Err(unknown("cause", answer.cause)),
        },
        position: position("position", answer.position)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: Kind, cause: WireCause, at: Option<u64>) -> WatchResponse {
        let position = |revision| pattern::Position { epoch: 7, revision };
        let time = prost_types::Timestamp { seconds: 1, nanos: 0 };
        WatchResponse {
            kind: kind.into(),
            identity: Some(pattern::Identity {
                identity: "a".to_owned(),
                registered_at: Some(time),
                updated_at: Some(time),
                generation: Some(position(1)),
                ..Default::default()
            }),
            cause: cause.into(),
            position: at.map(position),
        }
    }

    fn read(answer: WatchResponse) -> String {
        match watch_event(Watched::Told(Box::new(answer))) {
            Ok(WatchEvent::Present(identity)) => format!("present {}", identity.identity),
            Ok(WatchEvent::Entered(change)) => format!("entered {:?} {}", change.cause, change.position),
            Ok(event) => format!("{event:?}").chars().take(8).collect(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_kind_is_read() {
        let none = WireCause::Unspecified;
        assert_eq!(read(told(Kind::Enter, none, None)), "present a");
        assert_eq!(
            read(told(Kind::Enter, WireCause::Replaced, Some(5))),
            "entered Replaced 0000000000000007/5"
        );
        for (kind, begins) in [
            (Kind::Update, "Updated("),
            (Kind::Leave, "Left(Cha"),
            (Kind::Bookmark, "Bookmark"),
        ] {
            assert_eq!(read(told(kind, WireCause::Expired, Some(5))), begins);
        }
        assert_eq!(watch_event(Watched::Restarted).unwrap(), WatchEvent::Restarted);
    }

    #[test]
    fn what_lacks_something_or_is_not_known_is_malformed() {
        let cause = WireCause::Updated;
        for (answer, field) in [
            (told(Kind::Unspecified, cause, Some(1)), "kind"),
            (told(Kind::Update, WireCause::Unspecified, Some(1)), "cause"),
            (told(Kind::Update, cause, None), "position"),
            (told(Kind::Bookmark, cause, None), "position"),
            (
                WatchResponse {
                    identity: None,
                    ..told(Kind::Leave, cause, Some(1))
                },
                "identity",
            ),
            (
                WatchResponse {
                    identity: None,
                    ..told(Kind::Enter, cause, None)
                },
                "identity",
            ),
        ] {
            let error = read(answer);
            assert!(error.contains(field), "{error}");
        }
    }
}
