//! What the brokers had, by their own account, past every fault on the way.
//!
//! NATS traces what it reads from its clients and what it writes to them, and Redis has its append-only file. Both are
//! written before anybody is answered, outlive a kill, and listen to nothing, so that being observed changes nothing:
//! a subscriber would be somebody who listens.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result};

use super::history::Tap;

/// Where messages to identities go.
const MESSAGES: &str = "prism.multicast.test.";
/// Where they are stored.
const INBOXES: &str = "prism.queue.test.m.";

/// The configuration that makes a NATS server write down what it does.
pub(super) fn traced(file: &Path) -> String {
    format!("trace: true\nlogtime: false\nlog_file: \"{}\"\n", file.display())
}

/// What a NATS server was given, and what it handed on or stored.
pub(super) fn of_nats(trace: &Path) -> Result<Tap> {
    let mut reading = Reading::default();
    for line in BufReader::new(File::open(trace)?).lines() {
        reading.line(&line?);
    }
    Ok(reading.tap)
}

#[derive(Default)]
struct Reading {
    tap: Tap,
    /// Of each connection, what came before its payload.
    arriving: HashMap<String, (String, String)>,
    leaving: HashMap<String, String>,
    /// What each reply subject was for.
    asked: HashMap<String, (String, String)>,
    stored: HashSet<(String, String)>,
}

impl Reading {
    fn line(&mut self, line: &str) {
        if let Some((connection, rest)) = line.split_once(" - <<- ") {
            self.arrives(connection, rest);
        } else if let Some((connection, rest)) = line.split_once(" - ->> ") {
            self.leaves(connection, rest);
        }
    }

    fn arrives(&mut self, connection: &str, rest: &str) {
        if let Some(words) = rest.strip_prefix("[HPUB ") {
            let mut words = words.split(' ');
            let (subject, reply) = (words.next(), words.next());
            if let (Some(subject), Some(reply)) = (subject, reply)
                && (subject.starts_with(MESSAGES) || subject.starts_with(INBOXES))
            {
                let arriving = (subject.to_owned(), reply.to_owned());
                self.arriving.insert(connection.to_owned(), arriving);
            }
        } else if rest.starts_with("MSG_PAYLOAD")
            && let Some((subject, reply)) = self.arriving.remove(connection)
            && let Some(place) = place(&subject, rest)
        {
            self.tap.seen.insert(place.clone());
            self.asked.insert(reply, place);
        }
    }

    fn leaves(&mut self, connection: &str, rest: &str) {
        if let Some(words) = rest.strip_prefix("[HMSG ") {
            // To somebody who listens, with the subject for replies.
            let mut words = words.split(' ');
            let (subject, reply) = (words.next(), words.nth(1));
            if subject.is_some_and(|subject| subject.starts_with(MESSAGES)) {
                let place = reply.and_then(|reply| self.asked.get(reply));
                self.tap.taken.extend(place.cloned());
            }
        } else if let Some(words) = rest.strip_prefix("[MSG ") {
            let subject = words.split(' ').next().unwrap_or_default();
            if self.asked.contains_key(subject) {
                self.leaving.insert(connection.to_owned(), subject.to_owned());
            }
        } else if rest.starts_with("MSG_PAYLOAD")
            && let Some(subject) = self.leaving.remove(connection)
            && rest.contains("\\\"seq\\\":")
            && !rest.contains("\\\"error\\\":")
            && let Some(place) = self.asked.get(&subject)
        {
            let is_new = !rest.contains("\\\"duplicate\\\":");
            if is_new && !self.stored.insert(place.clone()) {
                self.tap.stored_twice.insert(place.clone());
            }
            self.tap.taken.insert(place.clone());
        }
    }
}

/// Of which multicast a message is, and to whom.
fn place(subject: &str, payload: &str) -> Option<(String, String)> {
    let (mark, identity) = match subject.strip_prefix(MESSAGES) {
        Some(identity) => ("v=1;id=", identity),
        None => ("Nats-Msg-Id: ", subject.strip_prefix(INBOXES)?.split('.').next()?),
    };
    let (_, multicast) = payload.split_once(mark)?;
    Some((multicast.get(..32)?.to_owned(), identity.to_owned()))
}

