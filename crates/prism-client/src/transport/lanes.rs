//! Which connection carries what.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use prism_core::backoff::Policy;
use prism_proto::pattern::multicast_registry_pattern_client::MulticastRegistryPatternClient;
use tonic::transport::{self, Channel};

use super::{Dialer, Endpoint};
use crate::{Error, Result};

/// The most sessions on one connection. HTTP/2 servers commonly allow 100 to 250 streams at a time on
/// one, and the calls beyond that wait without an error.
const SESSIONS_PER_LANE: usize = 100;

/// How connections are made and watched over.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    /// Interval and timeout of HTTP/2 pings while a call is under way.
    pub(crate) keepalive: Option<(Duration, Duration)>,
    pub(crate) backoff: Policy,
    pub(crate) max_answer_bytes: usize,
}

/// The connections of a client: one for calls, and as many as it takes for sessions.
pub(crate) struct Connections {
    endpoints: Vec<String>,
    dialer: Dialer,
    plan: transport::Endpoint,
    max_answer_bytes: usize,
    calls: Channel,
    lanes: Mutex<Vec<Weak<Lane>>>,
}

/// A connection for sessions. Each session holds a clone of the `Arc` around it; it closes with the
/// last of them.
pub(crate) struct Lane(Channel);

impl Connections {
    /// Connects now, so that a wrong address is noticed at once.
    pub(crate) async fn connect(endpoints: &[Endpoint], settings: &Settings) -> Result<Self> {
        let (dialer, plan) = prepare(endpoints, settings)?;
        let calls = plan
            .connect_with_connector(dialer.clone())
            .await
            .map_err(|error| {
                let status = tonic::Status::from_error(Box::new(error));
                Error::from_status(&status, settings.connect_timeout)
            })?;
        Ok(Self::new(endpoints, dialer, plan, calls, settings))
    }

    /// Connects when the first call is made.
    pub(crate) fn lazy(endpoints: &[Endpoint], settings: &Settings) -> Result<Self> {
        let (dialer, plan) = prepare(endpoints, settings)?;
        let calls = plan.connect_with_connector_lazy(dialer.clone());
        Ok(Self::new(endpoints, dialer, plan, calls, settings))
    }

    fn new(
        endpoints: &[Endpoint],
        dialer: Dialer,
        plan: transport::Endpoint,
        calls: Channel,
        settings: &Settings,
    ) -> Self {
        Self {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            dialer,
            plan,
            max_answer_bytes: settings.max_answer_bytes,
            calls,
            lanes: Mutex::default(),
        }
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// For a call of whatever service.
    pub(crate) fn channel(&self) -> Channel {
        self.calls.clone()
    }

    /// For a call.
    pub(crate) fn for_calls(&self) -> MulticastRegistryPatternClient<Channel> {
        self.stub(self.calls.clone())
    }

    /// For a session, on the lane that it is to hold.
    pub(crate) fn for_session(&self) -> (MulticastRegistryPatternClient<Channel>, Arc<Lane>) {
        let lane = self.lane();
        (self.stub(lane.0.clone()), lane)
    }

    fn stub(&self, channel: Channel) -> MulticastRegistryPatternClient<Channel> {
        MulticastRegistryPatternClient::new(channel).max_decoding_message_size(self.max_answer_bytes)
    }

    fn lane(&self) -> Arc<Lane> {
        let mut lanes = self.lanes.lock();
        lanes.retain(|lane| lane.strong_count() > 0);
        let free = lanes.iter().find(|lane| lane.strong_count() < SESSIONS_PER_LANE);
        if let Some(lane) = free.and_then(Weak::upgrade) {
            return lane;
        }
        let lane = Arc::new(Lane(self.plan.connect_with_connector_lazy(self.dialer.clone())));
        lanes.push(Arc::downgrade(&lane));
        lane
    }
}

fn prepare(endpoints: &[Endpoint], settings: &Settings) -> Result<(Dialer, transport::Endpoint)> {
    let Some(first) = endpoints.first() else {
        return Err(Error::invalid("endpoint", "no endpoint is given"));
    };
    // With several endpoints the first one lends its name to the `:authority` of all.
    let mut plan = transport::Endpoint::from(first.uri()?);
    if let Some((interval, timeout)) = settings.keepalive {
        plan = plan
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout);
    }
    let dialer = Dialer::new(endpoints.to_vec(), settings.connect_timeout, settings.backoff);
    Ok((dialer, plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_fill_a_connection_before_they_open_another_one() {
        let settings = Settings {
            connect_timeout: Duration::from_secs(1),
            keepalive: None,
            backoff: Policy {
                base: Duration::from_secs(1),
                cap: Duration::from_secs(1),
            },
            max_answer_bytes: 1 << 20,
        };
        let connections =
            Connections::lazy(&Endpoint::parse_list("127.0.0.1:1").unwrap(), &settings).unwrap();
        let held: Vec<_> = (0..=SESSIONS_PER_LANE).map(|_| connections.lane()).collect();
        assert!(Arc::ptr_eq(&held[0], &held[SESSIONS_PER_LANE - 1]));
        assert!(!Arc::ptr_eq(&held[0], &held[SESSIONS_PER_LANE]));
        drop(held);
        let _next = connections.lane();
        assert_eq!(connections.lanes.lock().len(), 1);
    }
}
