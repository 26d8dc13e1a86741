//! What is left undone is done by whoever comes next.

use std::sync::Arc;

use prism_slot::{
    Address, DeadQuery, Delivery, DurableInbox, Enqueued, Epoch, Fetch, Holder, Message, MulticastId,
    Priority, Terms, Verdict,
};
use prism_testkit::NatsServer;

use super::*;
use crate::jetstream::state::Room;
use crate::{JetStreamConfig, JetStreamInbox};

fn slot_room() -> Room {
    Room::new(1 << 20)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn open(server: &NatsServer) -> JetStreamInbox {
    let config = JetStreamConfig {
        servers: vec![server.url()],
        ..JetStreamConfig::default()
    };
    JetStreamInbox::open("test", config, InboxLimits::default())
        .await
        .unwrap()
}

fn consumer(session_seq: u64) -> Consumer {
    Consumer {
        address: Address {
            identity: Identity::new("a").unwrap(),
            holder: Holder([1; 16]),
        },
        epoch: Epoch(1),
        session_seq,
    }
}

async fn take(slot: &JetStreamInbox, session_seq: u64) -> Vec<Delivery> {
    let fetch = Fetch {
        max_messages: 100,
        max_bytes: 1 << 20,
        ack_timeout: Duration::from_secs(60),
        max_deliver: 10,
    };
    slot.open(&consumer(session_seq), soon()).await.unwrap();
    slot.fetch(&consumer(session_seq), fetch, soon())
        .await
        .unwrap()
        .deliveries
}

/// A slot with messages that are out.
async fn slot_with_messages(server: &NatsServer, count: usize) -> (JetStreamInbox, Vec<MulticastId>) {
    let slot = open(server).await;
    let terms = Terms {
        priority: Priority::Normal,
        ttl: Duration::from_secs(600),
    };
    let to = [consumer(1).address];
    for _ in 0..count {
        let message = Arc::new(Message::new(MulticastId::random(), "x"));
        let outcomes = slot.enqueue(&to, message, terms, soon()).await;
        assert_eq!(outcomes, [Enqueued::Stored { displaced: None }]);
    }
    let out = take(&slot, 1).await;
    let out = out.iter().map(|delivery| delivery.message.multicast).collect();
    (slot, out)
}

async fn dead(slot: &JetStreamInbox) -> Vec<MulticastId> {
    let query = DeadQuery {
        limit: 100,
        ..DeadQuery::default()
    };
    let page = slot.dead_letters(query, soon()).await.unwrap();
    page.letters
        .iter()
        .map(|letter| letter.message.multicast)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_left_undone_is_done_by_the_next() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let (gone, out) = slot_with_messages(&server, 3).await;
    let identity = consumer(1).address.identity;
    let mut draft = gone.inboxes.draft(&identity, soon()).await.unwrap();
    let reason = "no".to_owned();
    let verdicts = [(out[0], Verdict::Ack), (out[1], Verdict::Term { reason })];
    assert!(draft.state.settle(&verdicts, slot_room(), Timestamp::now()).1);
    // It says what is to be done, and is gone before it does it.
    let stored = gone
        .inboxes
        .store(&identity, draft.version, &draft.state, soon())
        .await;
    assert!(stored.unwrap().is_some());
    gone.close().await;
    let next = open(&server).await;
    assert_eq!(next.depth(Some(&identity), soon()).await.unwrap().messages, 3);
    let left = take(&next, 2).await;
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].message.multicast, left[0].attempt), (out[2], 2));
    assert_eq!(next.depth(Some(&identity), soon()).await.unwrap().messages, 1);
    assert_eq!(dead(&next).await, [out[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn doing_it_twice_does_no_harm() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let (slot, out) = slot_with_messages(&server, 2).await;
    let identity = consumer(1).address.identity;
    let mut draft = slot.inboxes.draft(&identity, soon()).await.unwrap();
    let reason = String::new();
    assert!(
        draft
            .state
            .settle(
                &[(out[0], Verdict::Term { reason })],
                slot_room(),
                Timestamp::now()
            )
            .1
    );
    let known = letters(&slot, &identity, &draft.state).await;
    for _ in 0..3 {
        // With and without the message at hand.
        slot.inboxes
            .carry_out(&identity, &draft.state, &known, false, soon())
            .await
            .unwrap();
        slot.inboxes
            .carry_out(&identity, &draft.state, &HashMap::new(), true, soon())
            .await
            .unwrap();
    }
    assert_eq!(dead(&slot).await, [out[0]]);
    assert_eq!(slot.depth(Some(&identity), soon()).await.unwrap().messages, 1);
}

async fn letters(slot: &JetStreamInbox, identity: &Identity, state: &State) -> HashMap<u64, Letter> {
    let (stream, _) = slot
        .inboxes
        .jetstream
        .stream(Kind::Messages, soon())
        .await
        .unwrap();
    let intents = state.intents();
    let dying: Vec<_> = intents.iter().collect();
    let letters = slot
        .inboxes
        .letters(stream, &dying, &HashMap::new(), soon())
        .await
        .unwrap();
    assert_eq!(letters.len(), 1, "{identity}");
    letters
        .into_iter()
        .map(|((sequence, _), letter)| (*sequence, letter))
        .collect()
}

/// However many inboxes there are, few of them are remembered.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_remembers_a_bounded_number_of_inboxes() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let slot = open(&server).await;
    for number in 0..2 * REMEMBERED {
        let identity = Identity::new(number.to_string()).unwrap();
        slot.inboxes.remember(&identity, 1, State::blank(1));
    }
    assert_eq!(slot.inboxes.remembered.lock().len(), REMEMBERED);
}
