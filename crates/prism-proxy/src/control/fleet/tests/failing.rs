//! Streams break, runners die, hang, come back.

use std::time::Duration;

use prism_core::lifecycle::HealthStatus;

use super::*;

#[test]
fn a_runner_that_is_dead_is_replaced_at_once() {
    let (mut bench, owner) = served(OURS);
    let standby = bench.join(OURS);
    bench.lose(&owner);
    bench.probed(false);
    assert_eq!(bench.disconnected, [owner.instance]);
    assert_eq!(bench.obey(&standby), ["initialize a", "start"]);
    assert_eq!(bench.routes("a"), [standby.instance]);
}

#[test]
fn a_runner_whose_stream_broke_keeps_its_calls_and_comes_back_as_itself() {
    let (mut bench, owner) = served(OURS);
    let standby = bench.join(OURS);
    bench.lose(&owner);
    bench.probed(true);
    assert_eq!(bench.routes("a"), std::slice::from_ref(&owner.instance));
    bench.pass_obeyed(Duration::from_secs(3), &[&standby]);
    let reports = vec![report(&first("a"), true, false)];
    let back = bench.join_with(OURS, owner.token.clone(), reports);
    assert_eq!(back.instance, owner.instance);
    assert_eq!(back.token, owner.token);
    assert!(
        bench.obey(&back).is_empty(),
        "nothing is configured or started anew"
    );
    bench.pass_obeyed(Duration::from_secs(30), &[&back, &standby]);
    assert_eq!(bench.routes("a"), [owner.instance]);
}

#[test]
fn a_runner_that_does_not_come_back_is_given_up() {
    let (mut bench, owner) = served(OURS);
    let standby = bench.join(OURS);
    bench.lose(&owner);
    for _ in 0..9 {
        bench.probed(true);
        bench.pass_obeyed(Duration::from_secs(1), &[&standby]);
        assert_eq!(bench.routes("a"), std::slice::from_ref(&owner.instance));
    }
    bench.pass_obeyed(Duration::from_secs(2), &[&standby]);
    assert_eq!(bench.routes("a"), [standby.instance]);
}

/// A proxy that starts beside another one, which the runners serve already.
#[test]
fn a_new_proxy_waits_for_the_runner_that_has_the_data() {
    let of_two = |everywhere| Script {
        everywhere: Some(everywhere),
        ..OURS
    };
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let empty = bench.join(of_two("1"));
    bench.pass_obeyed(Duration::from_secs(2), &[&empty]);
    assert_eq!(bench.pushes(&empty), []);
    let reports = vec![report(&first("a"), true, false)];
    let owner = bench.join_with(of_two("2"), None, reports);
    bench.pass_obeyed(Duration::from_secs(30), &[&empty, &owner]);
    assert_eq!(bench.pushes(&empty), []);
    assert_eq!(bench.routes("a"), [owner.instance]);
}

/// Two proxies that start together choose the same runner, whichever they know first.
#[test]
fn every_proxy_chooses_the_same_of_new_runners() {
    let of_two = |everywhere| Script {
        everywhere: Some(everywhere),
        ..OURS
    };
    for order in [["1", "2"], ["2", "1"]] {
        let mut bench = Bench::new();
        bench.apply(&[first("a")]);
        let peers = order.map(|everywhere| bench.join(of_two(everywhere)));
        bench.pass_obeyed(Duration::from_secs(30), &[&peers[0], &peers[1]]);
        let chosen = &peers[order.iter().position(|name| *name == "1").unwrap()];
        assert_eq!(bench.routes("a"), std::slice::from_ref(&chosen.instance));
    }
}

#[test]
fn one_that_comes_back_after_another_took_over_lets_go_of_its_data() {
    let (mut bench, owner) = served(OURS);
    let standby = bench.join(OURS);
    bench.lose(&owner);
    bench.probed(false);
    bench.obey(&standby);
    let reports = vec![report(&first("a"), true, false)];
    let back = bench.join_with(OURS, owner.token.clone(), reports);
    assert_ne!(back.instance, owner.instance);
    assert!(bench.obey(&back).contains(&"remove a".to_owned()));
    assert_eq!(bench.routes("a"), [standby.instance]);
}

#[test]
fn a_reconnecting_runner_replaces_its_old_stream_at_once() {
    let (mut bench, peer) = served(OURS);
    let back = bench.join_with(OURS, peer.token.clone(), vec![report(&first("a"), true, false)]);
    assert!(bench.closed.contains(&peer.session));
    assert_eq!(back.instance, peer.instance);
    bench
        .fleet
        .left(bench.now, peer.session, "the old stream's end comes late");
    bench.settle();
    assert!(bench.probes.is_empty());
    assert_eq!(bench.routes("a"), [peer.instance]);
}

