//! The way back to whoever sent a command.

use std::{fmt, net::IpAddr, sync::Arc};

use prism_core::{
    lifecycle::{Answer, wire},
    socket::host_port,
};
use prism_proto::interfaces::{PatternMessage, PatternMetadata};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// One of the proxies that this process was told to register with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(pub(crate) usize);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One control stream, as seen by those who answer on it.
#[derive(Debug, Clone)]
pub(crate) struct StreamReply {
    pub(crate) link: LinkId,
    pub(crate) queue: mpsc::Sender<PatternMessage>,
    /// Ends the stream: its peer does not read.
    pub(crate) cut: CancellationToken,
    /// The stream has ended.
    pub(crate) ended: CancellationToken,
    /// Makes the stream that followed register anew: what it reported is no longer true.
    pub(crate) outdated: Arc<Notify>,
    pub(crate) metadata: Arc<PatternMetadata>,
    /// This process as the proxy sees it.
    pub(crate) host: IpAddr,
}

/// Whoever waits for the answer to one command.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A proxy, on its control stream.
    Stream {
        stream: StreamReply,
        correlation_id: String,
    },
    /// A call of the older style, or this process itself.
    Call(oneshot::Sender<Answer>),
}

impl Reply {
    pub(crate) fn link(&self) -> Option<LinkId> {
        match self {
            Self::Stream { stream, .. } => Some(stream.link),
            Self::Call(_) => None,
        }
    }

    /// Sends the answer. Does not wait: a proxy that lets its queue fill up is cut off.
    pub(crate) fn send(self, answer: Answer) {
        match self {
            Self::Stream {
                stream,
                correlation_id,
            } => stream.send(correlation_id, answer),
            // A caller that went away needs no answer.
            Self::Call(caller) => drop(caller.send(answer)),
        }
    }
}

impl StreamReply {
    fn send(&self, correlation_id: String, answer: Answer) {
        let configured = matches!(answer, Answer::Initialized(_));
        let message = wire::answer_message(localized(answer, self.host), &self.metadata);
        let message = PatternMessage {
            correlation_id,
            message: Some(message),
        };
        if self.ended.is_cancelled() {
            if configured {
                self.outdated.notify_one();
            }
        } else if self.queue.try_send(message).is_err() {
            self.cut.cancel();
        }
    }
}

/// Replaces "any address" in a data endpoint by the address under which the asker reached, or was
/// reached by, this process.
pub(crate) fn localized(answer: Answer, host: IpAddr) -> Answer {
    match answer {
        Answer::Started(Ok(endpoint)) => {
            Answer::Started(Ok(match endpoint.parse::<std::net::SocketAddr>() {
                Ok(address) if address.ip().is_unspecified() => host_port(host, address.port()),
                _ => endpoint,
            }))
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_becomes_the_one_that_the_proxy_can_reach() {
        let localize = |endpoint: &str| match localized(
            Answer::Started(Ok(endpoint.to_owned())),
            "10.0.0.7".parse().unwrap(),
        ) {
            Answer::Started(Ok(endpoint)) => endpoint,
            other => panic!("{other:?}"),
        };
        assert_eq!(localize("0.0.0.0:50051"), "10.0.0.7:50051");
        assert_eq!(localize("[::]:50051"), "10.0.0.7:50051");
        assert_eq!(localize("192.168.1.1:50051"), "192.168.1.1:50051");
        assert_eq!(localize("runner.example:50051"), "runner.example:50051");
    }
}
