//! Sending, receiving, and what became of it.

use std::time::Duration;

use clap::ValueEnum;
use prism_proto::pattern::{self, DeliverySemantics, Filter, delivery_status};
use serde::Deserialize;

use super::value;

pub(super) const AFTER_PUBLISH: &str = "\
Exit code 4 says that some target did not get the message, or that this is not known. One for which the message is \
stored will get it, and counts as one that did, unless --require says otherwise; so does one whose turn has not come. \
`-o name` lists those that are not known to have missed it, as it does for `receipts` and `cancel`.

Whatever is not sent, or not confirmed as far as was required, within --timeout (or --deadline) is told as it is then: \
`prism-probe multicast receipts` shows how it went on. No call takes longer than 100 s.

Examples:
  prism-probe multicast publish --filter '{\"battery.lt\": 0.2}' --payload 'charge!'
  prism-probe multicast publish --payload @firmware.json --delivery at-least-once --max-per-second 50 --deadline 90s --follow
  prism-probe multicast publish --payload 'two pizzas' --delivery exactly-once --idempotency-key order-7 --require acked
  prism-probe multicast publish --payload 'how warm?' --collect-replies --timeout 2000
  prism-probe multicast publish --filter '{\"zone\": \"a\"}' --payload x --dry-run";

pub(super) const AFTER_SUBSCRIBE: &str = "\
What is shown is acknowledged. A message that is stored comes again where it is not acknowledged: after the namespace's \
`ack_timeout`, or with the next session. So it does after --no-ack, until it was handed out `max_deliver` times and is a \
dead letter. Messages that were acknowledged and come again are not shown again.

Examples:
  prism-probe multicast subscribe sensor-1 --count 1
  prism-probe multicast subscribe sensor-1 --no-ack
  prism-probe multicast subscribe sensor-1 --answer '21 C'";

pub(super) const DLQ_EXAMPLES: &str = "\
Examples:
  prism-probe multicast dlq ls --identity sensor-1
  prism-probe multicast dlq redrive 17 18
  prism-probe multicast dlq redrive --all";

#[derive(Debug, clap::Args)]
pub(crate) struct Publish {
    /// To whom, as for `enumerate`; without it, to all
    #[arg(long, value_name = "JSON", value_parser = value::filter, allow_hyphen_values = true)]
    pub(crate) filter: Option<Filter>,
    /// What: the text itself, @FILE for the content of a file, - for that of stdin
    #[arg(long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    pub(crate) payload: String,
    /// The type of the payload; without it, application/octet-stream
    #[arg(long, value_name = "T")]
    pub(crate) content_type: Option<String>,
    /// How long the service waits for outcomes, in milliseconds, at most 100000 and a --deadline that is given
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(1..=100_000), allow_negative_numbers = true)]
    pub(crate) timeout: Option<i64>,
    /// What the delivery must survive; without it, as the namespace is configured
    #[arg(long, value_name = "D", value_enum)]
    pub(crate) delivery: Option<Delivery>,
    /// From which stage on a target has got it, which is waited for
    #[arg(long, value_name = "STAGE", value_enum)]
    pub(crate) require: Option<Stage>,
    /// Send it once, however often this is run with the same key; exactly-once makes one up
    #[arg(long, value_name = "K")]
    pub(crate) idempotency_key: Option<String>,
    /// After how long it is of no more use: 500ms, 30s, 2h, 7d; without it, stored messages are kept for `message_ttl`
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) expires: Option<Duration>,
    /// A header to send along; may be given several times
    #[arg(long, value_name = "K=V", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// Before which other messages it comes where messages wait
    #[arg(long, value_name = "P", value_enum)]
    pub(crate) priority: Option<Priority>,
    /// Where consumers should send answers of their own; it is only passed on
    #[arg(long, value_name = "T")]
    pub(crate) reply_to: Option<String>,
    /// Send to no more targets than this a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..), allow_negative_numbers = true)]
    pub(crate) max_per_second: Option<i64>,
    /// How many targets are sent to at a time, at most 1024
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1024), allow_negative_numbers = true)]
    pub(crate) batch_size: Option<i32>,
    /// Wait for the answers of the targets, and show them
    #[arg(long)]
    pub(crate) collect_replies: bool,
    /// How many answers are enough; without it, those of all targets
    #[arg(long, value_name = "N", requires = "collect_replies", value_parser = clap::value_parser!(i64).range(1..), allow_negative_numbers = true)]
    pub(crate) min_replies: Option<i64>,
    /// Show how far it is while it is sent and acknowledged, and at the end who did not get it and why
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) follow: bool,
    /// Show who would get it, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// On the command line, and in scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
pub(crate) enum Delivery {
    /// Sent once; lost where nobody listens
    #[value(name = "at-most-once")]
    #[serde(rename = "at-most-once")]
    AtMost,
    /// Stored, and sent until it is acknowledged
    #[value(name = "at-least-once")]
    #[serde(rename = "at-least-once")]
    AtLeast,
    /// The same, and once for each idempotency key
    #[value(name = "exactly-once")]
    #[serde(rename = "exactly-once")]
    Exactly,
}

