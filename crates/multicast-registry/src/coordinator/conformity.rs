//! Which registrations violate a schema: theirs, or one that is to come.

use std::{fmt, sync::Arc, time::Duration};

use prism_slot::{Identity, Position};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Config, Coordinator, Error};
use crate::{
    config::SchemaChange,
    directory::{Directory, Resume},
    metrics::NamespaceMetrics,
    schema::{Schema, Violation},
};

/// How many registrations are looked at in one go.
const SLICE: usize = 256;
/// How many violations of one registration are told.
const TOLD_EACH: usize = 16;
/// How many registrations the refusal of a configuration, or a line of the log, names.
const NAMED: usize = 3;
/// How often it is counted again how many violate the schema, as long as some do.
const RECOUNT: Duration = Duration::from_secs(60);
/// For how long counting pauses at least, in times that it took.
const REST: u32 = 50;
/// Between attempts while there is no view to count in.
const UNREADY: Duration = Duration::from_secs(5);

/// A registration and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonconforming {
    /// The identity.
    pub identity: Identity,
    /// What is wrong; not everything, where that is much.
    pub violations: Vec<Violation>,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many registrations were looked at.
    pub checked: u64,
    /// How many of them violate the schema.
    pub nonconforming: u64,
    /// How many there were when it began.
    pub total: u64,
}

/// A check of every registration that is there when it begins and still is when its turn comes, in its
/// state then. It keeps nothing but where it is.
pub struct Check {
    directory: Directory,
    schema: Arc<Schema>,
    began: Position,
    from: Resume,
    progress: Progress,
    is_done: bool,
}

impl Check {
    pub(super) fn new(directory: Directory, schema: Arc<Schema>) -> Self {
        Self {
            progress: Progress {
                total: directory.len() as u64,
                ..Progress::default()
            },
            began: directory.head(),
            directory,
            schema,
            from: Resume::default(),
            is_done: false,
        }
    }

    /// Looks at some more; `None` when all have been looked at. Takes well below a millisecond for
    /// documents of ordinary size, and waits for nothing.
    ///
    /// # Errors
    /// [`Error::OtherEpoch`] when the namespace's history began anew meanwhile: what was found is of no use.
    pub fn step(&mut self) -> Result<Option<Vec<Nonconforming>>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let (head, rows) = self.directory.slice(&self.from, SLICE);
        if head.epoch != self.began.epoch {
            return Err(Error::OtherEpoch { current: head.epoch });
        }
        self.is_done = rows.len() < SLICE;
        if let Some(last) = rows.iter().last() {
            self.from = Resume::after(last);
        }
        self.progress.checked += rows.len() as u64;
        let found = rows.iter().filter_map(|row| {
            let (identity, document) = (row.identity(), row.document());
            let violations = self.schema.violations(identity.as_str(), document, TOLD_EACH);
            (!violations.is_empty()).then(|| Nonconforming {
                identity: identity.clone(),
                violations,
            })
        });
        let found: Vec<_> = found.collect();
        self.progress.nonconforming += found.len() as u64;
        Ok(Some(found))
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Where the view stood when it began.
    pub fn began(&self) -> Position {
        self.began
    }

    /// Looks at all, letting others have their turn in between.
    async fn run(mut self) -> Result<Summary, Error> {
        let mut first = Vec::new();
        while let Some(found) = self.step()? {
            let wanted = NAMED - first.len();
            first.extend(found.into_iter().take(wanted));
            tokio::task::yield_now().await;
        }
        Ok(Summary {
            progress: self.progress,
            first,
        })
    }
}

/// What a whole check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many were looked at, and how many violate the schema.
    pub progress: Progress,
    /// The first of those that do.
    pub first: Vec<Nonconforming>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress {
            checked,
            nonconforming,
            ..
        } = self.progress;
        write!(f, "{nonconforming} of {checked} registrations violate the schema")?;
        for (index, Nonconforming { identity, violations }) in self.first.iter().enumerate() {
            let before = if index == 0 { ':' } else { ';' };
            for violation in violations.iter().take(1) {
                write!(f, "{before} `{identity}`: {violation}")?;
            }
        }
        Ok(())
    }
}

/// Why a configuration with another schema is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SchemaRefused {
    /// Registrations violate it.
    #[error(
        "{0}; change them (`prism-probe schema migrate`), or set `behavior.on_schema_change: lazy` to take the \
         schema for what is written from now on"
    )]
    Violated(Summary),
    /// That could not be found out.
    #[error("the registrations cannot be checked against the new schema: {0}")]
    Unknown(#[from] Error),
}

