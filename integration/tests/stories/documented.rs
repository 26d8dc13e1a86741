//! What the documents say, done.

use std::{collections::BTreeSet, env, fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};
use integration::{Proxy, Runner, http_get, memory_namespace};
use prism_filter::{Document, Filter, Limits, Record};
use prism_testkit::{Process, eventually, workspace_binary};
use serde_json::{Value, json};

/// How long a page's commands may take together.
const PATIENCE: Duration = Duration::from_secs(60);

/// Commands that start what these tests start in their own way, and what only prepares a shell.
const NOT_RUN: [&str; 4] = ["make", "prism-proxy", "export", "docker"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The commands in the `console` blocks of a page.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```console\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines);
    lines.filter_map(|line| line.strip_prefix("$ ")).collect()
}

fn is_run(command: &&str) -> bool {
    let serves = command.starts_with("multicast-registry-runner -");
    !serves && !NOT_RUN.contains(&command.split(' ').next().unwrap_or_default())
}

/// A proxy and a runner that serve these namespaces.
struct Served {
    proxy: Proxy,
    runner: Runner,
}

impl Served {
    async fn start(namespaces: &[Value]) -> Result<Self> {
        let proxy = Proxy::start(namespaces).await?;
        let runner = Runner::under(proxy.control).await?;
        for namespace in namespaces {
            let name = namespace["name"].as_str().context("a namespace without a name")?;
            proxy.wait_for_runners(name, 1).await;
        }
        Ok(Self { proxy, runner })
    }

    /// Runs commands in one shell, as somebody types them who waits for a subscriber to listen.
    async fn run(&self, commands: &[&str], environment: &[(&str, &str)]) -> Result<Vec<String>> {
        let mut script =
            "set -euo pipefail\ncd \"$ROOT\"\ntalk=$(mktemp)\ntrap 'rm -f \"$talk\"' EXIT\n".to_owned();
        for command in commands {
            let command = command
                .replace("localhost:8980", &self.proxy.data.to_string())
                .replace("localhost:8981", &self.proxy.admin.to_string());
            script += &match command.strip_suffix(" &") {
                Some(command) => format!(
                    "{command} 2>\"$talk\" &\nuntil grep -q listening \"$talk\"; do sleep 0.05; done\n"
                ),
                None => format!("{command}\n"),
            };
        }
        script += "kill $(jobs -p) 2>/dev/null || true\n";
        let mut bash = Command::new("bash");
        bash.args(["-c", &script])
            .env("PATH", tools()?)
            .env("ROOT", root());
        bash.env("PRISM_ENDPOINT", self.proxy.data.to_string());
        bash.envs(environment.iter().copied());
        let mut bash = Process::spawn_command(bash)?;
        let status = bash.wait(PATIENCE).await?;
        let (stdout, stderr) = (bash.stdout(), bash.stderr().join("\n"));
        anyhow::ensure!(status.success(), "{script}\n{}\n{stderr}", stdout.join("\n"));
        Ok(stdout)
    }
}

/// Our binaries and those that `make deps` installs, before whatever else there is.
fn tools() -> Result<std::ffi::OsString> {
    let ours = workspace_binary("prism-probe")?;
    let go = Command::new("go").args(["env", "GOPATH"]).output()?;
    let go = PathBuf::from(String::from_utf8(go.stdout)?.trim()).join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let first = [ours.parent().unwrap_or(&ours).to_owned(), go];
    Ok(env::join_paths(first.into_iter().chain(env::split_paths(&path)))?)
}

#[tokio::test]
async fn the_commands_of_the_documents_work() -> Result<()> {
    for name in ["README.md", "docs/operations.md"] {
        let served = Served::start(&[memory_namespace("default"), memory_namespace("device-fleet")]).await?;
        let page = page(name);
        let commands: Vec<_> = commands(&page).into_iter().filter(is_run).collect();
        assert!(commands.len() >= 5, "{name} has only {commands:?}");
        served.run(&commands, &[]).await.context(name)?;
    }
    Ok(())
}

/// Each example begins with a comment that shows its use.
#[tokio::test]
async fn the_commands_of_the_examples_work() -> Result<()> {
    let mut examples = Vec::new();
    for entry in fs::read_dir(root().join("examples"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            examples.push(fs::read_to_string(path)?);
        }
    }
    assert!(examples.len() >= 4);
    for text in examples {
        let mut config: Value = serde_saphyr::from_str(&text)?;
        let namespace = &mut config["namespaces"][0];
        namespace["slots"] = json!({ "registry": "memory", "messaging": "memory", "durability": "memory" });
        let name = namespace["name"].as_str().context("no name")?.to_owned();
        let comments = text.lines().map_while(|line| line.strip_prefix('#'));
        let commands: Vec<_> = comments
            .filter_map(|line| line.strip_prefix("   "))
            .filter(is_run)
            .collect();
        assert!(!commands.is_empty(), "{name} shows nothing");
        let served = Served::start(std::slice::from_ref(namespace)).await?;
        served
            .run(&commands, &[("PRISM_NAMESPACE", &name)])
            .await
            .context(name)?;
    }
    Ok(())
}

/// `make demo-redis-nats` without the build.
#[tokio::test]
async fn the_demo_is_the_same_on_a_real_redis_and_nats() -> Result<()> {
    let binaries = workspace_binary("prism-proxy")?;
    let mut demo = Command::new("bash");
    demo.arg(root().join("scripts/demo.sh")).arg("redis-nats");
    demo.env("PRISM_BINARIES", binaries.parent().unwrap_or(&binaries));
    let mut demo = Process::spawn_command(demo)?;
    let status = demo.wait(PATIENCE).await?;
    let told = demo.stdout().join("\n");
    assert!(status.success(), "{told}\n{}", demo.stderr().join("\n"));
    for part in ["DELIVERED", "NO_SUBSCRIBER", "Hello team!", "Bye!"] {
        assert!(told.contains(part), "`{part}` is missing in\n{told}");
    }
    Ok(())
}

/// The rows of the tables of a page, cell by cell.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
}

/// What stands in backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_reason_has_its_code_and_an_advice() {
    let page = page("docs/operations.md");
    for &reason in prism_client::Reason::ALL {
        let name = reason.as_str();
        let told = rows(&page).find(|row| row.len() == 3 && spans(row[0]).any(|span| span == name));
        let told = told.unwrap_or_else(|| panic!("{name} is not in the table"));
        let code = format!("{:?}", reason.code()).to_lowercase();
        let documented = told[1].trim_matches('`').replace('_', "").to_lowercase();
        assert_eq!(documented, code, "{name}");
        assert!(told[2].len() > 10, "{name} says nothing");
    }
}

