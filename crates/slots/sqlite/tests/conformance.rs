//! The suites against real files.

#![allow(clippy::unwrap_used, reason = "a case that cannot open its slot has failed")]

use std::{process::ExitCode, sync::Arc};

use prism_slot::conformance::{self, InboxSubject, LedgerSubject, RegistrySubject};
use prism_slot_sqlite::{Config, InboxConfig, SqliteInbox, SqliteLedger, SqliteRegistry};

fn main() -> anyhow::Result<ExitCode> {
    let directory = Arc::new(tempfile::tempdir()?);
    let path = directory.path().join("prism.db");
    let settings = move || InboxConfig {
        path: path.clone(),
        ..InboxConfig::default()
    };
    let (of_registry, of_inbox) = (settings.clone(), settings.clone());
    let registry = conformance::registry("sqlite", SqliteRegistry::CAPABILITY, move |namespace, options| {
        let path = of_registry().path;
        async move {
            let mut config = Config {
                path,
                ..Config::default()
            };
            config.feed_max_changes = options
                .feed_max_changes
                .map_or(config.feed_max_changes, |most| most as u64);
            RegistrySubject::in_real_time(SqliteRegistry::open(&namespace, config).await.unwrap())
        }
    });
    let inbox = conformance::inbox("sqlite", SqliteInbox::CAPABILITY, move |namespace, limits| {
        let config = of_inbox();
        async move { InboxSubject::in_real_time(SqliteInbox::open(&namespace, config, limits).await.unwrap()) }
    });
    let ledger = conformance::ledger("sqlite", SqliteLedger::CAPABILITY, move |namespace| {
        let config = settings();
        async move { LedgerSubject::in_real_time(SqliteLedger::open(&namespace, config).await.unwrap()) }
    });
    let all = [registry, inbox, ledger];
    let failed = all.into_iter().find(|suite| *suite != ExitCode::SUCCESS);
    Ok(failed.unwrap_or(ExitCode::SUCCESS))
}
