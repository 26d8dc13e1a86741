//! Several processes of one host work on one file as one.

use std::time::Duration;

use prism_slot::{Call, DurableInbox, RegistryStore, Revision};

use super::{
    child::{Running, Task, listen, say},
    support::*,
};

const EACH: usize = 200;

/// The child: registers and stores when it is told to.
pub(super) async fn neighbour(task: Task) {
    let (slot, registry) = (inbox(&task.path).await, registry(&task.path).await);
    say(format_args!("ready {}", head(&registry).await.epoch.0));
    loop {
        match listen().as_str() {
            "work" => {
                for number in 0..EACH {
                    let registered = register(&registry, request(&format!("child-{number}")))
                        .await
                        .unwrap();
                    assert_eq!(store(&slot, "shared", &message("from the child")).await, STORED);
                    say(registered.position.revision.0);
                }
                say("done");
            }
            "one" => say(register(&registry, request("one"))
                .await
                .unwrap()
                .position
                .revision
                .0),
            _ => break,
        }
    }
    slot.close().await;
    registry.close().await;
}

async fn started(place: &Place) -> (Running, u64) {
    let path = place.path.clone();
    tokio::task::spawn_blocking(move || {
        let child = Running::start("neighbour", &path);
        let epoch = child.line().strip_prefix("ready ").unwrap().parse().unwrap();
        (child, epoch)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_have_one_history() {
    let place = Place::new();
    let (slot, registry) = (inbox(&place.path).await, registry(&place.path).await);
    let (mut child, epoch) = started(&place).await;
    assert_eq!(head(&registry).await.epoch.0, epoch);
    child.tell("work");
    let mut ours = Vec::new();
    for number in 0..EACH {
        let registered = register(&registry, request(&format!("parent-{number}")))
            .await
            .unwrap();
        ours.push(registered.position.revision.0);
        assert_eq!(store(&slot, "shared", &message("from the parent")).await, STORED);
    }
    let theirs = tokio::task::spawn_blocking(move || {
        let said = std::iter::from_fn(|| Some(child.line()).filter(|line| line != "done"));
        let revisions: Vec<u64> = said.map(|line| line.parse().unwrap()).collect();
        child.tell("end");
        assert!(child.wait().0.success());
        revisions
    });
    let theirs = theirs.await.unwrap();
    let history = history(&registry, Revision::ZERO).await;
    assert_eq!(history.len(), 2 * EACH, "dense, and everything once");
    for (revisions, who) in [(&ours, "parent"), (&theirs, "child")] {
        assert_eq!(revisions.len(), EACH);
        for revision in revisions {
            let change = &history[usize::try_from(*revision).unwrap() - 1];
            assert!(change.record.identity.as_str().starts_with(who));
        }
    }
    // Neither was kept waiting until the other one had finished.
    let taken_turns = history
        .windows(2)
        .filter(|pair| pair[0].record.identity.as_str()[..2] != pair[1].record.identity.as_str()[..2]);
    assert!(taken_turns.count() > EACH / 20);
    assert_eq!(
        slot.depth(None, deadline()).await.unwrap().messages,
        2 * EACH as u64
    );
    assert_eq!(delivered(&slot, "shared", 1).await.len(), 2 * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_open_a_file_at_once_make_one() {
    for _ in 0..3 {
        let place = Place::new();
        let together = futures::future::join_all((0..3).map(|_| started(&place)));
        let (ours, theirs) = tokio::join!(registry(&place.path), together);
        let epoch = head(&ours).await.epoch.0;
        assert!(theirs.iter().all(|(_, theirs)| *theirs == epoch));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_another_process_are_told() {
    let place = Place::new();
    let registry = registry(&place.path).await;
    let (mut child, _) = started(&place).await;
    let from = head(&registry).await.revision;
    let patient = Call {
        epoch: None,
        deadline: tokio::time::Instant::now() + Duration::from_secs(120),
    };
    let told = async {
        tokio::join!(registry.changed(patient, from), async {
            // After it has looked, so that it waits.
            tokio::time::sleep(Duration::from_millis(200)).await;
            child.tell("one");
        })
        .0
    };
    let told = tokio::time::timeout(SOON, told).await;
    told.expect("long before its deadline").unwrap();
    assert!(head(&registry).await.revision > from);
}