#[tokio::test]
async fn the_metrics_of_the_operations_page_are_those_that_are_exported() -> Result<()> {
    let served = Served::start(&[memory_namespace("test")]).await?;
    let registry = served.proxy.client("test")?.registry;
    registry.get("nobody").await.unwrap_err();
    let page_of = async |address| {
        http_get(address, "/metrics")
            .await
            .map(|(_, text)| text)
            .unwrap_or_default()
    };
    // A call is counted after its answer has left.
    eventually(PATIENCE, "the call is counted", async || {
        page_of(served.proxy.admin)
            .await
            .contains("prism_proxy_calls_total{")
    })
    .await;
    // The one that shows only once it has counted something.
    let mut exported = BTreeSet::from(["prism_proxy_runner_restarts".to_owned()]);
    for address in [served.proxy.admin, served.runner.health] {
        let text = page_of(address).await;
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        exported.extend(names.filter_map(|line| line.split(' ').next()).map(base_name));
    }
    let page = page("docs/operations.md");
    let documented: BTreeSet<String> = rows(&page)
        .flat_map(|row| spans(row[0]).map(str::to_owned).collect::<Vec<_>>())
        .filter(|span| span.starts_with("prism_proxy_") || span.starts_with("multicast_registry_"))
        .map(|span| base_name(&span))
        .collect();
    assert_eq!(exported, documented);
    Ok(())
}

