//! Namespaces are brought to runners, changed and taken away.

use std::time::Duration;

use prism_core::lifecycle::{Answer, HealthStatus};
use serde_json::json;

use super::*;
use crate::control::snapshot::{RoleView, Standing};

#[test]
fn a_runner_is_configured_started_and_routed_in_this_order() {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let peer = bench.join(OURS);
    let (correlation, message) = bench.next(&peer).unwrap();
    assert_eq!(describe(&message), "initialize a");
    assert!(
        bench.next(&peer).is_none(),
        "no start before there is something to serve"
    );
    bench.answer(&peer, &correlation, usual(&peer.script, &message));
    assert!(bench.routes("a").is_empty());
    assert_eq!(bench.obey(&peer), ["start"]);
    assert_eq!(bench.routes("a"), std::slice::from_ref(&peer.instance));
}

#[test]
fn data_of_one_process_has_one_runner_and_the_others_stand_by() {
    let (mut bench, owner) = served(OURS);
    let standby = bench.join(OURS);
    assert!(
        bench.obey(&standby).is_empty(),
        "a stand-by has nothing that could be served by mistake"
    );
    assert_eq!(bench.routes("a"), [owner.instance]);
    let namespace = &bench.fleet.snapshot().namespaces[0];
    assert_eq!(namespace.standing, Standing::Served);
    assert_eq!(namespace.standby.len(), 1);
}

#[test]
fn shared_data_has_many_runners() {
    let (mut bench, one) = served(SHARED);
    let two = bench.join(SHARED);
    assert_eq!(bench.obey(&two), ["initialize a", "start"]);
    assert_eq!(bench.routes("a"), [one.instance, two.instance]);
}

#[test]
fn owners_are_spread() {
    let mut bench = Bench::new();
    let (one, two) = (bench.join(OURS), bench.join(OURS));
    bench.apply(&[first("a"), first("b")]);
    bench.obey(&one);
    bench.obey(&two);
    assert_ne!(bench.routes("a"), bench.routes("b"));
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let (mut bench, peer) = served(OURS);
    bench.apply(&[first("a")]);
    assert!(bench.obey(&peer).is_empty());
}

#[test]
fn a_start_belongs_to_the_runner() {
    let (mut bench, peer) = served(OURS);
    bench.apply(&[first("a"), first("b")]);
    assert_eq!(bench.obey(&peer), ["initialize b"]);
    assert_eq!(bench.routes("b"), [peer.instance]);
}

#[test]
fn a_refused_configuration_is_not_pushed_again_and_the_last_good_one_stays_routed() {
    let (mut bench, peer) = served(OURS);
    bench.apply(&[second("a")]);
    assert_eq!(bench.obey_but(&peer, refuse), ["initialize a"]);
    assert_eq!(bench.routes("a"), std::slice::from_ref(&peer.instance));
    bench.apply(&[second("a")]);
    bench.pass_obeyed(Duration::from_secs(60), &[&peer]);
    assert_eq!(bench.pushes(&peer), [("a", 1), ("a", 2)]);

    let view = &bench.fleet.snapshot().runners[0].namespaces[0];
    assert_eq!(view.role, RoleView::Serving);
    assert_eq!(view.applied_digest, Some(first("a").digest));
    assert_eq!(view.rejected_digest, Some(second("a").digest));
    assert_eq!(view.error.as_deref(), Some("slot `registry`: no"));
    assert_eq!(
        bench.fleet.snapshot().namespaces[0].error.as_deref(),
        Some("slot `registry`: no")
    );

    bench.apply(&[desired("a", 3, json!({"second": true}))]);
    assert_eq!(
        bench.obey(&peer),
        ["initialize a"],
        "a later version may be tried"
    );
}

#[test]
fn a_refusal_outlives_the_stream_and_the_proxy() {
    let (mut bench, peer) = served(OURS);
    bench.apply(&[second("a")]);
    bench.obey_but(&peer, refuse);
    let reports = || {
        vec![NamespaceReport {
            refused: Some(second("a").digest),
            ..report(&first("a"), true, false)
        }]
    };
    bench.lose(&peer);
    let back = bench.join_with(OURS, peer.token.clone(), reports());
    assert_eq!(back.instance, peer.instance);
    assert!(bench.obey(&back).is_empty());

    let mut restarted = Bench::new();
    restarted.apply(&[second("a")]);
    let back = restarted.join_with(OURS, peer.token.clone(), reports());
    assert_eq!(restarted.obey(&back), ["start"], "only to learn where it serves");
    assert_eq!(restarted.routes("a"), std::slice::from_ref(&back.instance));
    restarted.apply(&[desired("a", 3, json!({"second": true}))]);
    assert_eq!(restarted.obey(&back), ["initialize a"]);
}

#[test]
fn when_one_refuses_another_is_asked() {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let (one, two) = (bench.join(OURS), bench.join(OURS));
    assert_eq!(bench.obey_but(&one, refuse), ["initialize a"]);
    assert_eq!(bench.obey(&two), ["initialize a", "start"]);
    assert_eq!(bench.routes("a"), [two.instance]);
}

#[test]
fn a_namespace_that_is_gone_is_taken_away() {
    let (mut bench, peer) = served(OURS);
    bench.apply(&[]);
    assert!(bench.routes("a").is_empty());
    assert_eq!(bench.obey(&peer), ["remove a"]);
    bench.apply(&[desired("a", 3, json!({"first": true}))]);
    assert_eq!(bench.obey(&peer), ["initialize a"]);
    assert_eq!(bench.routes("a"), [peer.instance]);
}

