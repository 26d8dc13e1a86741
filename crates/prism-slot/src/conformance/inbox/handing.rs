//! Who is handed what, and how often.

use super::*;

pub(super) async fn a_new_consumer_gets_what_was_out(fixture: Fixture) {
    let slot = fixture.open().await;
    slot.store("a", "x").await;
    let first = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&first).await[0].attempt, 1);
    let second = slot.consumer("a", 2).await;
    assert_eq!(slot.fetch(&second).await[0].attempt, 2);
}

pub(super) async fn another_holder_inherits_nothing(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "private").await;
    let mut other = consumer("a", 2);
    other.address.holder = Holder([2; 16]);
    slot.slot().open(&other, deadline()).await.unwrap();
    assert_eq!(slot.fetch(&other).await, []);
    let dead = slot.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (&dead[0].reason, &dead[0].message),
        (&DeadReason::OtherHolder, &sent)
    );
    let own = message("own");
    let stored = slot
        .slot()
        .enqueue(&[other.address.clone()], own, terms(), deadline())
        .await;
    assert_eq!(stored, [STORED]);
    assert_eq!(slot.texts(&other).await, ["own"]);
    // Also what is stored for the one before after the other one came.
    slot.store("a", "late").await;
    let third = Consumer {
        session_seq: 3,
        ..other
    };
    slot.slot().open(&third, deadline()).await.unwrap();
    assert_eq!(slot.texts(&third).await, ["own"]);
}

pub(super) async fn each_inbox_has_its_own_holder(fixture: Fixture) {
    let slot = fixture.open().await;
    let of = |number: usize, holder: u8| Address {
        holder: Holder([holder; 16]),
        ..address(&format!("id-{number}"))
    };
    // In one call, the holders of which are not all the same.
    let addresses: Vec<Address> = (0..5).map(|number| of(number, 1 + number as u8 % 2)).collect();
    let stored = slot
        .slot()
        .enqueue(&addresses, message("private"), terms(), deadline())
        .await;
    assert_eq!(stored, vec![STORED; 5]);
    for (number, address) in addresses.into_iter().enumerate() {
        let own = Consumer {
            address,
            ..consumer("a", 1)
        };
        slot.slot().open(&own, deadline()).await.unwrap();
        assert_eq!(slot.texts(&own).await, ["private"]);
        let other = Consumer {
            address: of(number, 2 - number as u8 % 2),
            session_seq: 2,
            ..own
        };
        slot.slot().open(&other, deadline()).await.unwrap();
        assert_eq!(slot.fetch(&other).await, []);
    }
}

pub(super) async fn the_latest_consumer_stays(fixture: Fixture) {
    let slot = fixture.open().await;
    slot.consumer("a", 5).await;
    slot.consumer("a", 5).await;
    let earlier = slot.slot().open(&consumer("a", 4), deadline()).await;
    assert_eq!(earlier, Err(Error::Fenced(identity("a"))));
    let other_epoch = Consumer {
        epoch: Epoch(8),
        ..consumer("a", 1)
    };
    slot.slot().open(&other_epoch, deadline()).await.unwrap();
    assert_eq!(slot.fetch(&other_epoch).await, []);
}

pub(super) async fn attempts_are_counted(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    for attempt in 1..=4 {
        let deliveries = slot.fetch(&consumer).await;
        assert_eq!(deliveries.len(), 1);
        assert_eq!(deliveries[0].attempt, attempt);
        let delay = Duration::ZERO;
        slot.settle(&consumer, &sent, Verdict::Nack { delay }).await;
    }
}

pub(super) async fn unsettled_messages_come_again(fixture: Fixture) {
    let slot = fixture.open().await;
    slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    let fetched = slot.try_fetch(&consumer, all()).await.unwrap();
    let due = fetched.next_due.unwrap();
    assert!(due > Duration::ZERO && due <= ACK_TIMEOUT, "{due:?}");
    slot.pass(ACK_TIMEOUT + SHORT).await;
    let deliveries = slot.fetch(&consumer).await;
    assert_eq!(
        (texts(&deliveries), deliveries[0].attempt),
        (vec!["x".to_owned()], 2)
    );
}

/// What came back may be anywhere among what is out and what is gone.
pub(super) async fn some_come_back_while_others_are_out(fixture: Fixture) {
    let slot = fixture.open().await;
    let patient = Fetch {
        ack_timeout: Duration::from_secs(600),
        ..all()
    };
    let mut sent = Vec::new();
    for number in 0..6 {
        sent.push(slot.store("a", &number.to_string()).await);
    }
    let consumer = slot.consumer("a", 1).await;
    let all_out = slot.try_fetch(&consumer, patient).await.unwrap().deliveries;
    assert_eq!(all_out.len(), sent.len());
    let delay = Duration::ZERO;
    slot.settle(&consumer, &sent[3], Verdict::Ack).await;
    for number in [0, 2, 5] {
        slot.settle(&consumer, &sent[number], Verdict::Nack { delay })
            .await;
    }
    let again = slot.try_fetch(&consumer, patient).await.unwrap().deliveries;
    let mut came = texts(&again);
    came.sort_unstable();
    assert_eq!(came, ["0", "2", "5"]);
    assert!(again.iter().all(|delivery| delivery.attempt == 2), "{again:?}");
}

