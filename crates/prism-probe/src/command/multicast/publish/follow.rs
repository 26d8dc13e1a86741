//! Sending a message, and showing how far it is.

use prism_client::raw::{self, Raw};
use prism_proto::pattern::{
    MulticastRequest, MulticastResponse, MulticastStreamResponse, Reply, multicast_stream_response::Message,
};

use super::{
    super::content,
    groups::{Tally, Targets},
    show,
};
use crate::{
    cli::multicast::Publish,
    exit::Exit,
    fault::{Fault, Stop},
    output::{Format, Output, Progress, Shown, Style, Table, printable, tree},
};

pub(super) async fn follow(
    raw: &Raw,
    request: MulticastRequest,
    publish: &Publish,
    interrupted: impl Future<Output = &'static str>,
    output: &mut Output,
) -> Result<Exit, Stop> {
    let mut follower = Follower::new(output);
    let followed = tokio::select! {
        followed = follower.run(raw.multicast_stream(request)) => followed,
        _ = interrupted => return follower.leave(),
    };
    let Some(summary) = followed.map_err(|stop| follower.lose(stop))? else {
        return Err(Fault::internal("the multicast ended without a summary").into());
    };
    follower.end(&summary, publish)
}

struct Follower<'a> {
    output: &'a mut Output,
    progress: Progress,
    targets: Targets,
    tally: Tally,
    started: Option<MulticastResponse>,
}

impl<'a> Follower<'a> {
    fn new(output: &'a mut Output) -> Self {
        Self {
            progress: Progress::new(output.format(), "sending"),
            output,
            targets: Targets::default(),
            tally: Tally::default(),
            started: None,
        }
    }

    async fn run(
        &mut self,
        opening: impl Future<Output = prism_client::Result<raw::Progress>>,
    ) -> Result<Option<MulticastResponse>, Stop> {
        let mut told = opening.await?;
        while let Some(answer) = told.next().await {
            let answer = answer?;
            self.show(&answer)?;
            if let Some(Message::Summary(summary)) = answer.message {
                return Ok(Some(summary));
            }
        }
        Ok(None)
    }

    fn show(&mut self, answer: &MulticastStreamResponse) -> Result<(), Stop> {
        let is_machine = matches!(self.output.format(), Format::Json | Format::Yaml);
        if is_machine {
            self.output.event(&Shown {
                tree: tree(answer)?,
                table: Table::default(),
                names: Vec::new(),
            })?;
        }
        match &answer.message {
            Some(Message::Started(started)) => self.started = Some(started.clone()),
            Some(Message::Status(status)) => {
                let is_new = self.targets.learn(&mut self.tally, status);
                if is_new && self.output.format() == Format::Name {
                    self.line(Table::default(), vec![status.identity.clone()])?;
                }
            }
            Some(Message::Reply(reply)) if self.output.format() == Format::Table => self.reply(reply)?,
            _ => {}
        }
        self.draw();
        Ok(())
    }

    fn reply(&mut self, reply: &Reply) -> Result<(), Stop> {
        let mut table = Table::default();
        table.row([
            reply.identity.as_str().into(),
            content(&reply.payload, &reply.content_type).into(),
        ]);
        self.line(table, Vec::new())
    }

    /// Shows something of a kind that goes on.
    fn line(&mut self, table: Table, names: Vec<String>) -> Result<(), Stop> {
        let shown = Shown {
            tree: serde_json::Value::Null,
            table,
            names,
        };
        let output = &mut *self.output;
        self.progress.aside(|| output.event(&shown))
    }

    fn draw(&self) {
        let Tally {
            delivered,
            stored,
            failed,
        } = self.tally;
        let total = self.started.as_ref().map_or(0, |started| started.target_count);
        let total = u64::try_from(total).unwrap_or_default();
        self.progress.at(delivered + failed, total);
        let parts = [
            (delivered, "delivered"),
            (stored, "stored"),
            (failed, "not delivered"),
        ];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> = parts.map(|(count, what)| format!("{count} {what}")).collect();
        self.progress.say(parts.join(", "));
    }

    /// Once it was begun it goes on without us.
    fn leave(&self) -> Result<Exit, Stop> {
        self.progress.end();
        let Some(id) = self.id() else {
            return Err(Fault::left().into());
        };
        if self.is_for_people() {
            Style::talk(&format!(
                "the multicast goes on: `prism-probe multicast receipts {id}` shows it, `prism-probe multicast cancel {id}` stops it"
            ));
        }
        Ok(Exit::Interrupted)
    }

    /// Nobody tells us of it any more; what ended that may have ended the multicast as well.
    fn lose(&self, stop: Stop) -> Stop {
        self.progress.end();
        let Some(id) = self.id() else { return stop };
        if self.is_for_people() {
            Style::talk(&format!(
                "the multicast may go on: `prism-probe multicast receipts {id}` shows it where that is still known"
            ));
        }
        stop.after_an_answer()
    }

    fn id(&self) -> Option<String> {
        self.started
            .as_ref()
            .map(|started| printable(&started.multicast_id))
    }

    fn is_for_people(&self) -> bool {
        matches!(self.output.format(), Format::Table | Format::Name)
    }

    fn end(self, summary: &MulticastResponse, publish: &Publish) -> Result<Exit, Stop> {
        self.progress.end();
        let rest = Shown {
            tree: serde_json::Value::Null,
            table: self.targets.groups(summary),
            names: self.targets.open(),
        };
        if self.output.format() == Format::Table {
            show::talk(summary, publish);
        }
        // Whatever has a form of its own was shown as it came.
        let written = match self.output.format() {
            Format::Table if !rest.table.is_empty() => self.output.answer(&rest),
            Format::Name => self.output.answer(&rest),
            _ => Ok(()),
        };
        let written = written.and_then(|()| self.output.flush());
        match show::partial(summary, publish) {
            Some(bad) => Err(bad.into()),
            None => written.map(|()| Exit::Ok),
        }
    }
}
