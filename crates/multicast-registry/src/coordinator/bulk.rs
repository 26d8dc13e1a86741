//! Registering many identities in one call.

use futures::{StreamExt, stream};
use prism_core::backoff::Backoff;
use prism_slot::{Applied, Error as SlotError, Registered};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Coordinator, Error, Held, Register,
    registrations::{ATTEMPTS, Prepared, RETRY, missing_result},
};

/// How many calls to the slot are under way at once on behalf of one call.
const IN_FLIGHT: usize = 8;

/// A registration that the slot has yet to decide about, and where its result belongs.
type Open = (usize, Prepared);

impl Coordinator {
    /// Registers many identities. Each is registered or refused by itself; results are in the order of the
    /// requests. Where two are of the same identity, the later one does not see the earlier one for certain.
    ///
    /// Dropping the future may leave some of them registered.
    pub async fn register_many(
        &self,
        requests: Vec<Register>,
        deadline: Instant,
    ) -> Vec<Result<Held, Error>> {
        let config = self.config();
        let mut results: Vec<Option<Result<Held, Error>>> = Vec::with_capacity(requests.len());
        let mut open: Vec<Open> = Vec::with_capacity(requests.len());
        for (index, request) in requests.into_iter().enumerate() {
            results.push(match Prepared::new(&config, request) {
                Ok(prepared) => {
                    open.push((index, prepared));
                    None
                }
                Err(error) => Some(Err(error)),
            });
        }
        self.decide(open, &mut results, deadline).await;
        let decided = |result: Option<_>| result.unwrap_or_else(|| Err(missing_result().into()));
        results.into_iter().map(decided).collect()
    }

    /// Asks the slot until every registration is decided, again about those of which nothing happened.
    async fn decide(
        &self,
        mut open: Vec<Open>,
        results: &mut [Option<Result<Held, Error>>],
        deadline: Instant,
    ) {
        let mut backoff = Backoff::new(RETRY);
        for attempt in 1.. {
            let answers = match self.send_all(&open, deadline).await {
                Ok(answers) => answers,
                Err(error) => {
                    for (index, _) in open {
                        results[index] = Some(Err(error.clone()));
                    }
                    return;
                }
            };
            let again = self.settle(open, answers, results, attempt < ATTEMPTS);
            if again.is_empty() || timeout_at(deadline, sleep(backoff.pause())).await.is_err() {
                return;
            }
            open = again;
        }
    }

    /// Notes what was decided; returns what is worth another attempt, unless this was the last one.
    fn settle(
        &self,
        open: Vec<Open>,
        answers: Vec<Result<Registered, SlotError>>,
        results: &mut [Option<Result<Held, Error>>],
        may_repeat: bool,
    ) -> Vec<Open> {
        let (mut again, mut pacing) = (Vec::new(), self.shared.pacing.answer());
        for ((index, prepared), answer) in open.into_iter().zip(answers) {
            match answer {
                Err(error) if may_repeat && may_help(&error) => {
                    self.note(&error);
                    results[index] = Some(Err(error.into()));
                    again.push((index, prepared));
                }
                answer => results[index] = Some(prepared.held(answer, &mut pacing)),
            }
        }
        again
    }

    /// Another epoch is waited for before the next call.
    fn note(&self, error: &SlotError) {
        if let SlotError::EpochChanged { current } = error {
            self.shared.directory.epoch_changed(*current);
        }
    }

    async fn send_all(
        &self,
        open: &[Open],
        deadline: Instant,
    ) -> Result<Vec<Result<Registered, SlotError>>, Error> {
        let call = self.call(deadline).await?;
        let slot = self.registry();
        let most = slot.capability().max_batch;
        let parts = open.chunks(most).map(|part| {
            let batch = part
                .iter()
                .map(|(_, prepared)| prepared.request.clone())
                .collect();
            let (slot, count) = (slot.clone(), part.len());
            async move {
                let mut answers = slot.register(call, batch).await;
                answers.resize_with(count, || Err(missing_result()));
                answers
            }
        });
        let parts: Vec<_> = parts.collect();
        let answers = stream::iter(parts).buffered(IN_FLIGHT).collect::<Vec<_>>().await;
        Ok(answers.into_iter().flatten().collect())
    }
}

/// Whether nothing happened, and another try may help.
fn may_help(error: &SlotError) -> bool {
    matches!(
        error,
        SlotError::EpochChanged { .. }
            | SlotError::Unavailable {
                applied: Applied::No,
                ..
            }
    )
}
