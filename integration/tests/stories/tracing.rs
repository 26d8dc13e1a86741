//! One trace id from the caller to the consumer.

use anyhow::Result;
use integration::{PATIENCE, System};
use prism_client::{Event, RegisterRequest};
use prism_proto::pattern::{
    MulticastRequest, multicast_registry_pattern_client::MulticastRegistryPatternClient as RawClient,
};
use tonic::{Request, transport::Channel};

#[tokio::test]
async fn a_trace_goes_from_the_caller_into_the_message() -> Result<()> {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    client.registry.register(RegisterRequest::new("a")).await?;
    let mut session = client.registry.subscribe("a").await?;
    assert!(matches!(session.next().await, Some(Ok(Event::Opened(_)))));

    let channel = Channel::from_shared(format!("http://{}", system.proxy.data))?
        .connect()
        .await?;
    let mut request = Request::new(MulticastRequest::default());
    request
        .metadata_mut()
        .insert("x-prism-namespace", "test".parse()?);
    request
        .metadata_mut()
        .insert("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01").parse()?);
    RawClient::new(channel).multicast(request).await?;

    let event = tokio::time::timeout(PATIENCE, session.next()).await?;
    let Some(Ok(Event::Message(message))) = event else {
        panic!("{event:?}")
    };
    let carried = message.headers.get("traceparent").cloned().unwrap_or_default();
    assert!(carried.contains(TRACE), "{:?}", message.headers);
    let logged = system.runners[0]
        .process
        .stderr_line("multicast", PATIENCE)
        .await?;
    let all = system.runners[0].process.stderr().join("\n");
    assert!(
        all.contains(TRACE),
        "each line inside a call carries its trace id: {logged}"
    );
    Ok(())
}
