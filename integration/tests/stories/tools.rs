//! Tools that others wrote, against our ports.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};
use integration::{PATIENCE, System};
use serde_json::{Value, json};

/// A Go tool, where `make deps` puts it.
fn go_tool(name: &str) -> Result<PathBuf> {
    let path = Command::new("go").args(["env", "GOPATH"]).output()?;
    let installed = PathBuf::from(String::from_utf8(path.stdout)?.trim())
        .join("bin")
        .join(name);
    anyhow::ensure!(
        installed.exists(),
        "{} is missing, run `make deps`",
        installed.display()
    );
    Ok(installed)
}

async fn output(name: &str, arguments: &[&str]) -> Result<String> {
    let mut command = tokio::process::Command::new(go_tool(name)?);
    let command = command.args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(30), command).await??;
    let (out, err) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8_lossy(&output.stderr),
    );
    anyhow::ensure!(output.status.success(), "{name} {arguments:?}: {out}{err}");
    Ok(out)
}

#[tokio::test]
async fn grpcurl_finds_and_calls_everything() -> Result<()> {
    let system = System::on_memory().await?;
    let data = system.proxy.data.to_string();
    let services = output("grpcurl", &["-plaintext", &data, "list"]).await?;
    for service in ["grpc.health.v1.Health", "prism.pattern.MulticastRegistryPattern"] {
        assert!(services.contains(service), "{services}");
    }
    let health = output("grpcurl", &["-plaintext", &data, "grpc.health.v1.Health/Check"]).await?;
    assert!(health.contains("SERVING"), "{health}");

    let call = |method: &'static str, body: Value| {
        let (data, body) = (data.clone(), body.to_string());
        async move {
            let method = format!("prism.pattern.MulticastRegistryPattern/{method}");
            let arguments = [
                "-plaintext",
                "-H",
                "x-namespace: test",
                "-d",
                &body,
                &data,
                &method,
            ];
            let answer = output("grpcurl", &arguments).await?;
            serde_json::from_str::<Value>(&answer).context(answer)
        }
    };
    call(
        "Register",
        json!({ "identity": "a", "metadata": { "status": "online" } }),
    )
    .await?;
    let found = call(
        "Enumerate",
        json!({ "filter": { "expression": { "status": "online" } } }),
    )
    .await?;
    assert_eq!(found["identities"][0]["identity"], "a");

    let runner = system.runners[0].data.to_string();
    let services = output("grpcurl", &["-plaintext", &runner, "list"]).await?;
    assert!(
        services.contains("prism.interfaces.LifecycleInterface"),
        "{services}"
    );
    Ok(())
}

#[tokio::test]
async fn ghz_measures_without_an_error() -> Result<()> {
    let system = System::on_memory().await?;
    let arguments = [
        "--insecure",
        "--call",
        "prism.pattern.MulticastRegistryPattern.Enumerate",
        "-d",
        "{}",
        "-m",
        r#"{"x-prism-namespace": "test"}"#,
        "-n",
        "200",
        "-c",
        "4",
        "-O",
        "json",
        &system.proxy.data.to_string(),
    ];
    let measured = output("ghz", &arguments).await?;
    let measured: Value = serde_json::from_str(&measured)?;
    assert_eq!(measured["statusCodeDistribution"], json!({ "OK": 200 }));
    Ok(())
}

/// What a Kubernetes probe asks.
#[tokio::test]
async fn probes_are_answered() -> Result<()> {
    let system = System::on_memory().await?;
    for path in ["/livez", "/readyz", "/healthz"] {
        prism_testkit::eventually(PATIENCE, path, async || {
            system
                .proxy
                .admin(path)
                .await
                .is_ok_and(|(status, _)| status == 200)
        })
        .await;
    }
    let (_, metrics) = system.proxy.admin("/metrics").await?;
    assert!(metrics.contains("# TYPE "), "{metrics}");
    let (status, _) = system.proxy.admin("/nothing").await?;
    assert_eq!(status, 404);
    Ok(())
}
