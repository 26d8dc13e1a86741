//! Finding devices by what their metadata says, and finding out why: as somebody does on the command line,
//! through the proxy, on real backends.

use anyhow::{Context, Result};
use integration::{PATIENCE, Proxy, Runner, shared_namespace};
use prism_client::RegisterRequest;
use prism_testkit::{NatsServer, RedisServer, workspace_binary};
use serde_json::{Value, json};
use tokio::process::Command;

/// The fleet of these stories.
struct Fleet {
    proxy: Proxy,
    _runner: Runner,
    _redis: RedisServer,
    _nats: NatsServer,
}

impl Fleet {
    /// Six devices, of which versions, places and statuses are indexed.
    async fn start() -> Result<Self> {
        let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
        let mut namespace = shared_namespace("test", &redis, &nats);
        namespace["identity_schema"] = json!({ "fields": {
            "firmware": { "type": "string", "index": true },
            "location": { "type": "geo_point", "index": true },
            "status": { "type": "enum", "values": ["online", "offline"], "index": true },
            "seen": "timestamp",
        } });
        let proxy = Proxy::start(&[namespace]).await?;
        let runner = Runner::under(proxy.control).await?;
        proxy.wait_for_runners("test", 1).await;
        let fleet = Self {
            proxy,
            _runner: runner,
            _redis: redis,
            _nats: nats,
        };
        fleet.register().await?;
        Ok(fleet)
    }

    async fn register(&self) -> Result<()> {
        let now = jiff::Timestamp::now();
        let ago = |minutes: i64| now - jiff::SignedDuration::from_mins(minutes);
        let devices = [
            (
                "a",
                json!({ "firmware": "1.9.0", "address": "10.1.2.3", "seen": ago(1).as_millisecond() }),
            ),
            (
                "b",
                json!({ "firmware": "1.10.0-rc.1", "address": "::ffff:10.200.0.1", "seen": ago(2).to_string() }),
            ),
            (
                "c",
                json!({ "firmware": "1.10.0+build.7", "address": "192.168.0.9", "seen": ago(90).to_string() }),
            ),
            (
                "d",
                json!({ "firmware": "unknown", "address": "2001:db8::7", "seen": ago(90).as_millisecond() }),
            ),
        ];
        let places = [(52.52, 13.405), (52.4, 13.06), (-17.8, 179.9), (-17.0, -179.9)];
        let client = self.proxy.client("test")?;
        for ((name, mut metadata), (lat, lon)) in devices.into_iter().zip(places) {
            metadata["location"] = json!({ "lat": lat, "lon": lon });
            metadata["status"] = json!(if name == "d" { "offline" } else { "online" });
            let request = RegisterRequest {
                metadata,
                ..RegisterRequest::new(name)
            };
            client.registry.register(request).await?;
        }
        client.registry.register(RegisterRequest::new("empty")).await?;
        Ok(())
    }

    /// What `prism-probe multicast …` says, which must succeed.
    async fn probe(&self, format: &str, line: &[&str]) -> Result<String> {
        let (code, stdout, stderr) = self.run(format, line).await?;
        anyhow::ensure!(code == Some(0), "{line:?} ended with {code:?}: {stderr}");
        Ok(stdout)
    }

    async fn run(&self, format: &str, line: &[&str]) -> Result<(Option<i32>, String, String)> {
        let endpoint = self.proxy.data.to_string();
        let mut arguments = vec![
            "--endpoint",
            &endpoint,
            "--namespace",
            "test",
            "-o",
            format,
            "multicast",
        ];
        arguments.extend(line);
        let mut probe = Command::new(workspace_binary("prism-probe")?);
        probe.args(&arguments).env_remove("RUST_LOG").kill_on_drop(true);
        let ended = tokio::time::timeout(PATIENCE, probe.output()).await??;
        let text = |bytes| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
        Ok((
            ended.status.code(),
            text(&ended.stdout) + "\n",
            text(&ended.stderr),
        ))
    }

    /// Who matches, in one word.
    async fn names(&self, filter: &Value) -> Result<String> {
        let names = self
            .probe("name", &["enumerate", "--filter", &filter.to_string()])
            .await?;
        Ok(names.replace('\n', ""))
    }

    async fn explain(&self, filter: &Value, identity: &[&str]) -> Result<Value> {
        let filter = filter.to_string();
        let line = [&["explain", "--filter", &filter], identity].concat();
        let told = self.probe("json", &line).await?;
        serde_json::from_str(&told).context(told)
    }
}

#[tokio::test]
async fn devices_are_found_by_version_place_network_and_time() -> Result<()> {
    let fleet = Fleet::start().await?;
    let berlin = json!({ "lat": 52.5, "lon": 13.4, "radius_m": 10_000 });
    let fiji = json!({ "south": -19, "west": 177, "north": -16, "east": -178 });
    for (filter, expected) in [
        (json!({ "firmware.semver.gte": "1.10.0" }), "c"),
        (
            json!({ "firmware": { "$semver.gt": "1.9.0", "$semver.lt": "1.10.0" } }),
            "b",
        ),
        (json!({ "firmware.semver.eq": "1.10.0" }), "c"),
        (json!({ "$not": { "firmware.semver.lte": "1.10.0" } }), "dempty"),
        (json!({ "location.within": berlin }), "a"),
        (json!({ "location": { "$within": fiji } }), "cd"),
        (
            json!({ "location.within": { "lat": -17.4, "lon": 180, "radius_m": 60_000 } }),
            "cd",
        ),
        (json!({ "address.cidr": "10.0.0.0/8" }), "ab"),
        (json!({ "address.cidr": "2001:db8::/32" }), "d"),
        (json!({ "address.cidr": "::/0" }), "d"),
        (json!({ "seen.gt": "now-1h" }), "ab"),
        (json!({ "seen": { "$gte": "now-2h", "$lt": "now-30m" } }), "cd"),
        (
            json!({ "$registered_at.gt": "now-5m", "seen.lt": "now-5m" }),
            "cd",
        ),
        (json!({ "$registered_at.gt": "now+1h" }), ""),
        (
            json!({ "firmware.semver.gte": "1.0.0", "location.within": fiji, "seen.lt": "now" }),
            "c",
        ),
    ] {
        assert_eq!(fleet.names(&filter).await?, expected, "{filter}");
    }
    Ok(())
}

