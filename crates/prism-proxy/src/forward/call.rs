//! One call: up to two attempts, and what is said when neither gave an answer.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, client::ResponseFuture};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, request::Parts};
use http_body::Body;
use prism_core::failure::{APPLIED, Failure, OVERLOADED, Reason};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

use super::{
    Answer, Forward, Limits,
    account::Account,
    deadline::Deadline,
    headers,
    lane::{Connection, Lane, Unsent},
    method::{Method, Shape},
    relay::{Relay, RelayBounds, Rest, deadline_exceeded, draining, status_code},
    retry::{self, Circumstances, Fate},
    unknown,
    upload::{Sender, Stopped, Upload},
};
use crate::{metrics::RetryCause, route::Standing, serve::Peer};

/// When to ask again for a namespace that nobody serves.
const NO_RUNNER_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Call<'a, B> {
    forward: &'a Forward,
    /// As the call found it; looked up again when it has to wait or is sent again.
    standing: Option<Standing>,
    method: Method,
    deadline: Deadline,
    limits: Arc<Limits>,
    account: Account,
    head: Parts,
    upload: Upload<B>,
    /// Something of the request may have reached a runner.
    sent: bool,
    /// A runner was lost with the request in its hands: whatever comes after, it may have had its effect.
    lost: bool,
}

/// A response whose headers are there.
pub(super) struct Answered {
    response: Response<RecvStream>,
    /// The rest of the request.
    sender: Sender,
}

/// Why an attempt gave no answer.
enum Failed {
    /// Perhaps to be tried again.
    Attempt(Fate, String),
    /// Nothing that another attempt would change.
    Call(Ended),
}

/// How a call ends without an answer.
pub(super) enum Ended {
    Refused(Failure),
    /// Nobody waits for an answer.
    ClientGone,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl<'a, B> Call<'a, B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    pub(super) fn new(
        forward: &'a Forward,
        standing: Standing,
        method: Method,
        deadline: Deadline,
        limits: Arc<Limits>,
        account: Account,
        request: Request<B>,
    ) -> Self {
        let (mut head, body) = request.into_parts();
        let peer = head.extensions.remove::<Peer>();
        headers::for_runner(&mut head.headers, peer.map(|peer| peer.0));
        let upload = Upload::new(body, limits.message, limits.replay);
        let standing = Some(standing);
        Self {
            forward,
            standing,
            method,
            deadline,
            limits,
            account,
            head,
            upload,
            sent: false,
            lost: false,
        }
    }

    /// What the client is told.
    pub(super) fn answer(self, outcome: Result<Answered, Ended>) -> Response<Answer> {
        match outcome {
            Ok(answered) => self.relay(answered),
            Err(Ended::Refused(failure)) => self.refuse(failure),
            Err(Ended::ClientGone) => Status::cancelled("the client gave the call up").into_http(),
        }
    }

    fn refuse(mut self, mut failure: Failure) -> Response<Answer> {
        if self.lost {
            failure = failure.maybe_applied();
        }
        self.account.answered(failure.reason.code());
        let (namespace, reason) = (self.namespace(), failure.reason.as_str());
        if failure.reason == Reason::RunnerLost {
            tracing::warn!(namespace, reason, "{}", failure.message);
        } else {
            tracing::debug!(namespace, reason, "{}", failure.message);
        }
        Answer::refused(failure)
    }

    /// Runs the attempts, within what time there is, until the answer has begun.
    pub(super) async fn run(&mut self) -> Result<Answered, Ended> {
        let cut = (self.method.shape() == Shape::Streaming).then(|| self.forward.cut.clone());
        let begin = self.deadline.begin;
        let attempts = async {
            match begin {
                Some(begin) => tokio::time::timeout_at(begin, self.attempts()).await.ok(),
                None => Some(self.attempts().await),
            }
        };
        let outcome = match cut {
            Some(cut) => match cut.run_until_cancelled(attempts).await {
                Some(outcome) => outcome,
                None => return Err(self.unanswered(draining()).into()),
            },
            None => attempts.await,
        };
        outcome.unwrap_or_else(|| Err(self.unanswered(deadline_exceeded()).into()))
    }

