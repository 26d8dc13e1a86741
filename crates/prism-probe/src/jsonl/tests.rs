use std::{
    io::{BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, SystemTime},
};

use prism_client::{Identity, Position};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    batch::{Batches, Cut},
    line::{read, write},
    lines::{Content, Lines},
};

fn found(identity: &str, metadata: Map<String, Value>, ttl: Option<Duration>) -> Identity {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    Identity {
        identity: identity.to_owned(),
        metadata,
        registered_at: at,
        updated_at: at,
        expires_at: ttl.map(|ttl| at + ttl),
        ttl,
        generation: Position {
            epoch: 1,
            revision: 1,
        },
        revision: 1,
    }
}

fn written(found: Identity) -> String {
    let mut out = Vec::new();
    write(found, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line_says_what_is_registered() {
    let Value::Object(metadata) = json!({ "b": 3.0, "a": [1.5, null] }) else {
        panic!()
    };
    let line = written(found("é\"", metadata, Some(Duration::from_millis(1_500))));
    assert_eq!(
        line,
        "{\"identity\":\"é\\\"\",\"metadata\":{\"a\":[1.5,null],\"b\":3},\"ttl_ms\":1500,\
         \"registered_at\":\"1970-01-01T00:01:00Z\",\"updated_at\":\"1970-01-01T00:01:00Z\",\
         \"expires_at\":\"1970-01-01T00:01:01.5Z\"}\n"
    );
}

#[test]
fn leases_come_back_as_they_were() {
    let lease = |found: Identity| {
        let request = read(&written(found)).unwrap();
        (request.ttl, request.ttl_ms)
    };
    let with = |millis| found("a", Map::new(), Some(Duration::from_millis(millis)));
    assert_eq!(lease(with(60_000)), (Some(60), None));
    assert_eq!(lease(with(60_001)), (None, Some(60_001)));
    let none = found("a", Map::new(), None);
    assert_eq!(lease(none), (Some(0), None), "none is not the default");
    let unsaid = Identity {
        ttl: None,
        ..with(60_000)
    };
    assert_eq!(lease(unsaid), (None, None), "an older service does not say");
}

#[test]
fn only_the_identity_has_to_be_there() {
    let request = read(r#"{"identity": "a"}"#).unwrap();
    assert_eq!(
        (request.metadata, request.ttl, request.ttl_ms),
        (json!({}), None, None)
    );
    let request = read(r#"{"identity": "a", "ttl_seconds": null, "ttl_ms": 7}"#).unwrap();
    assert_eq!((request.ttl, request.ttl_ms), (None, Some(7)));
    let request = read(r#" {"metadata": null, "error": {"line": 7}, "identity": "\u0061\ud83d\ude00"} "#);
    assert_eq!(request.unwrap().identity, "a😀");
}

#[test]
fn mistakes_are_named() {
    let long = "x".repeat(257);
    for (line, part) in [
        (r#"{"identity": "a""#, "at column 16"),
        ("[1]", "at column"),
        ("{}", "missing field `identity`"),
        (r#"{"identity": 7}"#, "expected a string"),
        (r#"{"identity": ""}"#, "`identity` is empty"),
        (&format!(r#"{{"identity": "{long}"}}"#), "257 bytes"),
        (r#"{"identity": "a\u0007"}"#, "control character"),
        (r#"{"identity": "a", "ttl_second": 3}"#, "`ttl_second`"),
        (r#"{"identity": "a", "identity": "b"}"#, "duplicate field"),
        ("nonsense", "not valid JSON, at column 2"),
        (r#"{"identity": tru}"#, "not valid JSON, at column"),
        (
            r#"{"identity": "a",}"#,
            "not valid JSON: trailing comma, at column",
        ),
        (
            r#"{"identity": "a", "ttl_seconds": -1}"#,
            "`-1`, expected a number of seconds, 0 or more, at column",
        ),
        (
            r#"{"identity": "a", "ttl_ms": -1}"#,
            "`-1`, expected a number of milliseconds, 0 or more",
        ),
        (
            r#"{"identity": "a", "ttl_seconds": 1.5}"#,
            "`1.5`, expected a number of seconds",
        ),
        (
            r#"{"identity": "a", "ttl_seconds": "3"}"#,
            "expected a number of seconds",
        ),
        (
            r#"{"identity": "a", "ttl_seconds": 1, "ttl_seconds": 2}"#,
            "duplicate field",
        ),
        (
            r#"{"identity": "a", "ttl_seconds": 9223372036854775808}"#,
            "too large",
        ),
        (
            r#"{"identity": "a", "ttl_seconds": 1, "ttl_ms": 1}"#,
            "one of them",
        ),
        (r#"{"identity": "a", "metadata": [1]}"#, "metadata: "),
        (r#"{"identity": "a", "metadata": {"n": 9007199254740993}}"#, "`n`"),
        (
            r#"{"identity": "a", "metadata": {"n": 1, "n": 2}}"#,
            "given twice",
        ),
    ] {
        let mistake = read(line).unwrap_err();
        assert!(mistake.contains(part), "{line}: {mistake}");
    }
}

/// It would be refused together with a thousand others.
#[test]
fn a_request_that_is_too_large_is_a_mistake_though_its_line_is_not() {
    let numbers = vec!["1"; 2 << 20].join(",");
    let line = format!(r#"{{"identity": "a", "metadata": {{"n": [{numbers}]}}}}"#);
    assert!(line.len() < 5 << 20);
    let mistake = read(&line).unwrap_err();
    assert!(
        mistake.contains("at most 16777216 are taken") || mistake.contains("large"),
        "{mistake}"
    );
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..=1 << 53).prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no others", |number| number.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever is exported is imported as it was.
    #[test]
    fn every_line_that_is_written_is_read(
        identity in "[^\\p{Cc}]{1,60}",
        metadata in prop::collection::hash_map("[^\\x00]{0,8}", value(), 0..5),
        ttl in prop::option::of(1_u64..100_000_000),
    ) {
        let metadata: Map<String, Value> = metadata.into_iter().collect();
        let ttl = ttl.map(Duration::from_millis);
        let line = written(found(&identity, metadata.clone(), ttl));
        prop_assert_eq!(line.matches('\n').count(), 1);
        let request = read(&line).unwrap();
        prop_assert_eq!(request.identity, identity);
        // Numbers are doubles, on both sides.
        prop_assert_eq!(doubles(request.metadata), doubles(Value::Object(metadata)));
        let millis = request.ttl_ms.or(request.ttl.map(|seconds| seconds * 1_000)).unwrap();
        prop_assert_eq!(millis, ttl.map_or(0, |ttl| ttl.as_millis() as u64));
    }
}

fn doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().unwrap()),
        Value::Array(items) => items.into_iter().map(doubles).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, doubles(value)))
            .collect(),
        other => other,
    }
}

fn contents(bytes: &[u8], longest: u64) -> Vec<Content> {
    // Parts that end anywhere.
    let mut lines = Lines::with_longest(BufReader::with_capacity(3, Cursor::new(bytes)), longest);
    let mut all = Vec::new();
    while let Some(content) = lines.next().unwrap() {
        all.push(content);
    }
    assert_eq!(
        (lines.number, lines.bytes),
        (all.len() as u64, bytes.len() as u64)
    );
    all
}

#[test]
fn lines_end_where_they_end() {
    let text = |text: &str| Content::Text(text.to_owned());
    let bad = |problem: &str| Content::Bad(problem.to_owned());
    assert_eq!(contents(b"", 8), []);
    assert_eq!(
        contents(b"one\r\n\n  \n two\nthree", 8),
        [
            text("one"),
            Content::Blank,
            Content::Blank,
            text(" two"),
            text("three")
        ]
    );
    let long = "the line is longer than 8 bytes";
    assert_eq!(
        contents(b"12345678\n123456789\n1\n123456789012345", 8),
        [text("12345678"), bad(long), text("1"), bad(long)]
    );
    assert_eq!(
        contents(b"ab\xff\nc", 8),
        [bad("the line is not UTF-8, from byte 3 on"), text("c")]
    );
}

/// Numbers of the lines of each portion, and the number that it goes through.
fn portions(text: &str, skip: u64) -> Vec<(Vec<u64>, u64)> {
    Cut::new(Lines::new(text.as_bytes()), skip)
        .map(|batch| {
            let batch = batch.unwrap();
            let numbers = batch.entries.iter().map(|entry| entry.number);
            (numbers.collect(), batch.through)
        })
        .collect()
}

#[test]
fn no_portion_has_two_lines_of_one_identity() {
    let line = |name: &str| format!("{{\"identity\": \"{name}\"}}\n");
    let text = ["a", "b", "a", "a", "c"].map(line).concat();
    assert_eq!(
        portions(&text, 0),
        [(vec![1, 2], 2), (vec![3], 3), (vec![4, 5], 5)]
    );
    assert_eq!(portions(&text, 3), [(vec![4, 5], 5)]);
    assert_eq!(portions(&text, 9), []);
    // Mistakes are nobody's; blank lines count, and are nothing.
    assert_eq!(portions("\n{\n{\n\n", 0), [(vec![2, 3], 4)]);
}

#[test]
fn portions_are_no_larger_than_they_may_be() {
    let text: String = (0..2_500)
        .map(|number| format!("{{\"identity\": \"{number}\"}}\n"))
        .collect();
    let through: Vec<_> = portions(&text, 0)
        .into_iter()
        .map(|(_, through)| through)
        .collect();
    assert_eq!(through, [1_000, 2_000, 2_500]);
    let filler = "x".repeat(1 << 20);
    let text: String = (0..9)
        .map(|number| format!("{{\"identity\": \"{number}\", \"metadata\": {{\"x\": \"{filler}\"}}}}\n"))
        .collect();
    let through: Vec<_> = portions(&text, 0)
        .into_iter()
        .map(|(_, through)| through)
        .collect();
    assert_eq!(through, [4, 8, 9]);
}

/// Lines without end; says when nobody reads them any more.
struct Endless {
    read: Arc<AtomicUsize>,
    line: Vec<u8>,
    _gone: mpsc::Sender<()>,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.line.is_empty() {
            let number = self.read.fetch_add(1, Ordering::SeqCst);
            self.line = format!("{{\"identity\": \"{number}\"}}\n").into_bytes();
        }
        let count = self.line.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.line[..count]);
        self.line.drain(..count);
        Ok(count)
    }
}

/// However large a file is, only a little of it is in memory, and who stops reading stops the reader.
#[tokio::test]
async fn little_is_read_ahead() {
    let read = Arc::new(AtomicUsize::new(0));
    let (gone, ended) = mpsc::channel::<()>();
    let endless = Endless {
        read: read.clone(),
        line: Vec::new(),
        _gone: gone,
    };
    let mut batches = Batches::of(BufReader::with_capacity(64, endless), 0, None).unwrap();
    for _ in 0..3 {
        assert_eq!(batches.next().await.unwrap().unwrap().entries.len(), 1_000);
    }
    while !batches.is_full() {
        std::thread::yield_now();
    }
    drop(batches);
    assert!(
        ended
            .recv_timeout(Duration::from_secs(30))
            .is_err_and(|error| error == mpsc::RecvTimeoutError::Disconnected)
    );
    let read = read.load(Ordering::SeqCst);
    // Three that were taken, one that waited, and one that was waited with.
    assert!((3_000..=5_010).contains(&read), "{read}");
}
