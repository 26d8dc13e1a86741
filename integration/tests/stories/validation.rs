//! What the runner says of configurations: every one that the specification shows, in both dialects, from
//! files and from the environment.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use integration::Runner;
use prism_client::RegisterRequest;
use prism_testkit::workspace_binary;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

fn fixtures(kind: &str) -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/multicast-registry/fixtures");
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join(kind))? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Runs `multicast-registry-runner config …`: whether it succeeded, and what it wrote.
async fn config(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(bool, String, String)> {
    let mut command = tokio::process::Command::new(workspace_binary("multicast-registry-runner")?);
    command.arg("config").args(arguments).kill_on_drop(true);
    command.envs(environment.iter().copied());
    let output = tokio::time::timeout(PATIENCE, command.output()).await??;
    let (out, err) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    Ok((output.status.success(), out, err))
}

/// What a file says is missing in this version, or that it loads.
#[tokio::test]
async fn the_specifications_configurations_are_judged() -> Result<()> {
    let mut valid = 0;
    for file in fixtures("specification")? {
        let path = file.display().to_string();
        let (success, out, err) = config(&["validate", &path], &[]).await?;
        if success {
            assert!(out.starts_with("valid: "), "{path}: {out}");
            valid += 1;
        } else {
            assert!(
                err.contains(&path) && err.trim().lines().count() == 1,
                "{path}: {err}"
            );
        }
    }
    assert!(valid >= 7, "only {valid} load");
    Ok(())
}

/// A mistake is found without starting anything, and the message says where it is.
#[tokio::test]
async fn mistakes_are_found_before_anything_is_started() -> Result<()> {
    for file in fixtures("refused")? {
        let path = file.display().to_string();
        let (success, out, err) = config(&["validate", &path], &[]).await?;
        assert!(!success && out.is_empty(), "{path}: {out}");
        let placed = err
            .strip_prefix(&format!("{path}:"))
            .with_context(|| err.clone())?;
        let place: Vec<&str> = placed.splitn(3, ':').collect();
        assert!(
            place[0].parse::<u32>().is_ok() && place[1].parse::<u32>().is_ok(),
            "{err}"
        );
    }
    Ok(())
}

/// The canonical form is a configuration, of the same namespace, and its own canonical form.
#[tokio::test]
async fn what_is_printed_can_be_used() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for file in fixtures("specification")? {
        let (success, printed, _) = config(&["print", &file.display().to_string()], &[]).await?;
        if !success {
            continue;
        }
        let copy = directory.path().join("printed.yaml");
        fs::write(&copy, &printed)?;
        let (success, again, err) = config(&["print", &copy.display().to_string()], &[]).await?;
        assert!(success, "{}: {err}", file.display());
        assert_eq!(again, printed, "{}", file.display());
    }
    Ok(())
}

async fn printed(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Value> {
    let mut all = vec!["print"];
    all.extend(arguments);
    let (success, out, err) = config(&all, environment).await?;
    anyhow::ensure!(success, "{err}");
    Ok(serde_saphyr::from_str(&out)?)
}

/// A file that is named wins over the environment; the environment alone makes one namespace.
#[tokio::test]
async fn what_is_more_specific_wins() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (one, two) = (
        directory.path().join("one.yaml"),
        directory.path().join("two.yaml"),
    );
    fs::write(
        &one,
        "name: one\nslots: { registry: memory, messaging: memory }\n",
    )?;
    fs::write(
        &two,
        "name: two\nslots: { registry: memory, messaging: memory }\n",
    )?;
    let (one, two) = (one.display().to_string(), two.display().to_string());
    let name = |tree: &Value| tree["namespaces"][0]["name"].clone();
    let environment = [
        ("REGISTRY_BACKEND", "redis"),
        ("REGISTRY_ADDR", "redis:6379"),
        ("MESSAGING_BACKEND", "nats"),
        ("MESSAGING_SERVERS", "nats://nats:4222"),
        ("NAMESPACE", "three"),
        ("PRISM_CONFIG", ""),
    ];
    let from_environment = printed(&[], &environment).await?;
    assert_eq!(name(&from_environment), "three");
    let slots = &from_environment["namespaces"][0]["slots"];
    assert_eq!(slots["registry"]["config"]["address"], "redis:6379");
    assert_eq!(slots["messaging"]["config"]["servers"][0], "nats://nats:4222");

    let mut with_file = environment.to_vec();
    with_file.retain(|(name, _)| *name != "PRISM_CONFIG");
    with_file.push(("PRISM_CONFIG", &two));
    assert_eq!(
        name(&printed(&[], &with_file).await?),
        "two",
        "a file before the backends' variables"
    );
    assert_eq!(
        name(&printed(&["-config", &one], &with_file).await?),
        "one",
        "a flag before its variable"
    );
    assert_eq!(name(&printed(&[&one, "-config", &two], &with_file).await?), "one");

    let nameless = directory.path().join("nameless.yaml");
    fs::write(&nameless, "slots: { registry: memory, messaging: memory }\n")?;
    let nameless = nameless.display().to_string();
    assert_eq!(
        name(&printed(&[&nameless], &[("NAMESPACE", "four")]).await?),
        "four"
    );
    assert_eq!(
        name(&printed(&[&nameless], &[("NAMESPACE", "")]).await?),
        "default"
    );
    Ok(())
}

/// Both dialects of one file, served.
#[tokio::test]
async fn both_dialects_are_served() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("both.yaml");
    fs::write(
        &file,
        "namespaces:
  - name: slots
    pattern: multicast-registry
    pattern_version: v1
    slots:
      registry: { backend: memstore, interfaces: [KeyValueBasicInterface], config: {} }
      messaging: { driver: memory, interfaces: [PubSubInterface] }
    behavior: { ttl_default: 5m }
  - name: backend-slots
    pattern: multicast_registry
    identity_schema: { status: 'enum[online, offline]' }
    needs: { latency: <10ms, consistency: eventual, durability: ephemeral }
    backend_slots:
      registry: { type: memory, ttl_default: 300 }
      messaging: { type: memory, delivery: at-most-once, topic_prefix: iot.commands. }
",
    )?;
    let runner = Runner::start(&["-config", &file.display().to_string()], &[]).await?;
    runner.ready().await;
    for namespace in ["slots", "backend-slots"] {
        let client = runner.client(namespace)?;
        let registered = client.registry.register(RegisterRequest::new("a")).await?;
        assert!(
            registered.expires_at.is_some(),
            "{namespace} has a lease of five minutes"
        );
    }
    Ok(())
}
