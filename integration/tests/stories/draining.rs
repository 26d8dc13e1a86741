//! Processes that are told to end while calls arrive, seen from the wire: every call that went out has to
//! come back answered. There is no client library here that could try again, and the proxy may not
//! either.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use h2::client::SendRequest;
use integration::{Proxy, Runner, START_LIMIT, memory_namespace, shared_namespace_at};
use prism_client::RegisterRequest;
use prism_proto::pattern::GetRequest;
use prism_testkit::{NatsServer, RedisServer, Signal, eventually};
use prost::Message;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};
use tonic::codegen::{Bytes, http};

/// For one call. Longer than any takes, unless it is lost.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// What came of the calls that went out.
#[derive(Debug, Default)]
struct Count {
    answered: AtomicUsize,
    /// Each failed in one of many ways.
    failed: std::sync::Mutex<Vec<String>>,
}

impl Count {
    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    fn failures(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }
}

/// Callers on a few connections. A connection that is told to go away sends nothing more and waits for
/// the answers to what it has sent.
struct Load {
    count: Arc<Count>,
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

impl Load {
    async fn start(address: SocketAddr, connections: usize, callers: usize) -> Result<Self> {
        let mut load = Self {
            count: Arc::default(),
            stop: Arc::default(),
            callers: JoinSet::new(),
        };
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (send, connection) = h2::client::handshake(stream).await?;
            load.callers.spawn(async { drop(connection.await) });
            for _ in 0..callers {
                let (send, count, stop) = (send.clone(), load.count.clone(), load.stop.clone());
                load.callers.spawn(call_until(send, count, stop));
            }
        }
        Ok(load)
    }

    async fn answered(&self, more: usize) {
        let goal = self.count.answered() + more;
        let enough = async || self.count.answered() >= goal;
        eventually(START_LIMIT, "calls are answered", enough).await;
    }

    /// Waits until every caller has all its answers.
    async fn end(mut self) -> Result<Arc<Count>> {
        self.stop.store(true, Ordering::SeqCst);
        let ended = async { while self.callers.join_next().await.is_some() {} };
        tokio::time::timeout(CALL_LIMIT, ended)
            .await
            .context("calls hang")?;
        Ok(self.count)
    }
}

async fn call_until(send: SendRequest<Bytes>, count: Arc<Count>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        // An error here is the GOAWAY: this connection takes no more calls.
        let Ok(ready) = send.clone().ready().await else {
            return;
        };
        match call(ready).await {
            Ok(true) => drop(count.answered.fetch_add(1, Ordering::SeqCst)),
            Ok(false) => return,
            Err(error) => count.failed.lock().unwrap().push(format!("{error:#}")),
        }
    }
}

/// One call; `false` when it could not even be sent.
async fn call(mut send: SendRequest<Bytes>) -> Result<bool> {
    let request = http::Request::post("http://proxy/prism.pattern.MulticastRegistryPattern/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-prism-namespace", "test")
        .body(())?;
    let Ok((response, mut body)) = send.send_request(request, false) else {
        return Ok(false);
    };
    let exchange = async {
        body.send_data(framed(&GetRequest { identity: "a".into() }), true)?;
        let (head, mut answer) = response.await?.into_parts();
        let mut size = 0;
        while let Some(data) = answer.data().await {
            size += data?.len();
        }
        let trailers = answer.trailers().await?.unwrap_or_default();
        let status = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
        match status.map(http::HeaderValue::as_bytes) {
            Some(b"0") if size > 5 => Ok(true),
            other => bail!(
                "status {other:?}, headers {:?}, trailers {trailers:?}",
                head.headers
            ),
        }
    };
    tokio::time::timeout(CALL_LIMIT, exchange)
        .await
        .context("no answer")?
}

fn framed(message: &impl Message) -> Bytes {
    let content = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend((content.len() as u32).to_be_bytes());
    bytes.extend(content);
    bytes.into()
}

/// A proxy that makes no second attempt: it keeps nothing to be sent again. When it is told to end it goes on
/// for long enough that this can be seen.
async fn without_retries(namespace: Value) -> Result<Proxy> {
    let config = json!({
        "limits": { "retry_buffer": 0 },
        "timeouts": { "readiness_grace": "2s" },
        "namespaces": [namespace],
    });
    Proxy::start_with(&config, &[]).await
}

