//! A configuration that changes while the proxy runs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use prism_proxy::{Listeners, Proxy, config::Config, metrics::ReloadResult, watch::FileWatch};

const ONE: &str = "listen: {control: '127.0.0.1:0', data: '127.0.0.1:0', admin: '127.0.0.1:0'}\n\
                   namespaces: [{name: one, pattern: mine, slots: {size: 1}}]\n";

struct Stage {
    proxy: Proxy,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Stage {
    async fn start(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.yaml");
        fs::write(&file, text).unwrap();
        let watch = FileWatch::new(&file);
        let config = Config::load(&file).unwrap();
        let listeners = Listeners::bind(&config.listen).await.unwrap();
        let proxy = Proxy::builder(config)
            .follow(Some(watch))
            .start(listeners)
            .await
            .unwrap();
        Self {
            proxy,
            file,
            _directory: directory,
        }
    }

    async fn change(&self, text: &str) -> ReloadResult {
        fs::write(&self.file, text).unwrap();
        self.proxy.reload().await.unwrap()
    }

    /// Names and versions, once there are `count` of them.
    async fn namespaces(&self, count: usize) -> Vec<(String, i64)> {
        let mut watch = self.proxy.control().watch();
        let there = watch.wait_for(|snapshot| snapshot.namespaces.len() == count);
        let snapshot = tokio::time::timeout(Duration::from_secs(20), there)
            .await
            .unwrap()
            .unwrap()
            .clone();
        snapshot
            .namespaces
            .iter()
            .map(|namespace| (namespace.name.clone(), namespace.version))
            .collect()
    }
}

fn names(namespaces: &[(String, i64)]) -> Vec<&str> {
    namespaces.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn a_namespace_comes_and_goes_with_the_file() {
    let stage = Stage::start(ONE).await;
    assert_eq!(names(&stage.namespaces(1).await), ["one"]);
    let two = ONE.replace("namespaces: [", "namespaces: [{name: two, pattern: mine}, ");
    assert_eq!(stage.change(&two).await, ReloadResult::applied);
    assert_eq!(names(&stage.namespaces(2).await), ["one", "two"]);
    assert_eq!(stage.change(ONE).await, ReloadResult::applied);
    assert_eq!(names(&stage.namespaces(1).await), ["one"]);
}

#[tokio::test]
async fn a_changed_file_is_noticed_without_being_asked() {
    let stage = Stage::start(ONE).await;
    let two = ONE.replace("namespaces: [", "namespaces: [{name: two, pattern: mine}, ");
    let beside = stage.file.with_extension("new");
    fs::write(&beside, two).unwrap();
    fs::rename(beside, &stage.file).unwrap();
    assert_eq!(names(&stage.namespaces(2).await), ["one", "two"]);
}

#[tokio::test]
async fn a_version_rises_with_each_change_of_content_and_only_then() {
    let stage = Stage::start(ONE).await;
    let version = |namespaces: Vec<(String, i64)>| namespaces[0].1;
    let first = version(stage.namespaces(1).await);
    assert_eq!(
        stage.change(&format!("# a comment\n{ONE}")).await,
        ReloadResult::unchanged
    );
    assert_eq!(version(stage.namespaces(1).await), first);
    assert_eq!(
        stage.change(&ONE.replace("size: 1", "size: 2")).await,
        ReloadResult::applied
    );
    let mut watch = stage.proxy.control().watch();
    let risen = watch.wait_for(|snapshot| snapshot.namespaces[0].version > first);
    tokio::time::timeout(Duration::from_secs(20), risen)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_wrong_file_changes_nothing() {
    let stage = Stage::start(ONE).await;
    let before = stage.namespaces(1).await;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut tried = 0;
    for fixture in fs::read_dir(&fixtures).unwrap() {
        let fixture = fixture.unwrap().path();
        if fixture.ends_with("good.yaml") || fixture.ends_with("plugin-manifest.yaml") {
            continue;
        }
        fs::copy(
            fixtures.join("plugin-manifest.yaml"),
            stage.file.with_file_name("plugin-manifest.yaml"),
        )
        .unwrap();
        fs::copy(&fixture, &stage.file).unwrap();
        assert_eq!(
            stage.proxy.reload().await,
            Some(ReloadResult::refused),
            "{}",
            fixture.display()
        );
        tried += 1;
    }
    assert!(tried > 10);
    for text in ["", "# nothing yet\n", "namespaces: [{name: one"] {
        assert_eq!(stage.change(text).await, ReloadResult::refused, "{text:?}");
    }
    fs::remove_file(&stage.file).unwrap();
    assert_eq!(stage.proxy.reload().await, Some(ReloadResult::refused));
    assert_eq!(stage.namespaces(1).await, before);
    // And it is not the end: the next good one counts.
    assert_eq!(
        stage.change(&ONE.replace("name: one", "name: other")).await,
        ReloadResult::applied
    );
}

#[tokio::test]
async fn without_a_file_there_is_nothing_to_read_again() {
    let config = Stage::start(ONE).await;
    let config = Config::load(&config.file).unwrap();
    let listeners = Listeners::bind(&config.listen).await.unwrap();
    let proxy = Proxy::builder(config).start(listeners).await.unwrap();
    assert_eq!(proxy.reload().await, None);
}
