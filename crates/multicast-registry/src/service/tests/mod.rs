//! The service over a real connection, on slots whose calls go as a test says.

mod answers;
mod calls;
mod check_schema;
mod limits;
mod refusals;

use std::{net::SocketAddr, sync::Arc};

use prism_core::failure::{APPLIED, Failure};
use prism_proto::pattern::{
    self as proto, multicast_registry_pattern_client::MulticastRegistryPatternClient,
};
use prism_slot::{Timestamp, memory::ManualClock};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Status, transport::Channel};

use super::Service;
use crate::{
    coordinator::{Config, Coordinator, Register},
    namespaces::Namespaces,
    testing::{Broker, Store, soon},
};

type Client = MulticastRegistryPatternClient<Channel>;

struct Fixture {
    coordinator: Coordinator,
    store: Arc<Store>,
    broker: Arc<Broker>,
    namespaces: Namespaces,
    service: Service,
}

/// Serves the namespace `test`.
fn fixture(change: impl FnOnce(&mut Config)) -> Fixture {
    let namespaces = Namespaces::default();
    let (coordinator, store, broker) = namespace("test", change);
    namespaces.insert(coordinator.clone());
    namespaces.set_complete();
    Fixture {
        coordinator,
        store,
        broker,
        service: Service::new(namespaces.clone()),
        namespaces,
    }
}

fn namespace(name: &str, change: impl FnOnce(&mut Config)) -> (Coordinator, Arc<Store>, Arc<Broker>) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    let (store, broker) = (Store::new(clock), Broker::new());
    let mut config = Config::named(name);
    change(&mut config);
    let coordinator = Coordinator::new(config, store.clone(), broker.clone(), None);
    (coordinator, store, broker)
}

impl Fixture {
    /// A client with the limits that clients have unless they are told otherwise.
    async fn client(&self) -> Client {
        Client::new(connect(self.serve().await).await)
    }

    /// Registers in process, where nothing is limited.
    async fn service_registers(&self, names: &[&str]) {
        for name in names {
            let request = Register::new(name, prism_filter::Document::empty()).unwrap();
            self.coordinator.register(request, soon()).await.unwrap();
        }
    }

    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(self.service.clone().into_server());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

/// A call of a namespace.
fn to<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let name = namespace.parse().unwrap();
    request.metadata_mut().insert("x-prism-namespace", name);
    request
}

fn registration(identity: &str, metadata: &serde_json::Value) -> proto::RegisterRequest {
    let metadata = prism_filter::Document::from_value(metadata).unwrap();
    proto::RegisterRequest {
        identity: identity.to_owned(),
        metadata: metadata.to_proto(),
        ..Default::default()
    }
}

/// Why a call failed. Every refusal says so, and whether something was changed.
fn failure(status: &Status) -> Failure {
    let failure = Failure::from_status(status).unwrap_or_else(|| panic!("{status:?} says no reason"));
    assert_eq!(failure.reason.code(), status.code());
    assert!(status.metadata().get(APPLIED).is_some(), "{status:?}");
    failure
}
