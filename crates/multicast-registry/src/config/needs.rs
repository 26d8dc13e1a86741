//! `needs`: what a namespace asks of its slots as a whole. Each need is honoured or refused by name;
//! none is ignored. The table is in `docs/configuration.md`.

use prism_core::config::{Error, Path, parse_duration};
use prism_slot::capability::Survives;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Namespace, ReadConsistency, behavior::Behavior};

/// What a namespace asks of its slots as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// The latency that calls should stay below, like `<10ms`. Refused where a slot's backend is
    /// typically slower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// `eventual` makes stale reads the default, `strong` consistent ones. Refused where
    /// `behavior.consistency` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
    /// `ephemeral` asks for nothing. `persistent` asks that registrations outlive the backend's
    /// restart, and is refused where they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// `true` asks for an audit log of every registration and multicast. Refused in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<bool>,
    /// `true` asks that exactly-once delivery is possible, and is refused without a durability slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exactly_once: Option<bool>,
    /// How many identities must fit, like `10000+ services`, `10,000`, `100k` or `1M`. Raises `max_identities` where that is
    /// not set, and is refused where it is set to less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<String>,
    /// `single-region` asks for nothing. `multi-region` is refused in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `any` asks for nothing. A cloud's name asks for that cloud's own backends, and is refused in
    /// this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud: Option<String>,
}

/// Typical time of one operation on a backend close by, in milliseconds.
const TYPICAL_MS: [(&str, u64); 4] = [("memory", 1), ("redis", 5), ("nats", 5), ("sqlite", 5)];

/// Checks every need and applies those that set a default. `written` says whether the configuration sets
/// a key of `behavior` itself, which a need then does not change but must agree with.
pub(super) fn apply(namespace: &mut Namespace, written: impl Fn(&str) -> bool) -> Result<(), Error> {
    let needs = namespace.needs.clone();
    check("latency", needs.latency.as_deref(), |text| {
        latency(namespace, text)
    })?;
    check("durability", needs.durability.as_deref(), |text| {
        durability(namespace, text)
    })?;
    check("consistency", needs.consistency.as_deref(), |text| {
        consistency(&mut namespace.behavior, text, written("consistency"))
    })?;
    check("audit", needs.audit.as_ref(), |asked| {
        no_slot_gives(*asked, "an audit log")
    })?;
    check("exactly_once", needs.exactly_once.as_ref(), |asked| {
        if *asked && namespace.slots.durability.is_none() {
            return Err(
                "exactly-once delivery needs a durability slot, name a backend for `slots.durability`"
                    .to_owned(),
            );
        }
        Ok(())
    })?;
    check("scale", needs.scale.as_deref(), |text| {
        scale(&mut namespace.behavior, text, written("max_identities"))
    })?;
    check("region", needs.region.as_deref(), region)?;
    check("cloud", needs.cloud.as_deref(), cloud)
}

fn check<T>(key: &str, need: Option<T>, verdict: impl FnOnce(T) -> Result<(), String>) -> Result<(), Error> {
    need.map_or(Ok(()), verdict)
        .map_err(|message| Error::new(Path::root().key(key), message))
}

fn no_slot_gives(asked: bool, what: &str) -> Result<(), String> {
    if asked {
        Err(format!("no slot gives {what} in this version"))
    } else {
        Ok(())
    }
}

fn latency(namespace: &Namespace, text: &str) -> Result<(), String> {
    let limit = parse_duration(text.trim().trim_start_matches('<').trim_start_matches('='))?.as_millis();
    let slots = &namespace.slots;
    for (role, backend) in [
        ("registry", slots.registry.capability().backend),
        ("messaging", slots.messaging.capability().backend),
    ] {
        let typical = TYPICAL_MS
            .iter()
            .find(|(name, _)| *name == backend)
            .map_or(0, |(_, typical)| *typical);
        if u128::from(typical) >= limit {
            return Err(format!(
                "the {role} slot on `{backend}` typically takes about {typical} ms, the memory slots take less"
            ));
        }
    }
    Ok(())
}

fn durability(namespace: &Namespace, text: &str) -> Result<(), String> {
    match text {
        "ephemeral" => Ok(()),
        "persistent" => {
            let capability = namespace.slots.registry.capability();
            if capability.survives >= Survives::BackendRestart {
                return Ok(());
            }
            Err(format!(
                "a registry slot on `{}` does not promise to outlive the backend's restart; \
                 a transactional store such as `postgres` would, and is not available in this version",
                capability.backend
            ))
        }
        other => Err(format!(
            "unknown value `{other}`, expected `ephemeral` or `persistent`"
        )),
    }
}

fn consistency(behavior: &mut Behavior, text: &str, written: bool) -> Result<(), String> {
    let asked = match text {
        "eventual" => ReadConsistency::Stale,
        "strong" => ReadConsistency::Consistent,
        other => {
            return Err(format!(
                "unknown value `{other}`, expected `eventual` or `strong`"
            ));
        }
    };
    if written && behavior.consistency != asked {
        return Err(format!(
            "`{text}` contradicts `behavior.consistency`, keep one of them"
        ));
    }
    behavior.consistency = asked;
    Ok(())
}

fn scale(behavior: &mut Behavior, text: &str, written: bool) -> Result<(), String> {
    let unclear = || {
        format!(
            "`{text}` is not plainly a number of identities; write it like `10000`, `10,000+`, `100k` or `1M`, with \
             what they are behind it"
        )
    };
    let wanted = count(text).ok_or_else(unclear)?;
    if !written {
        behavior.max_identities = behavior.max_identities.max(wanted);
    }
    if behavior.max_identities < wanted {
        let limit = behavior.max_identities;
        return Err(format!(
            "`behavior.max_identities` is `{limit}`, raise it to at least `{wanted}`"
        ));
    }
    Ok(())
}

/// Words that make another number of the one before them.
const AMOUNTS: [&str; 7] = ["k", "m", "dozen", "hundred", "thousand", "million", "billion"];

/// The number that a text begins with, like `10,000+ services` or `100k devices`; `None` where it may mean another one.
fn count(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, words) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let is_amount = |word: &str| {
        word.contains(|c: char| c.is_ascii_digit()) || AMOUNTS.contains(&word.to_lowercase().as_str())
    };
    if words.split_whitespace().any(is_amount) {
        return None;
    }
    let number = number.strip_suffix('+').unwrap_or(number);
    let (number, by) = match (number.strip_suffix(['k', 'K']), number.strip_suffix('M')) {
        (Some(thousands), _) => (thousands, 1_000),
        (_, Some(millions)) => (millions, 1_000_000),
        _ => (number, 1),
    };
    digits(number)?.parse::<u64>().ok()?.checked_mul(by)
}

/// The digits of a number, which may stand in groups of three.
fn digits(number: &str) -> Option<String> {
    let groups: Vec<&str> = number.split([',', '_']).collect();
    let (first, others) = groups.split_first()?;
    let in_threes = others.is_empty() || first.len() <= 3 && others.iter().all(|group| group.len() == 3);
    let digits = groups.concat();
    let is_number = in_threes && !first.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(digits)
}

fn region(text: &str) -> Result<(), String> {
    match text {
        "single-region" => Ok(()),
        "multi-region" => no_slot_gives(true, "replication across regions"),
        other => Err(format!(
            "unknown value `{other}`, expected `single-region` or `multi-region`"
        )),
    }
}

fn cloud(text: &str) -> Result<(), String> {
    if text == "any" {
        return Ok(());
    }
    Err(format!(
        "the backends of the cloud `{text}` are not available in this version, `any` asks for none"
    ))
}
