//! What operators see and do: metrics, probes, configurations that change, processes that come back.

use std::{collections::BTreeMap, os::unix::fs::symlink};

use anyhow::{Context, Result, bail, ensure};
use integration::{PATIENCE, Proxy, Runner, START_LIMIT, System, http_get, memory_namespace};
use prism_client::RegisterRequest;
use prism_testkit::{Process, Signal, eventually, eventually_some};
use serde_json::{Value, json};
use tonic::codegen::http;

/// A page of metrics, read as strictly as its format is written down: name, kind, and samples.
#[derive(Debug, Default)]
struct Page {
    kinds: BTreeMap<String, String>,
    samples: Vec<(String, String, f64)>,
}

impl Page {
    fn read(text: &str) -> Result<Self> {
        let mut page = Self::default();
        for line in text.lines() {
            page.line(line).with_context(|| format!("`{line}`"))?;
        }
        ensure!(text.ends_with('\n'), "the last line has no end");
        page.check()?;
        Ok(page)
    }

    fn line(&mut self, line: &str) -> Result<()> {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').context("no kind")?;
            ensure!(
                ["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind),
                "no such kind"
            );
            ensure!(
                self.kinds.insert(name.into(), kind.into()).is_none(),
                "declared twice"
            );
            return Ok(());
        }
        if line.starts_with('#') {
            ensure!(line.starts_with("# HELP "), "no such comment");
            return Ok(());
        }
        let (series, value) = line.rsplit_once(' ').context("no value")?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').context("labels without an end")?),
            None => (series, ""),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        ensure!(
            name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()),
            "no name"
        );
        check_labels(labels)?;
        self.samples
            .push((name.to_owned(), labels.to_owned(), value.parse()?));
        Ok(())
    }

    /// Every sample belongs to a metric that was declared, each only once.
    fn check(&self) -> Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        for (name, labels, _) in &self.samples {
            ensure!(
                seen.insert((name, labels)),
                "{name}{{{labels}}} stands there twice"
            );
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                let family = name.strip_suffix(suffix)?;
                (self.kinds.get(family)? == "histogram").then_some(family)
            });
            ensure!(
                family.is_some() || self.kinds.contains_key(name),
                "{name} was not declared"
            );
        }
        Ok(())
    }

    fn value(&self, name: &str, labels: &str) -> Option<f64> {
        let found = self
            .samples
            .iter()
            .find(|sample| sample.0 == name && sample.1 == labels);
        found.map(|sample| sample.2)
    }
}

/// `name="value",…` with nothing unescaped in a value.
fn check_labels(mut labels: &str) -> Result<()> {
    while !labels.is_empty() {
        let (name, rest) = labels.split_once("=\"").context("a label without a value")?;
        ensure!(
            name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "no label: {name}"
        );
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let rest = &rest[end.context("a value without an end")? + 1..];
        labels = match rest.strip_prefix(',') {
            Some(more) => more,
            None if rest.is_empty() => rest,
            None => bail!("`{rest}` after a label"),
        };
    }
    Ok(())
}

#[tokio::test]
async fn metrics_are_what_scrapers_read() -> Result<()> {
    let system = System::on_memory().await?;
    let client = system.client()?;
    client.registry.register(RegisterRequest::new("a")).await?;
    assert!(client.registry.get("nobody").await.is_err());
    let method = |method: &str, code: &str| {
        format!(
            "namespace=\"test\",method=\"prism.pattern.MulticastRegistryPattern/{method}\",code=\"{code}\""
        )
    };
    let is_counted = |page: &Page| {
        let once = |labels: String| page.value("prism_proxy_calls_total", &labels) == Some(1.0);
        once(method("Register", "OK")) && once(method("Get", "NOT_FOUND"))
    };
    // A call is counted once its last trailer is out, when the client may have it already.
    let page = eventually_some(PATIENCE, "both calls are counted", async || {
        let (status, text) = system.proxy.admin("/metrics").await.ok()?;
        assert_eq!(status, 200);
        Page::read(&text).ok().filter(is_counted)
    })
    .await;
    assert_eq!(page.kinds["prism_proxy_calls_total"], "counter");
    assert_eq!(page.kinds["prism_proxy_call_duration_seconds"], "histogram");
    assert_eq!(page.value("prism_proxy_runners_connected", ""), Some(1.0));
    assert_eq!(
        page.value("prism_proxy_namespace_targets", "namespace=\"test\""),
        Some(1.0)
    );

    let (_, text) = http_get(system.runners[0].health, "/metrics").await?;
    let page = Page::read(&text)?;
    assert_eq!(page.kinds["multicast_registry_ttl_expiration_total"], "counter");
    assert_eq!(page.kinds["multicast_registry_registered_identities"], "gauge");
    Ok(())
}

