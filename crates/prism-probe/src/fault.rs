//! What ends a command early, and how that is told.

use std::{collections::BTreeMap, io, time::Duration};

use prism_client::{Applied, Code, Error, Reason};

use crate::{
    exit::Exit,
    output::{Format, Style, error_object, printable},
};

/// Where nothing that answers is what we talk to.
pub(crate) const DATA_PORT: &str = "is that the proxy's data port? --endpoint or PRISM_ENDPOINT names it";

/// Among the details: under which idempotency key a multicast was made.
const KEY: &str = "idempotency_key";

/// What ends a command early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Something failed.
    Fault(Box<Fault>),
    /// Nobody reads what is written, as when a pager was left.
    NobodyReads,
}

/// Something that failed, as it is told.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    /// For programs: what `ErrorInfo.reason` says, or a word of ours.
    pub(crate) reason: String,
    pub(crate) code: Option<Code>,
    pub(crate) field: Option<String>,
    pub(crate) details: BTreeMap<String, String>,
    pub(crate) retry_after: Option<Duration>,
    /// Whether a mutation may have been carried out all the same.
    pub(crate) applied: Option<Applied>,
    pub(crate) hint: Option<&'static str>,
}

impl Fault {
    /// A value on the command line, or in the environment, that cannot be used. The field may be empty.
    pub(crate) fn usage(field: &str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            ..Self::new(Exit::Usage, "USAGE", message.into())
        }
    }

    /// A failure of the process itself.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, "INTERNAL", message.into())
    }

    /// A call that succeeded, but not for everybody.
    pub(crate) fn partial(exit: Exit, reason: &str, message: String) -> Self {
        Self::new(exit, reason, message)
    }

    /// A multicast that was interrupted before anything was answered.
    pub(crate) fn left() -> Self {
        let message = "interrupted before the answer came, the multicast may go on".to_owned();
        Self {
            applied: Some(Applied::Unknown),
            ..Self::new(Exit::Interrupted, "INTERRUPTED", message)
        }
    }

    fn new(exit: Exit, reason: &str, message: String) -> Self {
        Self {
            exit,
            message,
            reason: reason.to_owned(),
            code: None,
            field: None,
            details: BTreeMap::new(),
            retry_after: None,
            applied: None,
            hint: None,
        }
    }

    /// Tells it on stderr.
    pub(crate) fn report(&self, format: Format) -> Exit {
        match format {
            Format::Json => Style::talk(&error_object(self)),
            _ => Style::talk(&self.text(&Style::of_stderr())),
        }
        self.exit
    }

    fn text(&self, style: &Style) -> String {
        let mut text = format!("{} {}", style.error("error:"), printable(&self.message));
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                text.push_str(&format!("\n  {name}: {}", printable(value)));
            }
        };
        line("reason", &self.reason);
        line("field", self.field.as_deref().unwrap_or_default());
        if let Some(pause) = self.retry_after {
            line("retry after", &format!("{} ms", pause.as_millis()));
        }
        if self.applied == Some(Applied::Unknown) {
            line("note", "the call may have been carried out all the same");
        }
        if let Some(key) = self
            .details
            .get(KEY)
            .filter(|_| self.applied == Some(Applied::Unknown))
        {
            let again = format!("with --idempotency-key {key} it is sent once all the same");
            line("again", &again);
        }
        line("hint", self.hint.unwrap_or_default());
        text
    }
}

impl Stop {
    /// Of a call that changes nothing: whether it was carried out is no question.
    pub(crate) fn of_a_read(mut self) -> Self {
        if let Self::Fault(fault) = &mut self {
            fault.applied = None;
        }
        self
    }

    /// Of a call that was answered in part: whether it was the right port is no question.
    pub(crate) fn after_an_answer(mut self) -> Self {
        if let Self::Fault(fault) = &mut self {
            fault.hint = fault.hint.filter(|hint| *hint != DATA_PORT);
        }
        self
    }
}

impl Stop {
    /// Of a multicast with this idempotency key, or none: how it is made again without making another one.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        if let Self::Fault(fault) = &mut self
            && fault.applied == Some(Applied::Unknown)
            && !key.is_empty()
        {
            fault.details.insert(KEY.to_owned(), key.to_owned());
        }
        self
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let details = match &error {
            Error::Refused(refusal) => refusal.details.clone(),
            _ => BTreeMap::new(),
        };
        Self {
            code: Some(error.code()),
            field: error.field().map(str::to_owned),
            details,
            retry_after: error.retry_after(),
            applied: Some(error.applied()),
            hint: hint(&error),
            ..Self::new(Exit::of(&error), error.reason_text(), error.to_string())
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Fault::from(error).into()
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl From<io::Error> for Stop {
    /// Of writing to stdout.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Fault::internal(format!("cannot write to stdout: {error}")).into(),
        }
    }
}

