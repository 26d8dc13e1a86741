//! The suites against real files.

#![allow(clippy::unwrap_used, reason = "a case that cannot open its slot has failed")]

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use futures::future::BoxFuture;
use prism_slot::conformance::{
    self, Backend, Bytes, Fault, InboxOpen, InboxSubject, LedgerOpen, LedgerSubject, RegistryOpen,
    RegistrySubject, Stage,
};
use prism_slot_sqlite::{Config, InboxConfig, SqliteInbox, SqliteLedger, SqliteRegistry};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// Names the file for a run of this program that works on one which another run has made.
const FILE: &str = "PRISM_CONFORMANCE_FILE";

fn main() -> anyhow::Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let given = std::env::var_os(FILE).map(PathBuf::from);
    let path = given.unwrap_or_else(|| directory.path().join("prism.db"));
    let all = [
        conformance::registry("sqlite", SqliteRegistry::CAPABILITY, registry(&path), || {
            stage(registry)
        }),
        conformance::inbox("sqlite-inbox", SqliteInbox::CAPABILITY, inbox(&path), || {
            stage(inbox)
        }),
        conformance::ledger("sqlite-ledger", SqliteLedger::CAPABILITY, ledger(&path), || {
            stage(ledger)
        }),
    ];
    let failed = all.into_iter().find(|suite| *suite != ExitCode::SUCCESS);
    Ok(failed.unwrap_or(ExitCode::SUCCESS))
}

fn config(path: &Path) -> Config {
    Config {
        path: path.to_owned(),
        ..Config::default()
    }
}

fn registry(path: &Path) -> Arc<RegistryOpen> {
    let config = config(path);
    Arc::new(move |namespace, options| {
        let mut config = config.clone();
        config.feed_max_changes = options
            .feed_max_changes
            .map_or(config.feed_max_changes, |most| most as u64);
        Box::pin(async move {
            RegistrySubject::in_real_time(SqliteRegistry::open(&namespace, config).await.unwrap())
        })
    })
}

fn inbox(path: &Path) -> Arc<InboxOpen> {
    let config = InboxConfig::from(&config(path));
    Arc::new(move |namespace, limits| {
        let config = config.clone();
        Box::pin(async move {
            InboxSubject::in_real_time(SqliteInbox::open(&namespace, config, limits).await.unwrap())
        })
    })
}

fn ledger(path: &Path) -> Arc<LedgerOpen> {
    let config = InboxConfig::from(&config(path));
    Arc::new(move |namespace| {
        let config = config.clone();
        Box::pin(
            async move { LedgerSubject::in_real_time(SqliteLedger::open(&namespace, config).await.unwrap()) },
        )
    })
}

/// A file of a case's own.
async fn stage<O: ?Sized>(open: fn(&Path) -> Arc<O>) -> Stage<O> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("prism.db");
    Stage {
        open: open(&path),
        beside: open(&path),
        backend: Arc::new(Kept {
            path,
            _directory: directory,
        }),
    }
}

struct Kept {
    path: PathBuf,
    _directory: TempDir,
}

impl Kept {
    /// How large the file is, or its log.
    fn size(&self) -> u64 {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let sizes = [self.path.as_path(), log.as_ref()]
            .map(|path| std::fs::metadata(path).map_or(0, |file| file.len()));
        sizes.into_iter().max().unwrap()
    }
}

/// How large the files of this process may become.
fn limit_files(current: Option<u64>) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
}

impl Backend for Kept {
    fn begin(&self, fault: Fault) -> BoxFuture<'_, ()> {
        assert_eq!(fault, Fault::DiskFull);
        // Once somebody has asked for this signal, it does not end the process any more.
        drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).unwrap());
        limit_files(Some(self.size()));
        Box::pin(std::future::ready(()))
    }

    fn end(&self, _: Fault) -> BoxFuture<'_, ()> {
        limit_files(None);
        Box::pin(std::future::ready(()))
    }

    fn passed(&self, _: Bytes) -> u64 {
        unreachable!("there is no link to a file");
    }

    fn cut_within(&self, _: Bytes, _: u64) {
        unreachable!("there is no link to a file");
    }

    fn within_process(&self) -> Option<(&'static str, OsString)> {
        Some((FILE, self.path.clone().into()))
    }
}