#[tokio::test]
async fn pages_say_what_serves_what() -> Result<()> {
    let proxy = Proxy::start(&[memory_namespace("served"), memory_namespace("other")]).await?;
    let (_, before) = proxy.admin("/readyz?verbose").await?;
    assert!(before.contains("[i] namespace served has no runner"), "{before}");
    let runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("served", 1).await;
    proxy.wait_for_runners("other", 1).await;
    let (status, ready) = proxy.admin("/readyz?verbose").await?;
    assert_eq!(status, 200);
    for line in [
        "[+] listening ok",
        "[+] not-draining ok",
        "[i] namespace served served by 1 runners",
    ] {
        assert!(ready.contains(line), "{line} is missing in {ready}");
    }
    for (page, expected) in [("/livez", 200), ("/healthz", 200), ("/nowhere", 404)] {
        assert_eq!(proxy.admin(page).await?.0, expected, "{page}");
    }
    let namespaces = proxy.admin_json("/api/v1/namespaces").await?;
    let runners = proxy.admin_json("/api/v1/runners").await?;
    let listed = &runners["runners"][0];
    assert_eq!(listed["pattern"], "multicast-registry");
    assert_eq!(listed["process_id"], runner.process.pid());
    assert_eq!(listed["data_endpoint"], runner.data.to_string());
    assert_eq!(
        (&listed["connected"], &listed["foreign"]),
        (&json!(true), &json!(false))
    );
    for namespace in namespaces["namespaces"].as_array().context("a list")? {
        assert_eq!(namespace["standing"], "served", "{namespace}");
        assert_eq!(namespace["scope"], "process", "{namespace}");
        assert_eq!(
            namespace["serving"],
            json!([listed["instance_id"]]),
            "{namespace}"
        );
    }
    Ok(())
}

fn yaml(names: &[&str]) -> Result<String> {
    let namespaces: Vec<Value> = names.iter().map(|name| memory_namespace(name)).collect();
    Ok(serde_saphyr::to_string(&json!({ "namespaces": namespaces }))?)
}

async fn until_configured(proxy: &Proxy, names: &[&str]) {
    let what = format!("{names:?} are configured");
    eventually(PATIENCE, &what, async || {
        let listed = proxy.admin_json("/api/v1/namespaces").await.unwrap_or_default();
        let listed = listed["namespaces"].as_array().cloned().unwrap_or_default();
        listed.iter().map(|namespace| &namespace["name"]).eq(names.iter())
    })
    .await;
}

/// A configuration map of Kubernetes: the file is a link into a directory that is itself a link, and an
/// update swaps the latter.
#[tokio::test]
async fn a_configuration_is_followed_however_it_is_written() -> Result<()> {
    let proxy = Proxy::start(&[memory_namespace("a")]).await?;
    until_configured(&proxy, &["a"]).await;
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    for (version, names) in [("v1", &["a", "b"][..]), ("v2", &["b", "c"])] {
        std::fs::create_dir(at(version))?;
        std::fs::write(at(version).join("prism.yaml"), yaml(names)?)?;
    }
    symlink("v1", at("..data"))?;
    symlink(at("..data").join("prism.yaml"), at("link"))?;
    // A file becomes a link, the link's directory is swapped, and a file takes its place again.
    std::fs::rename(at("link"), &proxy.config)?;
    until_configured(&proxy, &["a", "b"]).await;
    symlink("v2", at("..next"))?;
    std::fs::rename(at("..next"), at("..data"))?;
    until_configured(&proxy, &["b", "c"]).await;
    std::fs::write(at("file"), yaml(&["d"])?)?;
    std::fs::rename(at("file"), &proxy.config)?;
    until_configured(&proxy, &["d"]).await;
    // Written in place, as by an editor that keeps the file, and half of it first.
    let text = yaml(&["d", "e"])?;
    std::fs::write(&proxy.config, &text[..text.len() / 2])?;
    std::fs::write(&proxy.config, &text)?;
    until_configured(&proxy, &["d", "e"]).await;
    Ok(())
}

/// Also a file that has not changed, which nobody would look at by himself.
#[tokio::test]
async fn a_hangup_makes_the_proxy_read_its_file() -> Result<()> {
    let mut proxy = Proxy::start(&[memory_namespace("a")]).await?;
    proxy.process.signal(Signal::HUP)?;
    proxy
        .process
        .stderr_line("the configuration was read again", PATIENCE)
        .await?;
    let reloads = async |result: &str| {
        let (_, metrics) = proxy.admin("/metrics").await.ok()?;
        let label = format!("result=\"{result}\"");
        Page::read(&metrics)
            .ok()?
            .value("prism_proxy_config_reloads_total", &label)
    };
    eventually(PATIENCE, "it is counted", async || {
        reloads("unchanged").await == Some(1.0)
    })
    .await;
    std::fs::write(&proxy.config, yaml(&["a", "b"])?)?;
    until_configured(&proxy, &["a", "b"]).await;
    eventually(PATIENCE, "it is counted", async || {
        reloads("applied").await == Some(1.0)
    })
    .await;
    Ok(())
}