async fn metric(proxy: &Proxy, beginning: &str) -> Result<u64> {
    let (_, text) = proxy.admin("/metrics").await?;
    let values = text.lines().filter(|line| line.starts_with(beginning));
    let sum = values
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum();
    Ok(sum)
}

#[tokio::test]
async fn a_proxy_answers_every_call_that_it_has_taken() -> Result<()> {
    let mut proxy = without_retries(memory_namespace("test")).await?;
    let _runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    proxy
        .client("test")?
        .registry
        .register(RegisterRequest::new("a"))
        .await?;
    let load = Load::start(proxy.data, 4, 16).await?;
    load.answered(500).await;
    proxy.process.signal(Signal::TERM)?;
    let before = load.count.answered();
    // Readiness has failed, and calls are still taken.
    load.answered(50).await;
    let status = proxy.process.wait(START_LIMIT).await?;
    assert_eq!(
        status.code(),
        Some(0),
        "nothing had to be cut: {:?}",
        proxy.process.stderr()
    );
    let count = load.end().await?;
    assert_eq!(
        count.failures(),
        Vec::<String>::new(),
        "of {} calls",
        count.answered()
    );
    assert!(count.answered() > before);
    Ok(())
}

#[tokio::test]
async fn a_runner_answers_every_call_that_it_is_sent() -> Result<()> {
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let proxy = without_retries(shared_namespace_at("test", redis.addr(), nats.addr())).await?;
    let mut leaving = Runner::under(proxy.control).await?;
    let _staying = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 2).await;
    proxy
        .client("test")?
        .registry
        .register(RegisterRequest::new("a"))
        .await?;
    // A call is counted once its last trailer is out, when the client may have it already.
    let registered = 1;
    let is_counted = async || metric(&proxy, "prism_proxy_calls_total{").await.ok() == Some(registered);
    eventually(START_LIMIT, "the registration is counted", is_counted).await;
    let load = Load::start(proxy.data, 4, 16).await?;
    load.answered(500).await;
    leaving.process.signal(Signal::TERM)?;
    let status = leaving.process.wait(START_LIMIT).await?;
    assert_eq!(status.code(), Some(0), "{:?}", leaving.process.stderr());
    load.answered(500).await;
    let count = load.end().await?;
    assert_eq!(
        count.failures(),
        Vec::<String>::new(),
        "of {} calls",
        count.answered()
    );
    assert_eq!(metric(&proxy, "prism_proxy_retries_total").await?, 0);
    // The proxy has counted the same calls, all of them as good ones.
    let answered = count.answered() as u64;
    let counted =
        async || metric(&proxy, "prism_proxy_calls_total{").await.ok() == Some(registered + answered);
    eventually(START_LIMIT, "both have counted the same", counted).await;
    let good = metric(
        &proxy,
        "prism_proxy_calls_total{namespace=\"test\",method=\"prism.pattern.MulticastRegistryPattern/Get\",code=\"OK\"}",
    );
    assert_eq!(good.await?, answered);
    Ok(())
}

/// Calls that do not end in time are ended, which is said by the exit code.
#[tokio::test]
async fn a_proxy_that_has_to_cut_calls_ends_with_2() -> Result<()> {
    let (mut redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let config = json!({
        "timeouts": { "drain": "300ms" },
        "namespaces": [shared_namespace_at("test", redis.addr(), nats.addr())],
    });
    let mut proxy = Proxy::start_with(&config, &[]).await?;
    let _runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    client.registry.register(RegisterRequest::new("a")).await?;
    redis.freeze()?;
    let calling = tokio::spawn(async move { client.registry.register(RegisterRequest::new("b")).await });
    let under_way = async || metric(&proxy, "prism_proxy_calls_in_flight").await.ok() == Some(1);
    eventually(START_LIMIT, "the call is under way", under_way).await;
    proxy.process.signal(Signal::TERM)?;
    assert_eq!(proxy.process.wait(START_LIMIT).await?.code(), Some(2));
    assert!(calling.await?.is_err());
    redis.thaw()?;
    Ok(())
}
