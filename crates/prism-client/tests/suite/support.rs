//! A client of a scripted registry.

use std::time::Duration;

use prism_client::{Client, ClientBuilder, testing::FakeRegistry};

/// Longer than anything here should take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn builder(endpoint: String) -> ClientBuilder {
    Client::builder()
        .endpoint(endpoint)
        .namespace("presence")
        .timeout(PATIENCE)
        .backoff(Duration::from_millis(5), Duration::from_millis(20))
}

pub(crate) async fn started() -> (FakeRegistry, Client) {
    let fake = FakeRegistry::start().await.unwrap();
    let client = builder(fake.endpoint()).connect().await.unwrap();
    (fake, client)
}
