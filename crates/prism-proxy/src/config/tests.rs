//! The fixtures: each a slip that somebody will make, and what they are told.

use super::*;

fn fixtures() -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config")
}

fn refusal(fixture: &str) -> String {
    let file = fixtures().join(format!("{fixture}.yaml"));
    let error = Config::load(&file).expect_err(fixture);
    let text = error.to_string();
    text.strip_prefix(&format!("{}:", file.display()))
        .unwrap_or(&text)
        .to_owned()
}

#[test]
fn a_good_file_is_read_whole() {
    let config = Config::load(&fixtures().join("good.yaml")).unwrap();
    assert_eq!(config.listen.control, "127.0.0.1:0");
    assert_eq!(config.listen.admin, ":8981", "what is not said has its default");
    let limits = config.call_limits();
    assert_eq!((limits.message, limits.calls), (1 << 20, 500));
    assert_eq!(limits.bounds.default, Duration::from_secs(5));

    let [runner] = config.runners.as_slice() else {
        panic!("{:?}", config.runners)
    };
    assert_eq!(
        (runner.count, runner.args.as_slice()),
        (2, &["-v".to_owned()][..])
    );
    assert_eq!(runner.manifest.executable, fixtures().join("bin/runner"));

    let [presence, devices] = config.namespaces.as_slice() else {
        panic!("{:?}", config.namespaces)
    };
    assert_eq!(
        (presence.name.as_str(), presence.pattern_version.as_str()),
        ("presence", "v1")
    );
    let keys: Vec<_> = presence.config.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["backend_slots", "identity_schema", "needs"],
        "what is the proxy's own is not passed on"
    );
    assert_eq!(
        (presence.on_move, devices.on_move),
        (OnMove::Refuse, OnMove::Discard)
    );
    assert_eq!(devices.config["behavior"]["max_identities"], 100);
    assert_ne!(presence.digest, devices.digest);
}

#[test]
fn each_slip_is_pointed_at() {
    for (fixture, told) in [
        (
            "unknown-key",
            "2:3: limits.concurent_calls: unknown key `concurent_calls`, did you mean `concurrent_calls`?",
        ),
        (
            "unknown-top-key",
            "2:1: namespace: unknown key `namespace`, did you mean `namespaces`?",
        ),
        (
            "wrong-type",
            "2:10: timeouts.drain: expected a duration like `500ms` or `5s`, or a number of milliseconds, found a list",
        ),
        (
            "out-of-range",
            "3:16: limits.header_size: expected `1KiB` to `64KiB`, found `10` bytes",
        ),
        (
            "default-beyond-longest",
            "2:21: timeouts.default_deadline: expected at most the `longest_deadline` of `300s`",
        ),
        (
            "duplicate-namespace",
            "6:11: namespaces[2].name: the namespace `presence` is declared twice",
        ),
        ("missing-name", "2:5: namespaces[0]: missing key `name`"),
        (
            "misspelt-name",
            "2:5: namespaces[0].nmae: unknown key `nmae`, did you mean `name`?",
        ),
        (
            "bad-name",
            "2:11: namespaces[0].name: `two words` is no name, use 1 to 128 of `a-z A-Z 0-9 - _ .`",
        ),
        (
            "unknown-pattern",
            "4:14: namespaces[0].pattern: no plugin serves the pattern `multicast-registri`, did you mean \
             `multicast-registry`?",
        ),
        (
            "unknown-slot",
            "7:7: namespaces[0].slots.mesaging: unknown key `mesaging`, did you mean `messaging`?",
        ),
        (
            "unknown-slot-key",
            "9:11: namespaces[0].slots.registry.config.adress: unknown key `adress`, did you mean `address`?",
        ),
        (
            "slot-out-of-range",
            "6:47: namespaces[0].slots.registry.config.db: expected at most `15`, found `16`",
        ),
        (
            "unknown-backend",
            "5:33: namespaces[0].slots.registry.backend: expected `redis` or `memstore`, found `redi`, did you mean \
             `redis`?",
        ),
        (
            "missing-slot",
            "5:12: namespaces[0].slots: missing key `registry`",
        ),
        (
            "on-move",
            "4:14: namespaces[0].on_move: unknown value `discrad`, expected `refuse` or `discard`, did you mean \
             `discard`?",
        ),
        (
            "too-many-runners",
            "3:12: runners[0].count: expected `1` to `64` runners, found `1000`",
        ),
    ] {
        assert_eq!(refusal(fixture), told, "{fixture}");
    }
}

#[test]
fn a_manifest_that_is_not_there_is_the_fault_of_the_line_that_names_it() {
    let told = refusal("no-manifest");
    assert!(
        told.starts_with("2:15: runners[0].manifest: the manifest `") && told.ends_with("` is not there"),
        "{told}"
    );
}

#[test]
fn what_is_no_yaml_is_pointed_at_too() {
    let told = refusal("broken");
    assert!(told.starts_with("2:"), "{told}");
}

#[test]
fn without_a_manifest_the_content_of_a_namespace_is_opaque() {
    let source = Source::parse("t", "namespaces: [{name: a, pattern: mine, whatever: {x: 1}}]").unwrap();
    let config = Config::check(&source, FilePath::new(""), &[]).unwrap();
    assert_eq!(config.namespaces[0].config["whatever"]["x"], 1);
}

#[test]
fn where_one_plugin_is_known_the_pattern_need_not_be_said() {
    let source = Source::parse("t", "namespaces: [{name: a, slots: {registry: redis}}]").unwrap();
    let manifest = Manifest::load(&fixtures().join("plugin-manifest.yaml")).unwrap();
    let config = Config::check(&source, FilePath::new(""), std::slice::from_ref(&manifest)).unwrap();
    assert_eq!(config.namespaces[0].pattern, "multicast-registry");
    let two = [
        manifest.clone(),
        Manifest {
            name: "echo".into(),
            ..manifest
        },
    ];
    let error = Config::check(&source, FilePath::new(""), &two).unwrap_err();
    assert_eq!(error.message, "missing key `pattern`");
}

#[test]
fn every_fixture_is_used() {
    let text = include_str!("tests.rs");
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let name = entry
            .unwrap()
            .path()
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            text.contains(&name) || name == "plugin-manifest",
            "{name} is read by no test"
        );
    }
}

#[test]
fn the_defaults_are_a_valid_configuration() {
    let source = Source::parse("t", "").unwrap();
    let config = Config::check(&source, FilePath::new(""), &[]).unwrap();
    assert_eq!(config.call_limits(), Limits::default());
    assert_eq!(config.listen, Listen::default());
}
