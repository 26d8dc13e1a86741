//! Runners of another make, with everything that they do and leave undone.

use std::time::Duration;

use prism_core::lifecycle::Answer;
use serde_json::json;

use super::*;
use crate::control::snapshot::RoleView;

#[test]
fn two_containers_with_the_same_process_id_are_two_runners() {
    let mut bench = Bench::new();
    let (one, two) = (bench.join(FOREIGN), bench.join(FOREIGN));
    assert_ne!(one.instance, two.instance);
    assert!(one.instance.starts_with("test-1-"));
}

#[test]
fn either_spelling_of_a_pattern_is_the_same_pattern() {
    let mut bench = Bench::new();
    bench.apply(&[DesiredNamespace {
        pattern: "multicast-registry".to_owned(),
        ..first("a")
    }]);
    let peer = bench.join(Script {
        pattern: "multicast_registry",
        ..FOREIGN
    });
    assert_eq!(bench.obey(&peer), ["initialize a", "start"]);
}

#[test]
fn only_runners_that_say_so_get_a_second_namespace() {
    let mut bench = Bench::new();
    bench.apply(&[first("a"), first("b")]);
    let foreign = bench.join(FOREIGN);
    bench.obey(&foreign);
    assert_eq!(bench.pushes(&foreign), [("a", 1)]);
    let other = bench.join(FOREIGN);
    bench.obey(&other);
    assert_eq!(bench.pushes(&other), [("b", 1)], "it goes where nobody is");
    let ours = bench.join(OURS);
    bench.apply(&[first("a"), first("b"), first("c"), first("d")]);
    bench.obey(&ours);
    assert_eq!(bench.pushes(&ours), [("c", 1), ("d", 1)]);
}

#[test]
fn it_lives_without_heartbeats() {
    let (mut bench, peer) = served(FOREIGN);
    bench.pass_obeyed(Duration::from_secs(120), &[&peer]);
    assert_eq!(bench.routes("a"), [peer.instance]);
    assert_eq!(bench.fleet.snapshot().runners[0].last_heartbeat_unix_ms, None);
}

#[test]
fn one_that_does_one_thing_at_a_time_is_not_cut_while_it_is_busy() {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let peer = bench.join(FOREIGN);
    let (correlation, message) = bench.next(&peer).unwrap();
    bench.pass(Duration::from_secs(25));
    assert!(
        !bench.closed.contains(&peer.session),
        "it is connecting to its backend"
    );
    bench.answer(&peer, &correlation, usual(&peer.script, &message));
    bench.obey(&peer);
    assert_eq!(bench.routes("a"), [peer.instance]);
}

#[test]
fn a_push_without_an_answer_is_given_up_and_a_late_answer_is_taken() {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let peer = bench.join(OURS);
    let (correlation, message) = bench.next(&peer).unwrap();
    bench.pass_obeyed(Duration::from_secs(31), &[&peer]);
    let view = &bench.fleet.snapshot().runners[0].namespaces[0];
    assert!(view.error.as_deref().unwrap().contains("did not answer"));
    assert_eq!(view.role, RoleView::Refusing);
    assert_eq!(bench.pushes(&peer).len(), 1);
    bench.answer(&peer, &correlation, usual(&peer.script, &message));
    assert_eq!(bench.obey(&peer), ["start"]);
    assert_eq!(bench.routes("a"), [peer.instance]);
}

#[test]
fn an_empty_answer_to_a_push_is_a_refusal() {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let peer = bench.join(FOREIGN);
    let odd = |message: &Message| matches!(message, Message::Initialize(_)).then_some(Answer::Unrecognised);
    assert_eq!(bench.obey_but(&peer, odd), ["initialize a"]);
    assert!(bench.routes("a").is_empty());
}

#[test]
fn an_empty_answer_to_a_health_check_is_a_sign_of_life() {
    let (mut bench, peer) = served(FOREIGN);
    let odd = |message: &Message| matches!(message, Message::HealthCheck(_)).then_some(Answer::Unrecognised);
    for _ in 0..60 {
        bench.pass(Duration::from_secs(1));
        bench.obey_but(&peer, odd);
    }
    assert_eq!(bench.routes("a"), [peer.instance]);
}

#[test]
fn its_namespace_can_change() {
    let (mut bench, peer) = served(FOREIGN);
    bench.apply(&[second("a")]);
    assert_eq!(bench.obey(&peer), ["initialize a"]);
    assert_eq!(bench.routes("a"), [peer.instance]);
}

#[test]
fn one_whose_namespace_is_gone_is_ended_and_left_when_it_stays() {
    let (mut bench, peer) = served(FOREIGN);
    bench.apply(&[first("b")]);
    assert!(bench.routes("a").is_empty());
    assert_eq!(
        bench.obey(&peer),
        ["shutdown"],
        "it would take a removal for an empty configuration"
    );
    assert!(!bench.closed.contains(&peer.session));
    bench.pass_obeyed(Duration::from_secs(5), &[&peer]);
    assert!(bench.closed.contains(&peer.session), "it said that it stopped");
    assert!(bench.fleet.snapshot().runners.is_empty());
    assert_eq!(bench.pushes(&peer), [("a", 1)]);
}

#[test]
fn one_that_never_answers_its_end_is_left_too() {
    let (mut bench, peer) = served(FOREIGN);
    bench.apply(&[]);
    for _ in 0..400 {
        bench.pass(Duration::from_millis(100));
        while let Some((correlation, message)) = bench.next(&peer) {
            if !matches!(message, Message::Shutdown(_)) {
                bench.answer(&peer, &correlation, usual(&peer.script, &message));
            }
        }
    }
    assert!(bench.closed.contains(&peer.session));
}

#[test]
fn one_that_does_not_come_back_is_served_from_for_a_while() {
    let (mut bench, peer) = served(FOREIGN);
    bench.lose(&peer);
    bench.probed(true);
    assert_eq!(bench.routes("a"), [peer.instance]);
    bench.pass(Duration::from_secs(11));
    assert!(bench.routes("a").is_empty());
}

#[test]
fn a_numbered_configuration_reaches_it_as_an_ordinary_one() {
    let mut bench = Bench::new();
    bench.apply(&[desired(
        "a",
        7,
        json!({"slots": {"registry": {"backend": "redis"}}}),
    )]);
    let peer = bench.join(FOREIGN);
    let Some((_, Message::Initialize(request))) = bench.next(&peer) else {
        panic!("no push");
    };
    assert_eq!(
        (request.name.as_str(), request.version.as_str(), request.remove),
        ("a", "v1", false)
    );
    assert!(request.config.unwrap().fields.contains_key("slots"));
}