/// Every page is of the same moment, wherever `now` has got to.
#[tokio::test]
async fn pages_are_of_one_moment() -> Result<()> {
    let fleet = Fleet::start().await?;
    let filter = json!({ "seen.lt": "now" }).to_string();
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut line = vec!["enumerate", "--filter", &filter, "--limit", "1"];
        line.extend(
            (!cursor.is_empty())
                .then_some(["--cursor", &cursor])
                .into_iter()
                .flatten(),
        );
        let page: Value = serde_json::from_str(&fleet.probe("json", &line).await?)?;
        names.push(
            page["identities"][0]["identity"]
                .as_str()
                .context("nobody")?
                .to_owned(),
        );
        assert_eq!(page["total_count"], "4");
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c", "d"]);
    Ok(())
}

#[tokio::test]
async fn mistakes_are_found_before_anybody_is_asked() -> Result<()> {
    let fleet = Fleet::start().await?;
    for (filter, part) in [
        (json!({ "firmware.semver.gte": "1.10" }), "such as `1.2.0`"),
        (json!({ "firmware.semver.ne": "1.10.0" }), "negated by `$not`"),
        (
            json!({ "address.cidr": "10.1.0.0/8" }),
            "no bit set beyond its prefix",
        ),
        (
            json!({ "location.within": { "lat": 1, "lon": 2, "radius": 3 } }),
            "`radius`",
        ),
        (json!({ "seen.gt": "now-5min" }), "`now-5m`"),
    ] {
        let (code, _, stderr) = fleet
            .run("table", &["enumerate", "--filter", &filter.to_string()])
            .await?;
        assert_eq!(code, Some(2), "{filter}: {stderr}");
        assert!(stderr.contains(part), "{filter}: {stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn an_operator_sees_how_a_filter_is_answered() -> Result<()> {
    let fleet = Fleet::start().await?;
    let filter = json!({ "firmware.semver.gte": "1.9.0", "status": "online", "address.cidr": "10.0.0.0/8" });
    let told = fleet.explain(&filter, &[]).await?;
    let plan = &told["plan"];
    assert_eq!(
        plan["indexes"].as_array().context("no indexes")?.len(),
        1,
        "{told}"
    );
    assert_eq!(
        (&plan["unindexed"], &plan["exact"]),
        (&json!(["address"]), &json!(false)),
        "{told}"
    );
    assert!(plan["residual"].to_string().contains("address cidr"), "{told}");
    assert_eq!(
        (&plan["match_count"], &plan["registered_count"]),
        (&json!("2"), &json!("5")),
        "{told}"
    );
    assert_eq!(plan["asked_count"], plan["candidate_count"], "{told}");

    let told = fleet
        .explain(
            &json!({ "location.within": { "lat": 52.5, "lon": 13.4, "radius_m": 50_000 } }),
            &[],
        )
        .await?;
    assert_eq!(told["plan"]["steps"], "index(location within)", "{told}");
    assert_eq!(
        (&told["plan"]["candidate_count"], &told["plan"]["match_count"]),
        (&json!("2"), &json!("2")),
        "{told}"
    );
    let told = fleet.explain(&json!({ "status": "offline" }), &[]).await?;
    assert_eq!(
        (&told["plan"]["exact"], &told["plan"]["asked_count"]),
        (&json!(true), &json!("0")),
        "{told}"
    );

    let table = fleet.probe("table", &["explain"]).await?;
    assert!(table.starts_with("PLAN        every registration\n"), "{table}");
    assert!(table.contains("MATCHES     5\n"), "{table}");
    Ok(())
}

#[tokio::test]
async fn an_operator_sees_why_a_device_is_not_found() -> Result<()> {
    let fleet = Fleet::start().await?;
    let filter = json!({ "firmware.semver.gte": "1.10.0", "seen.gt": "now-1h", "$or": [{ "zone": "a" }, { "status": "online" }] });
    for name in ["a", "b", "c", "d", "empty"] {
        let told = fleet.explain(&filter, &[name]).await?;
        let listed = fleet.names(&filter).await?.contains(name);
        assert_eq!(told["why"]["matches"], listed, "{name}: {told}");
    }
    let line = ["explain", "--filter", &filter.to_string(), "c"];
    let table = fleet.probe("table", &line).await?;
    for row in [
        "MATCHES   no",
        "yes      firmware semver.gte",
        "no       seen gt",
        "no         zone eq",
        "yes        status eq",
    ] {
        assert!(table.contains(row), "`{row}` is not in\n{table}");
    }
    assert!(table.contains("1.10.0+build.7"), "{table}");
    let (code, _, stderr) = fleet.run("table", &["explain", "nobody"]).await?;
    assert_eq!(code, Some(3), "{stderr}");
    Ok(())
}
