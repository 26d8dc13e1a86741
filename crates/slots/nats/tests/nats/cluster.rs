//! Several brokers that are one.

use prism_slot::{Messaging, Outcome};
use prism_slot_nats::NatsMessaging;
use prism_testkit::{NatsServer, eventually, free_port};

use crate::{LONG, config, hears, identities, listen, message, open, publish, soon};

/// Three brokers, each connected with each.
async fn cluster() -> Vec<NatsServer> {
    cluster_with("").await
}

/// The same, with more in their configuration.
pub(crate) async fn cluster_with(more: &str) -> Vec<NatsServer> {
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let routes: Vec<String> = ports
        .iter()
        .map(|port| format!("nats://127.0.0.1:{port}"))
        .collect();
    let routes = routes.join(", ");
    let mut nodes = Vec::new();
    for port in ports {
        let config =
            format!("cluster {{ name: test, listen: '127.0.0.1:{port}', routes: [{routes}] }}\n{more}");
        nodes.push(NatsServer::start_with(&config).await.unwrap());
    }
    nodes
}

/// Other nodes than the listener's learn of it a moment later.
async fn heard_of(publisher: &NatsMessaging, name: &str) {
    eventually(LONG, "the other node knows of the listener", || async {
        publish(publisher, name, "anybody?").await == Outcome::Accepted
    })
    .await;
}

/// What makes an outcome true on one broker makes it true when the listeners are on another node.
#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_true_over_nodes() {
    let nodes = cluster().await;
    let (publishing, listening) = (open(&nodes[0].url()).await, open(&nodes[2].url()).await);
    let targets = identities(1_000);
    let mut listeners = Vec::new();
    for target in targets.iter().step_by(2) {
        let mut listener = listening.listen(target, soon()).await.unwrap();
        heard_of(&publishing, target.as_str()).await;
        hears(&mut listener, "anybody?").await;
        listeners.push(listener);
    }
    for round in 0..20 {
        let text = round.to_string();
        let outcomes = publishing.publish_batch(&targets, message(&text), soon()).await;
        for (number, outcome) in outcomes.iter().enumerate() {
            let expected = [Outcome::Accepted, Outcome::NoSubscriber][number % 2].clone();
            assert_eq!(*outcome, expected, "target {number} in round {round}");
        }
        for listener in &mut listeners {
            hears(listener, &text).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_moves_to_another_node_when_its_own_is_gone() {
    let mut nodes = cluster().await;
    let listed = prism_slot_nats::Config {
        servers: nodes.iter().map(NatsServer::url).collect(),
        ..config("")
    };
    let steady = open(&nodes[2].url()).await;
    let slot = NatsMessaging::open("test", "test.multicast", listed)
        .await
        .unwrap();
    let mut listener = listen(&slot, "a").await;
    heard_of(&steady, "a").await;
    hears(&mut listener, "anybody?").await;
    // Its connections may be to any of them, but to the one that is left in the end at last.
    for gone in &mut nodes[..2] {
        gone.stop();
        eventually(LONG, "the slot works through another node", || async {
            slot.probe(soon()).await.is_ok() && publish(&steady, "a", "moved").await == Outcome::Accepted
        })
        .await;
        eventually(LONG, "it publishes, too", || async {
            publish(&slot, "a", "moved").await == Outcome::Accepted
        })
        .await;
    }
}
