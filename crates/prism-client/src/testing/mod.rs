//! A registry in this process that answers as a test says, for tests of programs that use the client.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use prism_client::{Client, testing::{FakeRegistry, answers}};
//!
//! let fake = FakeRegistry::start().await?;
//! fake.on_get(|request| async move { Ok(answers::found(&request.get_ref().identity)) });
//!
//! let client = Client::builder().endpoint(fake.endpoint()).namespace("presence").connect().await?;
//! assert_eq!(client.registry.get("alice").await?.identity.identity, "alice");
//! assert_eq!(fake.calls()[0].metadata("x-prism-namespace"), Some("presence"));
//! # Ok(())
//! # }
//! ```

pub mod answers;
mod sessions;

pub use sessions::Words;

use std::{collections::VecDeque, future::Future, io, net::SocketAddr, sync::Arc};

use futures::{FutureExt, Stream, StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use parking_lot::Mutex;
use prism_proto::pattern::{
    self as wire,
    multicast_registry_pattern_server::{MulticastRegistryPattern, MulticastRegistryPatternServer},
    subscribe_request,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap, transport::Server};

/// The streams on one connection at a time: as few as any server on the way is known to allow.
const STREAMS: u32 = 100;

/// A service on a free loopback port. Calls for which nothing was said are `UNIMPLEMENTED`. It stops
/// accepting connections when this is dropped.
pub struct FakeRegistry {
    address: SocketAddr,
    script: Arc<Script>,
    drain: CancellationToken,
    _serve: AbortOnDropHandle<()>,
}

/// A call that was received.
#[derive(Debug, Clone)]
pub struct Call {
    /// The name of the method.
    pub method: &'static str,
    metadata: MetadataMap,
}

impl Call {
    /// An entry of its request metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.to_str().ok()
    }
}

/// The answers in turn, then an error that says that there are no more.
pub fn in_turn<T>(answers: impl IntoIterator<Item = Result<T, Status>>) -> impl Fn() -> Result<T, Status> {
    let answers: Mutex<VecDeque<_>> = Mutex::new(answers.into_iter().collect());
    move || {
        let next = answers.lock().pop_front();
        next.unwrap_or_else(|| Err(Status::internal("the script has no more answers")))
    }
}

type Handler<Req, Res> = Arc<dyn Fn(Request<Req>) -> BoxFuture<'static, Result<Res, Status>> + Send + Sync>;
type Slot<Req, Res> = Mutex<Option<Handler<Req, Res>>>;
type Changes = BoxStream<'static, Result<wire::WatchResponse, Status>>;
type Answers = BoxStream<'static, Result<wire::SubscribeResponse, Status>>;
type Told = BoxStream<'static, Result<wire::MulticastStreamResponse, Status>>;
type Checks = BoxStream<'static, Result<wire::CheckSchemaResponse, Status>>;
type Many = Slot<Vec<wire::RegisterRequest>, wire::RegisterManyResponse>;

