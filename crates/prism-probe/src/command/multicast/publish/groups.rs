//! What is known of the targets of one multicast, and who did not get it for which reason.

use std::collections::BTreeMap;

use prism_proto::pattern::{DeliveryStatus, MulticastResponse, Stage, delivery_status::Status};

use super::show::verdict;
use crate::output::Table;

/// How many identities stand for a group.
const SHOWN: usize = 5;
/// Why nothing is known of a target that was never told to be done with.
const NOT_CONFIRMED: &str = "NOT_CONFIRMED";

/// Targets as they were last told of.
#[derive(Debug, Default)]
pub(super) struct Targets {
    told: BTreeMap<String, Told>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    status: Status,
    stage: Stage,
    reason: String,
}

/// How many targets of a multicast there are of each kind, as far as they were told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) delivered: u64,
    pub(super) stored: u64,
    pub(super) failed: u64,
}

/// Targets that are alike.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    status: Status,
    reason: String,
    count: u64,
    some: Vec<String>,
}

impl Targets {
    /// Takes what is told of a target; returns whether it has got the message now, and had not before.
    pub(super) fn learn(&mut self, tally: &mut Tally, status: &DeliveryStatus) -> bool {
        let told = Told {
            status: status.status(),
            stage: status.stage(),
            reason: status.reason.clone(),
        };
        let counted = |told: &Told| match (told.status, told.stage) {
            (Status::Delivered, _) => Some(0),
            (Status::Failed | Status::Timeout, _) => Some(2),
            (_, Stage::Stored | Stage::Handed) => Some(1),
            _ => None,
        };
        let counts = [&mut tally.delivered, &mut tally.stored, &mut tally.failed];
        let is_new = told.status == Status::Delivered;
        let now = counted(&told);
        let before = self.told.insert(status.identity.clone(), told);
        let had = before
            .as_ref()
            .is_some_and(|before| before.status == Status::Delivered);
        let before = before.as_ref().and_then(counted);
        for (kind, count) in counts.into_iter().enumerate() {
            *count += u64::from(now == Some(kind));
            *count -= u64::from(before == Some(kind));
        }
        is_new && !had
    }

    /// Who has not got it, as far as was told, and is not known to have missed it.
    pub(super) fn open(&self) -> Vec<String> {
        let open = self.told.iter();
        let open = open.filter(|(_, told)| !matches!(told.status, Status::Delivered | Status::Failed));
        open.map(|(identity, _)| identity.clone()).collect()
    }

    /// Who did not get it, by the reason, the most frequent first. The summary knows how it ended for those that
    /// nothing final was told of.
    pub(super) fn groups(&self, summary: &MulticastResponse) -> Table {
        let mut table = Table::new(["STATUS", "REASON", "TARGETS", "IDENTITIES"]);
        for group in self.grouped(summary) {
            let mut identities = group.some.join(", ");
            if group.count > group.some.len() as u64 && !identities.is_empty() {
                identities.push_str(", …");
            }
            table.row([
                verdict(group.status),
                group.reason.into(),
                group.count.to_string().into(),
                identities.into(),
            ]);
        }
        table
    }

    fn grouped(&self, summary: &MulticastResponse) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut open = Vec::new();
        for (identity, told) in &self.told {
            match told.status {
                Status::Delivered => {}
                Status::Failed | Status::Timeout => add(&mut groups, told, identity),
                _ => open.push(identity.clone()),
            }
        }
        let known = |groups: &[Group], status| -> u64 {
            let of_status = groups.iter().filter(|group: &&Group| group.status == status);
            of_status.map(|group| group.count).sum()
        };
        let all = |count: i64| u64::try_from(count).unwrap_or_default();
        let unconfirmed = all(summary.timeout_count).saturating_sub(known(&groups, Status::Timeout));
        let pending = all(summary.pending_count);
        for (status, reason, count) in [
            (Status::Timeout, NOT_CONFIRMED, unconfirmed),
            (Status::Pending, "", pending),
        ] {
            if count > 0 {
                // Of several kinds it is not known which target is which.
                let is_alone = unconfirmed == 0 || pending == 0;
                let some = open.iter().filter(|_| is_alone).take(SHOWN).cloned().collect();
                groups.push(Group {
                    status,
                    reason: reason.to_owned(),
                    count,
                    some,
                });
            }
        }
        groups.sort_by_key(|group| (group.status == Status::Pending, std::cmp::Reverse(group.count)));
        groups
    }
}

fn add(groups: &mut Vec<Group>, told: &Told, identity: &str) {
    let same = |group: &&mut Group| group.status == told.status && group.reason == told.reason;
    if let Some(group) = groups.iter_mut().find(same) {
        group.count += 1;
        if group.some.len() < SHOWN {
            group.some.push(identity.to_owned());
        }
        return;
    }
    groups.push(Group {
        status: told.status,
        reason: told.reason.clone(),
        count: 1,
        some: vec![identity.to_owned()],
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Style;

    fn status(identity: &str, status: Status, stage: Stage, reason: &str) -> DeliveryStatus {
        DeliveryStatus {
            identity: identity.to_owned(),
            status: status.into(),
            stage: stage.into(),
            reason: reason.to_owned(),
            error: None,
        }
    }

    #[test]
    fn each_target_counts_once_as_it_was_last_told_of() {
        let (mut targets, mut tally) = (Targets::default(), Tally::default());
        let mut learn = |told: DeliveryStatus| targets.learn(&mut tally, &told);
        assert!(!learn(status("a", Status::Failed, Stage::Resolved, "NOT_STORED")));
        assert!(!learn(status("a", Status::Pending, Stage::Stored, "")));
        assert!(!learn(status("b", Status::Pending, Stage::Stored, "")));
        assert!(learn(status("a", Status::Delivered, Stage::Acked, "")));
        assert!(!learn(status("a", Status::Delivered, Stage::Acked, "")));
        let expected = Tally {
            delivered: 1,
            stored: 1,
            failed: 0,
        };
        assert_eq!(tally, expected);
    }

    #[test]
    fn who_did_not_get_it_is_told_by_reason() {
        let (mut targets, mut tally) = (Targets::default(), Tally::default());
        for number in 0..7 {
            let full = status(
                &format!("full-{number}"),
                Status::Failed,
                Stage::Resolved,
                "INBOX_FULL",
            );
            targets.learn(&mut tally, &full);
        }
        for told in [
            status("fine", Status::Delivered, Stage::Acked, ""),
            status("dead", Status::Failed, Stage::Handed, "TERMINATED"),
            status("waits", Status::Pending, Stage::Stored, ""),
        ] {
            targets.learn(&mut tally, &told);
        }
        let summary = MulticastResponse {
            target_count: 10,
            pending_count: 1,
            ..Default::default()
        };
        let expected = "\
STATUS   REASON      TARGETS  IDENTITIES
FAILED   INBOX_FULL  7        full-0, full-1, full-2, full-3, full-4, …
FAILED   TERMINATED  1        dead
PENDING  -           1        waits
";
        assert_eq!(targets.groups(&summary).render(&Style::plain()), expected);
    }

    #[test]
    fn what_was_never_told_is_what_the_summary_says() {
        let (mut targets, mut tally) = (Targets::default(), Tally::default());
        targets.learn(&mut tally, &status("a", Status::Pending, Stage::Accepted, ""));
        let summary = MulticastResponse {
            target_count: 2,
            timeout_count: 2,
            ..Default::default()
        };
        let table = targets.groups(&summary).render(&Style::plain());
        assert!(
            table.ends_with("TIMEOUT  NOT_CONFIRMED  2        a, …\n"),
            "{table}"
        );
    }
}
