//! Sessions: what they get, and what is said in them.

use std::future::{Future, ready};

use futures::{FutureExt, Stream, StreamExt, stream};
use prism_proto::pattern::{
    self as wire,
    subscribe_request::{self, Message},
    subscribe_response::{self, Settled},
};
use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};

use super::{Answers, FakeRegistry, Handler, Scripted};

/// What the client says in one session, after it has opened it; ends with the session.
pub type Words = mpsc::UnboundedReceiver<Message>;

/// What a session begins with.
pub(super) type Opening = (subscribe_request::Open, Words);

impl FakeRegistry {
    /// Says what a session gets: the stream of its answers, whose end is its end. What the client says about
    /// messages is confirmed beside that, where it wants that; [`said`](Self::said) has it.
    pub fn on_subscribe<F, Fut, S>(&self, handler: F)
    where
        F: Fn(subscribe_request::Open) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Status>> + Send + 'static,
        S: Stream<Item = Result<wire::SubscribeResponse, Status>> + Send + 'static,
    {
        self.on_session(move |open, words| {
            let confirm = open.confirm;
            handler(open).map(move |answers| answers.map(|answers| confirming(answers, words, confirm)))
        });
    }

    /// The same with what the client says: only what the answers confirm is confirmed.
    pub fn on_session<F, Fut, S>(&self, handler: F)
    where
        F: Fn(subscribe_request::Open, Words) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Status>> + Send + 'static,
        S: Stream<Item = Result<wire::SubscribeResponse, Status>> + Send + 'static,
    {
        let handler: Handler<Opening, Answers> = std::sync::Arc::new(move |request| {
            let (open, words) = request.into_inner();
            handler(open, words).map(|answers| answers.map(S::boxed)).boxed()
        });
        *self.script.subscribe.lock() = Some(handler);
    }

    /// What clients have said in sessions so far, after they opened them, in order.
    pub fn said(&self) -> Vec<Message> {
        self.script.said.lock().clone()
    }
}

impl Scripted {
    pub(super) async fn open(
        &self,
        request: Request<Streaming<wire::SubscribeRequest>>,
    ) -> Result<Answers, Status> {
        let (metadata, extensions, mut requests) = request.into_parts();
        let first = requests.message().await?.and_then(|first| first.message);
        let Some(Message::Open(open)) = first else {
            return Err(Status::invalid_argument("a session begins with `open`"));
        };
        let (said, words) = mpsc::unbounded_channel();
        let request = Request::from_parts(metadata, extensions, (open, words));
        let answers = self.answer("Subscribe", &self.0.subscribe, request).await?;
        let script = self.0.clone();
        // A session ends with its answers, or with its requests.
        let closed = async move {
            while let Ok(Some(request)) = requests.message().await {
                if let Some(message) = request.message {
                    script.said.lock().push(message.clone());
                    // Fails where the test does not listen.
                    let _ = said.send(message);
                }
            }
        };
        Ok(answers.take_until(closed).boxed())
    }
}

/// The answers, and between them that whatever is said holds.
fn confirming(
    answers: impl Stream<Item = Result<wire::SubscribeResponse, Status>> + Send + 'static,
    words: Words,
    confirm: bool,
) -> impl Stream<Item = Result<wire::SubscribeResponse, Status>> + Send + 'static {
    let settled = stream::unfold(words, |mut words| async move {
        let word = words.recv().await?;
        Some((settle(word).map(Ok), words))
    });
    let settled = settled.filter(move |settled| ready(confirm && settled.is_some()));
    let answers = answers.map(Some).chain(stream::iter([None]));
    // Their end is the end of all.
    stream::select(answers, settled)
        .take_while(|answer| ready(answer.is_some()))
        .filter_map(ready)
}

fn settle(word: Message) -> Option<wire::SubscribeResponse> {
    let delivery_ids = match word {
        Message::Ack(ack) => ack.delivery_ids,
        Message::Nack(nack) => nack.delivery_ids,
        Message::Term(term) => term.delivery_ids,
        Message::Answer(answer) => vec![answer.delivery_id],
        Message::Open(_) | Message::Credit(_) => return None,
    };
    Some(wire::SubscribeResponse {
        message: Some(subscribe_response::Message::Settled(Settled {
            delivery_ids,
            gone_ids: Vec::new(),
        })),
    })
}