pub(super) async fn messages_that_are_out_wait(fixture: Fixture) {
    let slot = fixture.open().await;
    let patient = Fetch {
        ack_timeout: Duration::from_secs(600),
        ..all()
    };
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(
        slot.try_fetch(&consumer, patient).await.unwrap().deliveries.len(),
        1
    );
    let fetched = slot.try_fetch(&consumer, patient).await.unwrap();
    assert_eq!(fetched.deliveries, []);
    assert!(
        fetched.next_due.is_some_and(|due| due > Duration::from_secs(500)),
        "{:?}",
        fetched.next_due
    );
    let delay = SHORT;
    slot.settle(&consumer, &sent, Verdict::Nack { delay }).await;
    let fetched = slot.try_fetch(&consumer, patient).await.unwrap();
    assert_eq!(fetched.deliveries, []);
    assert!(
        fetched.next_due.is_some_and(|due| due <= SHORT),
        "{:?}",
        fetched.next_due
    );
    slot.pass(SHORT * 2).await;
    assert_eq!(
        slot.try_fetch(&consumer, patient).await.unwrap().deliveries.len(),
        1
    );
}

pub(super) async fn given_up_messages_are_dead_letters(fixture: Fixture) {
    let slot = fixture.open().await;
    let twice = Fetch {
        max_deliver: 2,
        ..all()
    };
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    for _ in 0..2 {
        assert_eq!(
            slot.try_fetch(&consumer, twice).await.unwrap().deliveries.len(),
            1
        );
        let delay = Duration::ZERO;
        slot.settle(&consumer, &sent, Verdict::Nack { delay }).await;
    }
    let fetched = slot.try_fetch(&consumer, twice).await.unwrap();
    assert_eq!(fetched.deliveries, []);
    assert_eq!(fetched.dead, [(Ticket::from(&*sent), DeadReason::MaxDeliver)]);
    let dead = slot.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (
            &dead[0].identity,
            &dead[0].reason,
            dead[0].attempts,
            &dead[0].message
        ),
        (&identity("a"), &DeadReason::MaxDeliver, 2, &sent)
    );
    let depth = slot.depth(Some("a")).await;
    assert_eq!((depth.messages, depth.out, depth.dead), (0, Some(0), 1));
}

pub(super) async fn fetches_are_bounded(fixture: Fixture) {
    let slot = fixture.open().await;
    for number in 0..6 {
        slot.store("a", &format!("{number:0>100}")).await;
    }
    let consumer = slot.consumer("a", 1).await;
    let few = Fetch {
        max_messages: 2,
        ..all()
    };
    let fetched = slot.try_fetch(&consumer, few).await.unwrap();
    assert_eq!((fetched.deliveries.len(), fetched.more), (2, true));
    let small = Fetch {
        max_bytes: 250,
        ..all()
    };
    let fetched = slot.try_fetch(&consumer, small).await.unwrap();
    assert_eq!((fetched.deliveries.len(), fetched.more), (2, true));
    let tiny = Fetch {
        max_bytes: 1,
        ..all()
    };
    let fetched = slot.try_fetch(&consumer, tiny).await.unwrap();
    assert_eq!(
        (fetched.deliveries.len(), fetched.more),
        (1, true),
        "one always comes"
    );
    let fetched = slot.try_fetch(&consumer, all()).await.unwrap();
    assert_eq!((fetched.deliveries.len(), fetched.more), (1, false));
}

pub(super) async fn only_the_consumer_fetches_and_settles(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "x").await;
    let first = slot.consumer("a", 1).await;
    slot.fetch(&first).await;
    let second = slot.consumer("a", 2).await;
    let fenced = Error::Fenced(identity("a"));
    assert_eq!(slot.try_fetch(&first, all()).await, Err(fenced.clone()));
    let verdicts = vec![(sent.multicast, Verdict::Ack)];
    let settled = slot.slot().settle(&first, verdicts, deadline()).await;
    assert_eq!(settled, Err(fenced.clone()));
    let never_opened = consumer("b", 1);
    let fetched = slot.try_fetch(&never_opened, all()).await;
    assert_eq!(fetched, Err(Error::Fenced(identity("b"))));
    assert_eq!(
        slot.texts(&second).await,
        ["x"],
        "nothing that the first one said holds"
    );
}

/// Whether a slot forgets sessions or not: none that is heard of, none for whom something waits, and whoever is forgotten
/// loses nothing by it.
pub(super) async fn quiet_sessions_open_again(fixture: Fixture) {
    let limits = InboxLimits {
        idle: LIFE * 3,
        ..InboxLimits::default()
    };
    let slot = fixture.open_within(limits).await;
    let [quiet, awaited, there] = [
        slot.consumer("quiet", 5).await,
        slot.consumer("awaited", 5).await,
        slot.consumer("there", 5).await,
    ];
    slot.store("awaited", "waits").await;
    for _ in 0..4 {
        slot.pass(LIFE).await;
        assert_eq!(slot.texts(&there).await, [""; 0]);
        while slot.slot().sweep(deadline()).await.unwrap().more {}
    }
    assert_eq!(slot.texts(&awaited).await, ["waits"]);
    assert_eq!(slot.texts(&there).await, [""; 0]);
    slot.store("quiet", "later").await;
    match slot.try_fetch(&quiet, all()).await {
        Ok(fetched) => return assert_eq!(texts(&fetched.deliveries), ["later"]),
        Err(error) => assert_eq!(error, Error::Fenced(identity("quiet"))),
    }
    slot.slot().open(&quiet, deadline()).await.unwrap();
    assert_eq!(slot.texts(&quiet).await, ["later"]);
    let earlier = slot.slot().open(&consumer("quiet", 4), deadline()).await;
    assert_eq!(earlier, Err(Error::Fenced(identity("quiet"))));
}
