//! Holds what callers were told against what consumers logged and what the broker had.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use prism_client::{DeliverySemantics, DeliveryStatus, Stage, Status};

use super::history::{Answer, Call, Diary, History, Log, Manner, Tap, Totals};

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Wrong {
    /// Told `ACCEPTED` or better, and the broker gave it to nobody.
    FalseAccepted,
    /// Told `STORED` or better, and the broker never stored it.
    FalseStored,
    /// Told `HANDED` or better, and the consumer never saw it.
    FalseHanded,
    /// Told `ACKED`, and the consumer had not acknowledged it by then.
    FalseAcked,
    /// Told that it certainly did not happen, and it did.
    FalseFailure,
    /// Told `DELIVERED` at a stage that is not delivery, or totals that do not add up.
    FalseTotals,
    /// Acknowledged to its caller as stored, and lost.
    AcknowledgedAndLost,
    /// Sent at least once, still promised at the end, and lost.
    Lost,
    /// Sent at most once, and there twice.
    MoreThanOnce,
    /// One call became two multicasts.
    SentUnderAnotherId,
    /// It came again without saying so.
    UnflaggedDuplicate,
    /// It came again behind a client that had acknowledged it.
    RepeatedBehindSuppression,
}

/// Something that must not be, and where.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) wrong: Wrong,
    identity: String,
    detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at `{}`: {}", self.wrong, self.identity, self.detail)
    }
}

/// How much was checked, so that a check of nothing does not pass for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: usize,
    /// Calls that nothing was said of.
    pub(super) unanswered: usize,
    /// Targets of the last answers, and of those answers how many are at each stage.
    pub(super) targets: usize,
    pub(super) accepted: usize,
    pub(super) stored: usize,
    pub(super) handed: usize,
    pub(super) acked: usize,
    pub(super) failed: usize,
    pub(super) unknown: usize,
    /// Claims of all answers that were held against something.
    pub(super) claims: usize,
    pub(super) logged: usize,
    /// Of what was logged, what came again and said so.
    pub(super) flagged: usize,
    pub(super) suppressed: u64,
}

/// Everything that is wrong with a history, and how much was looked at.
pub(super) fn check(history: &History) -> (Counts, Vec<Finding>) {
    let log = Log::of(&history.diaries);
    let mut findings = Vec::new();
    for call in &history.calls {
        for answer in &call.answers {
            check_totals(answer, &mut findings);
            let claims = answer.told.iter();
            claims.for_each(|told| check_claim(call, answer, told, &history.tap, &log, &mut findings));
        }
        check_end(call, &log, &mut findings);
    }
    let kinds: HashMap<u64, &Call> = history.calls.iter().map(|call| (call.number, call)).collect();
    for (identity, diary) in &history.diaries {
        check_diary(identity, diary, &kinds, &mut findings);
    }
    (count(history), findings)
}

fn finding(wrong: Wrong, identity: &str, detail: String) -> Finding {
    Finding {
        wrong,
        identity: identity.to_owned(),
        detail,
    }
}

fn check_totals(answer: &Answer, findings: &mut Vec<Finding>) {
    let counted = Totals::of(&answer.told);
    if answer.totals.is_some_and(|totals| totals != counted) {
        let detail = format!("{}: said {:?}, told {counted:?}", answer.multicast, answer.totals);
        findings.push(finding(Wrong::FalseTotals, "", detail));
    }
}

/// One word about one target.
fn check_claim(
    call: &Call,
    answer: &Answer,
    told: &DeliveryStatus,
    tap: &Tap,
    log: &Log<'_>,
    findings: &mut Vec<Finding>,
) {
    let once = call.delivery == DeliverySemantics::AtMostOnce;
    let place = (answer.multicast.clone(), told.identity.clone());
    let entries = log.entries(&answer.multicast, &told.identity);
    let (taken, logged) = (tap.taken.contains(&place), !entries.is_empty());
    let acked = entries
        .iter()
        .any(|entry| entry.acked.is_some_and(|at| at <= answer.heard));
    let reason = told.reason.as_deref().unwrap_or_default();
    let denied = match reason {
        _ if told.status != Status::Failed => false,
        "NO_SUBSCRIBER" | "NOT_STORED" => taken || logged,
        "NOT_SENT" => tap.seen.contains(&place) || logged,
        _ => false,
    };
    let least = if once { Stage::Accepted } else { Stage::Stored };
    let wrongs = [
        (
            Wrong::FalseAccepted,
            once && told.stage >= Stage::Accepted && !taken,
        ),
        (Wrong::FalseStored, !once && told.stage >= Stage::Stored && !taken),
        (Wrong::FalseHanded, told.stage >= Stage::Handed && !logged),
        (Wrong::FalseAcked, told.stage == Stage::Acked && !acked),
        (Wrong::FalseFailure, denied),
        (
            Wrong::FalseTotals,
            told.status == Status::Delivered && told.stage < least,
        ),
    ];
    for (wrong, _) in wrongs.into_iter().filter(|(_, holds)| *holds) {
        let detail = format!(
            "number {} as {}: {told:?}, logged {entries:?}",
            call.number, answer.multicast
        );
        findings.push(finding(wrong, &told.identity, detail));
    }
}

