//! The system that the cases of a combination share, what one case sees of it, and what cases say and hear.

use std::{fmt::Debug, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use integration::{PATIENCE, Proxy, Runner, calls::next_message};
use prism_client::{
    Client, DeliveryStatus, Filter, Multicast, MulticastRequest, Reason, RegisterRequest, Subscription,
};
use serde_json::{Value, json};
use tokio::{sync::OnceCell, time::timeout};

use crate::{
    combination::{Combination, Servers, Slots},
    suite::Case,
};

/// The namespace that nobody has to himself.
const ELSEWHERE: &str = "elsewhere";

/// The system of one combination, once somebody needs it.
pub(crate) struct World {
    combination: &'static Combination,
    cases: Vec<&'static Case>,
    slots: Slots,
    system: OnceCell<Result<Arc<System>, String>>,
}

struct System {
    proxy: Proxy,
    runners: Vec<Runner>,
    servers: Servers,
}

impl World {
    /// A system for those of these cases that apply.
    pub(crate) fn new(
        combination: &'static Combination,
        cases: impl Iterator<Item = &'static Case>,
    ) -> Result<Self> {
        let slots = combination.capabilities()?;
        Ok(Self {
            combination,
            cases: cases.filter(|case| (case.applies)(&slots)).collect(),
            slots,
            system: OnceCell::new(),
        })
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// How many runners serve a namespace.
    fn runners(&self) -> usize {
        1 + usize::from(self.slots.are_shared())
    }

    /// What a case sees.
    pub(crate) async fn fixture(self: &Arc<Self>, case: &'static Case) -> Result<Fixture> {
        let system = self.system.get_or_init(async || match self.start().await {
            Ok(system) => Ok(Arc::new(system)),
            Err(error) => Err(format!("{error:#}")),
        });
        let system = system
            .await
            .clone()
            .map_err(|error| anyhow!("no system: {error}"))?;
        Ok(Fixture {
            world: self.clone(),
            system,
            case,
        })
    }

    async fn start(&self) -> Result<System> {
        let servers = self.combination.start_servers().await?;
        let of_cases = self
            .cases
            .iter()
            .map(|case| self.namespace(case.name, case, &servers));
        let mut namespaces: Vec<Value> = of_cases.collect();
        namespaces.push(self.combination.namespace(ELSEWHERE, &servers));
        let (proxy, runners) = serve(&namespaces, self.runners()).await?;
        Ok(System {
            proxy,
            runners,
            servers,
        })
    }

    /// A namespace as a case wishes it.
    fn namespace(&self, name: &str, case: &Case, servers: &Servers) -> Value {
        let mut namespace = self.combination.namespace(name, servers);
        merge(&mut namespace, (case.wishes)());
        namespace
    }
}

/// Starts a proxy and runners, and waits until all of these serve all of those.
async fn serve(namespaces: &[Value], count: usize) -> Result<(Proxy, Vec<Runner>)> {
    let proxy = Proxy::start(namespaces).await?;
    let runners = start_runners(&proxy, count).await?;
    for namespace in namespaces {
        proxy.wait_for_runners(name_of(namespace), count).await;
    }
    Ok((proxy, runners))
}

async fn start_runners(proxy: &Proxy, count: usize) -> Result<Vec<Runner>> {
    futures::future::try_join_all((0..count).map(|_| Runner::under(proxy.control))).await
}

fn name_of(namespace: &Value) -> &str {
    namespace["name"].as_str().unwrap()
}

/// Writes one tree over another.
fn merge(into: &mut Value, from: Value) {
    match from {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                merge(&mut into[key], value);
            }
        }
        Value::Object(_) => {}
        other => *into = other,
    }
}

/// What one case sees of the system.
pub(crate) struct Fixture {
    world: Arc<World>,
    system: Arc<System>,
    case: &'static Case,
}

impl Fixture {
    /// What the slots can do.
    pub(crate) fn slots(&self) -> &Slots {
        self.world.slots()
    }

    /// Another client of the case's namespace.
    pub(crate) fn client(&self) -> Result<Client> {
        self.system.proxy.client(self.case.name)
    }

    /// A client of another namespace on the same backends, where other cases come and go.
    pub(crate) fn elsewhere(&self) -> Result<Client> {
        self.system.proxy.client(ELSEWHERE)
    }

    /// Clients of the case's namespace past the proxy, one of each runner.
    pub(crate) fn through_each_runner(&self) -> Result<Vec<Client>> {
        let runners = self.system.runners.iter();
        runners.map(|runner| runner.client(self.case.name)).collect()
    }

