//! The program itself: its environment, its time, its help, and what it says of its work.

use std::future::ready;

use crate::support::{against, fake, multicast, program, run};
use prism_client::testing::answers;
use tokio::process::Command;

#[tokio::test]
async fn a_deadline_is_kept() {
    let fake = fake().await;
    fake.on_get(|_| std::future::pending());
    let began = std::time::Instant::now();
    let ran = run(against(&fake).args(["--deadline", "300ms", "multicast", "get", "a"]))
        .await
        .exits(5);
    assert!(ran.stderr.contains("DEADLINE_EXCEEDED"), "{}", ran.stderr);
    assert!(began.elapsed() < crate::support::PATIENCE / 3);
}

#[tokio::test]
async fn nobody_there_is_5_with_a_hint() {
    let endpoint = format!("127.0.0.1:{}", prism_testkit::free_port());
    let ran = run(program().args(["--endpoint", &endpoint, "multicast", "get", "a"]))
        .await
        .exits(5);
    assert!(
        ran.stderr.contains(&endpoint) && ran.stderr.contains("PRISM_ENDPOINT"),
        "{}",
        ran.stderr
    );
}

/// A port that takes no more connections, as behind a firewall that drops them, for as long as what
/// stands beside it lives.
async fn walled_off() -> (std::net::SocketAddr, impl Sized) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let listener = socket.listen(0).unwrap();
    // Whoever comes after the first waits for room.
    let first = tokio::net::TcpStream::connect(address).await.unwrap();
    (address, (listener, first))
}

#[tokio::test]
async fn endpoints_that_do_not_even_connect_cost_the_deadline_together() {
    let (address, _wall) = walled_off().await;
    let endpoints = format!("{address},{address},{address}");
    let line = [
        "--endpoint",
        &endpoints,
        "--deadline",
        "400ms",
        "multicast",
        "get",
        "a",
    ];
    let ran = run(program().args(line)).await.exits(5);
    assert!(ran.stderr.contains("no answer within 400 ms"), "{}", ran.stderr);
    let ran = run(program().args(["--endpoint", &endpoints, "--deadline", "400ms", "check"])).await;
    assert!(ran.exits(5).stdout.contains("cannot be reached"));
}

#[tokio::test]
async fn the_environment_counts_and_the_line_counts_more() {
    let fake = fake().await;
    fake.on_get(|_| ready(Ok(answers::found("a"))));
    let in_env = |command: &mut Command| {
        command
            .env("PRISM_ENDPOINT", fake.endpoint())
            .env("PRISM_NAMESPACE", "from-env");
    };
    let mut command = program();
    in_env(&mut command);
    run(command.args(["multicast", "get", "a"])).await.exits(0);
    let mut command = program();
    in_env(&mut command);
    run(command.args(["-namespace", "said", "multicast", "get", "a"]))
        .await
        .exits(0);
    let mut command = program();
    command
        .env("PRISM_ENDPOINT", fake.endpoint())
        .env("PRISM_NAMESPACE", "");
    run(command.args(["multicast", "get", "a"])).await.exits(0);
    for empty in ["--namespace", "--endpoint"] {
        let mut command = program();
        in_env(&mut command);
        run(command.args([empty, "", "multicast", "get", "a"]))
            .await
            .exits(2);
    }
    let calls = fake.calls();
    let namespaces: Vec<_> = calls
        .iter()
        .map(|call| call.metadata("x-prism-namespace").unwrap())
        .collect();
    assert_eq!(namespaces, ["from-env", "said", "default"]);
}

#[tokio::test]
async fn what_goes_on_is_said_where_it_is_asked_for_and_nowhere_else() {
    let fake = fake().await;
    fake.on_get(|_| ready(Ok(answers::found("a"))));
    let ran = multicast(&fake, &["get", "a"]).await.exits(0);
    assert_eq!(ran.stderr, "");
    let ran = multicast(&fake, &["get", "a", "-v"]).await.exits(0);
    let call = fake.calls().pop().unwrap();
    let trace = call.metadata("traceparent").unwrap().split('-').nth(1).unwrap();
    let told: Vec<serde_json::Value> = ran
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said = |message: &str| told.iter().find(|line| line["message"] == message).unwrap();
    assert_eq!(said("calling")["trace_id"], trace);
    assert_eq!(said("connected")["endpoint"], fake.endpoint());
    assert_eq!(said("answered")["method"], "Get");
}

#[tokio::test]
async fn help_and_completions_need_nobody() {
    let ran = run(program().arg("--help")).await.exits(0);
    for part in [
        "multicast",
        "check",
        "completions",
        "Exit codes",
        "PRISM_ENDPOINT",
    ] {
        assert!(ran.stdout.contains(part), "`{part}` is not in {}", ran.stdout);
    }
    let ran = run(program().args(["multicast", "--help"])).await.exits(0);
    assert!(ran.stdout.contains("Examples:"), "{}", ran.stdout);
    run(program().arg("--version")).await.exits(0);
    run(&mut program()).await.exits(2);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(program().args(["completions", shell])).await.exits(0);
        assert!(ran.stdout.contains("enumerate"), "{shell}");
    }
}

/// As bash asks: the word so far, and the one before it.
#[tokio::test]
async fn bash_completes_commands_options_and_values() {
    let script = run(program().args(["completions", "bash"])).await.exits(0).stdout;
    for (line, expected) in [
        (&["mu"][..], "multicast"),
        (&["multicast", "en"], "enumerate"),
        (&["multicast", "enumerate", "--so"], "--sort"),
        (&["-o", "j"], "json"),
        (&["-o", "json", "check", "--ad"], "--admin"),
        (&["completions", "zs"], "zsh"),
    ] {
        let words = [&["prism-probe"], line].concat().join(" ");
        let before = words.split(' ').nth(line.len() - 1).unwrap();
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={}; _prism__probe prism-probe {} {before}; echo \"${{COMPREPLY[*]}}\"",
            line.len(),
            line.last().unwrap(),
        );
        let mut bash = Command::new("bash");
        let answer = bash.args(["-c", &ask]).output().await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&answer.stdout).trim(),
            expected,
            "{line:?}"
        );
    }
}

#[tokio::test]
async fn nothing_is_coloured_that_is_not_a_terminal() {
    let fake = fake().await;
    fake.on_multicast(|_| ready(Ok(answers::delivered_but_one(&["a"]))));
    let ran = multicast(&fake, &["publish", "--payload", "x"]).await.exits(4);
    assert!(
        !ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'),
        "{ran:?}"
    );
}

/// Whichever of the two is tried first.
#[tokio::test]
async fn an_endpoint_that_does_not_connect_leaves_time_for_another() {
    let (address, _wall) = walled_off().await;
    let fake = fake().await;
    fake.on_get(|_| ready(Ok(answers::found("a"))));
    let endpoints = format!("{address},{}", fake.address());
    let runs = (0..8).map(|_| async {
        let line = [
            "--endpoint",
            &endpoints,
            "--deadline",
            "3s",
            "multicast",
            "get",
            "a",
        ];
        run(program().args(line)).await.exits(0);
    });
    futures::future::join_all(runs).await;
}
