//! Clients that renew by themselves, outages that end nobody, and who is fenced out.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use integration::{PATIENCE, Runner, System, calls::next_change};
use multicast_registry::directory::{Directory, Observer, Settings, Standing};
use prism_client::{
    Cause, Client, Lease, Position, Reason, RegisterRequest, RegistrationHandle, State, SubscribeRequest,
    UnregisterRequest, UpdateRequest, Watch, WatchRequest,
};
use prism_slot::{Call, Identity, Mode, Owner, Register, RegistryStore, RequestId, Unregister};
use prism_slot_redis::{Config, RedisRegistry};
use prism_testkit::{RedisServer, Signal, eventually};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Short enough to be renewed a few times, and longer than anything stalls.
const TTL_MS: u64 = 3_000;

fn leased(name: &str) -> RegisterRequest {
    leased_for(TTL_MS, name)
}

fn leased_for(millis: u64, name: &str) -> RegisterRequest {
    RegisterRequest {
        ttl_ms: Some(millis),
        ..RegisterRequest::new(name)
    }
}

/// Of whom the next change is, why, and when.
async fn change(watch: &mut Watch) -> Result<(String, Cause, Position)> {
    let change = next_change(watch).await?;
    Ok((change.identity.identity, change.cause, change.position))
}

async fn backends() -> Result<[System; 2]> {
    Ok([System::on_memory().await?, System::on_redis_and_nats(2).await?])
}

/// Handles keep their leases for several times their length, and a watcher of everything hears nothing of it.
#[tokio::test]
async fn a_client_renews_by_itself_and_wakes_nobody() -> Result<()> {
    for system in backends().await? {
        let client = system.client()?;
        let mut watch = client.registry.watch(WatchRequest::default()).await?;
        let mut handles = Vec::new();
        for name in ["a", "b", "c"] {
            handles.push(client.registry.register_handle(leased(name)).await?);
            assert_eq!(change(&mut watch).await?.1, Cause::Registered);
        }
        let before = client.registry.get("a").await?;
        let first = handles
            .iter()
            .map(|handle| handle.registration().expires_at)
            .min()
            .flatten();
        let far = first.context("a lease")? + Duration::from_millis(TTL_MS);
        let renewed = |handle: &RegistrationHandle| handle.registration().expires_at > Some(far);
        eventually(PATIENCE, "each was renewed for another length", async || {
            handles.iter().all(renewed)
        })
        .await;
        assert!(handles.iter().all(|handle| matches!(handle.state(), State::Live)));

        let after = client.registry.get("a").await?;
        assert_eq!(
            (after.position, after.identity.revision),
            (before.position, before.identity.revision)
        );
        assert_eq!(after.identity.updated_at, before.identity.updated_at);
        let marker = client.registry.register(RegisterRequest::new("marker")).await?;
        assert_eq!(
            change(&mut watch).await?,
            ("marker".to_owned(), Cause::Registered, marker.position)
        );
    }
    Ok(())
}

/// Whoever was replaced can do nothing more to the registration of its successor.
#[tokio::test]
async fn a_replaced_session_is_fenced_out_of_everything() -> Result<()> {
    for system in backends().await? {
        let (old, new) = (system.client()?, system.client()?);
        let before = old.registry.register(leased("a")).await?.generation;
        let replace = RegisterRequest {
            replace: true,
            metadata: json!({ "of": "new" }),
            ..leased("a")
        };
        let after = new.registry.register(replace).await?.generation;
        assert_ne!(before, after);
        for (generation, fenced) in [(before, true), (after, false)] {
            let outcomes = [
                ("renew", renew(&old, generation).await),
                ("update", update(&old, generation).await),
                ("subscribe", subscribe(&old, generation).await),
                ("unregister", unregister(&old, generation).await),
            ];
            for (call, reason) in outcomes {
                assert_eq!(reason, fenced.then_some(Reason::StaleGeneration), "{call}");
            }
            if fenced {
                let found = new.registry.get("a").await?.identity;
                assert_eq!(
                    (found.generation, found.revision),
                    (after, after.revision),
                    "untouched"
                );
            }
        }
    }
    Ok(())
}

async fn renew(client: &Client, generation: Position) -> Option<Reason> {
    let lease = Lease {
        identity: "a".into(),
        generation: Some(generation),
    };
    match client.registry.renew([lease]).await {
        Ok(mut renewals) => renewals.remove(0).result.err()?.reason(),
        Err(error) => error.reason(),
    }
}

async fn update(client: &Client, generation: Position) -> Option<Reason> {
    let request = UpdateRequest {
        identity: "a".into(),
        patch: json!({ "of": "old" }),
        generation: Some(generation),
        ..Default::default()
    };
    client.registry.update(request).await.err()?.reason()
}

async fn subscribe(client: &Client, generation: Position) -> Option<Reason> {
    let request = SubscribeRequest {
        generation: Some(generation),
        ..SubscribeRequest::from("a")
    };
    client.registry.subscribe(request).await.err()?.reason()
}

async fn unregister(client: &Client, generation: Position) -> Option<Reason> {
    let request = UnregisterRequest {
        generation: Some(generation),
        ..UnregisterRequest::from("a")
    };
    client.registry.unregister(request).await.err()?.reason()
}

/// Long enough for clients to notice that an outage is over, and shorter than it.
const LONGER_MS: u64 = 5_000;
const OUTAGE: Duration = Duration::from_millis(6_000);

