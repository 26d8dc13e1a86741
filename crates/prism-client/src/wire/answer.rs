//! Answers.

use std::{
    fmt::Display,
    time::{Duration, SystemTime},
};

use prism_proto::pattern;
use prost_types::Timestamp;

use super::value::{from_wire, object_from_wire};
use crate::{
    Error, Facet, Found, Identity, Outcome, Page, Position, Registration, Renewal, Renewed, Result,
    SchemaFinding, SchemaProgress, SchemaViolation, Unregistered, error::Refusal,
};

pub(crate) fn registration(identity: String, answer: pattern::RegisterResponse) -> Result<Registration> {
    succeeded(answer.success, answer.error.as_deref())?;
    use pattern::register_response::Outcome as Wire;
    let outcome = match Wire::try_from(answer.outcome) {
        Ok(Wire::Registered) => Outcome::Registered,
        Ok(Wire::Replaced) => Outcome::Replaced,
        Ok(Wire::Updated) => Outcome::Updated,
        Ok(Wire::Renewed) => Outcome::Renewed,
        Ok(Wire::Unspecified) | Err(_) => return Err(unknown("outcome", answer.outcome)),
    };
    Ok(Registration {
        identity,
        outcome,
        registered_at: time("registered_at", answer.registered_at)?,
        expires_at: optional_time("expires_at", answer.expires_at)?,
        generation: position("generation", answer.generation)?,
        position: position("position", answer.position)?,
        renew_after: optional_millis("renew_after_ms", answer.renew_after_ms)?,
        ttl: optional_millis("ttl_ms", answer.ttl_ms)?,
    })
}

pub(crate) fn schema_finding(answer: pattern::CheckSchemaResponse) -> Result<SchemaFinding> {
    let Some(progress) = answer.progress else {
        return Ok(SchemaFinding::Violation(SchemaViolation {
            identity: answer.identity,
            field: answer.field,
            violation: answer.violation,
        }));
    };
    Ok(SchemaFinding::Progress(SchemaProgress {
        checked: progress.checked,
        nonconforming: progress.nonconforming,
        total: progress.total,
        done: progress.done,
        position: position("progress.position", progress.position)?,
    }))
}

/// `asked` are the identities of the requests, in their order.
pub(crate) fn registrations(
    asked: Vec<String>,
    answer: pattern::RegisterManyResponse,
) -> Result<Vec<Result<Registration>>> {
    if answer.results.len() != asked.len() {
        let problem = format!(
            "has {} entries for {} registrations",
            answer.results.len(),
            asked.len()
        );
        return Err(Error::malformed("results", problem));
    }
    let pairs = asked.into_iter().zip(answer.results);
    pairs
        .map(|(identity, result)| {
            if result.success {
                return registration(identity, result).map(Ok);
            }
            let message = result.error.unwrap_or_default();
            let refused = Error::Refused(Box::new(Refusal {
                retry_after: optional_millis("retry_after_ms", result.retry_after_ms)?,
                ..Refusal::of_item(&result.reason, message)
            }));
            Ok(Err(if result.maybe_applied {
                refused.maybe_applied()
            } else {
                refused
            }))
        })
        .collect()
}

/// `asked` are the identities of the request, in its order.
pub(crate) fn renewals(asked: Vec<String>, answer: pattern::RenewResponse) -> Result<Vec<Renewal>> {
    if answer.results.len() != asked.len() {
        let problem = format!("has {} entries for {} leases", answer.results.len(), asked.len());
        return Err(Error::malformed("results", problem));
    }
    let results = asked.into_iter().zip(answer.results).enumerate();
    results
        .map(|(index, (identity, result))| renewal(index, identity, result))
        .collect()
}

fn renewal(index: usize, identity: String, result: pattern::renew_response::Result) -> Result<Renewal> {
    if result.identity != identity {
        let problem = format!("is `{}` where `{identity}` was asked", result.identity);
        return Err(Error::malformed(
            format_args!("results[{index}].identity"),
            problem,
        ));
    }
    let result = match (result.success, result.error) {
        (true, _) => Ok(Renewed {
            expires_at: optional_time(format_args!("results[{index}].expires_at"), result.expires_at)?,
            renew_after: optional_millis(
                format_args!("results[{index}].renew_after_ms"),
                result.renew_after_ms,
            )?,
        }),
        (false, Some(reason)) => {
            let message = format!("the lease of `{identity}` was not renewed: {reason}");
            Err(Error::Refused(Box::new(Refusal::of_item(&reason, message))))
        }
        (false, None) => return Err(missing(format_args!("results[{index}].error"))),
    };
    Ok(Renewal { identity, result })
}

