//! Changing the metadata of all registrations.

mod report;

use futures::{StreamExt, stream};
use prism_client::{Applied, Error, Identity, Reason, Registry, UpdateRequest};
use prism_core::shutdown;
use serde_json::Value;

use crate::{
    cli::{Global, schema::Migrate},
    command::{client, pages::Pages},
    exit::Exit,
    fault::{Fault, Stop},
    migration::Plan,
    output::{Output, Progress},
};
use report::Report;

/// How many updates are under way at a time.
const AT_ONCE: usize = 16;
/// How often one registration is read again because somebody else has written it.
const ATTEMPTS: usize = 10;
/// How many registrations are asked for at a time.
const PAGE: u32 = 200;

pub(super) async fn migrate(migrate: &Migrate, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    let plan = Plan::new(
        migrate.rename.clone(),
        migrate.retype.clone(),
        migrate.fill.clone(),
    );
    let plan = plan.map_err(|message| Fault::usage("", message))?;
    let interrupted =
        shutdown::signals().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
    let work = Work {
        registry: client(global)?.registry,
        plan,
        dry: migrate.dry_run,
    };
    let mut pages = Pages::new(migrate.filter.clone(), migrate.after.clone(), PAGE);
    let mut report = Report::new(migrate.dry_run);
    let bar = Progress::new(output.format(), "registrations");
    let ended = tokio::select! {
        ended = work.all(&mut pages, &mut report, &bar, output) => ended.map(|()| Exit::Ok),
        _ = interrupted => Ok(Exit::Interrupted),
    };
    bar.end();
    report.conclude(ended, pages.through(), output)
}

/// What became of one registration.
enum Outcome {
    /// It was as it should be.
    Fine,
    /// It was changed by this patch, or would be.
    Changed(Value),
    /// It stays as it is, and why.
    Left(String),
    /// It is not there any more.
    Gone,
}

struct Work {
    registry: Registry,
    plan: Plan,
    /// Whether nothing is changed.
    dry: bool,
}

impl Work {
    async fn all(
        &self,
        pages: &mut Pages,
        report: &mut Report,
        bar: &Progress,
        output: &mut Output,
    ) -> Result<(), Stop> {
        while let Some(page) = pages.next(&self.registry).await? {
            let each = stream::iter(page).map(async |found: Identity| {
                let name = found.identity.clone();
                self.one(found).await.map(|outcome| (name, outcome))
            });
            let mut each = each.buffer_unordered(AT_ONCE);
            while let Some(done) = each.next().await {
                let (name, outcome) = done?;
                if let Some(shown) = report.note(&name, &outcome) {
                    bar.aside(|| output.event(&shown))?;
                }
                bar.at(report.looked_at(), pages.total());
                bar.say(report.short());
            }
            pages.done();
        }
        Ok(())
    }

    async fn one(&self, mut found: Identity) -> Result<Outcome, Error> {
        // What an update whose answer was lost may have done.
        let mut perhaps = None;
        for _ in 0..ATTEMPTS {
            let patch = match (self.plan.patch(&found.metadata), perhaps.take()) {
                (Ok(Some(patch)), _) => patch,
                (Ok(None), Some(done)) => return Ok(Outcome::Changed(done)),
                (Ok(None), None) => return Ok(Outcome::Fine),
                (Err(problem), _) => return Ok(Outcome::Left(problem.to_string())),
            };
            if self.dry {
                return Ok(Outcome::Changed(patch));
            }
            let error = match self.registry.update(update(&found, &patch)).await {
                Ok(_) => return Ok(Outcome::Changed(patch)),
                Err(error) => error,
            };
            match error.reason() {
                // Somebody else was faster, and is not overwritten.
                Some(Reason::Conflict | Reason::StaleGeneration | Reason::EpochChanged) => {}
                Some(Reason::NotRegistered) => return Ok(Outcome::Gone),
                Some(Reason::InvalidMetadata) => return Ok(Outcome::Left(error.to_string())),
                _ if error.applied() == Applied::Unknown => perhaps = Some(patch),
                _ => return Err(error),
            }
            found = match self.registry.get(&found.identity).await {
                Ok(again) => again.identity,
                Err(error) if error.reason() == Some(Reason::NotRegistered) => return Ok(Outcome::Gone),
                Err(error) => return Err(error),
            };
        }
        Ok(Outcome::Left("it is written all the time".to_owned()))
    }
}

fn update(found: &Identity, patch: &Value) -> UpdateRequest {
    UpdateRequest {
        identity: found.identity.clone(),
        patch: patch.clone(),
        generation: Some(found.generation),
        if_revision: Some(found.revision),
    }
}