/// A store that answers nobody for longer than leases last.
#[tokio::test]
async fn an_outage_of_the_store_ends_only_the_dead() -> Result<()> {
    let mut system = System::on_redis_and_nats(2).await?;
    let mut fleet = Fleet::start(&system, LONGER_MS).await?;
    let redis = system.redis.as_mut().context("on Redis")?;
    redis.freeze()?;
    tokio::time::sleep(OUTAGE).await;
    redis.thaw()?;
    fleet.has_lost_only_the_dead().await
}

#[tokio::test]
async fn an_outage_of_all_runners_ends_only_the_dead() -> Result<()> {
    let mut system = System::on_redis_and_nats(2).await?;
    let mut fleet = Fleet::start(&system, LONGER_MS).await?;
    for mut runner in system.runners.drain(..) {
        runner.process.signal(Signal::KILL)?;
    }
    tokio::time::sleep(OUTAGE).await;
    system.runners.push(Runner::under(system.proxy.control).await?);
    fleet.has_lost_only_the_dead().await
}

/// Twenty registrations, of which one is not renewed any more.
struct Fleet {
    client: Client,
    watch: Watch,
    alive: Vec<RegistrationHandle>,
    dead: String,
}

impl Fleet {
    async fn start(system: &System, millis: u64) -> Result<Self> {
        let client = Client::builder()
            .endpoint(system.proxy.data.to_string())
            .namespace("test");
        let client = client
            .backoff(Duration::from_millis(10), Duration::from_millis(100))
            .connect()
            .await?;
        let mut watch = client.registry.watch(WatchRequest::default()).await?;
        let mut alive = Vec::new();
        for number in 0..20 {
            let request = leased_for(millis, &format!("id-{number}"));
            alive.push(client.registry.register_handle(request).await?);
            change(&mut watch).await?;
        }
        let dead = alive.pop().context("the last one")?.identity().to_owned();
        Ok(Self {
            client,
            watch,
            alive,
            dead,
        })
    }

    async fn has_lost_only_the_dead(&mut self) -> Result<()> {
        let (name, cause, _) = change(&mut self.watch).await?;
        assert_eq!((&name, cause), (&self.dead, Cause::Expired));
        let is_live = |handle: &RegistrationHandle| matches!(handle.state(), State::Live);
        eventually(PATIENCE, "the others are renewed", async || {
            self.alive.iter().all(is_live)
        })
        .await;
        let marker = self
            .client
            .registry
            .register(RegisterRequest::new("marker"))
            .await?;
        let next = change(&mut self.watch).await?;
        assert_eq!(
            next,
            ("marker".to_owned(), Cause::Registered, marker.position),
            "nobody else left"
        );
        for handle in &self.alive {
            let found = self.client.registry.get(handle.identity()).await?.identity;
            assert_eq!(
                found.generation,
                handle.registration().generation,
                "it never was anew"
            );
        }
        Ok(())
    }
}

/// Nobody needs to know.
struct Nobody;

impl Observer for Nobody {
    fn changed(&self, _: &prism_slot::Change) {}

    fn rebuilt(&self, _: prism_slot::Position, _: &dyn Fn(&Identity) -> Standing, _: Option<usize>) {}

    fn of_interest(&self) -> Vec<Identity> {
        Vec::new()
    }
}

/// A view that follows no more: no feed is read and nothing is swept.
#[tokio::test]
async fn a_view_that_follows_no_more_is_exact_when_asked_and_says_its_age_when_not() -> Result<()> {
    let server = RedisServer::start().await?;
    let open = async || -> Result<RedisRegistry> {
        let config: Config = serde_json::from_value(json!({ "address": server.addr().to_string() }))?;
        Ok(RedisRegistry::open("test", config).await?)
    };
    let (ours, theirs) = (Arc::new(open().await?), open().await?);
    let settings = Settings {
        horizon: multicast_registry::directory::Horizon {
            age: Duration::ZERO,
            bytes: 0,
        },
        indexed: Vec::new(),
        bare: false,
    };
    let directory = Directory::new(ours, settings, Nobody);
    let stop = CancellationToken::new();
    let following = tokio::spawn({
        let (directory, stop) = (directory.clone(), stop.clone());
        async move { directory.run(stop).await }
    });
    directory.ready(soon()).await?;
    stop.cancel();
    following.await?;

    register(&theirs, "a", None).await?;
    register(&theirs, "b", None).await?;
    let silent = Instant::now();
    assert_eq!(directory.len(), 0, "as it was");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(directory.age() >= silent.elapsed(), "and it says so");
    directory.make_current(soon()).await?;
    assert_eq!(directory.len(), 2);
    assert!(directory.age() <= silent.elapsed());

    let identity = Identity::new("a")?;
    let removal = Unregister {
        identity,
        generation: None,
    };
    theirs.unregister(call(), removal).await?;
    register(&theirs, "c", Some(300)).await?;
    directory.make_current(soon()).await?;
    assert_eq!(directory.len(), 2);
    // Nobody sweeps; it is only asked whether the lease has ended, which does not end it.
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(directory.len(), 2, "due, and not known to be");
    directory.make_current(soon()).await?;
    assert_eq!(directory.len(), 1);
    Ok(())
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn call() -> Call {
    Call {
        epoch: None,
        deadline: soon(),
    }
}

async fn register(slot: &RedisRegistry, name: &str, ttl: Option<u64>) -> Result<()> {
    let request = Register {
        identity: Identity::new(name)?,
        metadata: b"{}"[..].into(),
        ttl: ttl.and_then(prism_slot::Ttl::from_millis),
        mode: Mode::Create,
        owner: Owner::default(),
        max_identities: 100,
        request: RequestId::next(),
    };
    slot.register(call(), vec![request]).await.remove(0)?;
    Ok(())
}