/// The text formats differ in whether a counter's type is that of the name with `_total`.
fn base_name(name: &str) -> String {
    name.trim_end_matches("_total").to_owned()
}

/// Less than two minutes after the record of the filter page was last seen.
const NOW: i64 = 1_750_000_000_000;

struct Sample(Document);

impl Record for Sample {
    fn identity(&self) -> &str {
        "user-7"
    }

    fn registered_at(&self) -> i64 {
        NOW
    }

    fn updated_at(&self) -> i64 {
        self.registered_at()
    }

    fn expires_at(&self) -> Option<i64> {
        None
    }

    fn document(&self) -> &Document {
        &self.0
    }
}

/// Every filter on the page matches the record on the page, but for the one that is shown as a mistake.
#[test]
fn the_filters_of_the_filter_page_match_its_record() -> Result<()> {
    let page = page("docs/filters.md");
    let record = page
        .split("```")
        .nth(1)
        .and_then(|block| block.strip_prefix("json\n"));
    let record = Sample(Document::from_json(record.context("no record")?.as_bytes())?);
    let limits = Limits::default();
    let (mut matching, mut refused) = (0, Vec::new());
    for text in page
        .replacen("```", "", 2)
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|span| span.starts_with('{'))
    {
        match Filter::parse_str(text, &limits).and_then(|filter| filter.compile_at(NOW, &limits)) {
            Ok(filter) => {
                assert!(filter.matches(&record), "{text} does not match");
                matching += 1;
            }
            Err(error) => refused.push(error.clause().to_owned()),
        }
    }
    assert!(matching >= 28, "only {matching} filters");
    assert_eq!(refused, ["$or[0].battery"]);
    Ok(())
}

/// Behaviour that the operations page shows is behaviour that can be configured.
#[test]
fn the_behaviour_of_the_operations_page_loads() -> Result<()> {
    let page = page("docs/operations.md");
    let blocks = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let mut loaded = 0;
    for block in blocks.filter(|block| block.starts_with("behavior:")) {
        let mut namespace = memory_namespace("test");
        let written: Value = serde_saphyr::from_str(block)?;
        namespace["behavior"] = written["behavior"].clone();
        multicast_registry::config::Namespace::read(None, &namespace)?;
        loaded += 1;
    }
    assert_eq!(loaded, 1);
    Ok(())
}

/// What the deployment starts understands the options that it is given.
#[tokio::test]
async fn the_command_lines_of_the_deployment_are_understood() -> Result<()> {
    let compose: Value = serde_saphyr::from_str(&page("deploy/compose.yaml"))?;
    let containerfile = page("deploy/Containerfile");
    let default = containerfile.lines().find_map(|line| line.strip_prefix("CMD "));
    let lines = [
        serde_json::from_str(default.context("no command")?)?,
        compose["services"]["runner"]["command"].clone(),
        compose["services"]["proxy"]["healthcheck"]["test"].clone(),
    ];
    for line in lines {
        let words: Vec<String> = serde_json::from_value(line)?;
        let mut words = words.iter().map(String::as_str).filter(|word| *word != "CMD");
        let binary = words.next().context("an empty command")?;
        let arguments: Vec<_> = words.chain(["--help"]).collect();
        let mut process = Process::spawn(binary, &arguments, &[])?;
        let status = process.wait(PATIENCE).await?;
        assert!(status.success(), "{binary} {arguments:?}: {:?}", process.stderr());
        // A wrong option that begins with `-h` would be a request for help too.
        let help = process.stdout().join("\n");
        for option in arguments.iter().filter(|argument| argument.starts_with('-')) {
            let long = format!("--{} ", option.trim_start_matches('-'));
            assert!(
                format!("{help} ").replace('\n', " ").contains(&long),
                "{binary} has no {long}"
            );
        }
    }
    Ok(())
}
