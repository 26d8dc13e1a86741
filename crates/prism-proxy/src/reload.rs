//! Puts configurations into effect: the first one, and each one after it.

use std::{
    path::Path as FilePath,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prism_core::config::{Error, Path, Source};
use tokio::sync::{mpsc, oneshot};

use crate::{
    config::{Config, Manifest, OnMove, Versions},
    control::{Control, DesiredNamespace},
    forward::Forward,
    metrics::{Metrics, ReloadResult},
    route::Table,
    watch::FileWatch,
};

/// A request to read the file now, and where to say what came of it.
pub(crate) type Asked = oneshot::Sender<ReloadResult>;

/// Holds the configuration that is in effect.
pub(crate) struct Reloader {
    pub(crate) effective: Config,
    pub(crate) versions: Versions,
    pub(crate) known: Vec<Manifest>,
    pub(crate) table: Arc<Table>,
    pub(crate) forward: Arc<Forward>,
    pub(crate) control: Control,
    pub(crate) metrics: Arc<Metrics>,
}

impl Reloader {
    /// Reads the file again whenever it changes or somebody asks, for as long as somebody may ask.
    pub(crate) async fn follow(mut self, mut watch: FileWatch, mut asked: mpsc::Receiver<Asked>) {
        loop {
            let asked = tokio::select! {
                () = watch.changed() => None,
                asked = asked.recv() => match asked {
                    Some(asked) => Some(asked),
                    None => return,
                },
            };
            let result = self.again(watch.file()).await;
            self.metrics.reloaded(result);
            if let Some(asked) = asked {
                // Whoever asked may have gone.
                let _ = asked.send(result);
            }
        }
    }

    async fn again(&mut self, file: &FilePath) -> ReloadResult {
        match self.read(file) {
            Err(error) => {
                tracing::error!(%error, "the configuration is wrong, the one before stays in effect");
                ReloadResult::refused
            }
            Ok(config) if config == self.effective => {
                tracing::info!("the configuration was read again and says the same");
                ReloadResult::unchanged
            }
            Ok(config) => {
                for what in needs_restart(&self.effective, &config) {
                    tracing::warn!("`{what}` has changed and takes effect at the next start");
                }
                self.effective = config;
                self.put_into_effect().await;
                tracing::info!(
                    namespaces = self.effective.namespaces.len(),
                    "the configuration is in effect"
                );
                ReloadResult::applied
            }
        }
    }

    fn read(&self, file: &FilePath) -> Result<Config, Error> {
        let source = Source::load(file)?;
        // Most likely the beginning of a file that is yet to be written, and certainly no way to say
        // that every namespace is to go.
        if source.value().as_object().is_some_and(serde_json::Map::is_empty) {
            return Err(source.place(Error::new(Path::root(), "the file is empty")));
        }
        Config::check(&source, file.parent().unwrap_or(FilePath::new("")), &self.known)
    }

    /// Makes what is effective so.
    pub(crate) async fn put_into_effect(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        self.forward.set_limits(self.effective.call_limits());
        // Declared first: the control plane routes only to what is declared.
        self.table.declare(
            self.effective
                .namespaces
                .iter()
                .map(|namespace| namespace.name.clone()),
        );
        let mut desired = Vec::with_capacity(self.effective.namespaces.len());
        for namespace in &self.effective.namespaces {
            desired.push(DesiredNamespace {
                name: namespace.name.clone(),
                pattern: namespace.pattern.clone(),
                pattern_version: namespace.pattern_version.clone(),
                config: namespace.config.clone(),
                digest: namespace.digest.clone(),
                version: self.versions.next(&namespace.name, &namespace.digest, now).number,
                discard_on_move: namespace.on_move == OnMove::Discard,
            });
        }
        self.control.apply(desired).await;
    }
}

/// What differs and cannot be changed while the proxy runs.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let (old, new) = (before, after);
    let changes = [
        ("listen", old.listen != new.listen),
        ("runners", old.runners != new.runners),
        (
            "limits.connections",
            old.limits.connections != new.limits.connections,
        ),
        (
            "limits.streams_per_connection",
            old.limits.streams_per_connection != new.limits.streams_per_connection,
        ),
        ("timeouts.connect", old.timeouts.connect != new.timeouts.connect),
        ("timeouts.silence", old.timeouts.silence != new.timeouts.silence),
        (
            "timeouts.readiness_grace",
            old.timeouts.readiness_grace != new.timeouts.readiness_grace,
        ),
        ("timeouts.drain", old.timeouts.drain != new.timeouts.drain),
    ];
    changes
        .into_iter()
        .filter_map(|(what, changed)| changed.then_some(what))
        .collect()
}
