//! What happened, as a watcher of everything was told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use integration::PATIENCE;
use prism_client::{Change, Client, Position, Watch, WatchEvent, WatchRequest};
use serde_json::Value;
use tokio::task::JoinHandle;

/// The metadata of each identity at some revision.
pub(super) type State = BTreeMap<String, Value>;

/// What happened in one epoch, in the order of revisions.
#[derive(Default)]
pub(super) struct Era {
    pub(super) epoch: u64,
    /// What was there when the watch began, and when that was.
    base: State,
    begins: u64,
    /// Everything up to here was told.
    ends: u64,
    /// What each revision did: the identity, and its metadata from then on, `None` for gone.
    pub(super) changes: BTreeMap<u64, (String, Option<Value>)>,
}

impl Era {
    fn add(&mut self, change: &Change, gone: bool) -> Result<()> {
        ensure!(
            change.position.epoch == self.epoch,
            "{} in epoch {}",
            change.position,
            self.epoch
        );
        let after = (!gone).then(|| Value::Object(change.identity.metadata.clone()));
        self.ends = change.position.revision;
        let before = self
            .changes
            .insert(self.ends, (change.identity.identity.clone(), after));
        ensure!(before.is_none(), "revision {} was told twice", self.ends);
        Ok(())
    }

    fn check_complete(&self) -> Result<()> {
        let last = self.begins + self.changes.len() as u64;
        let revisions = self.changes.keys().copied();
        ensure!(
            revisions.eq(self.begins + 1..=last),
            "there are revisions that nobody was told of"
        );
        Ok(())
    }

    /// Whether it is known what a write at this revision did.
    pub(super) fn tells_of(&self, revision: u64) -> bool {
        (self.begins + 1..=self.ends).contains(&revision)
    }

    /// Everybody as of a revision; `None` where that was not told.
    pub(super) fn state_at(&self, revision: u64) -> Option<State> {
        if !(self.begins..=self.ends).contains(&revision) {
            return None;
        }
        let mut state = self.base.clone();
        for (identity, after) in self.changes.range(..=revision).map(|(_, change)| change) {
            match after {
                Some(metadata) => state.insert(identity.clone(), metadata.clone()),
                None => state.remove(identity),
            };
        }
        Some(state)
    }
}

/// One era after the other.
#[derive(Default)]
pub(super) struct History {
    pub(super) eras: Vec<Era>,
}

impl History {
    fn take(&mut self, event: WatchEvent) -> Result<()> {
        if event == WatchEvent::Restarted || self.eras.is_empty() {
            self.eras.push(Era::default());
        }
        let era = self.eras.last_mut().context("there is one")?;
        match event {
            WatchEvent::Restarted => {}
            WatchEvent::Present(found) => {
                era.base.insert(found.identity, Value::Object(found.metadata));
            }
            WatchEvent::Bookmark(at) if era.epoch == 0 => {
                (era.epoch, era.begins, era.ends) = (at.epoch, at.revision, at.revision);
            }
            WatchEvent::Bookmark(at) => {
                ensure!(at.epoch == era.epoch, "{at} in epoch {}", era.epoch);
                era.ends = at.revision;
            }
            WatchEvent::Entered(change) | WatchEvent::Updated(change) => era.add(&change, false)?,
            WatchEvent::Left(change) => era.add(&change, true)?,
        }
        Ok(())
    }

    fn reached(&self) -> Option<Position> {
        let era = self.eras.last()?;
        Some(Position {
            epoch: era.epoch,
            revision: era.ends,
        })
    }

    /// The only one.
    pub(super) fn era(&self) -> Result<&Era> {
        match &self.eras[..] {
            [era] => Ok(era),
            eras => bail!("{} epochs and nothing was lost", eras.len()),
        }
    }
}

/// Follows everything that happens until so much has happened.
pub(super) struct Witness {
    history: JoinHandle<Result<History>>,
    reached: Arc<Mutex<Option<Position>>>,
    until: Arc<Mutex<Option<Position>>>,
}

impl Witness {
    pub(super) async fn start(client: &Client) -> Result<Self> {
        let watch = client.registry.watch(WatchRequest::default()).await?;
        let (reached, until) = (Arc::default(), Arc::default());
        Ok(Self {
            history: tokio::spawn(follow(watch, Arc::clone(&reached), Arc::clone(&until))),
            reached,
            until,
        })
    }

    /// How far it has been told, once it has been told of an epoch.
    pub(super) fn reached(&self) -> Option<Position> {
        let reached = self.reached.lock().expect("nobody panicked");
        reached.filter(|at| at.epoch != 0)
    }

    /// Everything up to a position.
    pub(super) async fn history(self, until: Position) -> Result<History> {
        *self.until.lock().expect("nobody panicked") = Some(until);
        tokio::time::timeout(PATIENCE * 2, self.history).await??
    }
}

async fn follow(
    mut watch: Watch,
    reached: Arc<Mutex<Option<Position>>>,
    until: Arc<Mutex<Option<Position>>>,
) -> Result<History> {
    let mut history = History::default();
    let is_over = |at: Option<Position>| {
        let until = *until.lock().expect("nobody panicked");
        until.is_some_and(|until| {
            at.is_some_and(|at| at.epoch == until.epoch && at.revision >= until.revision)
        })
    };
    while !is_over(history.reached()) {
        // Looked up again now and then, in case nothing more happens.
        let Ok(event) = tokio::time::timeout(Duration::from_millis(100), watch.next()).await else {
            continue;
        };
        history.take(event.context("the watch is over")??)?;
        *reached.lock().expect("nobody panicked") = history.reached();
    }
    for era in &history.eras {
        era.check_complete()?;
    }
    Ok(history)
}