/// Whether what answered knows nothing of what it was asked, and does not speak as ours do.
pub(crate) fn is_of_another_service(error: &Error) -> bool {
    error.code() == Code::Unimplemented && error.reason_text().is_empty()
}

/// What to do next.
fn hint(error: &Error) -> Option<&'static str> {
    match error {
        Error::Unreachable { .. } => {
            return Some("is the proxy running? name it with --endpoint or PRISM_ENDPOINT");
        }
        Error::ConnectionLost { .. } => return Some(DATA_PORT),
        other if is_of_another_service(other) => return Some(DATA_PORT),
        _ => {}
    }
    Some(match error.reason()? {
        Reason::AlreadyRegistered => "--replace takes it over",
        Reason::UnknownMulticast => {
            "receipts are kept for `receipts_window`, some only where they were sent: `publish` tells until when"
        }
        Reason::IdempotencyMismatch => "another message needs another --idempotency-key",
        Reason::NotRegistered => "`prism-probe multicast enumerate` lists what is registered",
        Reason::UnknownNamespace => {
            "name it with --namespace or PRISM_NAMESPACE; `prism-probe check` shows which there are"
        }
        Reason::NoRunner | Reason::NotReady | Reason::BackendUnavailable => {
            "`prism-probe check` shows what serves what"
        }
        Reason::InvalidCursor => "begin again without --cursor",
        Reason::Compacted | Reason::EpochChanged => {
            "begin again without --cursor, or --resume-from of `watch`"
        }
        Reason::DeadlineExceeded => {
            "--deadline gives the call more time; `prism-probe check` shows what is wrong"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use prism_core::failure::Failure;

    use super::*;

    #[test]
    fn a_fault_says_what_why_where_and_what_next() {
        let failure = Failure::new(Reason::AlreadyRegistered, "`a` is taken")
            .field("identity")
            .not_applied();
        let text = Fault::from(Error::from(failure)).text(&Style::plain());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "error: `a` is taken",
                "  reason: ALREADY_EXISTS",
                "  field: identity",
                "  hint: --replace takes it over",
            ]
        );
    }

    #[test]
    fn an_unknown_effect_is_pointed_out() {
        let failure = Failure::new(Reason::RunnerLost, "gone")
            .maybe_applied()
            .retry_after(Duration::from_millis(250));
        let text = Fault::from(Error::from(failure)).text(&Style::plain());
        assert!(
            text.contains("retry after: 250 ms") && text.contains("may have been carried out"),
            "{text}"
        );
    }

    #[test]
    fn the_effect_of_a_read_is_no_question() {
        let failure = Failure::new(Reason::RunnerLost, "gone").maybe_applied();
        let Stop::Fault(fault) = Stop::from(Error::from(failure)).of_a_read() else {
            panic!("a failure is a fault")
        };
        let text = fault.text(&Style::plain());
        assert!(!text.contains("carried out"), "{text}");
    }

    /// What `watch` goes on with is no cursor.
    #[test]
    fn whoever_comes_back_too_late_is_told_what_to_leave_out() {
        for (reason, resumes) in [
            (Reason::Compacted, true),
            (Reason::EpochChanged, true),
            (Reason::InvalidCursor, false),
        ] {
            let hint = Fault::from(Error::from(Failure::new(reason, "x"))).hint.unwrap();
            assert!(hint.contains("--cursor"), "{hint}");
            assert_eq!(hint.contains("--resume-from"), resumes, "{hint}");
        }
    }

    #[test]
    fn what_a_service_says_cannot_drive_the_terminal() {
        let failure = Failure::new(Reason::Internal, "\u{1b}[2Jgone");
        let text = Fault::from(Error::from(failure)).text(&Style::plain());
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn a_reader_that_left_is_no_fault() {
        assert!(matches!(
            Stop::from(io::Error::from(io::ErrorKind::BrokenPipe)),
            Stop::NobodyReads
        ));
        assert!(matches!(
            Stop::from(io::Error::from(io::ErrorKind::StorageFull)),
            Stop::Fault(_)
        ));
    }
}