/// What a Redis server has stored in inboxes, by its append-only file.
pub(super) fn of_redis(directory: &Path) -> Result<Tap> {
    let mut places = HashSet::new();
    for entry in fs::read_dir(directory.join("appendonlydir"))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".incr.aof") {
            let mut commands = BufReader::new(File::open(path)?);
            while let Some(words) = command(&mut commands)? {
                places.extend(stored(&words));
            }
        }
    }
    Ok(Tap {
        seen: places.clone(),
        taken: places,
        stored_twice: HashSet::new(),
    })
}

/// The message that a command puts into an inbox.
fn stored(words: &[Vec<u8>]) -> Option<(String, String)> {
    let [command, key, _, field, reference, ..] = words else {
        return None;
    };
    if !command.eq_ignore_ascii_case(b"XADD") || field != b"m" {
        return None;
    }
    let (_, inbox) = std::str::from_utf8(key).ok()?.split_once(":inbox:")?;
    let (_, identity) = inbox.split_once(':')?;
    let multicast = std::str::from_utf8(reference.get(..32)?).ok()?;
    Some((multicast.to_owned(), identity.to_owned()))
}

/// The next command; `None` at the end, which is also where a kill has torn the file.
fn command(file: &mut impl BufRead) -> Result<Option<Vec<Vec<u8>>>> {
    let Some(count) = number(file, '*')? else {
        return Ok(None);
    };
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(size) = number(file, '$')? else {
            return Ok(None);
        };
        let mut word = vec![0; size + 2];
        if file.read_exact(&mut word).is_err() {
            return Ok(None);
        }
        word.truncate(size);
        words.push(word);
    }
    Ok(Some(words))
}

fn number(file: &mut impl BufRead, kind: char) -> Result<Option<usize>> {
    let mut line = String::new();
    if file.read_line(&mut line)? == 0 || !line.ends_with('\n') {
        return Ok(None);
    }
    let digits = line.trim_end().strip_prefix(kind);
    Ok(Some(digits.context("not an append-only file")?.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_trace_tells_what_was_seen_and_what_was_taken() {
        let payload =
            format!("MSG_PAYLOAD: [\"NATS/1.0\\r\\nPrism-Multicast: v=1;id={ID};at=5\\r\\n\\r\\nx\"]");
        let letter = format!("MSG_PAYLOAD: [\"NATS/1.0\\r\\nNats-Msg-Id: {ID}.c\\r\\n\\r\\nx\"]");
        let mut reading = Reading::default();
        for line in [
            "[1] [TRC] 127.0.0.1:5 - cid:5 - <<- [HPUB prism.multicast.test.a r.1 46 49]",
            "[1] [TRC] 127.0.0.1:6 - cid:6 - <<- [HPUB prism.multicast.test.b r.2 46 49]",
            &format!("[1] [TRC] 127.0.0.1:5 - cid:5 - <<- {payload}"),
            &format!("[1] [TRC] 127.0.0.1:6 - cid:6 - <<- {payload}"),
            "[1] [TRC] 127.0.0.1:7 - cid:7 - ->> [HMSG prism.multicast.test.a 3 r.1 46 49]",
            "[1] [TRC] 127.0.0.1:5 - cid:5 - <<- [HPUB prism.queue.test.m.c.1 r.3 46 49]",
            &format!("[1] [TRC] 127.0.0.1:5 - cid:5 - <<- {letter}"),
            "[1] [TRC] 127.0.0.1:5 - cid:5 - ->> [MSG r.3 9 40]",
            "[1] [TRC] 127.0.0.1:5 - cid:5 - ->> MSG_PAYLOAD: [\"{\\\"stream\\\":\\\"s\\\",\\\"seq\\\":1}\"]",
        ] {
            reading.line(line);
        }
        let place = |identity: &str| (ID.to_owned(), identity.to_owned());
        assert_eq!(reading.tap.seen, [place("a"), place("b"), place("c")].into());
        assert_eq!(reading.tap.taken, [place("a"), place("c")].into());
    }

    #[test]
    fn an_append_only_file_is_read_to_where_it_was_torn() {
        let key = "{prism:test}:inbox:normal:a";
        let reference = format!("{ID}-0000000000000000");
        let words = ["XADD", key, "1-1", "m", &reference, "e", "x"];
        let mut file = format!("*{}\r\n", words.len());
        for word in words {
            file += &format!("${}\r\n{word}\r\n", word.len());
        }
        file += "*2\r\n$4\r\nXA";
        let mut bytes = file.as_bytes();
        let first = command(&mut bytes).unwrap().unwrap();
        assert_eq!(stored(&first), Some((ID.to_owned(), "a".to_owned())));
        assert_eq!(command(&mut bytes).unwrap(), None);
    }
}
