//! What the broker lets this login do.
//!
//! Nothing comes back for a message or a subscription that the broker refuses, and its complaint takes
//! another way through the client library than the echo: it may arrive after it. A verdict cannot wait for a
//! complaint that hardly ever comes. So the slot asks for the rules, over each new connection, and wants
//! none about single identities.

use std::time::Duration;

use async_nats::{Client, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

/// Where a broker tells what the login may do; since NATS 2.10.
pub(crate) const SUBJECT: &str = "$SYS.REQ.USER.INFO";
/// How long to wait for the answer.
const ANSWER: Duration = Duration::from_secs(2);

/// What is known about the rules for the subjects of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rules {
    /// There are none.
    None,
    /// This one forbids some identities, or all.
    Against(String),
    /// The broker does not tell this login.
    Hidden,
    /// The broker knows no such question.
    Unsupported,
}

impl Rules {
    /// Asks for the rules about `subjects`, a subject whose last token is `*`.
    pub(crate) async fn ask(client: &Client, subjects: &str) -> Self {
        match timeout(ANSWER, client.request(SUBJECT, Bytes::new())).await {
            Ok(Ok(answer)) => Self::read(&answer.payload, subjects),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Self::Unsupported,
            Ok(Err(_)) | Err(_) => Self::Hidden,
        }
    }

    fn read(answer: &[u8], subjects: &str) -> Self {
        match serde_json::from_slice::<Answer>(answer) {
            Ok(answer) => answer.rule_against(subjects).map_or(Self::None, Self::Against),
            Err(_) => Self::Hidden,
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    data: User,
}

impl Answer {
    fn rule_against(self, subjects: &str) -> Option<String> {
        let permissions = self.data.permissions?;
        let against = |kind, rules: Option<Subjects>| {
            let rule = rules?.rule_against(subjects)?;
            Some(format!("for {kind} it {rule}"))
        };
        against("publishing", permissions.publish).or_else(|| against("subscribing", permissions.subscribe))
    }
}

#[derive(Deserialize)]
struct User {
    permissions: Option<Permissions>,
}

#[derive(Deserialize)]
struct Permissions {
    publish: Option<Subjects>,
    subscribe: Option<Subjects>,
}

/// What is not listed as allowed is forbidden, unless nothing is listed. A rule for subscribing may end in the
/// name of a queue.
#[derive(Deserialize)]
struct Subjects {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
}

impl Subjects {
    /// The rule that stands in the way of some of `subjects`.
    fn rule_against(&self, subjects: &str) -> Option<String> {
        if let Some(pattern) = self.deny.iter().find(|pattern| overlaps(pattern, subjects)) {
            return Some(format!("denies `{pattern}`"));
        }
        if self.allow.is_empty() || self.allow.iter().any(|pattern| covers(pattern, subjects)) {
            return None;
        }
        Some(format!("allows only `{}`", self.allow.join("`, `")))
    }
}

/// Whether everything that matches `subjects` matches `pattern`.
fn covers(pattern: &str, subjects: &str) -> bool {
    let mut wanted = subjects.split('.');
    for token in tokens(pattern) {
        match (token, wanted.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(wanted)) if token == wanted => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

/// Whether something matches both.
fn overlaps(pattern: &str, subjects: &str) -> bool {
    let mut others = subjects.split('.');
    for token in tokens(pattern) {
        match (token, others.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            ("*", Some(_)) | (_, Some("*")) => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    others.next().is_none()
}

fn tokens(pattern: &str) -> impl Iterator<Item = &str> {
    let subject = pattern.split(' ').next().unwrap_or_default();
    subject.split('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each kind in turn, with nothing said about the other one.
    fn rules(subjects: &str) -> Rules {
        let about = |kind: &str, other: &str| {
            let permissions = format!(r#"{{"{kind}":{subjects},"{other}":null}}"#);
            let answer = format!(r#"{{"server":{{}},"data":{{"user":"u","permissions":{permissions}}}}}"#);
            Rules::read(answer.as_bytes(), "a.b.*")
        };
        let (publish, subscribe) = (about("publish", "subscribe"), about("subscribe", "publish"));
        match (publish, subscribe) {
            (Rules::Against(publish), Rules::Against(subscribe)) => {
                let rule = publish.strip_prefix("for publishing it ").unwrap();
                assert_eq!(subscribe, format!("for subscribing it {rule}"));
                Rules::Against(rule.to_owned())
            }
            (publish, subscribe) => {
                assert_eq!(publish, subscribe);
                publish
            }
        }
    }

    #[test]
    fn a_login_without_rules_is_free() {
        for answer in [
            r#"{"data":{"user":"","account":"$G"}}"#,
            r#"{"data":{"permissions":{"publish":{},"subscribe":{}}}}"#,
        ] {
            assert_eq!(Rules::read(answer.as_bytes(), "a.b.*"), Rules::None);
        }
        for answer in ["", "{}", r#"{"error":{"code":401}}"#] {
            assert_eq!(Rules::read(answer.as_bytes(), "a.b.*"), Rules::Hidden, "{answer}");
        }
    }

    #[test]
    fn every_identity_must_be_allowed() {
        for allow in ["a.b.*", "a.b.>", "a.>", "a.*.*", "*.*.*", ">", "a.> queue"] {
            assert_eq!(
                rules(&format!(r#"{{"allow":["x","{allow}"]}}"#)),
                Rules::None,
                "{allow}"
            );
        }
        for allow in ["a.b.c", "a.b", "a.*", "a.b.*.*", "a.b.*.>", "b.>", "a.c.*"] {
            let expected = Rules::Against(format!("allows only `x`, `{allow}`"));
            assert_eq!(rules(&format!(r#"{{"allow":["x","{allow}"]}}"#)), expected);
        }
    }

    #[test]
    fn no_identity_may_be_denied() {
        for deny in ["a.b.secret", "a.b.*", "a.*.secret", "*.b.c", "a.>", ">"] {
            let expected = Rules::Against(format!("denies `{deny}`"));
            assert_eq!(
                rules(&format!(r#"{{"allow":[">"],"deny":["x","{deny}"]}}"#)),
                expected
            );
        }
        for deny in ["a.b", "a.b.c.d", "a.c.*", "b.>", "a.b.c.>", "x"] {
            assert_eq!(rules(&format!(r#"{{"deny":["{deny}"]}}"#)), Rules::None, "{deny}");
        }
    }
}
