//! Holds what callers were told against what consumers logged and what the broker had.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

use prism_client::{DeliverySemantics, DeliveryStatus, Stage, Status};

use super::history::{Answer, Call, Diary, Entry, History, Log, Manner, Totals};

/// How long after the loss of its session a consumer hears of it.
const RECONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Wrong {
    /// Told `ACCEPTED` or better, and the broker gave it to nobody.
    FalseAccepted,
    /// Told `STORED` or better, and the broker never said that it had stored it, nor has a consumer seen it: it is the
    /// answer to its sender that says so, which may not have been written where the link was cut.
    FalseStored,
    /// Told `HANDED` or better, and the consumer never saw it, and was not told that it may have missed something:
    /// what is written to a session can be lost with it.
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
    /// What the broker took for something new that it had stored before.
    pub(super) stored_twice: usize,
    pub(super) suppressed: u64,
}

/// Everything that is wrong with a history, and how much was looked at.
pub(super) fn check(history: &History) -> (Counts, Vec<Finding>) {
    let log = Log::of(&history.diaries);
    let mut findings = Vec::new();
    for call in &history.calls {
        for answer in &call.answers {
            check_totals(answer, &mut findings);
            for told in &answer.told {
                let claim = Claim::of(call, answer, told, history, &log);
                let found = |wrong| {
                    let about = format!("number {} as {}", call.number, answer.multicast);
                    let detail = format!("{about}: {told:?}, logged {:?}", claim.entries);
                    finding(wrong, &told.identity, detail)
                };
                findings.extend(claim.wrongs().map(found));
            }
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

/// One word about one target, and what speaks for it.
struct Claim<'a> {
    once: bool,
    heard: Instant,
    told: &'a DeliveryStatus,
    seen: bool,
    taken: bool,
    entries: &'a [&'a Entry],
    /// When the consumer was told that it may have missed something.
    gaps: &'a [Instant],
}

impl<'a> Claim<'a> {
    fn of(
        call: &Call,
        answer: &Answer,
        told: &'a DeliveryStatus,
        history: &'a History,
        log: &'a Log<'_>,
    ) -> Self {
        let tap = &history.tap;
        let diary = history.diaries.get(&told.identity);
        let place = (answer.multicast.clone(), told.identity.clone());
        Self {
            once: call.delivery == DeliverySemantics::AtMostOnce,
            heard: answer.heard,
            told,
            seen: tap.seen.contains(&place),
            taken: tap.taken.contains(&place),
            entries: log.entries(&answer.multicast, &told.identity),
            gaps: diary.map_or(&[], |diary| &diary.gaps),
        }
    }

    /// Whether a session was lost about when it was said that the message had been written to one.
    fn may_be_missing(&self) -> bool {
        let apart = |gap: &Instant| gap.max(&self.heard).duration_since(*gap.min(&self.heard));
        self.once && self.gaps.iter().any(|gap| apart(gap) <= RECONNECTED_WITHIN)
    }

    fn wrongs(&self) -> impl Iterator<Item = Wrong> {
        let (once, stage, logged) = (self.once, self.told.stage, !self.entries.is_empty());
        let least = if once { Stage::Accepted } else { Stage::Stored };
        let delivered = self.told.status == Status::Delivered;
        let wrongs = [
            (
                once && stage >= Stage::Accepted && !self.taken,
                Wrong::FalseAccepted,
            ),
            (
                !once && stage >= Stage::Stored && !self.taken && !logged,
                Wrong::FalseStored,
            ),
            (
                stage >= Stage::Handed && !logged && !self.may_be_missing(),
                Wrong::FalseHanded,
            ),
            (stage == Stage::Acked && !self.was_acked(), Wrong::FalseAcked),
            (self.is_denied_falsely(), Wrong::FalseFailure),
            (delivered && stage < least, Wrong::FalseTotals),
        ];
        wrongs
            .into_iter()
            .filter_map(|(holds, wrong)| holds.then_some(wrong))
    }

    fn was_acked(&self) -> bool {
        let mut acked = self.entries.iter().filter_map(|entry| entry.acked);
        acked.any(|at| at <= self.heard)
    }

    /// Whether it was said that something certainly did not happen, and it did.
    fn is_denied_falsely(&self) -> bool {
        let logged = !self.entries.is_empty();
        match self.told.reason.as_deref() {
            _ if self.told.status != Status::Failed => false,
            Some("NO_SUBSCRIBER" | "NOT_STORED") => self.taken || logged,
            Some("NOT_SENT") => self.seen || logged,
            _ => false,
        }
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
        stored_twice: history.tap.stored_twice.len(),
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
