//! Command lines in both dash styles: `-proxy-addr localhost:9090` means `--proxy-addr localhost:9090`.

use std::ffi::OsString;

use clap::{Arg, Command};

/// Rewrites each `-name` and `-name=value` to two dashes when `name` is a long option that `command`,
/// or the subcommand reached so far, declares or has by itself, as `help`; and `--v` to one dash when only the letter is declared.
/// Everything else stays: short options and clusters of them (`-v`, `-vv`), values, and whatever
/// follows a bare `--`.
///
/// `args` is the whole command line, program name first, as [`std::env::args_os`] gives it.
pub fn normalize(command: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    // Only then it has what nobody declares.
    let mut command = command.clone();
    command.build();
    let mut walk = Walk {
        declared: command.get_arguments().collect(),
        command: &command,
        raw_value_next: false,
    };
    let mut args = args.into_iter();
    let program = args.next();
    let mut rewritten: Vec<OsString> = program.into_iter().collect();
    for arg in args.by_ref() {
        if arg == "--" {
            rewritten.push(arg);
            break;
        }
        rewritten.push(walk.step(arg));
    }
    rewritten.extend(args);
    rewritten
}

/// Where the reading of a command line has got to.
struct Walk<'a> {
    command: &'a Command,
    /// The options of this command and all above it.
    declared: Vec<&'a Arg>,
    /// The option before takes any value, even one that looks like an option.
    raw_value_next: bool,
}

impl<'a> Walk<'a> {
    fn step(&mut self, arg: OsString) -> OsString {
        if std::mem::take(&mut self.raw_value_next) {
            return arg;
        }
        let Some(text) = arg.to_str() else { return arg };
        let Some(option) = text.strip_prefix('-') else {
            self.descend(text);
            return arg;
        };
        let (name, two_dashes) = match option.strip_prefix('-') {
            Some(name) => (name, true),
            None => (option, false),
        };
        if let Some(long) = self.long(name) {
            self.raw_value_next = !name.contains('=') && takes_any_value(long);
        }
        // One letter is a short option, whatever longs there are.
        let one_letter = name
            .split('=')
            .next()
            .is_some_and(|name| name.chars().count() == 1);
        match (two_dashes, self.long(name)) {
            (false, Some(_)) if !one_letter => format!("--{name}").into(),
            (true, None) if one_letter && self.is_short(name) => format!("-{name}").into(),
            _ => arg,
        }
    }

    fn long(&self, option: &str) -> Option<&'a Arg> {
        let name = option.split('=').next()?;
        let named = |arg: &&&Arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(name) || aliases.contains(&name)
        };
        self.declared.iter().find(named).copied()
    }

    fn is_short(&self, option: &str) -> bool {
        let letter = option.chars().next();
        self.declared.iter().any(|arg| arg.get_short() == letter)
    }

    fn descend(&mut self, word: &str) {
        if let Some(subcommand) = self.command.find_subcommand(word) {
            self.command = subcommand;
            self.declared.extend(subcommand.get_arguments());
        }
    }
}

fn takes_any_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.is_allow_hyphen_values_set()
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn command() -> Command {
        Command::new("tool")
            .arg(Arg::new("proxy-addr").long("proxy-addr").alias("proxy"))
            .arg(Arg::new("config").long("config"))
            .arg(Arg::new("verbose").short('v').action(ArgAction::Count))
            .subcommand(
                Command::new("publish")
                    .arg(Arg::new("payload").long("payload").allow_hyphen_values(true))
                    .arg(Arg::new("output").short('o').long("output")),
            )
    }

    fn normalized(line: &str) -> String {
        let args = line.split(' ').map(OsString::from);
        let rewritten = normalize(&command(), args);
        rewritten
            .iter()
            .map(|arg| arg.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn single_dash_longs_gain_a_dash() {
        assert_eq!(
            normalized("tool -proxy-addr localhost:9090 -v"),
            "tool --proxy-addr localhost:9090 -v"
        );
        assert_eq!(
            normalized("tool -proxy-addr=localhost:9090"),
            "tool --proxy-addr=localhost:9090"
        );
        assert_eq!(
            normalized("tool -proxy x:1 -config f"),
            "tool --proxy x:1 --config f"
        );
    }

    #[test]
    fn a_lone_letter_loses_a_dash() {
        assert_eq!(normalized("tool --v --config f"), "tool -v --config f");
        assert_eq!(
            normalized("tool publish --o=json --payload --v"),
            "tool publish -o=json --payload --v"
        );
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for line in [
            "tool --x",
            "tool -- --v",
            "tool -vv",
            "tool --config f",
            "tool -unknown",
            "tool -",
            "tool -v --config=-v",
            "tool -- -config f",
        ] {
            assert_eq!(normalized(line), line);
        }
    }

    /// Which no command declares by itself.
    #[test]
    fn help_and_version_are_options_like_any_other() {
        assert_eq!(normalized("tool -help"), "tool --help");
        assert_eq!(normalized("tool publish -help"), "tool publish --help");
        assert_eq!(normalized("tool -h"), "tool -h");
        assert_eq!(normalized("tool -version"), "tool -version");
        let args = ["tool", "-version"].map(OsString::from);
        let rewritten = normalize(&command().version("1"), args);
        assert_eq!(rewritten, ["tool", "--version"]);
        let args = ["tool", "-help"].map(OsString::from);
        let rewritten = normalize(&command().disable_help_flag(true), args);
        assert_eq!(rewritten, ["tool", "-help"]);
    }

    #[test]
    fn a_subcommand_brings_its_own_options() {
        assert_eq!(normalized("tool -output x"), "tool -output x");
        assert_eq!(
            normalized("tool publish -output json -config f"),
            "tool publish --output json --config f"
        );
        assert_eq!(normalized("tool publish -o json"), "tool publish -o json");
    }

    #[test]
    fn a_value_that_may_look_like_an_option_is_left_alone() {
        assert_eq!(
            normalized("tool publish --payload -config"),
            "tool publish --payload -config"
        );
        assert_eq!(
            normalized("tool publish -payload -config"),
            "tool publish --payload -config"
        );
    }

    #[test]
    fn the_rewritten_line_parses() {
        let args = [
            "tool",
            "-proxy-addr",
            "localhost:9090",
            "-v",
            "-v",
            "publish",
            "-payload",
            "-x",
        ];
        let args = normalize(&command(), args.map(OsString::from));
        let matches = command().try_get_matches_from(args).unwrap();
        assert_eq!(matches.get_one::<String>("proxy-addr").unwrap(), "localhost:9090");
        assert_eq!(matches.get_count("verbose"), 2);
        let (_, publish) = matches.subcommand().unwrap();
        assert_eq!(publish.get_one::<String>("payload").unwrap(), "-x");
    }
}
