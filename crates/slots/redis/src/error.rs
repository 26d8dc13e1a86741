//! What Redis and the client library say, and what is known from it about the effect of a call.

use fred::error::{Error as ClientError, ErrorKind};
use prism_slot::{Applied, Error};

/// The backend's name.
pub(crate) const BACKEND: &str = "redis";

/// What a call leaves behind when its outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing that the caller asked for: it is simply made again.
    Read,
    /// Perhaps what the caller asked for.
    Write,
}

/// Why one attempt of a call failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// The server does not have our functions; it executed nothing.
    NotLoaded,
    /// The server has no memory left for this; it executed nothing.
    OutOfMemory(String),
    /// Certainly not executed, and the next attempt may be.
    NotExecuted(String),
    /// As [`Fault::NotExecuted`], by a server that this connection should not be to.
    WrongServer(String),
    /// Refused for a reason that only an operator removes; nothing was executed.
    Refused(String),
    /// It may or may not have been executed.
    Unknown(String),
    /// The same, because there was no reply in time.
    NoReply,
    /// Not sent, because no connection was to be had in time.
    NoConnection(String),
    /// Not sent, because the deadline had passed.
    TooLate,
}

impl Fault {
    /// Whether another attempt is safe and may end better.
    pub(crate) fn allows_retry(&self, effect: Effect) -> bool {
        match self {
            Self::NotExecuted(_) | Self::WrongServer(_) => true,
            Self::Unknown(_) | Self::NoReply => effect == Effect::Read,
            _ => false,
        }
    }

    /// The error that a caller sees. `applied` is what holds when the outcome is not known: a read
    /// has no effect either way.
    pub(crate) fn into_error(self, applied: Applied) -> Error {
        match self {
            Self::NotLoaded => unavailable(
                "its functions were removed faster than they were loaded",
                Applied::No,
            ),
            Self::OutOfMemory(message)
            | Self::NotExecuted(message)
            | Self::WrongServer(message)
            | Self::NoConnection(message) => unavailable(message, Applied::No),
            Self::TooLate => timeout(Applied::No),
            Self::Refused(message) => misconfigured(message),
            Self::Unknown(message) => unavailable(message, applied),
            Self::NoReply => timeout(applied),
        }
    }
}

/// An error of another slot of this crate, whose backend has another name.
pub(crate) fn of_backend(name: &'static str, mut error: Error) -> Error {
    if let Error::Unavailable { backend, .. }
    | Error::Timeout { backend, .. }
    | Error::Misconfigured { backend, .. }
    | Error::Unsupported { backend, .. }
    | Error::Unreadable { backend, .. } = &mut error
    {
        *backend = name;
    }
    error
}

pub(crate) fn unavailable(message: impl Into<String>, applied: Applied) -> Error {
    Error::Unavailable {
        backend: BACKEND,
        message: message.into(),
        applied,
    }
}

pub(crate) fn timeout(applied: Applied) -> Error {
    Error::Timeout {
        backend: BACKEND,
        applied,
    }
}

pub(crate) fn misconfigured(message: impl Into<String>) -> Error {
    Error::Misconfigured {
        backend: BACKEND,
        message: message.into(),
    }
}

pub(crate) fn unreadable(message: impl Into<String>) -> Error {
    Error::Unreadable {
        backend: BACKEND,
        message: message.into(),
    }
}

/// Reads an error reply. All of these are given before a function starts, except for what the
/// function itself raises.
pub(crate) fn refused_by_server(text: &str) -> Fault {
    let message = text.to_owned();
    match text.split_whitespace().next().unwrap_or_default() {
        "ERR" if text.contains("Function not found") => Fault::NotLoaded,
        "ERR" if text.contains("unknown command") => {
            Fault::Refused(format!("{text}; version 7.0 or later is required"))
        }
        "OOM" => Fault::OutOfMemory(message),
        "LOADING" | "BUSY" | "CLUSTERDOWN" | "TRYAGAIN" | "MISCONF" | "NOREPLICAS" => {
            Fault::NotExecuted(message)
        }
        "READONLY" | "MASTERDOWN" => Fault::WrongServer(message),
        "MOVED" | "ASK" => Fault::Refused(format!(
            "{text}; this is a node of a cluster, set `cluster: true`"
        )),
        "NOAUTH" | "WRONGPASS" => Fault::Refused(format!("{text}; check `username` and `password`")),
        "NOPERM" => Fault::Refused(format!(
            "{text}; the user needs FCALL, FUNCTION LOAD and what the functions use, see `username` in the configuration"
        )),
        "WRONGTYPE" => Fault::Refused(format!("{text}; another program uses keys under this `prefix`")),
        _ => Fault::Unknown(message),
    }
}