    /// What the runners tell of themselves.
    pub(crate) async fn metrics(&self) -> Result<Vec<String>> {
        let mut pages = Vec::new();
        for runner in &self.system.runners {
            pages.push(integration::http_get(runner.health, "/metrics").await?.1);
        }
        Ok(pages)
    }

    /// The name of the case's namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.case.name
    }

    /// A proxy and runners on the same servers for this case alone.
    pub(crate) async fn alone(&self) -> Result<Alone> {
        let name = format!("{}-alone", self.case.name);
        let namespace = self.world.namespace(&name, self.case, &self.system.servers);
        let (proxy, runners) = serve(std::slice::from_ref(&namespace), self.world.runners()).await?;
        Ok(Alone {
            proxy,
            runners,
            namespace,
        })
    }
}

/// A proxy and runners that one case can do with what it likes.
pub(crate) struct Alone {
    proxy: Proxy,
    runners: Vec<Runner>,
    namespace: Value,
}

impl Alone {
    pub(crate) fn client(&self) -> Result<Client> {
        self.proxy.client(name_of(&self.namespace))
    }

    /// Kills all runners, and starts as many.
    pub(crate) async fn replace_runners(&mut self) -> Result<()> {
        let count = self.runners.len();
        self.runners.clear();
        // Or a proxy that has not noticed yet would answer for those that are gone.
        self.proxy.wait_for_runners(name_of(&self.namespace), 0).await;
        self.runners = start_runners(&self.proxy, count).await?;
        self.proxy.wait_for_runners(name_of(&self.namespace), count).await;
        Ok(())
    }

    /// Stops all runners for a while.
    pub(crate) async fn freeze_runners(&mut self, time: Duration) -> Result<()> {
        for runner in &mut self.runners {
            runner.process.freeze()?;
        }
        pass(time).await;
        for runner in &mut self.runners {
            runner.process.thaw()?;
        }
        Ok(())
    }

    /// Has the namespace behave otherwise from now on, or soon.
    pub(crate) fn configure(&mut self, behavior: Value) -> Result<()> {
        merge(&mut self.namespace, json!({ "behavior": behavior }));
        self.proxy.configure(std::slice::from_ref(&self.namespace))
    }
}

/// A lease that does not last long, and longer than anything takes.
pub(crate) const TTL: Duration = Duration::from_millis(1_200);
/// After which it is over.
pub(crate) const PAST_TTL: Duration = Duration::from_millis(1_350);

/// Lets time pass, where it is time that has an effect and nothing else to be seen.
pub(crate) async fn pass(by: Duration) {
    tokio::time::sleep(by).await;
}

/// A registration whose lease ends soon.
pub(crate) fn leased(name: &str) -> RegisterRequest {
    RegisterRequest {
        ttl_ms: Some(TTL.as_millis() as u64),
        ..RegisterRequest::new(name)
    }
}

/// A registration with metadata.
pub(crate) fn with(name: &str, metadata: Value) -> RegisterRequest {
    RegisterRequest {
        metadata,
        ..RegisterRequest::new(name)
    }
}

/// Why a call was refused.
pub(crate) fn refusal<T: Debug>(outcome: prism_client::Result<T>) -> Option<Reason> {
    outcome.unwrap_err().reason()
}

/// A message that is sent once, to everybody.
pub(crate) fn once(payload: &str) -> MulticastRequest {
    MulticastRequest {
        payload: payload.as_bytes().to_vec(),
        ..Default::default()
    }
}

/// The same to one identity.
pub(crate) fn to(name: &str, request: MulticastRequest) -> MulticastRequest {
    MulticastRequest {
        // Equality with `*` would ask for any.
        filter: Some(Filter::new().is_in("$identity", [name])),
        ..request
    }
}

/// What is known of one target.
pub(crate) fn status_of<'a>(report: &'a Multicast, name: &str) -> &'a DeliveryStatus {
    let mut statuses = report.statuses.iter();
    statuses.find(|status| status.identity == name).unwrap()
}

/// What the next messages of a session say.
pub(crate) async fn texts(session: &mut Subscription, count: usize) -> Result<Vec<String>> {
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        texts.push(text(&next_message(session).await?));
    }
    Ok(texts)
}

/// What ended a session, whatever it was told before.
pub(crate) async fn end_of(session: &mut Subscription) -> Result<prism_client::Error> {
    loop {
        let event = timeout(PATIENCE, session.next()).await.context("it goes on")?;
        if let Err(error) = event.context("it ended before")? {
            return Ok(error);
        }
    }
}

/// What a message says.
pub(crate) fn text(message: &prism_client::Message) -> String {
    String::from_utf8(message.payload.to_vec()).unwrap()
}
