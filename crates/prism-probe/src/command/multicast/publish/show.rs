//! What is shown of a multicast.

use prism_proto::pattern::{
    DeliveryStatus, MulticastResponse, Reply, Stage, delivery_status::Status, multicast_response::State,
};

use super::super::{conclude, content, time};
use crate::{
    cli::multicast::Publish,
    exit::Exit,
    fault::{Fault, Stop},
    output::{Cell, Format, Output, Shown, Style, Table, printable, tree},
};

/// A multicast that was sent.
pub(super) fn sent(answer: &MulticastResponse, publish: &Publish, output: &mut Output) -> Result<Exit, Stop> {
    if output.format() == Format::Table {
        talk(answer, publish);
    }
    unlisted(answer, output);
    let shown = self::answer(answer)?;
    conclude(output, &shown, partial(answer, publish))
}

/// What is known of each target, and what each answered.
pub(in super::super) fn answer(answer: &MulticastResponse) -> Result<Shown, Stop> {
    // Whoever it waits for will get it.
    let not_failed = answer
        .statuses
        .iter()
        .filter(|status| status.status() != Status::Failed);
    let mut table = statuses(&answer.statuses);
    table.below(replies(&answer.replies));
    Ok(Shown {
        tree: tree(answer)?,
        table,
        names: not_failed.map(|status| status.identity.clone()).collect(),
    })
}

/// Who would get it.
pub(super) fn dry_run(answer: &MulticastResponse, output: &mut Output) -> Result<Exit, Stop> {
    let names: Vec<String> = answer
        .statuses
        .iter()
        .map(|status| status.identity.clone())
        .collect();
    if matches!(output.format(), Format::Table | Format::Name) {
        Style::talk(&format!("{} would get it, nothing was sent", answer.target_count));
    }
    unlisted(answer, output);
    let mut table = Table::new(["IDENTITY"]);
    names.iter().for_each(|name| table.row([name.as_str().into()]));
    let shown = Shown {
        tree: tree(answer)?,
        table,
        names,
    };
    conclude(output, &shown, None)
}

fn unlisted(answer: &MulticastResponse, output: &Output) {
    let unlisted = usize::try_from(answer.target_count).unwrap_or_default();
    let unlisted = unlisted.saturating_sub(answer.statuses.len());
    if unlisted > 0 && matches!(output.format(), Format::Table | Format::Name) {
        Style::talk(&format!(
            "{unlisted} of the targets are counted and not listed, they would make the answer too large"
        ));
    }
}

fn statuses(statuses: &[DeliveryStatus]) -> Table {
    let mut table = Table::new(["IDENTITY", "STATUS", "STAGE", "REASON"]);
    for status in statuses {
        let stage = Stage::try_from(status.stage).unwrap_or_default().as_str_name();
        table.row([
            status.identity.as_str().into(),
            verdict(status.status()),
            stage.into(),
            status.reason.as_str().into(),
        ]);
    }
    table
}

pub(super) fn verdict(status: Status) -> Cell {
    match status {
        Status::Delivered => Cell::good(status.as_str_name()),
        Status::Failed => Cell::bad(status.as_str_name()),
        _ => Cell::doubtful(status.as_str_name()),
    }
}

fn replies(replies: &[Reply]) -> Table {
    let mut table = Table::new(["IDENTITY", "ANSWER"]);
    for reply in replies {
        table.row([
            reply.identity.as_str().into(),
            content(&reply.payload, &reply.content_type).into(),
        ]);
    }
    table
}

/// The totals, which the table does not say, and where to read on.
pub(super) fn talk(answer: &MulticastResponse, publish: &Publish) {
    if answer.replayed {
        Style::talk("nothing was sent: this is the outcome of an earlier call with the same idempotency key");
    }
    let others = [
        (answer.failed_count, "failed"),
        (answer.pending_count, "pending"),
        (answer.timeout_count, "unknown"),
    ];
    let others = others.into_iter().filter(|(count, _)| *count > 0);
    let mut others: String = others.map(|(count, what)| format!(", {count} {what}")).collect();
    if publish.collect_replies {
        others.push_str(&format!(", {} answered", answer.reply_count));
    }
    let cancelled = match answer.state() {
        State::Cancelled => ", cancelled",
        _ => "",
    };
    Style::talk(&format!(
        "{} of {} delivered{others}{cancelled}",
        answer.delivered_count, answer.target_count
    ));
    if answer.target_count > 0 {
        receipts_hint(answer);
    }
}

/// How to read what becomes of it.
pub(in super::super) fn receipts_hint(answer: &MulticastResponse) {
    let until = time(answer.receipts_until.as_ref());
    if !until.is_empty() {
        let id = printable(&answer.multicast_id);
        Style::talk(&format!(
            "until {until} `prism-probe multicast receipts {id}` shows more"
        ));
    }
}

/// What of it did not go as it should. A target that the message is stored for, or whose turn is still to come, is
/// none that missed it, unless a stage was required that it has not reached.
pub(super) fn partial(answer: &MulticastResponse, publish: &Publish) -> Option<Fault> {
    let waits = match publish.require {
        Some(_) => answer.pending_count,
        None => 0,
    };
    let missed = answer.failed_count + answer.timeout_count + waits;
    if missed > 0 {
        let message = format!(
            "{missed} of {} targets did not get the message, or that is not known",
            answer.target_count
        );
        return Some(Fault::partial(Exit::Partial, "PARTIAL_DELIVERY", message));
    }
    let wanted = publish.min_replies.unwrap_or_default();
    (answer.reply_count < wanted).then(|| {
        let message = format!("{} answered in time, {wanted} were to", answer.reply_count);
        Fault::partial(Exit::Partial, "FEW_REPLIES", message)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use prism_client::testing::answers;

    use super::*;
    use crate::cli::{Cli, Command, multicast};

    fn publish(options: &[&str]) -> Publish {
        let line = ["prism-probe", "multicast", "publish", "--payload", "x"];
        let cli = Cli::parse_from(line.iter().chain(options));
        match cli.command {
            Command::Multicast(multicast::Command::Publish(publish)) => *publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_is_known_or_suspected_to_have_missed_it_makes_it_partial() {
        let plain = publish(&[]);
        assert!(partial(&answers::delivered(&["a", "b"]), &plain).is_none());
        assert!(
            partial(&answers::delivered(&[]), &plain).is_none(),
            "nobody to reach is nobody missed"
        );
        let fault = partial(&answers::delivered_but_one(&["a", "b"]), &plain).unwrap();
        assert_eq!(fault.exit, Exit::Partial);
        assert!(fault.message.starts_with("1 of 2"), "{}", fault.message);
    }

    #[test]
    fn what_is_stored_will_be_got_unless_more_was_required() {
        let answer = answers::stored(&["a", "b"]);
        assert!(partial(&answer, &publish(&[])).is_none());
        let fault = partial(&answer, &publish(&["--require", "acked"])).unwrap();
        assert!(fault.message.starts_with("2 of 2"), "{}", fault.message);
    }

    #[test]
    fn fewer_answers_than_were_wanted_make_it_partial() {
        let answer = MulticastResponse {
            reply_count: 1,
            ..answers::delivered(&["a", "b"])
        };
        assert!(partial(&answer, &publish(&["--collect-replies"])).is_none());
        let two = publish(&["--collect-replies", "--min-replies", "2"]);
        assert_eq!(partial(&answer, &two).unwrap().reason, "FEW_REPLIES");
    }
}