impl FakeRegistry {
    /// Starts to serve.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let script = Arc::new(Script::default());
        let drain = CancellationToken::new();
        let server = Server::builder()
            .max_concurrent_streams(STREAMS)
            .add_service(MulticastRegistryPatternServer::new(Scripted(script.clone())))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), drain.clone().cancelled_owned());
        let serve = tokio::spawn(server.map(|_| ()));
        Ok(Self {
            address,
            script,
            drain,
            _serve: AbortOnDropHandle::new(serve),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as an endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends in an orderly way: accepts no connection any more, and on those that are there no call beyond
    /// the ones under way.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// The calls received so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.script.calls.lock().clone()
    }

    /// How many of them were of this method.
    pub fn count(&self, method: &str) -> usize {
        self.script
            .calls
            .lock()
            .iter()
            .filter(|call| call.method == method)
            .count()
    }

    /// Says what a check of the schema answers: the stream of its messages, whose end is its end.
    pub fn on_check_schema<F, Fut, S>(&self, handler: F)
    where
        F: Fn(wire::CheckSchemaRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Status>> + Send + 'static,
        S: Stream<Item = Result<wire::CheckSchemaResponse, Status>> + Send + 'static,
    {
        let handler: Handler<wire::CheckSchemaRequest, Checks> = Arc::new(move |request| {
            handler(request.into_inner())
                .map(|answers| answers.map(S::boxed))
                .boxed()
        });
        *self.script.check_schema.lock() = Some(handler);
    }

    /// Says what a stream of registrations is answered, once all of them are there.
    pub fn on_register_many<F, Fut>(&self, handler: F)
    where
        F: Fn(Vec<wire::RegisterRequest>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<wire::RegisterManyResponse, Status>> + Send + 'static,
    {
        let handler: Handler<_, _> =
            Arc::new(move |request: Request<_>| handler(request.into_inner()).boxed());
        *self.script.register_many.lock() = Some(handler);
    }

    /// Says what a multicast that is followed tells: the stream of its messages, whose end is its end.
    pub fn on_multicast_stream<F, Fut, S>(&self, handler: F)
    where
        F: Fn(Request<wire::MulticastRequest>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Status>> + Send + 'static,
        S: Stream<Item = Result<wire::MulticastStreamResponse, Status>> + Send + 'static,
    {
        let handler: Handler<wire::MulticastRequest, Told> =
            Arc::new(move |request| handler(request).map(|told| told.map(S::boxed)).boxed());
        *self.script.multicast_stream.lock() = Some(handler);
    }

    /// Says what a watch gets: the stream of its answers, whose end is its end.
    pub fn on_watch<F, Fut, S>(&self, handler: F)
    where
        F: Fn(wire::WatchRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, Status>> + Send + 'static,
        S: Stream<Item = Result<wire::WatchResponse, Status>> + Send + 'static,
    {
        let handler: Handler<wire::WatchRequest, Changes> = Arc::new(move |request| {
            handler(request.into_inner())
                .map(|answers| answers.map(S::boxed))
                .boxed()
        });
        *self.script.watch.lock() = Some(handler);
    }
}

macro_rules! unary {
    ($($field:ident $on:ident $method:literal $request:ident $response:ident)*) => {
        #[derive(Default)]
        struct Script {
            calls: Mutex<Vec<Call>>,
            subscribe: Slot<sessions::Opening, Answers>,
            said: Mutex<Vec<subscribe_request::Message>>,
            multicast_stream: Slot<wire::MulticastRequest, Told>,
            check_schema: Slot<wire::CheckSchemaRequest, Checks>,
            watch: Slot<wire::WatchRequest, Changes>,
            register_many: Many,
            $($field: Slot<wire::$request, wire::$response>,)*
        }

        impl FakeRegistry {
            $(
                #[doc = concat!("Says what `", $method, "` answers.")]
                pub fn $on<F, Fut>(&self, handler: F)
                where
                    F: Fn(Request<wire::$request>) -> Fut + Send + Sync + 'static,
                    Fut: Future<Output = Result<wire::$response, Status>> + Send + 'static,
                {
                    let handler: Handler<_, _> = Arc::new(move |request| handler(request).boxed());
                    *self.script.$field.lock() = Some(handler);
                }
            )*
        }

        #[tonic::async_trait]
        impl MulticastRegistryPattern for Scripted {
            type MulticastStreamStream = Told;
            type SubscribeStream = Answers;
            type WatchStream = Changes;
            type CheckSchemaStream = Checks;

            $(
                async fn $field(&self, request: Request<wire::$request>) -> Result<Response<wire::$response>, Status> {
                    self.answer($method, &self.0.$field, request).await.map(Response::new)
                }
            )*

            async fn subscribe(
                &self,
                request: Request<Streaming<wire::SubscribeRequest>>,
            ) -> Result<Response<Answers>, Status> {
                self.open(request).await.map(Response::new)
            }

            async fn register_many(
                &self,
                request: Request<Streaming<wire::RegisterRequest>>,
            ) -> Result<Response<wire::RegisterManyResponse>, Status> {
                let (metadata, extensions, requests) = request.into_parts();
                let all = requests.try_collect().await?;
                let request = Request::from_parts(metadata, extensions, all);
                self.answer("RegisterMany", &self.0.register_many, request).await.map(Response::new)
            }

            async fn multicast_stream(
                &self,
                request: Request<wire::MulticastRequest>,
            ) -> Result<Response<Told>, Status> {
                let slot = &self.0.multicast_stream;
                self.answer("MulticastStream", slot, request).await.map(Response::new)
            }

            async fn watch(
                &self,
                request: Request<wire::WatchRequest>,
            ) -> Result<Response<Self::WatchStream>, Status> {
                self.answer("Watch", &self.0.watch, request).await.map(Response::new)
            }

            async fn check_schema(
                &self,
                request: Request<wire::CheckSchemaRequest>,
            ) -> Result<Response<Checks>, Status> {
                self.answer("CheckSchema", &self.0.check_schema, request).await.map(Response::new)
            }
        }
    };
}

struct Scripted(Arc<Script>);

unary! {
    register on_register "Register" RegisterRequest RegisterResponse
    renew on_renew "Renew" RenewRequest RenewResponse
    update on_update "Update" UpdateRequest UpdateResponse
    get on_get "Get" GetRequest GetResponse
    enumerate on_enumerate "Enumerate" EnumerateRequest EnumerateResponse
    multicast on_multicast "Multicast" MulticastRequest MulticastResponse
    unregister on_unregister "Unregister" UnregisterRequest UnregisterResponse
    get_multicast on_get_multicast "GetMulticast" GetMulticastRequest MulticastResponse
    cancel_multicast on_cancel_multicast "CancelMulticast" CancelMulticastRequest MulticastResponse
    explain on_explain "Explain" ExplainRequest ExplainResponse
    list_dead_letters on_list_dead_letters "ListDeadLetters" ListDeadLettersRequest ListDeadLettersResponse
    redrive_dead_letters on_redrive_dead_letters "RedriveDeadLetters" RedriveDeadLettersRequest RedriveDeadLettersResponse
}

impl Scripted {
    async fn answer<Req, Res>(
        &self,
        method: &'static str,
        slot: &Slot<Req, Res>,
        request: Request<Req>,
    ) -> Result<Res, Status> {
        let metadata = request.metadata().clone();
        self.0.calls.lock().push(Call { method, metadata });
        let handler = slot.lock().clone();
        handler.ok_or_else(|| unscripted(method))?(request).await
    }
}

fn unscripted(method: &str) -> Status {
    Status::unimplemented(format!("the test does not say what `{method}` answers"))
}
