//! Runners that have more to do than they can.

use futures::future::join_all;
use prism_proxy::forward::Limits;
use tonic::Code;

use crate::support::{Client, Proxy, Runner, UNARY};

const ROUNDS: usize = 20;
const AT_ONCE: usize = 20;
const ALL: usize = ROUNDS * AT_ONCE;

async fn busy() -> Runner {
    Runner::failing(8, &[("prism-applied", "no"), ("prism-overloaded", "yes")]).await
}

/// How many of many calls were answered, the others having been refused.
async fn answered(client: &Client) -> usize {
    let mut answered = 0;
    for _ in 0..ROUNDS {
        let calls = (0..AT_ONCE).map(|_| client.unary(UNARY, b"x"));
        for reply in join_all(calls).await {
            let code = reply.grpc().code();
            assert!(matches!(code, Code::Ok | Code::ResourceExhausted), "{code:?}");
            answered += usize::from(code == Code::Ok);
        }
    }
    answered
}

/// Refusing costs a runner, too.
#[tokio::test]
async fn a_runner_that_refuses_is_sent_little() {
    let busy = busy().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&busy]);
    assert_eq!(answered(&proxy.client().await).await, 0);
    assert!(busy.calls() < ALL * 3 / 4, "{} of {ALL}", busy.calls());
    let shed = proxy.counter("prism_proxy_calls_shed_total");
    assert_eq!(shed, (ALL - busy.calls()) as u64);
}

#[tokio::test]
async fn what_a_busy_runner_is_not_sent_another_one_takes() {
    let (busy, idle) = (busy().await, Runner::echo().await);
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&busy, &idle]);
    let answered = answered(&proxy.client().await).await;
    assert_eq!(
        answered,
        ALL - busy.calls(),
        "nothing was refused but by the runner"
    );
    assert!(busy.calls() < ALL / 4, "{} of {ALL}", busy.calls());
}

/// A limit that a caller has reached says nothing of other calls.
#[tokio::test]
async fn other_refusals_hold_nothing_back() {
    let strict = Runner::failing(8, &[("prism-applied", "no")]).await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&strict]);
    assert_eq!(answered(&proxy.client().await).await, 0);
    assert_eq!(strict.calls(), ALL);
}