pub(crate) fn updated(answer: pattern::UpdateResponse) -> Result<Found> {
    found_at(answer.identity, answer.position)
}

pub(crate) fn found(answer: pattern::GetResponse) -> Result<Found> {
    found_at(answer.identity, answer.position)
}

fn found_at(found: Option<pattern::Identity>, at: Option<pattern::Position>) -> Result<Found> {
    Ok(Found {
        identity: identity("identity", found.ok_or_else(|| missing("identity"))?)?,
        position: position("position", at)?,
    })
}

pub(crate) fn page(answer: pattern::EnumerateResponse) -> Result<Page> {
    let identities = answer.identities.into_iter().enumerate();
    let identities = identities.map(|(index, found)| identity(format_args!("identities[{index}]"), found));
    Ok(Page {
        identities: identities.collect::<Result<_>>()?,
        total_count: count("total_count", answer.total_count)?,
        next_cursor: answer.next_cursor.filter(|cursor| !cursor.is_empty()),
        position: position("position", answer.position)?,
        view_age: optional_millis("view_age_ms", answer.view_age_ms)?,
        facets: answer
            .facets
            .into_iter()
            .enumerate()
            .map(facet)
            .collect::<Result<_>>()?,
    })
}

fn facet((index, facet): (usize, pattern::Facet)) -> Result<Facet> {
    let bucket = |bucket: pattern::facet::Bucket| {
        let value = bucket.value.unwrap_or_default();
        Ok((
            from_wire(format_args!("facets[{index}].value"), value)?,
            count(format_args!("facets[{index}].count"), bucket.count)?,
        ))
    };
    Ok(Facet {
        buckets: facet.buckets.into_iter().map(bucket).collect::<Result<_>>()?,
        value_count: count(format_args!("facets[{index}].value_count"), facet.value_count)?,
        other_count: count(format_args!("facets[{index}].other_count"), facet.other_count)?,
        missing_count: count(format_args!("facets[{index}].missing_count"), facet.missing_count)?,
        field: facet.field,
    })
}

pub(super) fn identity(field: impl Display, found: pattern::Identity) -> Result<Identity> {
    if found.identity.is_empty() {
        return Err(missing(format_args!("{field}.identity")));
    }
    Ok(Identity {
        identity: found.identity,
        metadata: object_from_wire(format_args!("{field}.metadata"), found.metadata)?,
        registered_at: time(format_args!("{field}.registered_at"), found.registered_at)?,
        updated_at: time(format_args!("{field}.updated_at"), found.updated_at)?,
        expires_at: optional_time(format_args!("{field}.expires_at"), found.expires_at)?,
        ttl: optional_millis(format_args!("{field}.ttl_ms"), found.ttl_ms)?,
        generation: position(format_args!("{field}.generation"), found.generation)?,
        revision: found.revision,
    })
}

pub(crate) fn unregistered(answer: pattern::UnregisterResponse) -> Result<Unregistered> {
    succeeded(answer.success, answer.error.as_deref())?;
    Ok(Unregistered {
        existed: answer.existed,
        position: position("position", answer.position)?,
    })
}

/// Bodies repeat what the status says; one that contradicts an OK status is believed.
fn succeeded(success: bool, error: Option<&str>) -> Result<()> {
    if success {
        return Ok(());
    }
    let message = error
        .unwrap_or("the service says that the call failed, and not why")
        .to_owned();
    Err(Error::Refused(Box::new(Refusal::of_item("", message))).maybe_applied())
}

pub(super) fn position(field: impl Display, position: Option<pattern::Position>) -> Result<Position> {
    let position = position.ok_or_else(|| missing(field))?;
    Ok(Position {
        epoch: position.epoch,
        revision: position.revision,
    })
}

pub(super) fn time(field: impl Display, time: Option<Timestamp>) -> Result<SystemTime> {
    optional_time(&field, time)?.ok_or_else(|| missing(&field))
}

pub(super) fn optional_time(field: impl Display, time: Option<Timestamp>) -> Result<Option<SystemTime>> {
    time.map(|time| {
        SystemTime::try_from(time).map_err(|error| Error::malformed(field, format!("is no time: {error}")))
    })
    .transpose()
}

