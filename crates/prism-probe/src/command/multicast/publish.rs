//! Sending a message.

use std::{fs, io::Read};

use prism_proto::pattern::{MulticastRequest, MulticastResponse, Stage, delivery_status::Status};

use super::{conclude, raw};
use crate::{
    cli::{Global, multicast::Publish},
    exit::Exit,
    fault::{Fault, Stop},
    output::{Cell, Format, Output, Shown, Style, Table, tree},
};

pub(super) async fn publish(global: &Global, publish: &Publish, output: &mut Output) -> Result<Exit, Stop> {
    let request = MulticastRequest {
        filter: publish.filter.clone(),
        payload: payload(&publish.payload)?.into(),
        content_type: publish.content_type.clone(),
        timeout_ms: publish.timeout,
        ..Default::default()
    };
    let answer = raw(global)?.multicast(request).await?;
    if output.format() == Format::Table {
        talk(&answer);
    }
    let unlisted = usize::try_from(answer.target_count).unwrap_or_default();
    let unlisted = unlisted.saturating_sub(answer.statuses.len());
    if unlisted > 0 && matches!(output.format(), Format::Table | Format::Name) {
        Style::talk(&format!(
            "{unlisted} of the targets are counted and not listed, they would make the answer too large"
        ));
    }
    let delivered = answer
        .statuses
        .iter()
        .filter(|status| status.status() == Status::Delivered);
    let shown = Shown {
        tree: tree(&answer)?,
        table: table(&answer),
        names: delivered.map(|status| status.identity.clone()).collect(),
    };
    conclude(output, &shown, partial(&answer))
}

/// The content that an argument stands for: itself, `@` a file's, `-` that of stdin.
fn payload(argument: &str) -> Result<Vec<u8>, Stop> {
    let unreadable = |source: &str, error: std::io::Error| {
        Stop::from(Fault::usage("payload", format!("cannot read {source}: {error}")))
    };
    if argument == "-" {
        let mut content = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut content);
        return read.map(|_| content).map_err(|error| unreadable("stdin", error));
    }
    match argument.strip_prefix('@') {
        Some(file) => fs::read(file).map_err(|error| unreadable(&format!("`{file}`"), error)),
        None => Ok(argument.as_bytes().to_vec()),
    }
}

fn table(answer: &MulticastResponse) -> Table {
    let mut table = Table::new(["IDENTITY", "STATUS", "STAGE", "REASON"]);
    for status in &answer.statuses {
        let verdict = status.status();
        let verdict = match verdict {
            Status::Delivered => Cell::good(verdict.as_str_name()),
            Status::Failed => Cell::bad(verdict.as_str_name()),
            _ => Cell::doubtful(verdict.as_str_name()),
        };
        let stage = Stage::try_from(status.stage).unwrap_or_default().as_str_name();
        table.row([
            status.identity.as_str().into(),
            verdict,
            stage.into(),
            status.reason.as_str().into(),
        ]);
    }
    table
}

/// The totals, which the table does not say.
fn talk(answer: &MulticastResponse) {
    let others = [
        (answer.failed_count, "failed"),
        (answer.pending_count, "pending"),
        (answer.timeout_count, "unknown"),
    ];
    let others = others.into_iter().filter(|(count, _)| *count > 0);
    let others: String = others.map(|(count, what)| format!(", {count} {what}")).collect();
    Style::talk(&format!(
        "{} of {} delivered{others}",
        answer.delivered_count, answer.target_count
    ));
}

fn partial(answer: &MulticastResponse) -> Option<Fault> {
    let missed = answer.target_count - answer.delivered_count;
    let message = format!(
        "{missed} of {} targets did not get the message, or that is not known",
        answer.target_count
    );
    (missed != 0).then(|| Fault::partial(Exit::Partial, "PARTIAL_DELIVERY", message))
}

#[cfg(test)]
mod tests {
    use prism_client::testing::answers;

    use super::*;

    #[test]
    fn anything_but_delivered_is_partial() {
        assert!(partial(&answers::delivered(&["a", "b"])).is_none());
        assert!(
            partial(&answers::delivered(&[])).is_none(),
            "nobody to reach is nobody missed"
        );
        let fault = partial(&answers::delivered_but_one(&["a", "b"])).unwrap();
        assert_eq!(fault.exit, Exit::Partial);
        assert!(fault.message.starts_with("1 of 2"), "{}", fault.message);
    }

    #[test]
    fn a_payload_is_the_text_unless_it_points_elsewhere() {
        assert_eq!(payload("hello").unwrap(), b"hello");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"\0from a file").unwrap();
        assert_eq!(
            payload(&format!("@{}", file.path().display())).unwrap(),
            b"\0from a file"
        );
        let Err(Stop::Fault(fault)) = payload("@/no/such/file") else {
            panic!()
        };
        assert_eq!(
            (fault.exit, fault.field.as_deref()),
            (Exit::Usage, Some("payload"))
        );
    }
}
