use prism_core::config::Source;

use super::{
    file::{Action, Scenario},
    junit,
    play::{Outcome, Played, PlayedStep},
};

fn read(text: &str) -> Result<Scenario, String> {
    let source = Source::parse("x.yaml", text).unwrap();
    Scenario::read(&source).map_err(|error| error.to_string())
}

const WHOLE: &str = r#"
name: presence
steps:
  - name: Alice comes
    register: { identity: alice, metadata: { room: engineering }, ttl: 30s }
    expect: { outcome: REGISTERED }
  - subscribe: { identity: alice, as: phone }
  - get: { identity: alice }
    expect: { metadata: { room: engineering } }
    within: 2s
  - update: { identity: alice, patch: { room: null } }
  - renew: { identities: alice }
    expect: { renewed: 1 }
  - enumerate: { filter: { room: engineering }, sort: [room desc], limit: 5 }
    expect: { count: 0, identities: [] }
  - publish: { payload: hello, timeout: 500ms }
    expect: { targets: 1, statuses: { alice: DELIVERED } }
  - receive: { by: phone, payload: hello }
  - silence: { by: phone, for: 10ms }
  - close: { session: phone }
  - wait: 5ms
  - unregister: { identity: alice }
    expect: { existed: true }
"#;

#[test]
fn every_kind_of_step_is_read_and_says_where_it_stands() {
    let scenario = read(WHOLE).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.steps.len()), ("presence", 12));
    assert_eq!(scenario.steps[0].name, "Alice comes");
    assert_eq!(scenario.steps[0].line, Some(4));
    let names: Vec<_> = scenario.steps[1..]
        .iter()
        .map(|step| step.name.as_str())
        .collect();
    assert_eq!(names[0], "subscribe alice");
    assert_eq!(names[5], "publish all");
    assert_eq!(names[9], "wait 5ms");
    let Action::Register(asked, expected) = &scenario.steps[0].action else {
        panic!("{scenario:?}")
    };
    assert_eq!(asked.ttl.unwrap().as_secs(), 30);
    assert_eq!(expected.outcome.as_deref(), Some("REGISTERED"));
}

#[test]
fn a_mistake_is_placed_and_what_was_meant_is_suggested() {
    for (text, place, part) in [
        ("stepps: []", "x.yaml:1:1", "did you mean `steps`?"),
        ("steps: []", "x.yaml:1:8", "nothing to do"),
        (
            "steps:\n  - regster: { identity: a }",
            "x.yaml:2:5",
            "did you mean `register`?",
        ),
        (
            "steps:\n  - register: { identty: a }",
            "x.yaml:2:17",
            "did you mean `identity`?",
        ),
        ("steps:\n  - name: x", "x.yaml:2:5", "without anything to do"),
        (
            "steps:\n  - wait: 1s\n    get: { identity: a }",
            "x.yaml:2:5",
            "one thing",
        ),
        (
            "steps:\n  - get: { identity: a }\n    expect: { count: 1 }",
            "x.yaml:3:15",
            "unknown key `count`",
        ),
        (
            "steps:\n  - publish: { payload: x }\n    expect: { deliverd: 1 }",
            "x.yaml:3:15",
            "did you mean `delivered`?",
        ),
        (
            "steps:\n  - enumerate: { filter: { \"a.lt\": [1] } }",
            "x.yaml:2:26",
            "a",
        ),
        ("steps:\n  - wait: soon", "x.yaml:2:11", "no duration"),
        (
            "steps:\n  - publish: { payload: x }\n    expect: { error: INVALID_REQUEST, delivered: 9 }",
            "x.yaml:3:",
            "no `delivered` to expect",
        ),
        (
            "steps:\n  - wait: 1s\n    expect: {}",
            "x.yaml:3:13",
            "says itself",
        ),
        (
            "steps:\n  - publish: { payload: x }\n    within: 1s",
            "x.yaml:3:13",
            "only what reads is repeated",
        ),
        (
            "steps:\n  - publish: { payload: x, as: offer }\n  - cancel: { of: ofer }",
            "x.yaml:3:19",
            "did you mean `offer`?",
        ),
        (
            "steps:\n  - redrive: { identity: a, all: true }",
            "x.yaml:2:14",
            "either",
        ),
        (
            "steps:\n  - publish: { payload: x, delivery: at-leest-once }",
            "x.yaml:2:",
            "at-least-once",
        ),
        (
            "steps:\n  - subscribe: { identity: a }\n  - receive: { by: a, ack: true, nack: 1s }",
            "x.yaml:3:14",
            "one is said",
        ),
        (
            "steps:\n  - subscribe: { identity: alice }\n  - receive: { by: alise }",
            "x.yaml:3:20",
            "did you mean `alice`?",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(
            error.starts_with(place) && error.contains(part),
            "{text}\n{error}"
        );
    }
}

#[test]
fn junit_has_a_case_for_each_step() {
    let step = |name: &str, outcome| PlayedStep {
        name: name.to_owned(),
        line: None,
        outcome,
        took: std::time::Duration::from_millis(1_500),
    };
    let played = Played {
        name: "a & b".to_owned(),
        steps: vec![
            step("one", Outcome::Passed),
            step(
                "two",
                Outcome::Failed("found \"1\", expected <2>".to_owned().into()),
            ),
            step("three", Outcome::Skipped),
        ],
    };
    let text = junit(&played).unwrap();
    for part in [
        r#"tests="3""#,
        r#"skipped="1""#,
        r#"failures="1""#,
        r#"name="a &amp; b""#,
        r#"<testcase name="2 two" classname="a &amp; b" time="1.500">"#,
        "expected &lt;2&gt;",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert_eq!(played.failure().unwrap().0.name, "two");
}
