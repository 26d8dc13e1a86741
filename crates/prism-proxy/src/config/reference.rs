//! Every key of the proxy's file that is its own, for the documentation.

use std::fmt::Write;

/// Every key, its type, default and meaning, as Markdown tables.
pub fn reference() -> String {
    let mut text = String::from(
        "## The file of a proxy\n\n\
         `prism-proxy --config FILE` reads this beside `namespaces`. The file is read again when it changes and on \
         `SIGHUP`; what is marked with *start* takes effect at the next start.\n",
    );
    let mut section = None;
    for key in KEYS {
        // Writing to a text does not fail.
        if section != Some(key.section) {
            section = Some(key.section);
            let table = "| key | type | default | meaning |\n|---|---|---|---|";
            let _ = match key.section {
                "" => writeln!(text, "\n{table}"),
                section => writeln!(text, "\n### `{section}`\n\n{table}"),
            };
        }
        let start = if key.live { "" } else { " (*start*)" };
        let default = match key.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {}{start} |",
            key.name, key.kind, key.meaning
        );
    }
    text
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    /// The mapping that holds it: `listen`, `limits`, `timeouts`, `runners[]`; empty for the file itself.
    section: &'static str,
    name: &'static str,
    /// What it takes.
    kind: &'static str,
    /// As it would be written; empty where there is none.
    default: &'static str,
    meaning: &'static str,
    /// Whether a change takes effect while the proxy runs.
    live: bool,
}

/// All of them, in the order of the file.
const KEYS: &[Key] = &[
    at_start("", "listen", "mapping", "", "where to listen"),
    live("", "limits", "mapping", "", "bounds of size and number"),
    live(
        "",
        "timeouts",
        "mapping",
        "",
        "bounds of time; a bare number counts milliseconds",
    ),
    live(
        "",
        "manifests",
        "list of paths",
        "",
        "plugins whose namespaces are checked before any runner sees them",
    ),
    at_start(
        "",
        "runners",
        "list",
        "",
        "runners that the proxy starts and supervises itself",
    ),
    live("", "namespaces", "list", "", "what is served, see above"),
    at_start("listen", "control", "address", ":9090", "for runners"),
    at_start("listen", "data", "address", ":8980", "for clients"),
    at_start("listen", "admin", "address", ":8981", "for operators and probes"),
    live(
        "limits",
        "concurrent_calls",
        "integer",
        "10000",
        "calls under way, streams not counted; more are refused with `OVERLOADED`",
    ),
    live(
        "limits",
        "concurrent_streams",
        "integer",
        "50000",
        "open streams; more are refused with `OVERLOADED`",
    ),
    at_start(
        "limits",
        "connections",
        "integer",
        "10000",
        "connections to the data port, as far as the limit of open files goes; more wait",
    ),
    at_start(
        "limits",
        "streams_per_connection",
        "integer",
        "20000",
        "calls under way on one connection",
    ),
    live(
        "limits",
        "message_size",
        "size",
        "4MiB",
        "one request message; a larger one is `PAYLOAD_TOO_LARGE`",
    ),
    live(
        "limits",
        "header_size",
        "size",
        "32KiB",
        "the headers of a request, up to 64KiB; larger ones are `INVALID_REQUEST`",
    ),
    live(
        "limits",
        "retry_buffer",
        "size",
        "64KiB",
        "of a request, kept to be sent a second time",
    ),
    live(
        "timeouts",
        "default_deadline",
        "duration",
        "30s",
        "of a unary call that brings no deadline",
    ),
    live(
        "timeouts",
        "longest_deadline",
        "duration",
        "5m",
        "of a unary call that brings a longer one",
    ),
    at_start("timeouts", "connect", "duration", "2s", "to connect to a runner"),
    live(
        "timeouts",
        "hold",
        "duration",
        "5s",
        "a call's wait while the runners of its namespace change over",
    ),
    at_start(
        "timeouts",
        "silence",
        "duration",
        "10s",
        "until a client that connected has said something",
    ),
    at_start(
        "timeouts",
        "readiness_grace",
        "duration",
        "500ms",
        "at the end: from failing readiness to turning clients away",
    ),
    at_start(
        "timeouts",
        "drain",
        "duration",
        "25s",
        "at the end: for calls under way; what is left then is ended",
    ),
    at_start(
        "runners[]",
        "manifest",
        "path",
        "",
        "the plugin's manifest, relative to this file",
    ),
    at_start(
        "runners[]",
        "count",
        "integer",
        "1",
        "how many processes, up to 64",
    ),
    at_start(
        "runners[]",
        "executable",
        "path",
        "",
        "in place of the manifest's",
    ),
    at_start(
        "runners[]",
        "args",
        "list of strings",
        "[]",
        "after `-proxy-addr`",
    ),
    at_start(
        "runners[]",
        "env",
        "mapping of strings",
        "{}",
        "beside the proxy's own environment without `PRISM_*`",
    ),
];

const fn live(
    section: &'static str,
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        section,
        name,
        kind,
        default,
        meaning,
        live: true,
    }
}

const fn at_start(
    section: &'static str,
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        live: false,
        ..live(section, name, kind, default, meaning)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prism_core::config::Source;

    use super::{super::Config, *};

    fn of(section: &str) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(move |key| key.section == section)
    }

    /// The keys that the decoder knows, from what it says to one that it does not.
    fn known(section: &str) -> BTreeSet<String> {
        let text = match section {
            "" => "zzzzzzz: 1".to_owned(),
            "runners[]" => "runners: [{zzzzzzz: 1}]".to_owned(),
            section => format!("{section}: {{zzzzzzz: 1}}"),
        };
        let source = Source::parse("t", &text).unwrap();
        let told = Config::check(&source, "".as_ref(), &[]).unwrap_err().message;
        let (_, expected) = told.split_once(", expected ").unwrap_or_else(|| panic!("{told}"));
        expected
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_key_is_listed_and_every_listed_key_is_one() {
        for section in ["", "listen", "limits", "timeouts", "runners[]"] {
            let listed: BTreeSet<_> = of(section).map(|key| key.name.to_owned()).collect();
            assert_eq!(listed, known(section), "{section}");
        }
    }

    #[test]
    fn every_default_is_the_one_in_effect() {
        let written = |section: &str| {
            let keys = of(section).filter(|key| !key.default.is_empty());
            keys.map(|key| format!("{}: '{}'", key.name, key.default))
                .collect::<Vec<_>>()
                .join(", ")
        };
        // A number in quotes would be a text.
        let limits = written("limits").replace('\'', "");
        let text = format!(
            "listen: {{{}}}\nlimits: {{{limits}}}\ntimeouts: {{{}}}\n",
            written("listen"),
            written("timeouts")
        );
        let source = Source::parse("t", &text).unwrap();
        assert_eq!(
            Config::check(&source, "".as_ref(), &[]).unwrap(),
            Config::default()
        );
    }
}
