//! Runners that say that they are about to end.

use std::time::Duration;

use prism_core::lifecycle::HealthStatus;

use super::*;

#[test]
fn among_many_it_is_left_out_and_acknowledged_at_once() {
    let (mut bench, one) = served(SHARED);
    let two = bench.join(SHARED);
    bench.obey(&two);
    bench.beat(&one, HealthStatus::Unhealthy, true);
    assert_eq!(bench.routes("a"), [two.instance]);
    assert_eq!(bench.obey(&one), ["drain"]);
}

#[test]
fn an_owner_is_kept_until_another_took_over() {
    let (mut bench, owner) = served(OURS);
    let standby = bench.join(OURS);
    bench.beat(&owner, HealthStatus::Unhealthy, true);
    assert_eq!(
        bench.routes("a"),
        std::slice::from_ref(&owner.instance),
        "the other one is not ready"
    );
    assert!(bench.obey(&owner).is_empty());
    bench.obey(&standby);
    assert_eq!(bench.routes("a"), [standby.instance]);
    assert_eq!(bench.obey(&owner), ["drain"]);
}

#[test]
fn an_owner_is_not_kept_for_longer_than_it_serves() {
    let (mut bench, owner) = served(OURS);
    let _slow = bench.join(OURS);
    bench.beat(&owner, HealthStatus::Unhealthy, true);
    bench.pass(Duration::from_millis(700));
    assert_eq!(bench.routes("a"), std::slice::from_ref(&owner.instance));
    bench.pass(Duration::from_millis(200));
    assert!(bench.routes("a").is_empty());
    assert_eq!(bench.obey(&owner), ["drain"]);
}

#[test]
fn it_gets_nothing_new() {
    let (mut bench, peer) = served(OURS);
    bench.beat(&peer, HealthStatus::Unhealthy, true);
    bench.apply(&[second("a"), first("b")]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.obey(&peer), ["drain"]);
    let runner = &bench.fleet.snapshot().runners[0];
    assert!(runner.draining);
}

#[test]
fn when_it_is_gone_it_is_gone() {
    let (mut bench, peer) = served(OURS);
    bench.beat(&peer, HealthStatus::Unhealthy, true);
    bench.pass(Duration::from_secs(1));
    bench.obey(&peer);
    bench.lose(&peer);
    assert!(bench.probes.is_empty());
    assert!(bench.fleet.snapshot().runners.is_empty());
}
