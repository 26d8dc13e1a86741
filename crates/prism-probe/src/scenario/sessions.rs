//! Sessions in the background, and what they have received.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use prism_client::{Error, Event, Message, Registry, Result as Answer, SubscribeRequest};
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use super::{
    expect::Problem,
    step::{Receive, Word},
};
use crate::load::reason;

/// Sessions by their names. Dropping this ends them.
#[derive(Default)]
pub(super) struct Sessions {
    open: HashMap<String, Session>,
}

struct Session {
    inbox: Arc<Inbox>,
    _reader: JoinSet<()>,
}

/// What a session has received and no step has asked for.
#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    /// Why there will be no more.
    ended: Option<Error>,
}

impl Sessions {
    /// Opens one; from the moment this returns it receives.
    ///
    /// # Errors
    /// Whatever a subscription may fail with.
    pub(super) async fn open(&mut self, registry: &Registry, name: &str, identity: &str) -> Answer<()> {
        let mut session = registry.subscribe(SubscribeRequest::from(identity)).await?;
        let inbox = Arc::new(Inbox::default());
        let told = inbox.clone();
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            while let Some(event) = session.next().await {
                match event {
                    Ok(Event::Message(message)) => told.put(message),
                    Ok(_) => {}
                    Err(error) => told.end(error),
                }
            }
        });
        let session = Session {
            inbox,
            _reader: reader,
        };
        self.open.insert(name.to_owned(), session);
        Ok(())
    }

    pub(super) fn close(&mut self, name: &str) -> Result<(), Problem> {
        self.open
            .remove(name)
            .map(drop)
            .ok_or_else(|| format!("`{name}` has no session").into())
    }

    /// Takes what a step asks for, as soon as it is there. Only about what was expected something is said.
    pub(super) async fn receive(&self, asked: &Receive, patience: Duration) -> Result<(), Problem> {
        let inbox = self.inbox(&asked.by)?;
        let count = asked.count.unwrap_or_else(|| asked.payload.len().max(1));
        let Ok(taken) = timeout(patience, inbox.take(count)).await else {
            let there = inbox.state.lock().messages.len();
            return Err(format!("received {there} of {count} messages within {patience:?}").into());
        };
        let taken = taken?;
        for (found, expected) in taken.iter().map(text).zip(&asked.payload) {
            if found != *expected {
                return Err(format!("received `{found}`, expected `{expected}`").into());
            }
        }
        let Some(word) = asked.word() else { return Ok(()) };
        match timeout(patience, say(word, &taken)).await {
            Ok(said) => said.map_err(|error| Problem::of(&error)),
            Err(_) => {
                let message = "what was said about the messages was not confirmed within";
                Err(format!("{message} {patience:?}").into())
            }
        }
    }

    /// Waits for a while in which nothing is to come.
    pub(super) async fn silence(&self, name: &str, length: Duration) -> Result<(), Problem> {
        let inbox = self.inbox(name)?;
        match timeout(length, inbox.take(1)).await {
            Err(_) => Ok(()),
            Ok(Ok(messages)) => {
                let messages: Vec<_> = messages.iter().map(text).collect();
                Err(format!("received `{}`, expected nothing", messages.concat()).into())
            }
            Ok(Err(problem)) => Err(problem),
        }
    }

    fn inbox(&self, name: &str) -> Result<&Inbox, Problem> {
        let session = self.open.get(name);
        session
            .map(|session| &*session.inbox)
            .ok_or_else(|| format!("`{name}` has no session").into())
    }
}

fn ended(why: &Error) -> Problem {
    match Problem::of(why) {
        Problem::Unexpected(_) => format!("the session ended: {why}, reason `{}`", reason(why)).into(),
        broken => broken,
    }
}

/// Says the same about each, and returns once the service knows, so that the steps that follow find it done.
async fn say(word: Word<'_>, messages: &[Message]) -> Answer<()> {
    let mut said = Vec::new();
    for message in messages {
        said.push(match word {
            Word::Ack => message.ack().await?,
            Word::Nack(delay) => message.nack(delay).await?,
            Word::Term(reason) => message.term(reason).await?,
        });
    }
    for said in said {
        said.settled().await?;
    }
    Ok(())
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

impl Inbox {
    fn put(&self, message: Message) {
        self.state.lock().messages.push_back(message);
        self.changed.notify_waiters();
    }

    fn end(&self, why: Error) {
        self.state.lock().ended = Some(why);
        self.changed.notify_waiters();
    }

    /// The next ones, all of them or none. Cancel safe.
    async fn take(&self, count: usize) -> Result<Vec<Message>, Problem> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state.lock();
                if state.messages.len() >= count {
                    return Ok(state.messages.drain(..count).collect());
                }
                if let Some(why) = &state.ended {
                    return Err(ended(why));
                }
            }
            changed.await;
        }
    }
}
