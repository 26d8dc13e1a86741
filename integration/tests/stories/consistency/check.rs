//! Holds what callers were told against what happened.

use std::{collections::HashMap, time::Instant};

use anyhow::{Context, Result, ensure};
use prism_client::Position;
use serde_json::Value;

use super::{
    callers::{Operation, Said, is_even},
    history::{Era, History},
};

/// How much was checked, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) written: usize,
    pub(super) unknown: usize,
    pub(super) read: usize,
    pub(super) listed: usize,
    /// Answers from an epoch that ended before the watcher had heard of them, or began before it had.
    pub(super) undeclared: usize,
}

/// Holds every answer against the history.
pub(super) fn check(operations: &[Operation], history: &History) -> Result<Counts> {
    let applied = times_applied(history);
    let times = |mark: &Option<u64>| {
        mark.and_then(|mark| applied.get(&mark))
            .copied()
            .unwrap_or_default()
    };
    let mut counts = Counts::default();
    for operation in operations {
        match &operation.said {
            Said::Unknown { mark } => {
                counts.unknown += 1;
                ensure!(
                    times(mark) <= 1,
                    "what may have been written once was written {} times",
                    times(mark)
                );
            }
            Said::Refused { mark } => ensure!(times(mark) == 0, "what was refused was written"),
            Said::Nothing => {}
            said => check_in_its_era(said, history, &mut counts)?,
        }
    }
    check_order(operations, history)?;
    Ok(counts)
}

fn mark_of(metadata: &Value) -> Option<u64> {
    metadata["mark"].as_u64()
}

fn times_applied(history: &History) -> HashMap<u64, usize> {
    let mut times = HashMap::new();
    let changes = history.eras.iter().flat_map(|era| era.changes.values());
    for mark in changes.filter_map(|(_, after)| mark_of(after.as_ref()?)) {
        *times.entry(mark).or_default() += 1;
    }
    times
}

fn check_in_its_era(said: &Said, history: &History, counts: &mut Counts) -> Result<()> {
    let Some(at) = position_of(said) else {
        return Ok(());
    };
    let era = history.eras.iter().find(|era| era.epoch == at.epoch);
    let era = era.with_context(|| format!("{at} is of an epoch that nobody was told of"))?;
    let (at, known) = (at.revision, check_said(said, era, at.revision)?);
    if !known {
        let is_last = history.eras.last().is_some_and(|last| last.epoch == era.epoch);
        // Only the end of an epoch may take something with it that was not told yet.
        ensure!(!is_last || history.eras.len() > 1, "{at} was never told");
        counts.undeclared += 1;
        return Ok(());
    }
    match said {
        Said::Written { .. } => counts.written += 1,
        Said::Read { .. } => counts.read += 1,
        _ => counts.listed += 1,
    }
    Ok(())
}

/// Whether it is known what was at that revision; an error where something else was said.
fn check_said(said: &Said, era: &Era, at: u64) -> Result<bool> {
    if let Said::Written { identity, mark, .. } = said {
        if !era.tells_of(at) {
            return Ok(false);
        }
        let change = era.changes.get(&at);
        let (who, after) = change.with_context(|| format!("nothing happened at {at}"))?;
        ensure!(who == identity, "{at} wrote `{who}` and not `{identity}`");
        let written = after.as_ref().and_then(mark_of);
        ensure!(written == *mark, "{at} wrote {written:?} and not {mark:?}");
        return Ok(true);
    }
    let Some(mut state) = era.state_at(at) else {
        return Ok(false);
    };
    match said {
        Said::Read { identity, found, .. } => {
            let was = state.get(identity);
            ensure!(
                was == found.as_ref(),
                "at {at} `{identity}` was {was:?}, and {found:?} was read"
            );
        }
        Said::Listed { found, .. } => {
            state.retain(|_, metadata| is_even(metadata));
            ensure!(
                state == *found,
                "at {at} there was {state:?}, and {found:?} was listed"
            );
        }
        _ => {}
    }
    Ok(true)
}

/// What was answered before another call was made is part of what that one saw; and who has seen an epoch never
/// hears of one before it again.
fn check_order(operations: &[Operation], history: &History) -> Result<()> {
    let place = |at: Position| {
        let era = history.eras.iter().position(|era| era.epoch == at.epoch);
        (era, at.revision)
    };
    let ended = |operation: &Operation| Some((operation.ended, place(position_of(&operation.said)?)));
    let mut ends: Vec<(Instant, _)> = operations.iter().filter_map(ended).collect();
    ends.sort();
    let mut latest = (None, 0);
    for (_, at) in &mut ends {
        latest = latest.max(*at);
        *at = latest;
    }
    for operation in operations {
        let Some(at) = position_of(&operation.said) else {
            continue;
        };
        let before = ends.partition_point(|(ended, _)| *ended < operation.began);
        let known = before.checked_sub(1).map_or((None, 0), |index| ends[index].1);
        let is_write = matches!(operation.said, Said::Written { .. });
        let follows = if is_write {
            place(at) > known
        } else {
            place(at) >= known
        };
        ensure!(follows, "a call that came after {known:?} was known says {at}");
    }
    Ok(())
}

/// Nothing that was written in an earlier epoch is read or listed in this one.
pub(super) fn check_nothing_of_before(operations: &[Operation], epoch: u64) -> Result<usize> {
    let written = operations.iter().filter_map(|operation| match &operation.said {
        Said::Written { mark, at, .. } => Some((((*mark)?), at.epoch)),
        _ => None,
    });
    let written: HashMap<u64, u64> = written.collect();
    let of_here = |metadata: &Value| {
        mark_of(metadata).is_none_or(|mark| written.get(&mark).is_none_or(|at| *at == epoch))
    };
    let mut checked = 0;
    for operation in operations {
        match &operation.said {
            Said::Read { found, at, .. } if at.epoch == epoch => {
                checked += 1;
                ensure!(found.iter().all(of_here), "{found:?} was gone, and was read");
            }
            Said::Listed { found, at } if at.epoch == epoch => {
                checked += 1;
                ensure!(
                    found.values().all(of_here),
                    "{found:?} was listed, and some of it was gone"
                );
            }
            _ => {}
        }
    }
    Ok(checked)
}

fn position_of(said: &Said) -> Option<Position> {
    match said {
        Said::Written { at, .. } | Said::Read { at, .. } | Said::Listed { at, .. } => Some(*at),
        Said::Unknown { .. } | Said::Refused { .. } | Said::Nothing => None,
    }
}
