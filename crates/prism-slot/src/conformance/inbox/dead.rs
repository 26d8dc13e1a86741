//! Dead letters.

use super::*;

pub(super) async fn dead_letters_are_bounded(fixture: Fixture) {
    let limits = InboxLimits {
        max_dead_letters: 3,
        ..InboxLimits::default()
    };
    let slot = fixture.open_within(limits).await;
    let consumer = slot.consumer("a", 1).await;
    for number in 0..5 {
        let sent = slot.store("a", &number.to_string()).await;
        slot.fetch(&consumer).await;
        let reason = String::new();
        slot.settle(&consumer, &sent, Verdict::Term { reason }).await;
    }
    let payloads = |letters: &[crate::DeadLetter]| {
        let text = |letter: &crate::DeadLetter| String::from_utf8(letter.message.payload.to_vec()).unwrap();
        letters.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(
        payloads(&slot.dead().await),
        ["2", "3", "4"],
        "the oldest made room"
    );
    let page = |after, identity| DeadQuery {
        after,
        identity,
        limit: 2,
    };
    let first = slot
        .slot()
        .dead_letters(page(None, None), deadline())
        .await
        .unwrap();
    assert_eq!(
        (payloads(&first.letters), first.more),
        (vec!["2".into(), "3".into()], true)
    );
    let after = first.letters.last().map(|letter| letter.id);
    let second = slot
        .slot()
        .dead_letters(page(after, None), deadline())
        .await
        .unwrap();
    assert_eq!(
        (payloads(&second.letters), second.more),
        (vec!["4".into()], false)
    );
    let of_another = page(None, Some(identity("b")));
    let nothing = slot.slot().dead_letters(of_another, deadline()).await.unwrap();
    assert_eq!((nothing.letters.len(), nothing.more), (0, false));
}

pub(super) async fn dead_letters_can_go_back(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    slot.fetch(&consumer).await;
    let reason = "not now".to_owned();
    slot.settle(&consumer, &sent, Verdict::Term { reason }).await;
    let id = slot.dead().await[0].id;
    let redrive = |name: &str| {
        let letters = vec![(id, address(name))];
        let call = slot.slot().redrive(letters, terms(), deadline());
        async { call.await.unwrap() }
    };
    assert_eq!(redrive("b").await, [Redriven::Gone], "it is for another identity");
    slot.store("a", "y").await;
    let one = InboxLimits {
        max_messages: 1,
        ..InboxLimits::default()
    };
    slot.slot().configure(one, deadline()).await.unwrap();
    assert_eq!(redrive("a").await, [Redriven::Full]);
    slot.slot()
        .configure(InboxLimits::default(), deadline())
        .await
        .unwrap();
    assert_eq!(redrive("a").await, [Redriven::Back]);
    assert_eq!(redrive("a").await, [Redriven::Gone]);
    let deliveries = slot.fetch(&consumer).await;
    assert_eq!(texts(&deliveries), ["y", "x"]);
    assert_eq!((deliveries[1].attempt, &deliveries[1].message), (1, &sent));
    assert_eq!(slot.settle(&consumer, &sent, Verdict::Ack).await, Settled::Done);
}