    /// What ends the call before its answer has begun.
    fn unanswered(&self, failure: Failure) -> Failure {
        if self.sent {
            failure.maybe_applied()
        } else {
            failure.not_applied()
        }
    }

    async fn attempts(&mut self) -> Result<Answered, Ended> {
        let mut avoid: Option<Arc<Lane>> = None;
        let mut tried: Option<Arc<Lane>> = None;
        let mut held_back = false;
        loop {
            let lane = self.choose(avoid.as_deref()).await?;
            if tried.as_ref().is_some_and(|tried| Arc::ptr_eq(tried, &lane)) {
                // Nobody else is there: give it a moment.
                tokio::time::sleep(Duration::from_millis(rand::random_range(5..25))).await;
            }
            let sent = match lane.throttle().admit() {
                Ok(sent) => sent,
                Err(failure) if held_back || !self.may_be_served_by_another_than(&lane) => {
                    self.account.shed();
                    return Err(failure.into());
                }
                Err(_) => {
                    held_back = true;
                    avoid = Some(lane.clone());
                    continue;
                }
            };
            let second = tried.is_some();
            let idempotent = lane.target().idempotent.contains(self.head.uri.path());
            self.account.move_to(lane.enter());
            let attempted = self.attempt(&lane).await;
            match &attempted {
                Ok(answered) => sent.answered(answered.response.headers().contains_key(OVERLOADED)),
                Err(_) => drop(sent),
            }
            let (fate, message) = match attempted {
                Ok(answered) if !second && says_not_applied(answered.response.headers()) => {
                    // The same runner would say the same again, after as long a wait as this one.
                    if held_back
                        || !self.may_be_served_by_another_than(&lane)
                        || self.retry(Fate::NotApplied, second, idempotent).is_none()
                    {
                        return Ok(answered);
                    }
                    (
                        Fate::NotApplied,
                        "the runner is unavailable and has changed nothing".to_owned(),
                    )
                }
                Ok(answered) => return Ok(answered),
                Err(Failed::Call(ended)) => return Err(ended),
                Err(Failed::Attempt(fate, message)) => {
                    self.lost |= fate == Fate::Lost;
                    if self.retry(fate, second, idempotent).is_none() {
                        if fate == Fate::Full {
                            self.account.shed();
                        }
                        return Err(lost(fate, &message).into());
                    }
                    (fate, message)
                }
            };
            tracing::warn!(runner = %lane.target().instance_id, ?fate, "trying again: {message}");
            if !held_back {
                avoid = Some(lane.clone());
            }
            tried = Some(lane);
        }
    }

    /// Whether to try again; counted when so.
    fn retry(&self, fate: Fate, second: bool, idempotent: bool) -> Option<RetryCause> {
        let in_time = self.deadline.begin.is_none_or(|begin| Instant::now() < begin);
        let replayable = self.upload.replayable();
        let cause = retry::allowed(
            fate,
            Circumstances {
                second,
                idempotent,
                replayable,
                in_time,
            },
        )?;
        // What has not reached a runner has not cost it anything either.
        if !matches!(fate, Fate::Unsent | Fate::Full) && !self.forward.budget.withdraw() {
            return None;
        }
        self.account.series().metrics().retried(cause);
        Some(cause)
    }

    fn may_be_served_by_another_than(&self, lane: &Arc<Lane>) -> bool {
        match self
            .forward
            .table
            .find(self.namespace())
            .map(|route| route.standing)
        {
            Some(Standing::Served(lanes)) => lanes.iter().any(|other| !Arc::ptr_eq(other, lane)),
            Some(Standing::Held) => true,
            Some(Standing::Unserved) | None => false,
        }
    }

