//! The command line.

pub(crate) mod load;
pub(crate) mod multicast;
pub(crate) mod scenario;
pub(crate) mod schema;
mod value;

pub(crate) use value::selection;

use std::{ffi::OsString, time::Duration};

use clap::{
    ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::{
        StyledStr,
        styling::{AnsiColor, Styles},
    },
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use prism_core::{args, telemetry};

use crate::{
    exit::Exit,
    fault::Fault,
    output::{Format, Style, error_object},
};

const AFTER_HELP: &str = "\
Every option may be written with one dash or two. Data goes to stdout, everything else to stderr. NO_COLOR \
turns colours off; where the output is no terminal there are none.

Exit codes: 0 done, 1 the call failed, 2 wrong usage (nothing was sent), 3 identity, namespace or multicast not found, \
4 some target did not get a message, 5 unavailable or no answer in time, 6 denied, 130 interrupted before it \
was done.";

const INSTALL_COMPLETIONS: &str = "\
Where shells look for it:
  prism-probe completions bash > ~/.local/share/bash-completion/completions/prism-probe
  prism-probe completions zsh > \"${fpath[1]}/_prism-probe\"
  prism-probe completions fish > ~/.config/fish/completions/prism-probe.fish";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::White.on_default().bold())
    .literal(AnsiColor::Cyan.on_default());

/// Talks to the Prism multicast registry.
#[derive(Debug, Parser)]
#[command(name = "prism-probe", version, max_term_width = 110, after_help = AFTER_HELP, styles = STYLES, args_override_self = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Where the proxy listens: HOST:PORT or http://HOST:PORT; several separated by commas are tried in turn
    #[arg(
        long,
        global = true,
        value_name = "H:P",
        env = "PRISM_ENDPOINT",
        default_value = "localhost:8980"
    )]
    pub(crate) endpoint: String,
    /// The namespace to work in
    #[arg(
        long,
        short,
        global = true,
        value_name = "N",
        env = "PRISM_NAMESPACE",
        default_value = "default"
    )]
    pub(crate) namespace: String,
    /// How to show the answer
    #[arg(
        long,
        short,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    pub(crate) output: Format,
    /// How long a call may take, all attempts together: 10s, 500ms
    #[arg(long, global = true, value_name = "TIME", value_parser = value::duration, default_value = "10s")]
    pub(crate) deadline: Duration,
    /// Say on stderr what is going on, with the trace id of the call; twice for more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Register, find and reach identities
    #[command(subcommand, after_help = multicast::EXAMPLES)]
    Multicast(multicast::Command),
    /// Check and change what registrations look like
    #[command(subcommand, after_help = schema::EXAMPLES)]
    Schema(schema::Command),
    /// Put load on a namespace, and count what arrives at subscribers of its own
    #[command(subcommand, after_help = load::EXAMPLES)]
    Load(load::Command),
    /// Do what a file says, and see whether it comes out as the file says
    #[command(subcommand, after_help = scenario::EXAMPLES)]
    Scenario(scenario::Command),
    /// Is everything reachable, and what serves what? Told within --deadline
    Check(Check),
    /// Print a completion script for a shell
    #[command(after_help = INSTALL_COMPLETIONS)]
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Where the proxy's admin API listens; without it, port 8981 on the endpoint's host is looked at if it
    /// is there
    #[arg(long, value_name = "H:P")]
    pub(crate) admin: Option<String>,
}

impl Cli {
    /// Logs to stderr where they are asked for. Retries and the like are no news for somebody who sees the
    /// outcome.
    pub(crate) fn telemetry(&self) -> Result<Option<telemetry::Guard>, Box<Fault>> {
        let asked = self.global.verbose > 0 || std::env::var_os("RUST_LOG").is_some();
        let settings = telemetry::Settings {
            service: "prism-probe",
            verbosity: self.global.verbose,
        };
        let guard = asked.then(|| telemetry::init(&settings)).transpose();
        guard.map_err(|error| Box::new(Fault::usage("RUST_LOG", error.to_string())))
    }

