//! The one place where a load makes its multicasts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use prism_client::{Filter, Multicast, MulticastRequest, Result as Answer};
use tokio::sync::oneshot;

use super::{fleet::Fleet, ledger::Ledger, stamp::Stamp, tally::Tally};
use crate::cli::multicast::{Delivery, Stage};

/// What any service takes at most.
const MAX_PAYLOAD: i64 = 64 << 20;

/// How multicasts are made, as the command line says.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Casting {
    /// Make each payload at least so many bytes, up to 64 MiB
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(..=MAX_PAYLOAD))]
    pub(crate) payload_bytes: u32,
    /// What the deliveries must survive; without it, as the namespace is configured
    #[arg(long, value_name = "D", value_enum)]
    pub(crate) delivery: Option<Delivery>,
    /// From which stage on a target has got it, which is waited for
    #[arg(long, value_name = "STAGE", value_enum)]
    pub(crate) require: Option<Stage>,
}

impl Casting {
    fn request(&self, filter: Filter, stamp: &Stamp) -> MulticastRequest {
        MulticastRequest {
            filter: Some(filter),
            payload: stamp.payload(self.payload_bytes as usize),
            content_type: Some("text/plain".to_owned()),
            delivery: self.delivery.map(Into::into),
            require: self.require.map(Into::into),
            ..MulticastRequest::default()
        }
    }
}

/// Makes multicasts and enters them in the ledger.
#[derive(Clone)]
pub(crate) struct Caster {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tally: Arc<Tally>,
    casting: Casting,
    began: Instant,
    next: Arc<AtomicU32>,
}

/// A multicast that was made.
pub(crate) struct Cast {
    pub(crate) answer: Answer<Multicast>,
    /// Resolves when the last target has received it.
    pub(crate) through: oneshot::Receiver<Instant>,
}

impl Caster {
    pub(crate) fn new(fleet: Arc<Fleet>, ledger: Arc<Ledger>, casting: Casting, began: Instant) -> Self {
        Self {
            fleet,
            ledger,
            tally: Arc::default(),
            casting,
            began,
            next: Arc::default(),
        }
    }

    /// Makes one to those of this run that match; it was due then.
    pub(crate) async fn cast(&self, filter: Filter, due: Instant) -> Cast {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let stamp = Stamp {
            run: self.fleet.run,
            number,
            due: due.saturating_duration_since(self.began),
        };
        let request = self.casting.request(filter, &stamp);
        let through = self.ledger.begin(number);
        let answer = self.fleet.registry(number).multicast(request).await;
        self.tally.note(due, &answer);
        match &answer {
            Ok(told) => self.ledger.answer(number, told),
            Err(error) => self.ledger.fail(number, error),
        }
        Cast { answer, through }
    }
}
