//! The control stream to one proxy: dialled, registered, held, and dialled again when it breaks.
//!
//! Three parts: a connection that is made once ([`dial`]), one life of the stream ([`session`]), and
//! here the recovery around both.

mod dial;
mod session;

use std::{sync::Arc, time::Duration};

use prism_core::{backoff::Backoff, id::SessionToken};
use prism_proto::interfaces::PatternMetadata;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use self::dial::{NoAddress, normalized};
use self::session::End;
use crate::{
    Settings,
    engine::{Handle, LinkId},
    server::Proofs,
};

/// What a link needs to know.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) address: String,
    pub(crate) process_id: i32,
    pub(crate) metadata: Arc<PatternMetadata>,
    pub(crate) settings: Settings,
    pub(crate) engine: Handle,
    /// Where it is noted by what the proxy's calls are known.
    pub(crate) proofs: Proofs,
    /// Told when an outcome could not be delivered, so that the last registration is no longer true.
    pub(crate) outdated: Arc<Notify>,
    /// The process ends: say what is left to say and close.
    pub(crate) closing: CancellationToken,
}

/// A stream that lasted this long was a good one: the next failure starts over with a short pause.
const LASTING: Duration = Duration::from_secs(2);

impl Link {
    /// Keeps the stream up until the process ends. Losing it never stops anything else.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(self.settings.reconnect);
        let mut token: Option<SessionToken> = None;
        let mut last_failure = String::new();
        while !self.closing.is_cancelled() {
            let began = Instant::now();
            let failure = match self.live(&mut token).await {
                End::Closed => return,
                // Nothing is wrong with the proxy: no pause.
                End::Outdated => continue,
                End::Failed(failure) => failure,
            };
            if began.elapsed() >= LASTING {
                backoff.reset();
            }
            let pause = backoff.pause();
            // A proxy that stays away is worth one line, not one each second.
            if failure == last_failure {
                tracing::debug!(proxy = %self.address, %failure, ?pause, "still no control stream");
            } else {
                tracing::warn!(proxy = %self.address, %failure, ?pause, "no control stream, serving goes on");
                last_failure = failure;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.closing.cancelled() => {}
            }
        }
    }

    async fn live(&self, token: &mut Option<SessionToken>) -> End {
        let Settings {
            connect_within,
            unacknowledged,
            ..
        } = self.settings;
        let dialled = tokio::select! {
            dialled = dial::dial(&self.address, connect_within, unacknowledged) => dialled,
            () = self.closing.cancelled() => return End::Closed,
        };
        match dialled {
            Ok(connection) => session::run(self, connection, token).await,
            Err(error) => End::Failed(error.to_string()),
        }
    }
}
