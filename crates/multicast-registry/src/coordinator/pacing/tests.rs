use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;

/// A third of it is 10 s.
const TTL: u64 = 30_000;
const PERIOD: u64 = TTL / 3;
const CLIENTS: usize = 10_000;
/// Load is measured over so many milliseconds; a period has twenty of them.
const WINDOW: u64 = PERIOD / 20;

fn ttl(millis: u64) -> Ttl {
    Ttl::from_millis(millis).unwrap()
}

fn answer(pacing: &Pacing, now: u64) -> Answer<'_> {
    Answer {
        now,
        ..pacing.answer()
    }
}

/// When to come back, as the code says it.
fn paced(pacing: &Pacing) -> impl FnMut(u64) -> u64 {
    move |now| answer(pacing, now).renew_after(ttl(TTL)).as_millis() as u64
}

/// A third give or take a fifth, and nothing else.
fn careless(random: &mut SmallRng) -> impl FnMut(u64) -> u64 {
    move |_| (PERIOD as f64 * random.random_range(0.8..=1.2)) as u64
}

/// Clients who do as they are told: how many come in each window, when they first came at these times.
fn simulate(first: impl IntoIterator<Item = u64>, mut ask: impl FnMut(u64) -> u64, until: u64) -> Vec<u64> {
    let mut coming: BinaryHeap<_> = first.into_iter().map(Reverse).collect();
    let mut windows = vec![0; (until / WINDOW) as usize];
    while let Some(Reverse(now)) = coming.pop() {
        let Some(window) = windows.get_mut((now / WINDOW) as usize) else {
            continue;
        };
        *window += 1;
        coming.push(Reverse(now + ask(now)));
    }
    windows
}

/// The largest and the smallest load in the period of this number, beside what it would be if it were even.
fn unevenness(windows: &[u64], period: u64) -> (f64, f64) {
    let at = (PERIOD / WINDOW) as usize;
    let period = &windows[at * period as usize..][..at];
    let even = CLIENTS as f64 / at as f64;
    let load = |count: &u64| *count as f64 / even;
    let (most, least) = (period.iter().max().unwrap(), period.iter().min().unwrap());
    (load(most), load(least))
}

/// Everybody within one second.
fn storm(random: &mut SmallRng) -> Vec<u64> {
    (0..CLIENTS).map(|_| random.random_range(0..1_000)).collect()
}

#[tokio::test]
async fn a_crowd_that_came_within_a_second_is_spread_by_the_second_period() {
    let seed = 7;
    let mut random = SmallRng::seed_from_u64(seed);
    let came = storm(&mut random);
    let pacing = Pacing::from_seed(seed);
    let spread = simulate(came.clone(), paced(&pacing), 4 * PERIOD);
    let crowded = simulate(came, careless(&mut random), 4 * PERIOD);
    for (period, most, least) in [(1, 1.35, 0.6), (2, 1.25, 0.7), (3, 1.25, 0.7)] {
        let (highest, lowest) = unevenness(&spread, period);
        eprintln!(
            "period {period}: {lowest:.2} to {highest:.2}, careless {:?}",
            unevenness(&crowded, period)
        );
        assert!(
            highest < most && lowest > least,
            "period {period}: {lowest} to {highest}"
        );
    }
    // What it is worth: without it the second period has idle moments and more than twice the load.
    assert!(unevenness(&crowded, 1).0 > 2.0 && unevenness(&crowded, 2).0 > 1.8);
    assert!(unevenness(&crowded, 1).1 < 0.1 && unevenness(&crowded, 2).1 < 0.2);
}