impl From<Delivery> for prism_client::DeliverySemantics {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::AtMost => Self::AtMostOnce,
            Delivery::AtLeast => Self::AtLeastOnce,
            Delivery::Exactly => Self::ExactlyOnce,
        }
    }
}

impl From<Delivery> for DeliverySemantics {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::AtMost => Self::AtMostOnce,
            Delivery::AtLeast => Self::AtLeastOnce,
            Delivery::Exactly => Self::ExactlyOnce,
        }
    }
}

/// On the command line, and in scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// Somebody was listening
    Accepted,
    /// It is stored for the target
    Stored,
    /// It was written to a session of the target
    Handed,
    /// The target acknowledged it
    Acked,
}

impl From<Stage> for prism_client::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Accepted => Self::Accepted,
            Stage::Stored => Self::Stored,
            Stage::Handed => Self::Handed,
            Stage::Acked => Self::Acked,
        }
    }
}

impl From<Stage> for pattern::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Accepted => Self::Accepted,
            Stage::Stored => Self::Stored,
            Stage::Handed => Self::Handed,
            Stage::Acked => Self::Acked,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Priority {
    /// After all others
    Low,
    /// Between them
    Normal,
    /// Before all others
    High,
}

impl From<Priority> for pattern::Priority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Normal => Self::Normal,
            Priority::High => Self::High,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Receipts {
    /// The multicast, as `publish` tells it
    #[arg(value_name = "MULTICAST_ID")]
    pub(crate) multicast_id: String,
    /// Only targets of which this is so; several separated by commas. Without it, -o name leaves out those that failed
    #[arg(long, value_name = "STATUS", value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Status>,
    /// How many to show, at most 1000; without it, 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000), allow_negative_numbers = true)]
    pub(crate) limit: Option<i32>,
    /// Continue where the page before ended
    #[arg(long, value_name = "C")]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    /// Not delivered yet, and may still be
    Pending,
    /// Known not to have been delivered
    Failed,
    /// Not known either way
    Timeout,
    /// Delivered
    Delivered,
}

impl From<Status> for delivery_status::Status {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Failed => Self::Failed,
            Status::Timeout => Self::Timeout,
            Status::Delivered => Self::Delivered,
        }
    }
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Dlq {
    /// List them, the oldest first
    Ls(DlqList),
    /// Put them back for their identities
    Redrive(Redrive),
}

#[derive(Debug, clap::Args)]
pub(crate) struct DlqList {
    /// Only those to this identity
    #[arg(long, value_name = "ID")]
    pub(crate) identity: Option<String>,
    /// How many to show, at most 1000; without it, 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000), allow_negative_numbers = true)]
    pub(crate) limit: Option<i32>,
    /// Continue where the page before ended
    #[arg(long, value_name = "C")]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(id = "which", required = true)]
pub(crate) struct Redrive {
    /// The letters, as `dlq ls` shows them
    #[arg(value_name = "LETTER_ID", group = "which", conflicts_with_all = ["identity", "all"])]
    pub(crate) letters: Vec<String>,
    /// All to this identity
    #[arg(long, value_name = "ID", group = "which", conflicts_with = "all")]
    pub(crate) identity: Option<String>,
    /// All there are, at most 10000 at a time
    #[arg(long, group = "which")]
    pub(crate) all: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Subscribe {
    /// The identity
    #[arg(value_name = "ID")]
    pub(crate) identity: String,
    /// End after this many messages; without it, at an interrupt (then with exit code 0)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), allow_negative_numbers = true)]
    pub(crate) count: Option<u64>,
    /// Do not acknowledge what is shown
    #[arg(long, conflicts_with_all = ["nack", "answer"])]
    pub(crate) no_ack: bool,
    /// Ask for what is shown to come again after this time: 500ms, 30s, 2h
    #[arg(long, value_name = "TIME", value_parser = span, conflicts_with = "answer")]
    pub(crate) nack: Option<Duration>,
    /// How many messages may be on their way at a time, never more than --count leaves; without it, 64
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) credits: Option<u32>,
    /// Answer messages whose sender waits for that with this text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) answer: Option<String>,
}

/// `500ms`, `30s`, `2h`, `7d`; a bare number is seconds.
fn span(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => Some(1),
        "s" | "" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let number = number.parse::<u64>().ok();
    let millis = number
        .zip(scale)
        .and_then(|(number, scale)| number.checked_mul(scale));
    match millis {
        Some(0) => Err("at least a millisecond".to_owned()),
        Some(millis) if millis > 366 * 86_400_000 => Err("at most 366 days".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err("expected a time such as `500ms`, `30s`, `2h` or `7d`".to_owned()),
    }
}

/// `K=V`.
fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected a header such as `tenant=7`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_be_days() {
        assert_eq!(span("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(span("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(span("30"), span("30s"));
        for wrong in ["", "d", "0s", "367d", "1w", "-1s", "99999999999999999999d"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_has_a_name_and_its_value_may_be_anything() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(header("a="), Ok(("a".to_owned(), String::new())));
        assert!(header("a").is_err() && header("=b").is_err());
    }
}
