use super::*;

fn read(line: &[&str]) -> Result<Cli, Usage> {
    parse(
        std::iter::once("prism-probe")
            .chain(line.iter().copied())
            .map(OsString::from),
    )
}

/// What it became, as text; the rest of the line is the same for all.
fn shown(line: &[&str]) -> String {
    format!(
        "{:?}",
        read(line)
            .unwrap_or_else(|usage| panic!("{line:?}: {}", usage.error))
            .command
    )
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_is_read() {
    for (line, parts) in [
        (
            &[
                "multicast",
                "register",
                "alice",
                "--metadata",
                r#"{"a": 1}"#,
                "--ttl",
                "30",
                "--replace",
            ][..],
            &[
                "Register",
                r#""alice""#,
                "NumberValue(1.0)",
                "ttl: Some(30)",
                "replace: true",
            ][..],
        ),
        (
            &["multicast", "register", "alice"],
            &["metadata: {}", "ttl: None", "replace: false"],
        ),
        (&["multicast", "renew", "a", "b"], &["Renew", r#"["a", "b"]"#]),
        (
            &["multicast", "update", "a", "--patch", r#"{"x": null}"#],
            &["Update", "NullValue"],
        ),
        (&["multicast", "get", "a"], &["Get", r#""a""#]),
        (
            &[
                "multicast",
                "enumerate",
                "--filter",
                r#"{"a.lt": 1}"#,
                "--sort",
                "a desc",
                "--sort",
                "b",
                "--limit",
                "7",
                "--cursor",
                "c",
            ],
            &[
                "operator: Lt",
                r#"sort: ["a desc", "b"]"#,
                "limit: Some(7)",
                r#"cursor: Some("c")"#,
            ],
        ),
        (
            &[
                "multicast",
                "publish",
                "--payload",
                "-x",
                "--content-type",
                "text/plain",
                "--timeout",
                "250",
            ],
            &[
                r#"payload: "-x""#,
                r#"content_type: Some("text/plain")"#,
                "timeout: Some(250)",
                "filter: None",
            ],
        ),
        (&["multicast", "publish", "--payload", "-"], &[r#"payload: "-""#]),
        (
            &[
                "multicast",
                "publish",
                "--payload",
                "x",
                "--delivery",
                "exactly-once",
                "--require",
                "handed",
                "--expires",
                "7d",
                "--header",
                "a=1",
                "--priority",
                "low",
                "--follow",
            ],
            &[
                "delivery: Some(Exactly)",
                "require: Some(Handed)",
                "expires: Some(604800s)",
                r#"header: [("a", "1")]"#,
                "priority: Some(Low)",
                "follow: true",
            ],
        ),
        (
            &["multicast", "receipts", "m", "--only", "failed,timeout"],
            &["Receipts", "only: [Failed, Timeout]", "limit: None"],
        ),
        (&["multicast", "cancel", "m"], &["Cancel", r#""m""#]),
        (
            &["multicast", "dlq", "ls", "--identity", "a"],
            &["Ls", r#"identity: Some("a")"#],
        ),
        (
            &["multicast", "dlq", "redrive", "1", "2"],
            &["Redrive", r#"letters: ["1", "2"]"#, "all: false"],
        ),
        (
            &["multicast", "subscribe", "a", "--nack", "5s", "--credits", "7"],
            &["nack: Some(5s)", "credits: Some(7)", "no_ack: false"],
        ),
        (&["multicast", "unregister", "a"], &["Unregister", r#""a""#]),
        (
            &[
                "multicast",
                "explain",
                "--filter",
                r#"{"a.semver.gte": "1.0.0", "seen.gt": "now-5m"}"#,
            ],
            &[
                "Explain",
                "operator: SemverGte",
                r#"StringValue("now-5m")"#,
                "identity: None",
            ],
        ),
        (
            &["multicast", "explain", "a"],
            &["filter: None", r#"identity: Some("a")"#],
        ),
        (
            &["multicast", "subscribe", "a", "--count", "3"],
            &["Subscribe", "count: Some(3)"],
        ),
        (
            &["schema", "check", "--schema", "next.yaml", "--limit", "3"],
            &["Check", r#"schema: Some("next.yaml")"#, "limit: Some(3)"],
        ),
        (
            &[
                "schema",
                "migrate",
                "--rename",
                "a=b",
                "--retype",
                "c=string:int",
                "--default",
                "d=1",
                "--after",
                "x",
                "--dry-run",
            ],
            &[
                "Migrate",
                "from: Path(a)",
                "to: Path(b)",
                "Integer",
                "Number(1)",
                r#"after: Some("x")"#,
                "dry_run: true",
            ],
        ),
        (
            &[
                "multicast",
                "watch",
                "--filter",
                r#"{"a": 1}"#,
                "--resume-from",
                "ff/3",
            ],
            &["Watch", "epoch: 255", "revision: 3", "count: None"],
        ),
        (
            &[
                "multicast",
                "import",
                "-",
                "--skip",
                "7",
                "--errors",
                "x",
                "--session",
                "00000000000000000000000000000aff",
            ],
            &[
                r#"file: "-""#,
                "skip: 7",
                r#"errors: Some("x")"#,
                "10, 255])",
                "dry_run: false",
                "continue_on_error: false",
            ],
        ),
        (&["multicast", "export"], &[r#"file: "-""#, "filter: None"]),
        (
            &["multicast", "export", "all.jsonl", "--filter", r#"{"a": 1}"#],
            &[r#"file: "all.jsonl""#, r#"{"a":1}"#],
        ),
        (
            &[
                "load", "mixed", "--rate", "100", "--share", "25", "--ramp", "up:10s",
            ],
            &[
                "Mixed",
                "rate: Some(100.0)",
                "share: 0.25",
                "Up(10s)",
                "Mix([50, 30, 20])",
                r#"status: "online""#,
                "duration: 60s",
                "settle: 5s",
            ],
        ),
        (
            &["load", "fanout", "--targets", "10,100", "--seed", "7"],
            &[
                "Fanout",
                "targets: [10, 100]",
                "subscribers: 1000",
                "seed: Some(7)",
            ],
        ),
        (
            &["load", "presence", "--users", "100000", "--ttl", "60"],
            &["Presence", "users: 100000", "ttl: 60", "rate: None"],
        ),
        (
            &["load", "storm", "--users", "10", "--keep"],
            &["Storm", "users: 10", "keep: true"],
        ),
        (
            &["scenario", "run", "x.yaml", "--junit", "y.xml"],
            &["Run", r#"file: "x.yaml""#, r#"junit: Some("y.xml")"#],
        ),
        (&["check", "--admin", "h:1"], &["Check", r#"admin: Some("h:1")"#]),
        (&["completions", "bash"], &["Completions", "Bash"]),
    ] {
        let shown = shown(line);
        for part in parts {
            assert!(shown.contains(part), "{line:?}: `{part}` is not in {shown}");
        }
    }
}

#[test]
fn one_dash_is_as_good_as_two() {
    for line in [
        "-endpoint h:1 -namespace n -output json multicast enumerate -limit 3 -sort a",
        "multicast enumerate -limit=3 -sort=a -endpoint=h:1 -n n -o json",
        "--endpoint h:1 --namespace n --output json multicast enumerate --limit 3 --sort a",
    ] {
        let line: Vec<_> = line.split(' ').collect();
        let cli = read(&line).unwrap();
        assert_eq!(
            (cli.global.endpoint.as_str(), cli.global.namespace.as_str()),
            ("h:1", "n"),
            "{line:?}"
        );
        assert_eq!(cli.global.output, Format::Json);
        assert!(shown(&line).contains("limit: Some(3)"));
    }
}

#[test]
fn help_and_version_may_have_one_dash() {
    for line in [
        &["-help"][..],
        &["-version"],
        &["multicast", "-help"],
        &["multicast", "publish", "-help"],
    ] {
        let error = read(line).unwrap_err().error;
        let kinds = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
        assert!(kinds.contains(&error.kind()), "{line:?}: {error}");
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    for (line, part) in [
        (&["multicast", "register"][..], "<ID>"),
        (&["multicast", "register", "a", "--metadata", "{"], "--metadata"),
        (&["multicast", "register", "a", "--ttl", "-1"], "--ttl"),
        (&["multicast", "register", "a", "--ttl", "soon"], "--ttl"),
        (&["multicast", "renew"], "<ID>"),
        (&["multicast", "update", "a"], "--patch"),
        (
            &["multicast", "enumerate", "--filter", r#"{"a": {"$x": 1}}"#],
            "--filter",
        ),
        (&["multicast", "enumerate", "--limit", "0"], "--limit"),
        (&["multicast", "publish"], "--payload"),
        (
            &["multicast", "publish", "--payload", "x", "--timeout", "0"],
            "--timeout",
        ),
        (&["multicast", "subscribe", "a", "--count", "0"], "--count"),
        (&["schema", "migrate", "--rename", "a"], "--rename"),
        (&["schema", "migrate", "--retype", "a=int:number"], "--retype"),
        (&["schema", "migrate", "--default", "a=b"], "--default"),
        (&["schema", "check", "--limit", "0"], "--limit"),
        (&["multicast", "watch", "--count", "0"], "--count"),
        (&["multicast", "watch", "--resume-from", "7"], "--resume-from"),
        (&["multicast", "import"], "<FILE>"),
        (&["multicast", "import", "-", "--session", "7"], "--session"),
        (
            &[
                "multicast",
                "import",
                "-",
                "--session",
                "+0000000000000000000000000000007",
            ],
            "--session",
        ),
        (
            &[
                "multicast",
                "import",
                "-",
                "--dry-run",
                "--session",
                "00000000000000000000000000000007",
            ],
            "--dry-run",
        ),
        (&["multicast", "import", "-", "--ttl", "-1"], "--ttl"),
        (&["load", "mixed", "--rate", "0"], "--rate"),
        (&["load", "mixed", "--share", "101"], "--share"),
        (&["load", "mixed", "--mix", "fly=1"], "--mix"),
        (&["load", "mixed", "--ramp", "linear:1"], "--ramp"),
        (&["load", "fanout", "--targets", "0"], "--targets"),
        (&["load", "presence", "--ttl", "0"], "--ttl"),
        (&["scenario", "run"], "<FILE>"),
        (&["multicast", "fly"], "fly"),
        (&["--deadline", "0s", "check"], "--deadline"),
        (&["--namespace", "", "check"], "--namespace"),
        (&["-n=", "check"], "--namespace"),
        (&["check", "--endpoint", ""], "--endpoint"),
        (
            &["multicast", "publish", "--payload", "x", "--timeout", "100001"],
            "--timeout",
        ),
        (
            &[
                "multicast",
                "publish",
                "--payload",
                "x",
                "--timeout",
                "5001",
                "--deadline",
                "5s",
            ],
            "--deadline",
        ),
        (&["-o", "xml", "check"], "--output"),
        (&["completions", "cmd"], "cmd"),
    ] {
        let usage = read(line).unwrap_err();
        let text = usage.error.to_string();
        assert!(text.contains(part), "{line:?}: `{part}` is not in {text}");
    }
}

/// A call takes as long as --timeout says, unless somebody wants it to be shorter.
#[test]
fn a_timeout_beyond_the_usual_deadline_is_none_beyond_one_that_was_given() {
    let publish = ["multicast", "publish", "--payload", "x", "--timeout", "60000"];
    assert!(read(&publish).is_ok());
    assert!(read(&[&publish[..], &["--deadline", "60s"]].concat()).is_ok());
    let usage = read(&[&["--deadline", "10s"], &publish[..]].concat()).unwrap_err();
    let fault = usage.fault();
    assert_eq!(
        (fault.exit, fault.field.as_deref()),
        (Exit::Usage, Some("deadline"))
    );
    assert!(fault.message.contains("60000"), "{}", fault.message);
}

#[test]
fn what_is_empty_is_named() {
    let fault = read(&["check", "--namespace", ""]).unwrap_err().fault();
    assert_eq!(
        (fault.exit, fault.field.as_deref()),
        (Exit::Usage, Some("namespace"))
    );
}

/// Whatever the environment sets, it is no part of how a command is used.
#[test]
fn the_usage_is_that_of_the_command() {
    let usage = read(&["-namespace", "n", "multicast", "get"]).unwrap_err();
    let text = usage.error.to_string();
    assert!(
        text.contains("Usage: prism-probe multicast get [OPTIONS] <ID>\n"),
        "{text}"
    );
}

#[test]
fn a_wrong_value_names_its_option_and_nothing_else() {
    let usage = read(&["multicast", "enumerate", "--filter", "{"]).unwrap_err();
    let fault = usage.fault();
    assert_eq!(fault.field.as_deref(), Some("filter"));
    assert!(
        fault.message.contains("not valid JSON") && !fault.message.contains("--help"),
        "{}",
        fault.message
    );
    assert_eq!(read(&["fly"]).unwrap_err().fault().field, None);
}

#[test]
fn a_wish_for_json_is_heard_in_a_line_that_is_wrong() {
    for line in [
        "-o json fly",
        "fly --output=json",
        "-ojson fly",
        "fly --output json",
        "-output json fly",
    ] {
        let line: Vec<_> = line.split(' ').collect();
        assert!(read(&line).unwrap_err().json, "{line:?}");
    }
    assert!(!read(&["fly", "json"]).unwrap_err().json);
}