    /// The less loaded of two runners drawn at random, rather not the one to avoid.
    async fn choose(&mut self, avoid: Option<&Lane>) -> Result<Arc<Lane>, Failure> {
        let mut changes = None;
        loop {
            let standing = match self.standing.take() {
                Some(standing) => standing,
                None => {
                    self.forward
                        .table
                        .find(self.namespace())
                        .ok_or_else(|| unknown(self.namespace()))?
                        .standing
                }
            };
            match standing {
                Standing::Served(lanes) => return Ok(less_loaded(&lanes, avoid)),
                Standing::Unserved => return Err(self.no_runner("no runner serves the namespace now")),
                Standing::Held => {}
            }
            let (watch, until) = changes.get_or_insert_with(|| {
                // Looked at once more after subscribing, so that no change falls in between.
                let mut watch = self.forward.table.watch();
                watch.mark_changed();
                (watch, Instant::now() + self.limits.hold)
            });
            if tokio::time::timeout_at(*until, watch.changed()).await.is_err() {
                return Err(self.no_runner("the namespace's runners are changing over"));
            }
        }
    }

    fn no_runner(&self, message: &str) -> Failure {
        let namespace = self.namespace();
        Failure::new(Reason::NoRunner, format!("{message}: `{namespace}`"))
            .with("namespace", namespace)
            .retry_after(NO_RUNNER_PAUSE)
            .not_applied()
    }

    fn namespace(&self) -> &str {
        headers::namespace(&self.head.headers).unwrap_or_default()
    }

    async fn attempt(&mut self, lane: &Lane) -> Result<Answered, Failed> {
        poll_fn(|cx| Poll::Ready(self.upload.prefetch(cx)))
            .await
            .map_err(|stopped| self.stopped(stopped))?;
        let (connection, place) = lane.connection().await.map_err(|unsent| {
            let fate = match unsent {
                Unsent::Unreachable { .. } => Fate::Unsent,
                Unsent::Full { .. } => Fate::Full,
            };
            Failed::Attempt(fate, unsent.to_string())
        })?;
        self.account.on_stream(place);
        let (response, sender) = self.open(lane, connection)?;
        self.sent = true;
        self.exchange(response, sender).await
    }

    /// Opens a stream with the request's headers.
    fn open(&self, lane: &Lane, mut connection: Connection) -> Result<(ResponseFuture, Sender), Failed> {
        let mut request = Request::new(());
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = headers::absolute(&self.head.uri, &lane.target().endpoint);
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.head.headers.clone();
        if let Some(proof) = lane.proof() {
            headers::prove(request.headers_mut(), proof);
        }
        self.deadline.stamp(request.headers_mut(), Instant::now());
        let bodiless = self.upload.is_empty();
        match connection.send.send_request(request, bodiless) {
            Ok((response, stream)) => Ok((response, Sender::new(stream, bodiless))),
            Err(error) => {
                // The stream was never opened: the connection is closed or about to be.
                connection.retire();
                Err(Failed::Attempt(
                    Fate::Unsent,
                    format!("the runner takes no more calls: {error}"),
                ))
            }
        }
    }

    /// Sends the body and waits for the answer to begin, both at once.
    async fn exchange(
        &mut self,
        mut response: ResponseFuture,
        mut sender: Sender,
    ) -> Result<Answered, Failed> {
        let mut sending = true;
        let response = poll_fn(|cx| {
            if sending && let Poll::Ready(sent) = sender.poll_send(&mut self.upload, cx) {
                sending = false;
                match sent {
                    // The answer says why the runner takes no more.
                    Ok(()) | Err(Stopped::RunnerClosed) => {}
                    Err(stopped) => return Poll::Ready(Err(self.stopped(stopped))),
                }
            }
            Pin::new(&mut response)
                .poll(cx)
                .map_err(|error| Failed::Attempt(fate(&error), error.to_string()))
        })
        .await?;
        Ok(Answered { response, sender })
    }

    fn stopped(&self, stopped: Stopped) -> Failed {
        match stopped {
            Stopped::TooLarge(too_large) => {
                let failure = too_large.failure();
                // Of a stream, earlier messages may have had their effect.
                let first = self.upload.messages() == 0;
                Failed::Call(
                    if first {
                        failure.not_applied()
                    } else {
                        failure.maybe_applied()
                    }
                    .into(),
                )
            }
            Stopped::ClientGone | Stopped::RunnerClosed => Failed::Call(Ended::ClientGone),
        }
    }

