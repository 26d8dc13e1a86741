//! A client that sees every header and trailer.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Request, Response};
use prism_core::failure::Failure;
use tokio::{net::TcpStream, task::AbortHandle};
use tonic::Status;

use super::{NAMESPACE, message, soon};

/// One connection to a proxy.
#[derive(Clone)]
pub struct Client {
    pub send: SendRequest<Bytes>,
    /// Fires when the proxy has ended the connection, with the reason of its GOAWAY if it gave one.
    pub ended: tokio::sync::watch::Receiver<Option<String>>,
    driver: AbortHandle,
}

/// A call whose response has begun.
pub struct Call {
    pub head: HeaderMap,
    pub body: RecvStream,
    pub upload: SendStream<Bytes>,
}

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: http::StatusCode,
    pub head: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with_window(address, 65_535).await
    }

    /// One that lets the proxy send so many bytes ahead for each call.
    pub async fn connect_with_window(address: SocketAddr, bytes: u32) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        // A test may leave as many answers unread as it likes.
        builder.initial_window_size(bytes).data_frame_budget(usize::MAX);
        let handshake = builder.handshake(stream);
        let (send, driver) = handshake.await.unwrap();
        let (over, ended) = tokio::sync::watch::channel(None);
        let driver = tokio::spawn(async move {
            let said = driver
                .await
                .map_or_else(|error| error.to_string(), |()| "closed".to_owned());
            let _ = over.send(Some(said));
        });
        Self {
            send,
            ended,
            driver: driver.abort_handle(),
        }
    }

    /// Breaks the connection.
    pub fn vanish(&self) {
        self.driver.abort();
    }

    pub fn request(path: &str) -> http::request::Builder {
        Request::post(format!("http://proxy{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-prism-namespace", NAMESPACE)
    }

    /// A unary call with one message.
    pub async fn unary(&self, path: &str, content: &[u8]) -> Reply {
        self.send(Self::request(path), &message(content)).await
    }

    pub async fn unary_within(&self, path: &str, timeout: Duration) -> Reply {
        let timeout = format!("{}m", timeout.as_millis());
        self.send(
            Self::request(path).header("grpc-timeout", timeout),
            &message(b"x"),
        )
        .await
    }

    pub async fn send(&self, request: http::request::Builder, body: &[u8]) -> Reply {
        let mut send = self.send.clone().ready().await.unwrap();
        let (response, mut upload) = send
            .send_request(request.body(()).unwrap(), body.is_empty())
            .unwrap();
        if !body.is_empty() {
            upload.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        Reply::read(soon(response).await.unwrap()).await
    }

    /// A call whose request stays open.
    pub async fn open(&self, path: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut send = self.send.clone().ready().await.unwrap();
        send.send_request(Self::request(path).body(()).unwrap(), false)
            .unwrap()
    }
}

impl Reply {
    pub async fn read(response: Response<RecvStream>) -> Self {
        let (head, mut body) = response.into_parts();
        let (bytes, trailers) = soon(async {
            let mut bytes = Vec::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk.unwrap();
                body.flow_control().release_capacity(chunk.len()).unwrap();
                bytes.extend(chunk);
            }
            (bytes, body.trailers().await.unwrap())
        })
        .await;
        Self {
            status: head.status,
            head: head.headers,
            body: bytes,
            trailers: trailers.unwrap_or_default(),
        }
    }

    /// The gRPC status, wherever it stands.
    pub fn grpc(&self) -> Status {
        let found = Status::from_header_map(&self.trailers).or_else(|| Status::from_header_map(&self.head));
        found.unwrap_or_else(|| panic!("no status in {self:?}"))
    }

    /// The failure that the proxy reports.
    pub fn failure(&self) -> Failure {
        Failure::from_status(&self.grpc()).unwrap_or_else(|| panic!("no failure of ours in {self:?}"))
    }

    /// The reason of the failure, as clients see it.
    pub fn reason(&self) -> &'static str {
        self.failure().reason.as_str()
    }
}
