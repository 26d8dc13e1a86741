//! The Rust client.
//!
//! ```no_run
//! use prism_client::{Client, EnumerateRequest, Filter, MulticastRequest, RegisterRequest};
//! use serde_json::json;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("microservices").await?;
//!
//! // Register
//! client.registry.register(RegisterRequest {
//!     identity: "payment-service-1".into(),
//!     metadata: json!({
//!         "service_name": "payment-service",
//!         "version": "2.3.1",
//!         "health_status": "healthy",
//!     }),
//!     ttl: Some(30),
//!     ..Default::default()
//! }).await?;
//!
//! // Enumerate
//! let services = client.registry.enumerate(EnumerateRequest {
//!     filter: Some(Filter::new()
//!         .eq("service_name", "payment-service")
//!         .eq("health_status", "healthy")),
//!     ..Default::default()
//! }).await?;
//!
//! // Multicast
//! let result = client.registry.multicast(MulticastRequest {
//!     filter: Some(Filter::new().eq("service_name", "*")),
//!     payload: serde_json::to_vec(&json!({"type": "config_update"}))?,
//!     ..Default::default()
//! }).await?;
//! println!("{} of {} services, {} told", services.total_count, result.target_count, result.delivered_count);
//! # Ok(())
//! # }
//! ```
//!
//! # Staying registered, and listening
//!
//! ```no_run
//! use prism_client::{Client, Event, RegisterRequest};
//!
//! #[derive(serde::Serialize)]
//! struct Presence<'a> {
//!     display_name: &'a str,
//!     current_room: &'a str,
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().endpoint("proxy.example:8980").namespace("presence").connect().await?;
//!
//! let request = RegisterRequest { ttl: Some(30), ..RegisterRequest::new("user-alice-session-1") }
//!     .with_metadata(&Presence { display_name: "Alice", current_room: "engineering" })?;
//! let alice = client.registry.register_handle(request).await?;
//!
//! let mut messages = alice.subscribe().await?;
//! while let Some(event) = messages.next().await {
//!     match event? {
//!         Event::Opened(_) => println!("listening"),
//!         Event::Message(message) => println!("{} bytes", message.payload.len()),
//!         Event::Gap(gap) => println!("{} or more messages are missing", gap.dropped),
//!     }
//! }
//! alice.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Sending until it is acknowledged, and acknowledging
//!
//! Where a namespace stores messages, a multicast can be made at least once: each target has the message until it
//! acknowledges it, also one that is not listening now. What is stored and not acknowledged comes again, after the
//! namespace's `ack_timeout` or with the next session, with a higher [`attempt`](Message::attempt); after so many, or
//! when the consumer refuses it, it is a dead letter. An acknowledged message is not handed out again, although the
//! service may send it again where an acknowledgement was lost with its session. That makes a delivery effectively
//! once for a consumer that acknowledges what it has dealt with, as long as the subscription lives.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use prism_client::{Client, DeliverySemantics, Event, Filter, MulticastRequest};
//!
//! # async fn handle(message: &prism_client::Message) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("orders").await?;
//!
//! let sent = client.registry.multicast(MulticastRequest {
//!     filter: Some(Filter::new().eq("role", "kitchen")),
//!     payload: b"two pizzas".to_vec(),
//!     delivery: Some(DeliverySemantics::AtLeastOnce),
//!     idempotency_key: Some("order-7".into()),
//!     ..Default::default()
//! }).await?;
//! println!("{} have it, {} will get it", sent.delivered_count, sent.pending_count);
//!
//! let mut orders = client.registry.subscribe("kitchen-1").await?;
//! while let Some(event) = orders.next().await {
//!     let Event::Message(message) = event? else { continue };
//!     match handle(&message).await {
//!         Ok(()) => message.ack().await?,
//!         Err(_) if message.attempt < 3 => message.nack(Duration::from_secs(5)).await?,
//!         Err(error) => message.term(error.to_string()).await?,
//!     };
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Asking many, and gathering what they answer
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use prism_client::{Client, Event, MulticastEvent, MulticastRequest};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("sensors").await?;
//!
//! let mut told = client.registry.multicast_stream(MulticastRequest {
//!     payload: b"how warm is it?".to_vec(),
//!     timeout: Some(Duration::from_secs(2)),
//!     collect_replies: true,
//!     ..Default::default()
//! }).await?;
//! while let Some(event) = told.next().await {
//!     if let MulticastEvent::Reply(reply) = event? {
//!         println!("{}: {}", reply.identity, String::from_utf8_lossy(&reply.payload));
//!     }
//! }
//!
//! // And on the other side:
//! let mut questions = client.registry.subscribe("sensor-1").await?;
//! while let Some(event) = questions.next().await {
//!     if let Event::Message(question) = event? && question.expects_reply {
//!         question.answer("21 °C").await?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Deadlines, retries, errors
//!
//! Every call ends within its timeout ([`ClientBuilder::timeout`], [`Registry::with_timeout`]); the
//! service is told, and stops working for a caller that is gone. Calls are retried only where that is
//! safe, see [`Registry`]. An [`Error`] says why ([`Error::reason`]), whether the call may have been
//! carried out nevertheless ([`Error::applied`]), and when to try again ([`Error::retry_after`]).
//!
//! # Traces
//!
//! Each call runs in a [`tracing`] span that carries its `trace_id`, and hands its W3C trace context on to
//! the service: that of the span it is made in, where somebody exports spans, else a new one.
//!
//! # Tasks
//!
//! The client spawns one task for each namespace in which it keeps registrations; it ends with the last
//! [`RegistrationHandle`] there. Each [`Subscription`] has one, which ends with it. The transport runs one for each
//! connection.

mod by_namespace;
mod call;
mod client;
mod config;
mod delivery;
mod error;
mod explanation;
mod headers;
mod message;
mod model;
mod progress;
pub mod raw;
mod registry;
mod renewal;
mod request;
mod schema_check;
mod subscription;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod watch;
mod wire;

pub use client::Client;
pub use config::{ClientBuilder, DEFAULT_ENDPOINT, DEFAULT_NAMESPACE};
pub use delivery::{
    DeadLetter, DeadLetters, DeliveryStatus, DryRun, Multicast, MulticastEvent, MulticastState,
    ReceiptsScope, Redriven, Reply, Stage, Status,
};
pub use error::{Applied, Error, Refusal, Result};
pub use explanation::{Explanation, Verdict, Why};
pub use message::{Answer, Event, Gap, GapReason, Message, Opened, Settled};
pub use model::{
    Cause, Change, Facet, Found, Identity, Outcome, Page, Position, Registration, Renewal, Renewed,
    SchemaFinding, SchemaProgress, SchemaViolation, Unregistered, WatchEvent,
};
pub use prism_core::failure::Reason;
pub use prism_filter::Filter;
pub use progress::MulticastProgress;
pub use raw::Said;
pub use registry::Registry;
pub use renewal::{RegistrationHandle, State};
pub use request::{
    CheckSchemaRequest, Consistency, Credits, DeliverySemantics, EnumerateRequest, GetMulticastRequest,
    Lease, ListDeadLettersRequest, MulticastRequest, Priority, RedriveRequest, RegisterRequest, SessionId,
    SubscribeRequest, UnregisterRequest, UpdateRequest, WatchRequest,
};
pub use schema_check::SchemaCheck;
pub use subscription::Subscription;
pub use tonic::Code;
pub use watch::Watch;

/// The example that newcomers copy compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