    /// What is wrong with values that are right each by itself, or where they come from: the option, and why.
    fn mistake(&self, matches: &ArgMatches) -> Option<(&'static str, String)> {
        let is_given = |option: &str| matches.value_source(option) == Some(ValueSource::CommandLine);
        let Global {
            endpoint,
            namespace,
            deadline,
            ..
        } = &self.global;
        // An empty variable in the environment is none; whoever writes it out means something else.
        for (option, name, value) in [
            ("--endpoint", "endpoint", endpoint),
            ("--namespace", "namespace", namespace),
        ] {
            if value.is_empty() && is_given(name) {
                return Some((
                    option,
                    format!("`{option}` is empty, leave it out for the usual one"),
                ));
            }
        }
        let Command::Multicast(multicast::Command::Publish(publish)) = &self.command else {
            return None;
        };
        let timeout = Duration::from_millis(publish.timeout?.unsigned_abs());
        (is_given("deadline") && *deadline < timeout).then(|| {
            let (least, given) = (timeout.as_millis(), deadline.as_millis());
            let message = format!(
                "`--deadline` leaves {given} ms, and `--timeout` is {least} ms: give it that much at least, or leave it out"
            );
            ("--deadline", message)
        })
    }
}

/// Reads a command line, program name first.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Usage> {
    let args = args::normalize(&Cli::command(), args);
    read(&args).map_err(|mut error| {
        if error.get(ContextKind::Usage).is_some() {
            error.insert(ContextKind::Usage, ContextValue::StyledStr(usage(&args)));
        }
        Usage {
            json: wants_json(&args),
            error: Box::new(error),
        }
    })
}

fn read(args: &[OsString]) -> clap::error::Result<Cli> {
    let matches = Cli::command().try_get_matches_from(args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    match cli.mistake(&matches) {
        Some((option, message)) => {
            let mut error = Cli::command().error(ErrorKind::ValueValidation, message);
            error.insert(ContextKind::InvalidArg, ContextValue::String(option.to_owned()));
            Err(error)
        }
        None => Ok(cli),
    }
}

/// How the command that a line asks for is used. The parser's own text would list whichever options the
/// environment happens to set as if they had to be given.
fn usage(args: &[OsString]) -> StyledStr {
    let mut command = Cli::command();
    command.build();
    let words = args.iter().skip(1).filter_map(|arg| arg.to_str());
    let asked = words.fold(&command, |command, word| {
        command.find_subcommand(word).unwrap_or(command)
    });
    asked.clone().render_usage()
}

/// The completion script of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "prism-probe", &mut script);
    // For bash the generator writes the dash in our name in two ways, and completes no subcommand then.
    String::from_utf8_lossy(&script).replace("prism__subcmd__probe", "prism__probe")
}

/// A command line that is no command: wrong, or a request for help.
#[derive(Debug)]
pub(crate) struct Usage {
    error: Box<clap::Error>,
    json: bool,
}

impl Usage {
    /// Says what is wrong, or helps.
    pub(crate) fn report(self) -> Exit {
        let help = matches!(
            self.error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
        );
        if self.json && !help {
            Style::talk(&error_object(&self.fault()));
        } else {
            // Fails when nobody reads, who then needs no help either.
            let _ = self.error.print();
        }
        if help { Exit::Ok } else { Exit::Usage }
    }

    /// The same as a fault: what is wrong, without the advice that follows it.
    fn fault(&self) -> Fault {
        let text = self.error.render().to_string();
        let message = text
            .split("\n\n")
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        let option = match self.error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(option)) => option.split(' ').next().unwrap_or_default(),
            _ => "",
        };
        Fault::usage(option.trim_start_matches('-'), message.trim_end())
    }
}

/// Whether somebody who cannot be understood asked for JSON.
fn wants_json(args: &[OsString]) -> bool {
    let json = Format::Json.to_possible_value();
    let json = json.as_ref().map(|value| value.get_name()).unwrap_or_default();
    let texts: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let split = texts
        .windows(2)
        .any(|pair| matches!(&*pair[0], "-o" | "--output") && pair[1] == json);
    split
        || texts.iter().any(|arg| {
            ["-o", "-o=", "--output="]
                .iter()
                .any(|option| **arg == format!("{option}{json}"))
        })
}

#[cfg(test)]
mod tests;
