//! Runners that have more to do than they can.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures::future::join_all;
use prism_proxy::forward::Limits;
use tonic::Code;

use crate::data::support::{Client, Proxy, Runner, UNARY};

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

/// What was held back was no attempt.
#[tokio::test]
async fn beside_a_busy_runner_another_one_is_asked_twice() {
    let busy = busy().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&busy]);
    let client = proxy.client().await;
    assert_eq!(answered(&client).await, 0);

    let turns = Arc::new(AtomicUsize::new(0));
    let restless = Runner::start(move |mut exchange| {
        let refuses = turns.fetch_add(1, SeqCst).is_multiple_of(2);
        async move {
            match refuses {
                true => exchange.respond.send_reset(h2::Reason::REFUSED_STREAM),
                false => exchange.echo().await,
            }
        }
    })
    .await;
    proxy.serve_beside(restless.address);
    let mut answered = 0;
    for _ in 0..50 {
        let reply = client.unary(UNARY, b"x").await;
        let code = reply.grpc().code();
        answered += usize::from(code == Code::Ok);
        assert!(matches!(code, Code::Ok | Code::ResourceExhausted), "{reply:?}");
    }
    assert!(answered > 25, "{answered} of 50");
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