/// Reads an error reply to the loading of our functions.
pub(crate) fn not_loaded(text: &str) -> Result<(), Fault> {
    // Somebody was faster.
    if text.starts_with("ERR Library '") && text.ends_with("already exists") {
        return Ok(());
    }
    let because = |message: &str| format!("cannot load its functions ({message})");
    Err(match refused_by_server(text) {
        Fault::OutOfMemory(message) => Fault::OutOfMemory(because(&message)),
        Fault::NotExecuted(message) => Fault::NotExecuted(because(&message)),
        Fault::WrongServer(message) => Fault::WrongServer(because(&message)),
        Fault::Refused(message) => Fault::Refused(because(&message)),
        // It read them, and does not want them: so it will be the next time.
        _ => Fault::Refused(because(text)),
    })
}

/// Reads what the client library reports instead of a reply.
///
/// The texts are those of fred 10.1 and each is what it says of a call that it has not written to a
/// connection. Should they change, such a call counts as one of unknown effect, which is the safe side.
pub(crate) fn failed_in_client(error: &ClientError) -> Fault {
    let message = plain(error);
    let not_written = match error.kind() {
        ErrorKind::Timeout => return Fault::NoReply,
        // Redirections are not followed, because that would count as a second attempt; the client has
        // learned the new owner when it says so.
        ErrorKind::Backpressure | ErrorKind::Routing => true,
        ErrorKind::Canceled => error.details() == "Connection closed unexpectedly.",
        ErrorKind::Unknown => matches!(
            error.details(),
            "Failed to route command." | "Failed to send command to router." | "Client is not initialized."
        ),
        ErrorKind::Auth => return Fault::Refused(format!("{message}; check `username` and `password`")),
        _ => false,
    };
    if not_written {
        Fault::NotExecuted(message)
    } else {
        Fault::Unknown(message)
    }
}

/// The error in words: of an operating system's error only what it means.
pub(crate) fn plain(error: &ClientError) -> String {
    let details = error.details();
    let meaning = details
        .split_once("message: \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or(details, |(meaning, _)| meaning);
    meaning.trim_end_matches('.').to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_without_reply_is_never_called_failed() {
        let timed_out = ClientError::new(ErrorKind::Timeout, "Request timed out.");
        let lost = ClientError::new(ErrorKind::IO, "Unresponsive connection.");
        let dropped = ClientError::new(ErrorKind::Canceled, "Canceled.");
        let resent = ClientError::new(ErrorKind::Unknown, "Too many failed write attempts.");
        for error in [timed_out, lost, dropped, resent] {
            let seen = failed_in_client(&error).into_error(Applied::Unknown);
            assert_eq!(seen.applied(), Applied::Unknown, "{error}");
        }
    }

    #[test]
    fn what_was_never_written_was_not_applied() {
        for (kind, details) in [
            (ErrorKind::Backpressure, "Max in-flight commands reached."),
            (ErrorKind::Canceled, "Connection closed unexpectedly."),
            (ErrorKind::Unknown, "Failed to route command."),
        ] {
            let seen = failed_in_client(&ClientError::new(kind, details)).into_error(Applied::Unknown);
            assert_eq!(seen.applied(), Applied::No, "{details}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        assert_eq!(refused_by_server("ERR Function not found"), Fault::NotLoaded);
        for (text, advice) in [
            ("NOAUTH Authentication required.", "`password`"),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                "`prefix`",
            ),
            ("ERR unknown command 'FCALL', with args beginning with:", "7.0"),
            ("MOVED 866 127.0.0.1:7001", "`cluster: true`"),
            (
                "NOPERM this user has no permissions to run the 'fcall' command",
                "FUNCTION LOAD",
            ),
        ] {
            let Error::Misconfigured { message, .. } = refused_by_server(text).into_error(Applied::Unknown)
            else {
                panic!("{text}")
            };
            assert!(message.contains(advice), "{message}");
        }
    }

    #[test]
    fn what_keeps_functions_from_being_loaded_is_told() {
        assert_eq!(
            not_loaded("ERR Library 'prism_registry_0' already exists"),
            Ok(())
        );
        for text in [
            "ERR Function 'prism_registry_0_get' already exists",
            "ERR Error compiling function: user_function:1: '=' expected",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "NOPERM this user has no permissions to run the 'function|load' command",
        ] {
            let told = not_loaded(text).unwrap_err().into_error(Applied::Unknown);
            assert_eq!(told.applied(), Applied::No, "{text}");
            let told = told.to_string();
            assert!(
                told.contains("cannot load its functions") && told.contains(text),
                "{told}"
            );
        }
    }

    #[test]
    fn an_error_of_the_system_is_put_in_words() {
        let refused = std::io::Error::from_raw_os_error(111);
        assert_eq!(plain(&ClientError::from(refused)), "connection refused");
    }
}
