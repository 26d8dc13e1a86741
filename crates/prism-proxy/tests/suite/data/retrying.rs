//! When a call is sent a second time, and when it must not be.

use std::time::Duration;

use bytes::Bytes;
use prism_proxy::forward::Limits;
use tonic::Code;

use crate::data::support::{Client, Proxy, Reply, Runner, STREAM, UNARY, message, nobody, runner, soon};

async fn proxy_before(runners: &[&Runner]) -> (Proxy, Client) {
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(runners);
    let client = proxy.client().await;
    (proxy, client)
}

fn retries(proxy: &Proxy, cause: &str) -> u64 {
    proxy.counter(&format!("prism_proxy_retries_total{{cause=\"{cause}\"}}"))
}

/// Calls until the runner that fails has been hit once, and says what came of that call.
async fn call_until_hit(client: &Client, failing: &Runner) -> Reply {
    soon(async {
        loop {
            let reply = client.unary(UNARY, b"x").await;
            if failing.calls() > 0 {
                return reply;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_runner_that_cannot_be_reached_is_passed_over() {
    let works = Runner::echo().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve_at([nobody().await, works.address], &[]);
    let client = proxy.client().await;
    for _ in 0..20 {
        assert_eq!(client.unary(UNARY, b"x").await.grpc().code(), Code::Ok);
    }
    assert!(
        retries(&proxy, "unsent") > 0,
        "twenty draws of two that all missed the one that is not there"
    );
}

#[tokio::test]
async fn a_refused_stream_goes_to_another_runner() {
    let (refuses, works) = (Runner::refusing().await, Runner::echo().await);
    let (proxy, client) = proxy_before(&[&refuses, &works]).await;
    assert_eq!(call_until_hit(&client, &refuses).await.grpc().code(), Code::Ok);
    assert_eq!(retries(&proxy, "unsent"), 1);
}

#[tokio::test]
async fn a_stream_above_the_goaway_goes_to_another_runner() {
    let (leaves, works) = (Runner::leaving().await, Runner::echo().await);
    let (proxy, client) = proxy_before(&[&leaves, &works]).await;
    assert_eq!(call_until_hit(&client, &leaves).await.grpc().code(), Code::Ok);
    assert_eq!(retries(&proxy, "unsent"), 1);
}

#[tokio::test]
async fn a_stream_below_the_goaway_may_have_been_applied() {
    let (leaves, works) = (Runner::leaving_midway().await, Runner::echo().await);
    let (proxy, client) = proxy_before(&[&leaves, &works]).await;
    let reply = call_until_hit(&client, &leaves).await;
    assert_eq!(
        (reply.reason(), reply.failure().applied),
        ("RUNNER_LOST", Some(true))
    );
    assert_eq!(retries(&proxy, "unsent"), 0);
}

#[tokio::test]
async fn a_runner_that_changed_nothing_is_passed_over() {
    let unavailable = Runner::failing(14, &[("prism-applied", "no")]).await;
    let works = Runner::echo().await;
    let (proxy, client) = proxy_before(&[&unavailable, &works]).await;
    assert_eq!(
        call_until_hit(&client, &unavailable).await.grpc().code(),
        Code::Ok
    );
    assert_eq!(retries(&proxy, "not_applied"), 1);
}

#[tokio::test]
async fn the_only_runner_is_asked_once() {
    let unavailable = Runner::failing(14, &[("prism-applied", "no")]).await;
    let (proxy, client) = proxy_before(&[&unavailable]).await;
    let reply = client.unary(UNARY, b"x").await;
    assert_eq!(reply.grpc().code(), Code::Unavailable);
    assert_eq!((unavailable.calls(), retries(&proxy, "not_applied")), (1, 0));
}

#[tokio::test]
async fn unavailable_alone_is_not_enough() {
    for trailers in [&[][..], &[("prism-applied", "unknown")][..]] {
        let unavailable = Runner::failing(14, trailers).await;
        let works = Runner::echo().await;
        let (_proxy, client) = proxy_before(&[&unavailable, &works]).await;
        assert_eq!(
            call_until_hit(&client, &unavailable).await.grpc().code(),
            Code::Unavailable
        );
    }
}

#[tokio::test]
async fn nothing_applied_is_not_enough_for_another_failure() {
    let refuses = Runner::failing(9, &[("prism-applied", "no")]).await;
    let works = Runner::echo().await;
    let (_proxy, client) = proxy_before(&[&refuses, &works]).await;
    assert_eq!(
        call_until_hit(&client, &refuses).await.grpc().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn what_may_have_been_applied_is_never_sent_again() {
    for _ in 0..20 {
        let (dies, works) = (Runner::dying().await, Runner::echo().await);
        let (proxy, client) = proxy_before(&[&dies, &works]).await;
        let reply = call_until_hit(&client, &dies).await;
        let before = works.calls();
        assert_eq!(
            (reply.reason(), reply.failure().applied),
            ("RUNNER_LOST", Some(true))
        );
        assert_eq!((dies.calls(), works.calls()), (1, before));
        assert_eq!(retries(&proxy, "idempotent"), 0);
    }
}

#[tokio::test]
async fn a_method_that_may_be_called_twice_is_called_twice() {
    let (dies, works) = (Runner::dying().await, Runner::echo().await);
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve_at([dies.address, works.address], &[UNARY]);
    let client = proxy.client().await;
    assert_eq!(call_until_hit(&client, &dies).await.grpc().code(), Code::Ok);
    assert_eq!(retries(&proxy, "idempotent"), 1);
}

#[tokio::test]
async fn another_method_of_the_same_runner_may_not() {
    let (dies, works) = (Runner::dying().await, Runner::echo().await);
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve_at(
        [dies.address, works.address],
        &["/prism.pattern.MulticastRegistryPattern/Get"],
    );
    let client = proxy.client().await;
    assert_eq!(call_until_hit(&client, &dies).await.reason(), "RUNNER_LOST");
}

#[tokio::test]
async fn there_is_no_third_attempt() {
    let (first, second) = (Runner::refusing().await, Runner::refusing().await);
    let (_proxy, client) = proxy_before(&[&first, &second]).await;
    let reply = client.unary(UNARY, b"x").await;
    assert_eq!(
        (reply.reason(), reply.failure().applied),
        ("RUNNER_LOST", Some(false))
    );
    assert_eq!((first.calls(), second.calls()), (1, 1), "each once");
}

#[tokio::test]
async fn the_only_runner_is_tried_again_when_nothing_reached_it() {
    let leaves = Runner::leaving().await;
    let (proxy, client) = proxy_before(&[&leaves]).await;
    assert_eq!(client.unary(UNARY, b"x").await.reason(), "RUNNER_LOST");
    assert_eq!((leaves.calls(), retries(&proxy, "unsent")), (2, 1));
}

/// A call that is lost at the first runner and then comes to `second`, which is too busy to be first.
async fn lost_and_then(second: Runner) -> Reply {
    let dies = Runner::dying().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&second]);
    let client = proxy.client().await;
    let _held = client.open(STREAM).await;
    second.arrival().await;
    proxy.serve_beside(dies.address);
    let reply = client.unary(UNARY, b"x").await;
    assert_eq!(
        (dies.calls(), second.calls()),
        (1, 2),
        "the stream, and the second attempt"
    );
    reply
}

#[tokio::test]
async fn a_lost_attempt_is_remembered_when_the_second_one_fails_too() {
    let refuses = Runner::start(|mut exchange| async move {
        if exchange.request.uri().path() == STREAM {
            return std::future::pending().await;
        }
        exchange.respond.send_reset(h2::Reason::REFUSED_STREAM);
    });
    let reply = lost_and_then(refuses.await).await;
    assert_eq!(
        (reply.reason(), reply.failure().applied),
        ("RUNNER_LOST", Some(true))
    );
}

#[tokio::test]
async fn a_lost_attempt_is_remembered_when_the_second_one_changed_nothing() {
    let unavailable = Runner::start(|exchange| async move {
        if exchange.request.uri().path() == STREAM {
            return std::future::pending().await;
        }
        exchange.fail(14, &[("prism-applied", "no")]);
    });
    let reply = lost_and_then(unavailable.await).await;
    assert_eq!(reply.grpc().code(), Code::Unavailable);
    assert_eq!(
        reply.head["prism-applied"], "unknown",
        "true of the second attempt only"
    );
}

#[tokio::test]
async fn what_is_too_long_to_be_kept_is_not_sent_again() {
    let reads_first = || async {
        Runner::start(|mut exchange| async move {
            exchange.read_all().await;
            exchange.respond.send_reset(h2::Reason::REFUSED_STREAM);
        })
        .await
    };
    let (first, second) = (reads_first().await, reads_first().await);
    let proxy = Proxy::start(Limits {
        replay: 1_000,
        ..Limits::default()
    })
    .await;
    proxy.serve(&[&first, &second]);
    let client = proxy.client().await;
    client.unary(UNARY, &[7; 500]).await;
    assert_eq!(first.calls() + second.calls(), 2);
    client.unary(UNARY, &[7; 2_000]).await;
    assert_eq!(first.calls() + second.calls(), 3);
}

#[tokio::test]
async fn the_second_attempt_carries_the_whole_request() {
    let refuses = Runner::start(|mut exchange| async move {
        exchange.read_all().await;
        exchange.respond.send_reset(h2::Reason::REFUSED_STREAM);
    })
    .await;
    let works = Runner::echo().await;
    let (_proxy, client) = proxy_before(&[&refuses, &works]).await;
    let content: Vec<u8> = (0..50_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    while refuses.calls() == 0 {
        assert_eq!(client.unary(UNARY, &content).await.body, message(&content));
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_begun_again() {
    let begins = Runner::start(|mut exchange| async move {
        exchange.read_message().await;
        let mut down = exchange.begin();
        down.send_data(message(b"first"), false).unwrap();
        exchange.read_message().await;
        exchange.kill.notify_one();
        std::future::pending::<()>().await;
    })
    .await;
    let works = Runner::echo().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve_at([begins.address], &[STREAM]);
    let client = proxy.client().await;
    let (response, mut up) = client.open(STREAM).await;
    up.send_data(message(b"x"), false).unwrap();
    let mut down = soon(response).await.unwrap();
    assert_eq!(
        soon(down.body_mut().data()).await.unwrap().unwrap(),
        message(b"first")
    );
    proxy.serve_at([works.address], &[STREAM]);
    up.send_data(message(b"die"), false).unwrap();
    let reply = Reply::read(down).await;
    assert_eq!((reply.body, works.calls()), (Vec::new(), 0));
    assert_eq!(reply.trailers["prism-applied"], "unknown");
    assert_eq!(reply.trailers["grpc-status"], "14");
}

#[tokio::test]
async fn retries_are_a_part_of_all_calls_and_no_more() {
    let no = &[("prism-applied", "no")];
    let (unavailable, another) = (Runner::failing(14, no).await, Runner::failing(14, no).await);
    let (proxy, client) = proxy_before(&[&unavailable, &another]).await;
    for _ in 0..400 {
        client.unary(UNARY, b"x").await;
    }
    let made = retries(&proxy, "not_applied");
    assert!(
        (100..=140).contains(&made),
        "{made} retries for 400 calls: a reserve of 100 and a tenth"
    );
}

#[tokio::test]
async fn a_deadline_leaves_no_room_for_a_second_attempt() {
    let slow = Runner::start(|mut exchange| async move {
        std::future::poll_fn(|cx| exchange.respond.poll_reset(cx))
            .await
            .unwrap();
    })
    .await;
    let (proxy, client) = proxy_before(&[&slow]).await;
    let reply = client.unary_within(UNARY, Duration::from_millis(100)).await;
    assert_eq!(reply.reason(), "DEADLINE_EXCEEDED");
    assert_eq!((slow.calls(), retries(&proxy, "unsent")), (1, 0));
}

#[tokio::test]
async fn a_restarted_runner_is_dialled_again() {
    let runner = Runner::echo().await;
    let (_proxy, client) = proxy_before(&[&runner]).await;
    assert_eq!(client.unary(UNARY, b"x").await.grpc().code(), Code::Ok);
    runner.kill();
    soon(async {
        // The first call may still find the old connection.
        while client.unary(UNARY, b"y").await.grpc().code() != Code::Ok {}
    })
    .await;
    assert_eq!(client.unary(UNARY, b"z").await.body, message(b"z"));
    let _: Bytes = message(b"");
    assert_eq!(runner::ok()["grpc-status"], "0");
}