    fn relay(self, answered: Answered) -> Response<Answer> {
        let (mut head, stream) = answered.response.into_parts();
        if head.status != StatusCode::OK {
            return self.refuse(not_grpc(head.status));
        }
        headers::for_client(&mut head.headers);
        if self.lost && head.headers.contains_key(APPLIED) {
            // True of the second attempt only.
            head.headers.insert(APPLIED, HeaderValue::from_static("unknown"));
        }
        let cut = (self.method.shape() == Shape::Streaming).then(|| self.forward.cut.clone());
        let bounds = RelayBounds::new(self.deadline.end, cut);
        let rest = (!answered.sender.is_finished()).then(|| send_rest(answered.sender, self.upload));
        let relay = Relay::new(stream, &head.headers, self.account, bounds, rest);
        Response::from_parts(head, Answer::Relayed(Box::new(relay)))
    }
}

/// Sends what is left of a request while its answer is on its way. In a task of its own, because the
/// answer is not asked for more while the client has no room for it.
fn send_rest<B>(mut sender: Sender, mut upload: Upload<B>) -> Rest
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    upload.keep_nothing();
    AbortOnDropHandle::new(tokio::spawn(poll_fn(move |cx| {
        if sender.poll_reset(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        sender.poll_send(&mut upload, cx).map(|sent| match sent {
            Err(Stopped::TooLarge(too_large)) => Err(too_large),
            // A client that is gone also drops the answer, and this task with it; a runner that takes no
            // more says why in its answer.
            Ok(()) | Err(Stopped::ClientGone | Stopped::RunnerClosed) => Ok(()),
        })
    })))
}

fn less_loaded(lanes: &[Arc<Lane>], avoid: Option<&Lane>) -> Arc<Lane> {
    let others: Vec<_>;
    let candidates = match avoid {
        Some(avoid) => {
            others = lanes
                .iter()
                .filter(|lane| !std::ptr::eq(Arc::as_ptr(lane), avoid))
                .cloned()
                .collect();
            if others.is_empty() { lanes } else { &others }
        }
        None => lanes,
    };
    let [only] = candidates else {
        let first = rand::random_range(0..candidates.len());
        let second = (first + rand::random_range(1..candidates.len())) % candidates.len();
        let (first, second) = (&candidates[first], &candidates[second]);
        return if second.in_flight() < first.in_flight() {
            second
        } else {
            first
        }
        .clone();
    };
    only.clone()
}

/// What is known about a request whose stream broke before the answer began.
fn fate(error: &h2::Error) -> Fate {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // A stream fails with the peer's GOAWAY only when its number is above the one that it names.
    if error.is_remote() && (error.is_go_away() || refused) {
        Fate::Unsent
    } else {
        Fate::Lost
    }
}

/// Whether a response says, in place of an answer, that nothing was changed.
fn says_not_applied(headers: &HeaderMap) -> bool {
    status_code(headers) == Some(Code::Unavailable)
        && headers.get(APPLIED).map(HeaderValue::as_bytes) == Some(b"no")
}

/// Whatever answers there, a web server or a load balancer, it is no runner.
fn not_grpc(status: StatusCode) -> Failure {
    let message = format!(
        "the runner answered with HTTP status `{}` and not with gRPC",
        status.as_u16()
    );
    let passing = matches!(status.as_u16(), 429 | 502..=504);
    let reason = if passing {
        Reason::RunnerLost
    } else {
        Reason::Internal
    };
    Failure::new(reason, message).maybe_applied()
}

fn lost(fate: Fate, message: &str) -> Failure {
    match fate {
        Fate::Unsent | Fate::NotApplied => Failure::new(
            Reason::RunnerLost,
            format!("the call did not reach its runner: {message}"),
        )
        .retry_after(Duration::from_millis(100))
        .not_applied(),
        Fate::Full => Failure::new(
            Reason::Overloaded,
            format!("the call did not reach its runner, try again later: {message}"),
        )
        .retry_after(Duration::from_millis(200))
        .not_applied(),
        Fate::Lost => Failure::new(
            Reason::RunnerLost,
            format!("the runner was lost while it handled the call: {message}"),
        )
        .maybe_applied(),
    }
}
