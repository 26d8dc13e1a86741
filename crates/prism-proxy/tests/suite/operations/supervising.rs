//! Runners that the proxy starts, with a script in their place. It dials back, so that a start, what was
//! passed, and an end are all events.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use prism_core::backoff::Policy;
use prism_proxy::{
    config::{Manifest, Runner},
    metrics::Metrics,
    supervisor::{Settings, Supervisor},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{TcpListener, TcpStream},
    time::Instant,
};

const LONG: Duration = Duration::from_secs(20);
const QUICK: Settings = Settings {
    pauses: Policy {
        base: Duration::from_millis(40),
        cap: Duration::from_millis(80),
    },
    settled: Duration::from_secs(60),
};

struct Stage {
    listener: TcpListener,
    metrics: Arc<Metrics>,
    runner: Runner,
    _directory: tempfile::TempDir,
}

/// One life of the script.
struct Life {
    said: String,
    connection: BufReader<TcpStream>,
}

impl Stage {
    async fn new(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let executable = directory.path().join("runner");
        // It says that it lives once it is ready for signals.
        let (traps, body) = match body.split_once('\n') {
            Some((traps, body)) if traps.starts_with("trap") => (traps, body),
            _ => ("", body),
        };
        let script = format!(
            "#!/bin/bash\n{traps}\nexec 3<>/dev/tcp/127.0.0.1/{port}\necho \"$* $MARK\" >&3\n{body}\n"
        );
        std::fs::write(&executable, script).unwrap();
        std::fs::set_permissions(&executable, std::fs::Permissions::from_mode(0o755)).unwrap();
        let manifest = Manifest {
            name: "test".into(),
            version: "1".into(),
            executable,
            config_schema: None,
        };
        let env = BTreeMap::from([("MARK".to_owned(), "marked".to_owned())]);
        let runner = Runner {
            manifest,
            count: 1,
            executable: None,
            args: vec!["-v".into()],
            env,
        };
        Self {
            listener,
            metrics: Arc::default(),
            runner,
            _directory: directory,
        }
    }

    fn start(&self) -> Supervisor {
        Supervisor::start(
            std::slice::from_ref(&self.runner),
            "localhost:9090",
            &self.metrics,
            QUICK,
        )
    }

    async fn life(&self) -> Life {
        let (stream, _) = tokio::time::timeout(LONG, self.listener.accept())
            .await
            .expect("a start")
            .unwrap();
        let mut connection = BufReader::new(stream);
        let mut said = String::new();
        connection.read_line(&mut said).await.unwrap();
        Life {
            said: said.trim().to_owned(),
            connection,
        }
    }

    fn restarts(&self) -> u64 {
        let text = self.metrics.encode().unwrap();
        let line = "prism_proxy_runner_restarts_total{pattern=\"test\"} ";
        text.lines()
            .find_map(|found| found.strip_prefix(line))
            .map_or(0, |count| count.parse().unwrap())
    }
}

impl Life {
    /// Waits until the process is gone, and all that it had started.
    async fn ends(mut self) {
        let _ = tokio::time::timeout(LONG, self.connection.read_to_end(&mut Vec::new()))
            .await
            .expect("an end");
    }
}

#[tokio::test]
async fn a_runner_is_told_where_the_proxy_is() {
    let mut stage = Stage::new("exec sleep 60").await;
    stage.runner.count = 2;
    let _supervisor = stage.start();
    for _ in 0..2 {
        assert_eq!(stage.life().await.said, "-proxy-addr localhost:9090 -v marked");
    }
}

#[tokio::test]
async fn a_runner_that_ends_is_started_again_after_a_growing_pause() {
    let stage = Stage::new("exit 1").await;
    let _supervisor = stage.start();
    let began = Instant::now();
    for _ in 0..6 {
        stage.life().await.ends().await;
    }
    // Five pauses of at least half the base.
    assert!(
        began.elapsed() >= QUICK.pauses.base / 2 * 5,
        "{:?}",
        began.elapsed()
    );
    assert!(stage.restarts() >= 5);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_no_reason_to_spin() {
    let mut stage = Stage::new("").await;
    stage.runner.executable = Some("/nonexistent/runner".into());
    let began = Instant::now();
    let supervisor = stage.start();
    while stage.restarts() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() >= QUICK.pauses.base / 2 * 3);
    tokio::time::timeout(LONG, supervisor.stop(Instant::now() + LONG))
        .await
        .unwrap();
}

#[tokio::test]
async fn runners_are_asked_to_end() {
    let stage = Stage::new("trap 'echo bye >&3; exit 0' TERM\nwhile :; do sleep 0.05; done").await;
    let supervisor = stage.start();
    let mut life = stage.life().await;
    assert!(supervisor.stop(Instant::now() + LONG).await);
    let mut said = String::new();
    life.connection.read_to_string(&mut said).await.unwrap();
    assert_eq!((said.trim(), stage.restarts()), ("bye", 0));
}

#[tokio::test]
async fn a_runner_that_does_not_end_is_killed_at_the_deadline() {
    let stage = Stage::new("trap '' TERM\nwhile :; do read -t 0.05 <> <(:); done").await;
    let supervisor = stage.start();
    let life = stage.life().await;
    let began = Instant::now();
    assert!(
        !supervisor.stop(began + Duration::from_millis(200)).await,
        "that was no end in order"
    );
    assert!(began.elapsed() >= Duration::from_millis(200));
    life.ends().await;
}

#[tokio::test]
async fn a_runner_whose_drain_deadline_passed_says_so_by_its_exit_code() {
    let stage = Stage::new("trap 'exit 2' TERM\nwhile :; do sleep 0.05; done").await;
    let supervisor = stage.start();
    let _life = stage.life().await;
    assert!(!supervisor.stop(Instant::now() + LONG).await);
}

#[tokio::test]
async fn runners_do_not_outlive_their_supervisor() {
    let stage = Stage::new("exec sleep 60").await;
    let supervisor = stage.start();
    let life = stage.life().await;
    drop(supervisor);
    life.ends().await;
}

/// A runner that is left without its supervisor reads the end of its standard input. One that holds on to
/// it sees nothing there.
#[tokio::test]
async fn a_runner_can_tell_whether_its_supervisor_lives() {
    let stage = Stage::new("echo $PRISM_SUPERVISED >&3\nread -t 0.3 && exit\n[ $? -gt 128 ] && echo not alone >&3\nexec sleep 60").await;
    let _supervisor = stage.start();
    let mut life = stage.life().await;
    for expected in ["1\n", "not alone\n"] {
        let mut said = String::new();
        tokio::time::timeout(LONG, life.connection.read_line(&mut said))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(said, expected);
    }
}

#[tokio::test]
async fn a_pause_is_not_waited_out_at_the_end() {
    let stage = Stage::new("exit 1").await;
    let slow = Policy {
        base: LONG * 10,
        cap: LONG * 10,
    };
    let settings = Settings {
        pauses: slow,
        ..QUICK
    };
    let supervisor = Supervisor::start(
        std::slice::from_ref(&stage.runner),
        "x:1",
        &stage.metrics,
        settings,
    );
    stage.life().await.ends().await;
    tokio::time::timeout(LONG, supervisor.stop(Instant::now() + LONG))
        .await
        .unwrap();
}