/// What a runner has refused it is not asked again, also not by a proxy that remembers nothing.
#[tokio::test]
async fn a_restarted_proxy_does_not_push_what_was_refused() -> Result<()> {
    let system = System::on_memory().await?;
    let client = system.client()?;
    client.registry.register(RegisterRequest::new("a")).await?;
    let mut refused = memory_namespace("test");
    refused["slots"]["registry"] = json!({ "backend": "memory", "interfaces": ["QueueInterface"] });
    system.proxy.configure(&[refused.clone()])?;
    let runner = &system.runners[0].process;
    runner.stderr_line("configuration refused", PATIENCE).await?;

    let proxy = system.proxy.restart().await?;
    proxy.wait_for_runners("test", 1).await;
    eventually(START_LIMIT, "the runner is back", async || {
        client.registry.get("a").await.is_ok()
    })
    .await;
    let listed = proxy.admin_json("/api/v1/runners").await?;
    let namespace = &listed["runners"][0]["namespaces"][0];
    assert_eq!(namespace["role"], "serving", "the last good one serves: {listed}");
    assert!(
        namespace["rejected_digest"].is_string(),
        "the runner has told: {listed}"
    );

    // Another content is pushed, and taken.
    let mut better = memory_namespace("test");
    better["behavior"] = json!({ "max_identities": 7 });
    proxy.configure(&[better])?;
    eventually(PATIENCE, "the better one is taken", async || {
        let listed = proxy.admin_json("/api/v1/runners").await.unwrap_or_default();
        listed["runners"][0]["namespaces"][0]["error"].is_null()
    })
    .await;
    let said = runner.stderr();
    let refusals = said
        .iter()
        .filter(|line| line.contains("configuration refused"))
        .count();
    assert_eq!(refusals, 1, "it was asked again");
    assert!(client.registry.get("a").await.is_ok());
    Ok(())
}

#[tokio::test]
async fn each_port_that_is_taken_is_named() -> Result<()> {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let taken = taken.local_addr()?.to_string();
    for port in ["--control-addr", "--data-addr", "--admin-addr"] {
        let mut arguments = vec![port, &taken];
        for other in ["--control-addr", "--data-addr", "--admin-addr"] {
            if other != port {
                arguments.extend([other, "127.0.0.1:0"]);
            }
        }
        let mut process = Process::spawn("prism-proxy", &arguments, &[])?;
        assert_eq!(process.wait(START_LIMIT).await?.code(), Some(1), "{port}");
        let said = process
            .stderr_line(&format!("cannot listen on `{taken}`"), PATIENCE)
            .await?;
        assert!(
            said.contains("in use") && process.stdout().is_empty(),
            "{port}: {said}"
        );
    }
    Ok(())
}

/// The first signal means in order, a second means now.
#[tokio::test]
async fn a_runner_told_twice_ends_at_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("one.yaml");
    std::fs::write(&file, "slots: { registry: memory, messaging: memory }\n")?;
    let mut runner = Runner::start(
        &["-config", &file.display().to_string()],
        &[("NAMESPACE", "solo")],
    )
    .await?;
    runner.ready().await;
    // A call whose request never comes to its end holds the first end up.
    let stream = tokio::net::TcpStream::connect(runner.data).await?;
    let (send, connection) = h2::client::handshake(stream).await?;
    let _connection = tokio::spawn(connection);
    let request = http::Request::post("http://runner/prism.pattern.MulticastRegistryPattern/Register")
        .header("content-type", "application/grpc")
        .header("x-prism-namespace", "solo")
        .body(())?;
    let _call = send.ready().await?.send_request(request, false)?;
    runner
        .client("solo")?
        .registry
        .register(RegisterRequest::new("so that it has arrived"))
        .await?;

    runner.process.signal(Signal::TERM)?;
    runner.process.stderr_line("draining", PATIENCE).await?;
    runner.process.signal(Signal::INT)?;
    let status = runner.process.wait(PATIENCE).await?;
    assert_eq!(status.code(), Some(2), "{:?}", runner.process.stderr());
    runner.process.stderr_line("a second time", PATIENCE).await?;
    Ok(())
}
