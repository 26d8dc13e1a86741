//! Messages that could not be delivered.

use prism_client::raw::Raw;
use prism_proto::pattern::{
    ListDeadLettersRequest, Pagination, RedriveDeadLettersRequest, RedriveDeadLettersResponse,
    list_dead_letters_response::DeadLetter,
};

use super::{conclude, content, time};
use crate::{
    cli::multicast::{Dlq, DlqList, Redrive},
    exit::Exit,
    fault::{Fault, Stop},
    output::{Format, Output, Shown, Style, Table, printable, tree},
};

pub(super) async fn run(raw: &Raw, command: &Dlq, output: &mut Output) -> Result<Exit, Stop> {
    match command {
        Dlq::Ls(asked) => list(raw, asked, output).await.map_err(Stop::of_a_read),
        Dlq::Redrive(which) => redrive(raw, which, output).await,
    }
}

async fn list(raw: &Raw, asked: &DlqList, output: &mut Output) -> Result<Exit, Stop> {
    let request = ListDeadLettersRequest {
        identity: asked.identity.clone(),
        pagination: Some(Pagination {
            limit: asked.limit.unwrap_or_default(),
            offset: 0,
            cursor: asked.cursor.clone().unwrap_or_default(),
        }),
    };
    let answer = raw.list_dead_letters(request).await?;
    let mut table = Table::new(["LETTER", "IDENTITY", "DIED", "REASON", "ATTEMPTS", "CONTENT"]);
    for letter in &answer.letters {
        table.row(
            [
                letter.letter_id.clone(),
                letter.identity.clone(),
                time(letter.died_at.as_ref()),
                reason(letter),
                letter.attempts.to_string(),
                content(&letter.payload, &letter.content_type),
            ]
            .map(Into::into),
        );
    }
    let names = answer.letters.iter().map(|letter| letter.identity.clone());
    let shown = Shown {
        tree: tree(&answer)?,
        table,
        names: names.collect(),
    };
    let exit = conclude(output, &shown, None)?;
    if matches!(output.format(), Format::Table | Format::Name)
        && let Some(cursor) = answer.next_cursor.as_deref().filter(|cursor| !cursor.is_empty())
    {
        Style::talk(&format!("continue with --cursor {}", printable(cursor)));
    }
    Ok(exit)
}

/// With what the consumer said, where it did not want it.
fn reason(letter: &DeadLetter) -> String {
    match letter.detail.as_str() {
        "" => letter.reason.clone(),
        detail => format!("{}: {detail}", letter.reason),
    }
}

async fn redrive(raw: &Raw, which: &Redrive, output: &mut Output) -> Result<Exit, Stop> {
    let request = RedriveDeadLettersRequest {
        letter_ids: which.letters.clone(),
        identity: which.identity.clone(),
        all: which.all,
        ..Default::default()
    };
    let answer = raw.redrive_dead_letters(request).await?;
    let shown = Shown {
        tree: tree(&answer)?,
        table: Table::facts([
            ("PUT BACK", answer.redriven_count.to_string()),
            ("INBOX FULL", answer.full_count.to_string()),
            ("GONE", answer.gone_count.to_string()),
        ]),
        names: Vec::new(),
    };
    conclude(output, &shown, partial(&answer))
}

fn partial(answer: &RedriveDeadLettersResponse) -> Option<Fault> {
    let left = answer.full_count + answer.gone_count;
    let all = answer.redriven_count + left;
    let message = format!(
        "{left} of {all} dead letters were not put back: their inboxes are full, nobody is registered for them, or they are \
         no letters any more"
    );
    (left > 0).then(|| Fault::partial(Exit::Partial, "PARTIAL_REDRIVE", message))
}
