//! The task behind a subscription: one session after another.

use std::sync::Arc;

use prism_proto::pattern::{
    Position, SubscribeResponse, subscribe_request,
    subscribe_response::{Gap, Message},
};
use tokio::time::sleep;

use super::{Claim, Pinned, shared::Shared, verdict::Verdict};
use crate::{
    Error, Result,
    raw::{Line, Raw, recovery::Recovery, session::Session},
    wire::CONNECTION_LOST,
};

pub(super) struct Feed {
    raw: Raw,
    open: subscribe_request::Open,
    claim: Box<dyn Claim>,
    recovery: Recovery,
    shared: Arc<Shared>,
}

impl Feed {
    pub(super) async fn open(
        raw: Raw,
        mut open: subscribe_request::Open,
        claim: Option<Box<dyn Claim>>,
        shared: Arc<Shared>,
    ) -> Result<(Self, Session)> {
        open.confirm = true;
        open.credits = Some(shared.opening());
        let (session, opened) = Session::open(&raw, &open).await?;
        let claim = claim.unwrap_or_else(|| {
            // "Whichever registration is there" means the one that was there now: a later one may be
            // somebody else's, and its session is not ours to take.
            Box::new(Pinned(generation(&opened)))
        });
        shared.opened(opened);
        let feed = Self {
            recovery: Recovery::new(raw.backoff()),
            raw,
            open,
            claim,
            shared,
        };
        Ok((feed, session))
    }

    /// Ends with the error that makes another session useless, which the subscription then tells.
    pub(super) async fn run(mut self, mut session: Session) {
        let end = loop {
            let lost = serve(session, &self.shared).await;
            session = match self.another(lost).await {
                Ok(session) => session,
                Err(end) => break end,
            };
        };
        self.shared.finish(end);
    }

    /// Another session, after as many attempts as it takes.
    async fn another(&mut self, mut lost: Error) -> Result<Session> {
        if matches!(Verdict::on(&lost), Verdict::ServiceLost) {
            self.raw.tell(Line::Lost(&lost));
        }
        loop {
            self.recover(lost).await?;
            match self.reopen().await {
                Ok(session) => return Ok(session),
                Err(error) => lost = error,
            }
        }
    }

    async fn reopen(&mut self) -> Result<Session> {
        self.open.generation = self.claim.generation();
        self.open.credits = Some(self.shared.opening());
        let (session, opened) = Session::open(&self.raw, &self.open).await?;
        self.recovery.opened();
        self.shared.reopened(opened, gap());
        Ok(session)
    }

    async fn recover(&mut self, error: Error) -> Result<()> {
        let identity = &self.open.identity;
        let pause = self.recovery.pause().max(error.retry_after().unwrap_or_default());
        match Verdict::on(&error) {
            Verdict::Final => return Err(error),
            Verdict::RegistrationLost => {
                tracing::warn!(%identity, %error, "session lost with its registration");
                self.claim.regained(error).await?;
            }
            Verdict::ServiceLost => {
                tracing::warn!(%identity, %error, ?pause, "session lost, opening another one")
            }
        }
        sleep(pause).await;
        Ok(())
    }
}

/// Reads a session, and tells it what the consumer says, until it ends.
async fn serve(mut session: Session, shared: &Shared) -> Error {
    let requests = session.requests();
    loop {
        let work = shared.work();
        let speaks = work.speaks && !requests.is_closed();
        tokio::select! {
            answer = session.next(), if work.reads => match answer {
                Ok(answer) => shared.received(answer),
                Err(error) => return error,
            },
            // Where nobody takes requests any more, the end of the answers is about to follow.
            Ok(permit) = requests.reserve(), if speaks => {
                if let Some(request) = shared.request() {
                    permit.send(request);
                }
            }
            () = shared.worked() => {}
        }
    }
}

/// Says that messages may be missing because the session was lost.
fn gap() -> SubscribeResponse {
    SubscribeResponse {
        message: Some(Message::Gap(Gap {
            dropped: 0,
            reason: CONNECTION_LOST.to_owned(),
        })),
    }
}

fn generation(opened: &SubscribeResponse) -> Option<Position> {
    match &opened.message {
        Some(Message::Opened(opened)) => opened.generation,
        _ => None,
    }
}