pub(super) fn optional_millis(field: impl Display, millis: Option<i64>) -> Result<Option<Duration>> {
    millis
        .map(|millis| count(field, millis).map(Duration::from_millis))
        .transpose()
}

pub(super) fn count(field: impl Display, number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| Error::malformed(field, format!("is negative: {number}")))
}

pub(super) fn missing(field: impl Display) -> Error {
    Error::malformed(field, "is missing")
}

pub(super) fn unknown(field: impl Display, number: i32) -> Error {
    Error::malformed(
        field,
        format!("has a value that this version does not know: {number}"),
    )
}

#[cfg(test)]
mod tests {
    use prism_core::failure::Reason;

    use super::*;
    use crate::testing::answers;

    fn malformed<T: std::fmt::Debug>(result: Result<T>) -> String {
        match result.unwrap_err() {
            Error::Malformed { field, .. } => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_registration_is_read_whole_or_not_at_all() {
        let whole = answers::registered(3);
        let read = registration("a".into(), whole.clone()).unwrap();
        assert_eq!(read.outcome, Outcome::Registered);
        assert_eq!(read.generation.revision, 3);
        assert_eq!(read.renew_after, Some(Duration::from_secs(10)));
        assert_eq!(read.ttl, Some(Duration::from_secs(30)));

        type Change = fn(&mut pattern::RegisterResponse);
        let changes: [(&str, Change); 7] = [
            ("outcome", |answer| answer.outcome = 0),
            ("outcome", |answer| answer.outcome = 99),
            ("registered_at", |answer| answer.registered_at = None),
            ("generation", |answer| answer.generation = None),
            ("position", |answer| answer.position = None),
            ("renew_after_ms", |answer| answer.renew_after_ms = Some(-1)),
            ("ttl_ms", |answer| answer.ttl_ms = Some(-1)),
        ];
        for (field, change) in changes {
            let mut broken = whole.clone();
            change(&mut broken);
            assert_eq!(malformed(registration("a".into(), broken)), field);
        }
    }

    #[test]
    fn a_body_that_says_no_is_believed() {
        let answer = pattern::RegisterResponse {
            success: false,
            error: Some("quota".to_owned()),
            ..answers::registered(1)
        };
        let error = registration("a".into(), answer).unwrap_err();
        assert_eq!(error.to_string(), "quota");
        assert_eq!(error.applied(), crate::Applied::Unknown);
    }

    #[test]
    fn renewals_answer_what_was_asked_one_by_one() {
        let asked = || vec!["a".to_owned(), "b".to_owned()];
        let answer = pattern::RenewResponse {
            results: vec![
                answers::renewed("a"),
                answers::not_renewed("b", Reason::StaleGeneration),
            ],
        };
        let read = renewals(asked(), answer.clone()).unwrap();
        assert!(read[0].result.is_ok());
        assert_eq!(
            read[1].result.as_ref().unwrap_err().reason(),
            Some(Reason::StaleGeneration)
        );

        let mut short = answer.clone();
        short.results.pop();
        assert_eq!(malformed(renewals(asked(), short)), "results");
        let mut crossed = answer.clone();
        crossed.results.reverse();
        assert_eq!(malformed(renewals(asked(), crossed)), "results[0].identity");
        let mut silent = answer;
        silent.results[1].error = None;
        assert_eq!(malformed(renewals(asked(), silent)), "results[1].error");
    }

    #[test]
    fn a_broken_identity_is_named_with_its_place() {
        type Change = fn(&mut pattern::Identity);
        let changes: [(&str, Change); 4] = [
            ("identities[1].identity", |found| found.identity.clear()),
            ("identities[1].generation", |found| found.generation = None),
            ("identities[1].updated_at", |found| found.updated_at = None),
            ("identities[1].metadata.x", |found| {
                found
                    .metadata
                    .insert("x".to_owned(), prost_types::Value { kind: None });
            }),
        ];
        for (field, change) in changes {
            let mut answer = answers::page(&["a", "b"]);
            change(&mut answer.identities[1]);
            assert_eq!(malformed(page(answer)), field);
        }
    }

    #[test]
    fn an_empty_cursor_is_none() {
        let mut answer = answers::page(&["a"]);
        answer.next_cursor = Some(String::new());
        assert_eq!(page(answer).unwrap().next_cursor, None);
    }
}