/// What was promised must have come in the end.
fn check_end(call: &Call, log: &Log<'_>, findings: &mut Vec<Finding>) {
    if call.delivery == DeliverySemantics::AtMostOnce {
        return;
    }
    let mut stored = HashSet::new();
    for answer in &call.answers {
        for told in answer.told.iter().filter(|told| told.stage >= Stage::Stored) {
            let is_lost = log.entries(&answer.multicast, &told.identity).is_empty();
            if is_lost && stored.insert(told.identity.as_str()) {
                let detail = format!("number {} as {}: {told:?}", call.number, answer.multicast);
                findings.push(finding(Wrong::AcknowledgedAndLost, &told.identity, detail));
            }
        }
    }
    let Some(last) = call.answers.last() else { return };
    let promised = last
        .told
        .iter()
        .filter(|told| matches!(told.status, Status::Pending | Status::Delivered));
    for told in promised.filter(|told| told.stage < Stage::Stored) {
        if log.entries(&last.multicast, &told.identity).is_empty() {
            let detail = format!("number {} as {}: {told:?}", call.number, last.multicast);
            findings.push(finding(Wrong::Lost, &told.identity, detail));
        }
    }
}

/// What came more than once.
fn check_diary(identity: &str, diary: &Diary, calls: &HashMap<u64, &Call>, findings: &mut Vec<Finding>) {
    let mut first: HashMap<u64, &str> = HashMap::new();
    let mut acked: HashSet<u64> = HashSet::new();
    for entry in &diary.entries {
        let call = calls.get(&entry.number);
        let once = call.is_some_and(|call| call.delivery == DeliverySemantics::AtMostOnce);
        let keyed = call.is_some_and(|call| call.keyed);
        if let Some(before) = first.get(&entry.number) {
            let again = *before == entry.multicast;
            let wrongs = [
                (Wrong::MoreThanOnce, once),
                (Wrong::SentUnderAnotherId, !again && keyed),
                (Wrong::UnflaggedDuplicate, again && !once && entry.attempt < 2),
                (
                    Wrong::RepeatedBehindSuppression,
                    diary.manner == Manner::Prompt && acked.contains(&entry.number),
                ),
            ];
            for (wrong, _) in wrongs.into_iter().filter(|(_, holds)| *holds) {
                findings.push(finding(wrong, identity, format!("{entry:?}, before as {before}")));
            }
        }
        first.entry(entry.number).or_insert(&entry.multicast);
        if entry.acked.is_some() {
            acked.insert(entry.number);
        }
    }
}

fn count(history: &History) -> Counts {
    let mut counts = Counts {
        calls: history.calls.len(),
        ..Counts::default()
    };
    for call in &history.calls {
        counts.claims += call.answers.iter().map(|answer| answer.told.len()).sum::<usize>();
        let Some(last) = call.answers.last() else {
            counts.unanswered += 1;
            continue;
        };
        for told in &last.told {
            counts.targets += 1;
            counts.accepted += usize::from(told.stage == Stage::Accepted);
            counts.stored += usize::from(told.stage == Stage::Stored);
            counts.handed += usize::from(told.stage == Stage::Handed);
            counts.acked += usize::from(told.stage == Stage::Acked);
            counts.failed += usize::from(told.status == Status::Failed);
            counts.unknown += usize::from(told.status == Status::Timeout);
        }
    }
    for diary in history.diaries.values() {
        counts.logged += diary.entries.len();
        counts.flagged += diary.entries.iter().filter(|entry| entry.attempt > 1).count();
        counts.suppressed += diary.suppressed;
    }
    counts
}
