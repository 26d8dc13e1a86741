//! Commands that change the registry.

use prism_client::{Position, Reason, SessionId, raw::Raw};
use prism_proto::pattern::{
    self, RegisterRequest, RenewRequest, UnregisterRequest, UpdateRequest, register_response::Outcome,
    renew_request,
};
use tonic::Code;

use super::{conclude, read, time};
use crate::{
    cli::multicast::{Object, Register},
    exit::Exit,
    fault::{Fault, Stop},
    output::{Cell, Output, Shown, Table, tree},
};

pub(super) async fn register(raw: &Raw, register: &Register, output: &mut Output) -> Result<Exit, Stop> {
    let request = RegisterRequest {
        identity: register.identity.clone(),
        metadata: register.metadata.clone(),
        ttl_seconds: register.ttl,
        ttl_ms: None,
        replace: register.replace,
        // By which a retry after a lost answer is recognised; nobody knows it after this process.
        session: SessionId::random().0.to_vec(),
    };
    let answer = raw.register(request).await?;
    let outcome = Outcome::try_from(answer.outcome)
        .unwrap_or_default()
        .as_str_name();
    let millis = |millis: Option<i64>| millis.map(|millis| format!("{millis} ms")).unwrap_or_default();
    let shown = Shown {
        tree: tree(&answer)?,
        table: Table::facts([
            ("IDENTITY", register.identity.clone()),
            ("OUTCOME", outcome.to_owned()),
            ("REGISTERED", time(answer.registered_at.as_ref())),
            ("EXPIRES", time(answer.expires_at.as_ref())),
            ("LEASE", millis(answer.ttl_ms)),
            ("RENEW AFTER", millis(answer.renew_after_ms)),
            ("GENERATION", position(answer.generation)),
        ]),
        names: vec![register.identity.clone()],
    };
    conclude(output, &shown, None)
}

pub(super) async fn renew(raw: &Raw, identities: &[String], output: &mut Output) -> Result<Exit, Stop> {
    let leases = identities.iter().map(|identity| renew_request::Lease {
        identity: identity.clone(),
        generation: None,
    });
    let answer = raw
        .renew(RenewRequest {
            leases: leases.collect(),
        })
        .await?;
    let mut table = Table::new(["IDENTITY", "RENEWED", "EXPIRES", "REASON"]);
    let mut names = Vec::new();
    let mut failed = Vec::new();
    for result in &answer.results {
        let reason = result.error.clone().unwrap_or_default();
        let renewed = if result.success {
            Cell::good("yes")
        } else {
            Cell::bad("no")
        };
        let expires = time(result.expires_at.as_ref());
        table.row([
            result.identity.as_str().into(),
            renewed,
            expires.into(),
            reason.as_str().into(),
        ]);
        if result.success {
            names.push(result.identity.clone());
        } else {
            failed.push(reason);
        }
    }
    let bad = not_renewed(&failed, answer.results.len());
    let shown = Shown {
        tree: tree(&answer)?,
        table,
        names,
    };
    conclude(output, &shown, bad)
}

/// Several reasons are told by the first.
fn not_renewed(reasons: &[String], of: usize) -> Option<Fault> {
    let first = reasons.first()?;
    let code = Reason::parse(first).map_or(Code::Unknown, Reason::code);
    let message = format!("{} of {of} leases were not renewed", reasons.len());
    Some(Fault::partial(Exit::of_code(code), first, message))
}

pub(super) async fn update(
    raw: &Raw,
    identity: &str,
    patch: &Object,
    output: &mut Output,
) -> Result<Exit, Stop> {
    let request = UpdateRequest {
        identity: identity.to_owned(),
        patch: patch.clone(),
        ..Default::default()
    };
    let answer = raw.update(request).await?;
    let shown = Shown {
        tree: tree(&answer)?,
        ..read::one(answer.identity.as_ref())?
    };
    conclude(output, &shown, None)
}

pub(super) async fn unregister(raw: &Raw, identity: &str, output: &mut Output) -> Result<Exit, Stop> {
    let request = UnregisterRequest {
        identity: identity.to_owned(),
        generation: None,
    };
    let answer = raw.unregister(request).await?;
    let existed = if answer.existed { "yes" } else { "no" };
    let shown = Shown {
        tree: tree(&answer)?,
        table: Table::facts([("IDENTITY", identity.to_owned()), ("EXISTED", existed.to_owned())]),
        names: vec![identity.to_owned()],
    };
    conclude(output, &shown, None)
}

/// As it is shown; nothing for none.
pub(super) fn position(position: Option<pattern::Position>) -> String {
    let known = position.map(|position| Position {
        epoch: position.epoch,
        revision: position.revision,
    });
    known.map(|position| position.to_string()).unwrap_or_default()
}