#[test]
fn a_half_open_link_is_cut_within_fifteen_seconds() {
    let (mut bench, peer) = served(OURS);
    let standby = bench.join(OURS);
    let began = bench.now;
    while !bench.closed.contains(&peer.session) {
        bench.pass_obeyed(Duration::from_millis(100), &[&standby]);
        assert!(
            bench.now - began <= Duration::from_secs(15),
            "the link is still taken for a good one"
        );
    }
    assert!(bench.now - began >= Duration::from_secs(8), "cut too early");
    assert_eq!(
        bench.routes("a"),
        [peer.instance],
        "until its data endpoint was asked"
    );
    bench.probed(false);
    bench.obey(&standby);
    assert_eq!(bench.routes("a"), [standby.instance]);
}

#[test]
fn heartbeats_alone_do_not_keep_a_link() {
    let (mut bench, peer) = served(OURS);
    for _ in 0..15 {
        bench.pass(Duration::from_secs(1));
        bench.beat(&peer, HealthStatus::Healthy, false);
    }
    assert!(
        bench.closed.contains(&peer.session),
        "commands do not arrive there"
    );
}

#[test]
fn a_slow_answer_keeps_a_link() {
    let (mut bench, peer) = served(OURS);
    for _ in 0..10 {
        bench.pass(Duration::from_millis(6_500));
        bench.obey(&peer);
    }
    assert!(!bench.closed.contains(&peer.session));
}

#[test]
fn a_process_on_the_same_port_takes_the_place_of_the_lost_one() {
    let script = Script {
        port: 50_051,
        ..SHARED
    };
    let (mut bench, old) = served(script.clone());
    bench.lose(&old);
    bench.probed(true);
    let new = bench.join(script);
    assert_eq!(bench.obey(&new), ["initialize a", "start"]);
    assert_eq!(bench.routes("a"), [new.instance]);
    assert_eq!(bench.fleet.snapshot().runners.len(), 1);
}

#[test]
fn after_a_restart_of_the_proxy_the_runner_with_the_data_is_waited_for() {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let empty = bench.join_with(OURS, Some(SessionToken::generate()), Vec::new());
    assert!(bench.obey(&empty).is_empty());
    bench.pass(Duration::from_secs(1));
    let token = Some(SessionToken::generate());
    let full = bench.join_with(OURS, token, vec![report(&first("a"), true, false)]);
    assert_eq!(bench.obey(&full), ["start"]);
    assert_eq!(bench.routes("a"), std::slice::from_ref(&full.instance));
    bench.pass_obeyed(Duration::from_secs(10), &[&empty, &full]);
    assert!(bench.pushes(&empty).is_empty());
}

#[test]
fn but_not_for_ever() {
    let mut bench = Bench::new();
    bench.apply(&[first("a")]);
    let empty = bench.join_with(OURS, Some(SessionToken::generate()), Vec::new());
    bench.pass_obeyed(Duration::from_secs(4), &[&empty]);
    assert_eq!(bench.routes("a"), [empty.instance]);
}

#[test]
fn an_owner_that_stays_unhealthy_is_replaced_by_a_healthy_one_only() {
    let (mut bench, owner) = served(OURS);
    bench.beat(&owner, HealthStatus::Unhealthy, false);
    let sick = |message: &Message| {
        matches!(message, Message::HealthCheck(_))
            .then(|| Answer::Health(Health::new(HealthStatus::Unhealthy, "sick")))
    };
    let wait = |bench: &mut Bench, peers: &[&Peer]| {
        for _ in 0..200 {
            bench.pass(Duration::from_millis(100));
            for peer in peers {
                bench.obey_but(peer, sick);
            }
        }
    };
    wait(&mut bench, &[&owner]);
    assert_eq!(
        bench.routes("a"),
        std::slice::from_ref(&owner.instance),
        "rather a sick one than none"
    );
    let other = bench.join(OURS);
    bench.beat(&other, HealthStatus::Unhealthy, false);
    bench.pass_obeyed(Duration::ZERO, &[]);
    wait(&mut bench, &[&owner]);
    assert!(bench.closed.contains(&other.session), "nobody answered for it");
    let healthy = bench.join(OURS);
    bench.obey(&healthy);
    assert_eq!(bench.routes("a"), [healthy.instance]);
}

#[test]
fn a_full_house_says_so() {
    let mut bench = Bench::with(Settings {
        runners: 1,
        ..Settings::default()
    });
    bench.join(OURS);
    let registration = Bench::registration(&OURS, None, Vec::new());
    let session = SessionId(99);
    bench
        .fleet
        .joined(bench.now, session, "register".to_owned(), Ok(registration), None);
    bench.settle();
    let ack = bench.acknowledgement(session);
    assert!(
        !ack.success && ack.error.contains("no more than 1"),
        "{}",
        ack.error
    );
    assert!(bench.closed.contains(&session));
}