#[test]
fn what_another_proxy_configured_is_left_alone() {
    let mut bench = Bench::new();
    let peer = bench.join_with(OURS, None, vec![report(&first("foreign"), true, false)]);
    assert_eq!(bench.obey(&peer), ["start"]);
    bench.apply(&[first("a")]);
    assert_eq!(bench.obey(&peer), ["initialize a"]);
}

#[test]
fn a_move_holds_the_calls_until_everybody_has_changed_over() {
    let (mut bench, one) = served(SHARED);
    let two = bench.join(SHARED);
    bench.obey(&two);
    let moved = DesiredNamespace {
        discard_on_move: true,
        ..second("a")
    };
    bench.apply(std::slice::from_ref(&moved));
    assert!(bench.held.contains("a"));
    assert_eq!(bench.fleet.snapshot().namespaces[0].standing, Standing::Held);
    bench.obey(&one);
    assert!(
        bench.held.contains("a"),
        "the other one still serves the old data"
    );
    bench.obey(&two);
    assert!(bench.held.is_empty());
    assert_eq!(bench.routes("a"), [one.instance, two.instance]);
}

#[test]
fn after_a_move_the_old_data_is_not_served_beside_the_new() {
    let (mut bench, one) = served(SHARED);
    let two = bench.join(SHARED);
    bench.obey(&two);
    let moved = DesiredNamespace {
        discard_on_move: true,
        ..second("a")
    };
    bench.apply(&[moved]);
    bench.obey_but(&one, refuse);
    bench.obey(&two);
    assert_eq!(bench.routes("a"), [two.instance]);
}

#[test]
fn a_move_that_everybody_refuses_keeps_the_old_data() {
    let (mut bench, one) = served(SHARED);
    let moved = DesiredNamespace {
        discard_on_move: true,
        ..second("a")
    };
    bench.apply(&[moved]);
    bench.obey_but(&one, refuse);
    assert!(bench.held.is_empty());
    assert_eq!(bench.routes("a"), [one.instance]);
}

#[test]
fn a_move_does_not_wait_for_one_that_is_lost() {
    let (mut bench, one) = served(SHARED);
    let two = bench.join(SHARED);
    bench.obey(&two);
    bench.lose(&two);
    let moved = DesiredNamespace {
        discard_on_move: true,
        ..second("a")
    };
    bench.apply(&[moved]);
    bench.obey(&one);
    assert!(bench.held.is_empty());
    assert_eq!(
        bench.routes("a"),
        [one.instance],
        "the lost one serves the old data"
    );
}

#[test]
fn an_ordinary_change_holds_nothing() {
    let (mut bench, peer) = served(OURS);
    bench.apply(&[second("a")]);
    assert!(bench.held.is_empty());
    assert_eq!(bench.routes("a"), std::slice::from_ref(&peer.instance));
    assert_eq!(bench.obey(&peer), ["initialize a"]);
}

#[test]
fn a_number_that_cannot_travel_is_refused_here() {
    let (mut bench, peer) = served(OURS);
    bench.apply(&[desired("a", 2, json!({"seed": 9_007_199_254_740_993_u64}))]);
    assert!(bench.obey(&peer).is_empty());
    let error = bench.fleet.snapshot().namespaces[0].error.clone().unwrap();
    assert!(error.contains("`seed`"), "{error}");
    assert_eq!(bench.routes("a"), [peer.instance]);
}

#[test]
fn a_runner_that_cannot_be_reached_is_not_routed_to_and_says_why() {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let peer = bench.join(OURS);
    let nowhere = |message: &Message| {
        matches!(message, Message::Start(_)).then(|| Answer::Started(Ok("nowhere".to_owned())))
    };
    bench.obey_but(&peer, nowhere);
    assert!(bench.routes("a").is_empty());
    let runner = &bench.fleet.snapshot().runners[0];
    assert!(runner.error.as_deref().unwrap().contains("`nowhere`"));
    let other = bench.join(OURS);
    assert_eq!(bench.obey(&other), ["initialize a", "start"]);
    assert_eq!(bench.routes("a"), [other.instance]);
}

#[test]
fn a_failed_start_is_tried_again_after_a_pause() {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let peer = bench.join(OURS);
    let fail = |message: &Message| {
        matches!(message, Message::Start(_)).then(|| Answer::Started(Err("no".to_owned())))
    };
    assert_eq!(bench.obey_but(&peer, fail), ["initialize a", "start"]);
    bench.pass(Duration::from_secs(2));
    assert!(bench.obey(&peer).is_empty());
    bench.pass_obeyed(Duration::from_secs(4), &[&peer]);
    assert_eq!(bench.routes("a"), [peer.instance]);
}

#[test]
fn the_unhealthy_are_routed_to_only_when_nobody_else_is_there() {
    let (mut bench, one) = served(SHARED);
    let two = bench.join(SHARED);
    bench.obey(&two);
    bench.beat(&one, HealthStatus::Degraded, false);
    assert_eq!(bench.routes("a").len(), 2, "degraded is not out of service");
    bench.beat(&one, HealthStatus::Unhealthy, false);
    assert_eq!(bench.routes("a"), std::slice::from_ref(&two.instance));
    bench.beat(&two, HealthStatus::Unhealthy, false);
    assert_eq!(bench.routes("a").len(), 2);
    bench.beat(&one, HealthStatus::Healthy, false);
    assert_eq!(bench.routes("a"), [one.instance]);
}
