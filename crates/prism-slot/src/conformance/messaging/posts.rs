//! Notes between runners.

use super::*;
use crate::{Arrival, EVERY_POST, Post};

async fn arrival(post: &mut Post) -> Arrival {
    let arrival = timeout(CALL_LIMIT, post.next()).await;
    arrival.expect("nothing arrived in time").expect("the post ended")
}

pub(super) async fn notes_reach_their_address(fixture: Fixture) {
    let slot = fixture.open().await;
    let other = another(&fixture, &slot).await;
    let (mut one, mut two) = (
        slot.post(deadline()).await.unwrap(),
        slot.post(deadline()).await.unwrap(),
    );
    assert_ne!(one.address(), two.address());
    let large = Bytes::from(vec![7; slot.capability().max_payload.min(512 << 10)]);
    let notes = [Bytes::from_static(b"first"), Bytes::new(), large];
    for note in &notes {
        let sent = other.send(one.address(), note.clone(), deadline()).await;
        assert_eq!(sent, Outcome::Accepted);
    }
    let sent = slot
        .send(two.address(), Bytes::from_static(b"two"), deadline())
        .await;
    assert_eq!(sent, Outcome::Accepted);
    for note in notes {
        assert_eq!(arrival(&mut one).await, Arrival::Note(note));
    }
    assert_eq!(arrival(&mut two).await, Arrival::Note(Bytes::from_static(b"two")));
    assert_eq!((one.lost(), two.lost()), (0, 0));
}

pub(super) async fn notes_to_nobody_are_noticed(fixture: Fixture) {
    let slot = fixture.open().await;
    let other = another(&fixture, &slot).await;
    let post = slot.post(deadline()).await.unwrap();
    let address = post.address().clone();
    assert_eq!(
        other.send(&address, Bytes::new(), deadline()).await,
        Outcome::Accepted
    );
    drop(post);
    let gone = async {
        // A broker learns of it a moment later.
        while other.send(&address, Bytes::new(), deadline()).await != Outcome::NoSubscriber {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CALL_LIMIT, gone)
        .await
        .expect("somebody still has the post");
}

pub(super) async fn notes_to_every_post_reach_all(fixture: Fixture) {
    let slot = fixture.open().await;
    let other = another(&fixture, &slot).await;
    let nobody = slot.send(EVERY_POST, Bytes::new(), deadline()).await;
    assert_eq!(nobody, Outcome::NoSubscriber);
    let (mut here, mut there) = (
        slot.post(deadline()).await.unwrap(),
        other.post(deadline()).await.unwrap(),
    );
    let note = Bytes::from_static(b"to all");
    assert_eq!(
        slot.send(EVERY_POST, note.clone(), deadline()).await,
        Outcome::Accepted
    );
    for post in [&mut here, &mut there] {
        assert_eq!(arrival(post).await, Arrival::NoteToAll(note.clone()));
    }
}

pub(super) async fn a_full_post_counts_what_it_drops(fixture: Fixture) {
    let options = Options {
        room: Room {
            messages: 4,
            ..Room::default()
        },
        ..Options::default()
    };
    let slot = (fixture.open)(fixture.namespace.clone(), options).await;
    let mut post = slot.post(deadline()).await.unwrap();
    for number in 0..50_u8 {
        slot.send(post.address(), Bytes::from(vec![number]), deadline())
            .await;
    }
    let mut arrived = 0;
    while arrived + post.lost() < 50 {
        arrival(&mut post).await;
        arrived += 1;
    }
    assert!(
        post.lost() > 0 && arrived >= 4,
        "{arrived} arrived, {} lost",
        post.lost()
    );
}
