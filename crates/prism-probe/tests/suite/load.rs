//! Loads against a registry in this process, which may lie about what it delivers.

use std::{
    future::ready,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use crate::support::{
    PATIENCE, Ran, against, finish, interrupt, program, run,
    store::refused,
    town::{Lie, Town},
};
use prism_client::{Reason, testing::FakeRegistry};
use serde_json::{Value, json};

/// A little of everything, for long enough that somebody is registered before the last multicast.
const MIXED: [&str; 6] = ["mixed", "--rate", "50", "--duration", "2s", "--settle"];

/// Fifty users, of whom ten listen.
const PRESENCE: [&str; 11] = [
    "presence",
    "--users",
    "50",
    "--rooms",
    "10",
    "--listeners",
    "10",
    "--rate",
    "100",
    "--duration",
    "300ms",
];

async fn load(fake: &FakeRegistry, line: &[&str]) -> Ran {
    run(against(fake).args(["-o", "json", "load"]).args(line)).await
}

async fn mixed(fake: &FakeRegistry, settle: &str, line: &[&str]) -> Ran {
    let line: Vec<_> = MIXED.iter().chain([&settle]).chain(line).copied().collect();
    load(fake, &line).await
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

#[tokio::test]
async fn what_is_multicast_is_counted_where_it_arrives() {
    let (town, fake) = Town::serve().await;
    town.store.write("alice", &json!({ "status": "online" }));
    let ran = mixed(&fake, "5s", &["--seed", "7"]).await.exits(0);
    let told = ran.json();
    assert_eq!(
        (&told["command"], &told["loop"], &told["seed"]),
        (&json!("mixed"), &json!("open"), &json!(7))
    );
    assert!(
        ran.stderr.lines().next().unwrap().ends_with("--seed 7"),
        "{}",
        ran.stderr
    );

    let operations = &told["operations"];
    let begun: u64 = ["register", "enumerate", "multicast"]
        .map(|name| count(&operations[name]["ok"]))
        .iter()
        .sum();
    assert_eq!(
        (begun, count(&told["begun"]), count(&told["missed"])),
        (100, 100, 0)
    );
    assert!(count(&told["in_time"]) <= count(&told["ok"]));
    assert_eq!(operations["register"]["ok"], told["listening"]);
    assert_eq!(operations["announce"]["ok"], operations["subscribe"]["ok"]);

    let delivery = &told["delivery"];
    assert_eq!(delivery["percent"], json!(100.0));
    assert!(count(&delivery["targets"]) > 0, "{delivery}");
    assert_eq!(delivery["targets"], delivery["claimed"]["delivered"]);
    assert_eq!(delivery["incomplete"], json!(0));
    assert_eq!(delivery["latency"]["count"], delivery["received"]);
    assert_eq!(told["left"], json!(0));
    assert_eq!(
        town.store.len(),
        1,
        "somebody else is still there, and was told nothing"
    );
}

/// Else a message could be missing of which nobody has lost anything.
#[tokio::test]
async fn nobody_is_a_target_who_does_not_listen_yet() {
    let (_, fake) = Town::serve().await;
    fake.on_subscribe(|_| std::future::pending::<Result<futures::stream::Empty<_>, _>>());
    let mut command = against(&fake);
    command
        .args(["--deadline", "3s", "-o", "json", "load"])
        .args(MIXED)
        .arg("1s");
    let ran = run(&mut command).await.exits(1);
    let told = ran.json();
    assert_eq!(
        (&told["delivery"]["targets"], &told["listening"]),
        (&json!(0), &json!(0))
    );
    assert!(count(&told["delivery"]["multicasts"]) > 0, "{told}");
    assert_eq!(
        told["operations"]["subscribe"]["errors"]["DEADLINE_EXCEEDED"],
        told["registered"]
    );
}

/// Who has too much to do at first refuses them as well, and what is sent to them is what a load measures.
#[tokio::test]
async fn those_who_are_to_listen_are_let_in_in_the_end() {
    let (town, fake) = Town::serve().await;
    let refusals = || {
        let left = AtomicUsize::new(2);
        move || {
            left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
                .is_ok()
        }
    };
    let (is_refused, here) = (refusals(), town.clone());
    fake.on_register(move |request| {
        ready(match is_refused() {
            true => Err(refused(Reason::Overloaded)),
            false => Ok(here.store.register(request.get_ref())),
        })
    });
    let (is_refused, here) = (refusals(), town.clone());
    fake.on_update(move |request| {
        ready(match is_refused() {
            true => Err(refused(Reason::Overloaded)),
            false => here.store.patch(request.get_ref()),
        })
    });
    let line = [
        "--subscribers",
        "1",
        "--share",
        "100",
        "--mix",
        "register=4,multicast=1",
    ];
    let told = mixed(&fake, "5s", &line).await.exits(0).json();
    assert_eq!(told["listening"], json!(1));
    let operations = &told["operations"];
    assert_eq!(operations["register"]["shed"], json!(2));
    assert_eq!(operations["announce"]["ok"], json!(1), "{operations}");
}

#[tokio::test]
async fn the_same_seed_does_the_same() {
    let counts = async || {
        let (_, fake) = Town::serve().await;
        let told = mixed(&fake, "5s", &["--seed", "11", "--share", "50"])
            .await
            .exits(0)
            .json();
        let names = ["register", "enumerate", "multicast", "subscribe"];
        names.map(|name| count(&told["operations"][name]["ok"]))
    };
    assert_eq!(counts().await, counts().await);
}

/// Twenty who listen, and are spoken to.
const TWENTY: [&str; 6] = ["fanout", "--subscribers", "20", "--targets", "20", "--rounds"];

#[tokio::test]
async fn what_is_claimed_and_never_arrives_is_a_false_claim() {
    let (town, fake) = Town::serve().await;
    *town.liar.lock() = Some(Lie::Lost('1'));
    let line: Vec<_> = TWENTY.into_iter().chain(["1", "--settle", "1s"]).collect();
    let ran = load(&fake, &line).await.exits(4);
    assert_eq!(ran.error()["reason"], "PARTIAL_DELIVERY");
    let delivery = &ran.json()["delivery"];
    // The first and the eleventh.
    assert!(count(&delivery["missing"]) >= 2, "{delivery}");
    assert_eq!(delivery["missing"], delivery["false_claims"]);
    assert_eq!(delivery["claimed"]["delivered"], json!(20));
}

#[tokio::test]
async fn what_comes_twice_is_a_duplicate_and_no_second_delivery() {
    let (town, fake) = Town::serve().await;
    *town.liar.lock() = Some(Lie::Twice);
    let line: Vec<_> = TWENTY.into_iter().chain(["3"]).collect();
    let told = load(&fake, &line).await.exits(0).json();
    let delivery = &told["delivery"];
    assert_eq!(
        (&delivery["percent"], &delivery["received"]),
        (&json!(100.0), &json!(60))
    );
    // Those of the last round may come after the end.
    assert!(count(&delivery["duplicates"]) >= 40, "{delivery}");
}

#[tokio::test]
async fn what_is_shed_is_told_apart_from_what_failed() {
    let (_, fake) = Town::serve().await;
    let is_first = parking_lot::Mutex::new(true);
    fake.on_enumerate(move |request| {
        // The first one looks whether anybody is there.
        let looks = std::mem::take(&mut *is_first.lock()) || request.get_ref().count_only;
        ready(if looks {
            Ok(prism_client::testing::answers::page(&[]))
        } else {
            Err(refused(Reason::Overloaded))
        })
    });
    let told = mixed(&fake, "5s", &["--mix", "enumerate=1"])
        .await
        .exits(0)
        .json();
    let enumerate = &told["operations"]["enumerate"];
    assert!(
        count(&enumerate["shed"]) > 0 && count(&enumerate["ok"]) == 0,
        "{enumerate}"
    );
    assert_eq!(enumerate["shed_latency"]["count"], enumerate["shed"]);

    fake.on_register(|_| ready(Err(refused(Reason::QuotaExceeded))));
    let ran = mixed(&fake, "5s", &[]).await.exits(1);
    let error = ran.error();
    assert_eq!(error["reason"], "QUOTA_EXCEEDED");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("as the test wants it"),
        "{error}"
    );
    let told = ran.json();
    assert_eq!(
        told["operations"]["register"]["errors"]["QUOTA_EXCEEDED"],
        told["failed"]
    );
}

#[tokio::test]
async fn a_closed_loop_says_what_it_reached() {
    let (_, fake) = Town::serve().await;
    let line = [
        "mixed",
        "--in-flight",
        "4",
        "--duration",
        "300ms",
        "--mix",
        "enumerate=1",
    ];
    let told = load(&fake, &line).await.exits(0).json();
    assert_eq!(
        (&told["loop"], &told["lateness"]),
        (&json!("closed"), &Value::Null)
    );
    assert_eq!(told["ok"], told["operations"]["enumerate"]["ok"]);
    assert!(told["ok_per_second"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn an_interrupted_load_is_told_and_tidied_up() {
    let (town, fake) = Town::serve().await;
    let mut command = against(&fake);
    command.args(["-o", "json", "load", "mixed", "--rate", "200", "--duration", "1h"]);
    let child = command.spawn().unwrap();
    prism_testkit::eventually(PATIENCE, "messages were told", async || town.told() > 5).await;
    interrupt(&child);
    let told = finish(child).await.exits(130).json();
    assert_eq!((&told["interrupted"], &told["left"]), (&json!(true), &json!(0)));
    assert_eq!(told["delivery"]["percent"], json!(100.0));
    assert_eq!(town.store.len(), 0);
}

#[tokio::test]
async fn a_fan_out_is_a_curve() {
    let (town, fake) = Town::serve().await;
    let line = [
        "fanout",
        "--subscribers",
        "120",
        "--targets",
        "1,10,100",
        "--rounds",
        "3",
    ];
    let told = load(&fake, &line).await.exits(0).json();
    let curve = told["curve"].as_array().unwrap();
    let targets: Vec<_> = curve.iter().map(|point| count(&point["targets"])).collect();
    assert_eq!(targets, [1, 10, 100]);
    assert!(
        curve
            .iter()
            .all(|point| point["all_received"]["count"] == json!(3)),
        "{curve:?}"
    );
    assert_eq!(told["delivery"]["received"], json!(3 * 111));
    assert_eq!((town.store.len(), &told["sessions"]["opened"]), (0, &json!(120)));
}

#[tokio::test]
async fn presence_notices_who_expired() {
    let (town, fake) = Town::serve().await;
    let told = load(&fake, &PRESENCE).await.exits(0).json();
    assert_eq!((&told["expired"], &told["live_rooms"]), (&json!(0), &json!(2)));
    assert_eq!(told["delivery"]["targets"], json!(30 * 5));
    assert_eq!(told["sessions"]["opened"], json!(10));

    let here = town.clone();
    fake.on_multicast(move |_| {
        // Whoever is first in the list, and listens to nobody.
        let name = here.store.matching(None).into_iter().next_back().unwrap();
        here.store.remove(&name);
        ready(Ok(prism_client::testing::answers::delivered(&[])))
    });
    let ran = load(&fake, &PRESENCE).await.exits(1);
    assert_eq!(ran.error()["reason"], "EXPIRED");
    assert!(count(&ran.json()["expired"]) > 0);
}

/// A service that is gone at the end takes nothing of what was measured with it, and is not said to be tidied up.
#[tokio::test]
async fn what_cannot_be_counted_is_not_known() {
    let (_town, fake) = Town::serve().await;
    let counted = AtomicUsize::new(0);
    fake.on_enumerate(move |_| {
        ready(match counted.fetch_add(1, SeqCst) {
            0 => Ok(prism_proto::pattern::EnumerateResponse {
                position: Some(prism_proto::pattern::Position::default()),
                ..Default::default()
            }),
            _ => Err(refused(Reason::RunnerLost)),
        })
    });
    fake.on_unregister(|_| ready(Err(refused(Reason::RunnerLost))));
    let ran = load(&fake, &PRESENCE).await.exits(1);
    assert_eq!(ran.error()["reason"], "NOT_COUNTED");
    let told = ran.json();
    assert_eq!((&told["expired"], &told["left"]), (&Value::Null, &json!(50)));
    assert_eq!(told["delivery"]["percent"], json!(100.0));
}

#[tokio::test]
async fn a_storm_ends_when_everybody_is_back() {
    let (_, fake) = Town::serve().await;
    let told = load(&fake, &["storm", "--users", "150"]).await.exits(0).json();
    let storms = &told["storms"];
    for name in ["renew", "reconnect"] {
        assert_eq!(storms[name]["back"], json!(150), "{storms}");
    }
    assert_eq!(told["delivery"]["received"], json!(150));
    assert_eq!(told["sessions"]["opened"], json!(300));

    fake.on_renew(|_| ready(Err(refused(Reason::InvalidRequest))));
    let ran = load(&fake, &["storm", "--users", "5"]).await.exits(1);
    assert_eq!(ran.error()["reason"], "NOT_BACK");
    assert_eq!(
        ran.json()["storms"]["renew"]["errors"],
        json!({ "INVALID_REQUEST": 5 })
    );
}

/// Who is not back was not to get anything, and nobody waits for it.
#[tokio::test]
async fn a_storm_that_is_interrupted_ends_without_its_last_message() {
    let (town, fake) = Town::serve().await;
    fake.on_renew(|_| std::future::pending());
    let storm = ["-o", "json", "load", "storm", "--users", "20", "--patience", "1h"];
    let child = against(&fake).args(storm).spawn().unwrap();
    prism_testkit::eventually(PATIENCE, "everybody renews", async || fake.count("Renew") == 20).await;
    interrupt(&child);
    let told = finish(child).await.exits(130).json();
    assert_eq!((&told["interrupted"], &told["left"]), (&json!(true), &json!(0)));
    assert_eq!(fake.count("Multicast"), 0);

    // While it waits for those who do not get the message.
    fake.on_renew({
        let town = town.clone();
        move |request| ready(Ok(town.renew(request.get_ref())))
    });
    *town.liar.lock() = Some(Lie::Lost('1'));
    let command = &mut against(&fake);
    let child = command.args(storm).args(["--settle", "0s"]).spawn().unwrap();
    prism_testkit::eventually(PATIENCE, "it was told to some", async || town.told() > 0).await;
    interrupt(&child);
    let ran = finish(child).await.exits(4);
    assert_eq!(ran.json()["interrupted"], json!(true));
}

/// Whoever tidies up is let in in the end as well.
#[tokio::test]
async fn what_is_shed_at_the_end_is_unregistered_all_the_same() {
    let (town, fake) = Town::serve().await;
    let refusals = AtomicUsize::new(300);
    let here = town.clone();
    fake.on_unregister(move |request| {
        let is_refused = refusals
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok();
        ready(match is_refused {
            true => Err(refused(Reason::Overloaded)),
            false => {
                here.store.remove(&request.get_ref().identity);
                Ok(prism_client::testing::answers::unregistered(true))
            }
        })
    });
    let line = [
        "fanout",
        "--subscribers",
        "300",
        "--targets",
        "1",
        "--rounds",
        "1",
    ];
    let told = load(&fake, &line).await.exits(0).json();
    assert_eq!((&told["left"], town.store.len()), (&json!(0), 0));
}

#[tokio::test]
async fn people_see_a_table() {
    let (_, fake) = Town::serve().await;
    let ran = run(against(&fake).arg("load").args(MIXED).arg("5s"))
        .await
        .exits(0);
    for part in ["DELIVERY", "100.0000 %", "register", "(received)", "P99.9"] {
        assert!(ran.stdout.contains(part), "`{part}` is not in\n{}", ran.stdout);
    }
}

#[tokio::test]
async fn what_cannot_be_begun_says_so_before_anything_is_sent() {
    let (_, fake) = Town::serve().await;
    for (line, field) in [
        (&["mixed"][..], "rate"),
        (&["mixed", "--rate", "1", "--ramp", "steps:1,2"], "ramp"),
        (&["mixed", "--ramp", "up:10s"], "rate"),
        (&["mixed", "--rate", "1", "--mix", "regster=1"], "mix"),
        (&["mixed", "--rate", "1", "--in-flight", "2"], "rate"),
        (&["fanout", "--subscribers", "5", "--targets", "1,6"], "targets"),
    ] {
        let ran = load(&fake, line).await.exits(2);
        assert_eq!(ran.error()["field"], field, "{line:?}: {ran:?}");
    }
    assert_eq!(fake.calls().len(), 0);
    let mut nobody = program();
    nobody.args([
        "--endpoint",
        "127.0.0.1:1",
        "--deadline",
        "1s",
        "load",
        "mixed",
        "--rate",
        "1",
    ]);
    run(&mut nobody).await.exits(5);
}