/// After an outage nobody registers: those who could not renew all renew at once, as soon as they can.
#[tokio::test]
async fn a_crowd_that_renews_after_an_outage_is_spread_as_well() {
    let seed = 8;
    let mut random = SmallRng::seed_from_u64(seed);
    let pacing = Pacing::from_seed(seed);
    let mut ask = paced(&pacing);
    // Served evenly before it.
    for _ in 0..CLIENTS {
        ask(random.random_range(0..PERIOD));
    }
    let outage = 300_000;
    let first = storm(&mut random).into_iter().map(|at| outage + at);
    let spread = simulate(first, ask, outage + 4 * PERIOD);
    let spread = &spread[(outage / WINDOW) as usize..];
    for (period, most, least) in [(1, 1.35, 0.6), (2, 1.25, 0.7), (3, 1.25, 0.7)] {
        let (highest, lowest) = unevenness(spread, period);
        eprintln!("period {period}: {lowest:.2} to {highest:.2}");
        assert!(
            highest < most && lowest > least,
            "period {period}: {lowest} to {highest}"
        );
    }
}

/// Those who are spread already stay at a third of their lease, and are not asked for more.
#[tokio::test]
async fn without_a_crowd_a_lease_is_renewed_after_a_third() {
    let seed = 9;
    let mut random = SmallRng::seed_from_u64(seed);
    let pacing = Pacing::from_seed(seed);
    let first: Vec<u64> = (0..CLIENTS).map(|_| random.random_range(0..PERIOD)).collect();
    let windows = simulate(first, paced(&pacing), 10 * PERIOD);
    let renewals: u64 = windows[(PERIOD / WINDOW) as usize..].iter().sum();
    let ratio = renewals as f64 / (9 * CLIENTS) as f64;
    eprintln!("{ratio:.3} of a third apart");
    assert!((0.95..1.1).contains(&ratio), "{ratio}");

    let pacing = Pacing::from_seed(seed);
    let mut ask = paced(&pacing);
    for at in 0..8 {
        assert!((8_000..=12_000).contains(&ask(at)), "a handful is no crowd");
    }
}

#[tokio::test]
async fn no_lease_is_asked_for_later_or_much_earlier_whatever_comes() {
    let pacing = Pacing::from_seed(10);
    for millis in [
        1,
        2,
        127,
        128,
        3_000,
        TTL,
        86_400_000,
        3_162_240_000_000,
        u64::MAX,
    ] {
        let third = millis as f64 / 3.0;
        let (mut earliest, mut latest) = (f64::MAX, 0.0_f64);
        for number in 0..2_000 {
            let after = answer(&pacing, number % 50).renew_after(ttl(millis)).as_millis() as f64;
            assert!(
                after <= 1.2 * third && after + 1.0 >= 0.2 * third,
                "{after} of {millis}"
            );
            (earliest, latest) = (earliest.min(after), latest.max(after));
        }
        if third > 100.0 {
            assert!(
                earliest < 0.3 * third && latest > 1.1 * third,
                "{earliest} to {latest}"
            );
        }
    }
}

#[tokio::test]
async fn what_came_in_one_call_is_asked_back_in_one_call() {
    let pacing = Pacing::from_seed(11);
    let mut together = answer(&pacing, 0);
    let first = together.renew_after(ttl(TTL));
    assert!((0..5_000).all(|_| together.renew_after(ttl(TTL)) == first));
    let moment = first.as_millis() as u64;
    assert_eq!(
        together.asked.by_length[&TTL.ilog2()].at(moment),
        5_001,
        "and is counted"
    );
    let other = together.renew_after(ttl(2 * TTL));
    assert!(other > Duration::ZERO && other.as_millis() as f64 <= 0.4 * 2.0 * TTL as f64);
}

#[tokio::test]
async fn moments_that_have_passed_are_forgotten() {
    let mut expected = Expected::of(TTL.ilog2());
    let length = 1 << expected.moment;
    expected.add(5 * length);
    expected.add(5 * length);
    assert_eq!((expected.at(5 * length), expected.at(6 * length)), (2, 0));
    let later = (5 + MOMENTS as u64) * length;
    assert_eq!(expected.at(later), 0);
    expected.add(later);
    assert_eq!((expected.at(later), expected.at(5 * length)), (1, 0));
}