impl Coordinator {
    /// Begins to check every registration against a schema, or the namespace's own.
    ///
    /// # Errors
    /// There is no schema, or no view; the view cannot be brought up to date.
    pub async fn check_schema(&self, schema: Option<Schema>, deadline: Instant) -> Result<Check, Error> {
        self.open_for_calls()?;
        if self.directory().is_bare() {
            let message =
                "a namespace with `view: none` keeps nothing in which registrations could be checked";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let config = self.config();
        let schema = schema.or_else(|| config.schema.clone()).ok_or_else(|| {
            let message = "the namespace has no schema to check against, name one with the call";
            Error::Unsupported(message.to_owned())
        })?;
        // Also where reads may be stale: what is said to satisfy a schema has to.
        self.directory().make_current(deadline).await?;
        Ok(Check::new(self.directory().clone(), Arc::new(schema)))
    }

    /// Whether a configuration may take the place of the one now, as far as its schema goes.
    ///
    /// # Errors
    /// It asks that what is registered satisfies a new schema, and that is not so or not known.
    pub async fn may_become(&self, next: &Config, deadline: Instant) -> Result<(), SchemaRefused> {
        let Some(schema) = &next.schema else { return Ok(()) };
        let asked = next.behavior.on_schema_change == SchemaChange::Refuse;
        if !asked || self.config().schema.as_ref() == Some(schema) {
            return Ok(());
        }
        let check = self.check_schema(Some(schema.clone()), deadline).await?;
        let summary = tokio::time::timeout_at(deadline, check.run())
            .await
            .map_err(|_| Error::DeadlineExceeded)??;
        match summary.progress.nonconforming {
            0 => Ok(()),
            _ => Err(SchemaRefused::Violated(summary)),
        }
    }
}

/// Counts how many registrations violate the schema: when it begins to apply, and again and again for as
/// long as some do.
pub(super) struct Census {
    namespace: String,
    directory: Directory,
    metrics: NamespaceMetrics,
    schema: watch::Receiver<Option<Arc<Schema>>>,
}

/// The schema now, for whoever counts violations of it.
#[derive(Debug)]
pub(super) struct CurrentSchema(watch::Sender<Option<Arc<Schema>>>);

impl CurrentSchema {
    pub(super) fn new(schema: Option<Schema>) -> Self {
        Self(watch::Sender::new(schema.map(Arc::new)))
    }

    /// Another one that says the same is no news.
    pub(super) fn set(&self, schema: Option<Schema>) {
        let schema = schema.map(Arc::new);
        self.0.send_if_modified(|current| {
            let differs = *current != schema;
            if differs {
                *current = schema;
            }
            differs
        });
    }
}

impl Census {
    pub(super) fn new(
        namespace: &str,
        directory: Directory,
        metrics: NamespaceMetrics,
        schema: &CurrentSchema,
    ) -> Self {
        Self {
            namespace: namespace.to_owned(),
            directory,
            metrics,
            schema: schema.0.subscribe(),
        }
    }

    /// Ends when it is cancelled, or when there is nobody who could change the schema.
    pub(super) async fn run(mut self, cancelled: CancellationToken) {
        let work = async {
            let mut known = 0;
            loop {
                let schema = self.schema.borrow_and_update().clone();
                let pause = self.count(schema, &mut known).await;
                let changed = self.schema.changed();
                let changed = match pause {
                    Some(pause) => tokio::time::timeout(pause, changed).await.unwrap_or(Ok(())),
                    None => changed.await,
                };
                if changed.is_err() {
                    return;
                }
            }
        };
        cancelled.run_until_cancelled(work).await;
    }

    /// Returns when to count again, unless the schema changes; `known` is what was counted before.
    async fn count(&self, schema: Option<Arc<Schema>>, known: &mut u64) -> Option<Duration> {
        let Some(schema) = schema else {
            self.metrics.schema_violations(0);
            *known = 0;
            return None;
        };
        let began = Instant::now();
        if self.directory.ready(began + RECOUNT).await.is_err() {
            return Some(UNREADY);
        }
        let began = Instant::now();
        let Ok(summary) = Check::new(self.directory.clone(), schema).run().await else {
            return Some(UNREADY);
        };
        let count = summary.progress.nonconforming;
        self.metrics.schema_violations(count);
        if count > 0 && count != *known {
            tracing::warn!(namespace = self.namespace, nonconforming = count, "{summary}");
        } else if count == 0 && *known > 0 {
            tracing::info!(
                namespace = self.namespace,
                "every registration satisfies the schema now"
            );
        }
        *known = count;
        (count > 0).then(|| RECOUNT.max(began.elapsed() * REST))
    }
}
