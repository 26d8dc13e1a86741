//! A plugin process from its first listener to its exit code.

use std::{collections::BTreeSet, future::pending, io, net::Ipv4Addr, sync::Arc, time::Duration};

use prism_core::{
    id::{Digest, InstanceId},
    lifecycle::{Answer, Command, Configuration, ExitStatus, Mark},
    shutdown::{Phases, orphaned},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    Initialize, Plugin, Settings,
    engine::{Engine, Handle, Input, LinkId},
    lifecycle_service::{LifecycleService, ask},
    link::{self, Link},
    observe,
    server::{self, DataServer},
    wire,
};

/// A plugin process, to be.
///
/// With proxies it waits to be configured and started by one of them; with initial configurations it
/// starts by itself; it can have both.
pub struct Runner<P> {
    plugin: Arc<P>,
    proxies: Vec<String>,
    data_listener: Option<TcpListener>,
    health_listener: Option<TcpListener>,
    advertise: Option<String>,
    initial: Vec<Initialize>,
    process_id: Option<i32>,
    pattern: Option<String>,
    settings: Settings,
}

impl<P: Plugin> Runner<P> {
    /// A process around a plugin.
    pub fn new(plugin: P) -> Self {
        Self {
            plugin: Arc::new(plugin),
            proxies: Vec::new(),
            data_listener: None,
            health_listener: None,
            advertise: None,
            initial: Vec::new(),
            process_id: None,
            pattern: None,
            settings: Settings::default(),
        }
    }

    /// The control addresses of the proxies to register with, one stream each.
    #[must_use]
    pub fn proxies(mut self, proxies: Vec<String>) -> Self {
        self.proxies = proxies;
        self
    }

    /// Where the pattern is served. Any free port of any address when it is not given.
    #[must_use]
    pub fn data_listener(mut self, listener: TcpListener) -> Self {
        self.data_listener = Some(listener);
        self
    }

    /// The data endpoint as others reach it, `host:port`, where that differs from the listener's
    /// address.
    #[must_use]
    pub fn advertise(mut self, endpoint: Option<String>) -> Self {
        self.advertise = endpoint;
        self
    }

    /// Where `/health` and `/metrics` are served over HTTP.
    #[must_use]
    pub fn health_listener(mut self, listener: Option<TcpListener>) -> Self {
        self.health_listener = listener;
        self
    }

    /// Namespaces to serve without being told by a proxy. All of them have to be taken, or the process
    /// ends.
    #[must_use]
    pub fn initial(mut self, configurations: Vec<Initialize>) -> Self {
        self.initial = configurations;
        self
    }

    /// The id to register under, where the operating system's says nothing.
    #[must_use]
    pub fn process_id(mut self, id: i32) -> Self {
        self.process_id = Some(id);
        self
    }

    /// The pattern name to register under, where it differs from the plugin's own.
    #[must_use]
    pub fn pattern(mut self, name: impl Into<String>) -> Self {
        self.pattern = Some(name.into());
        self
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Runs until a proxy stops the plugin, or `shutdown` is done, or the supervisor that started the
    /// process is gone, and the plugin has drained and stopped. Dropping the future breaks everything off.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> ExitStatus {
        match self.prepare().await {
            Ok(process) => process.run(shutdown).await,
            Err(error) => {
                tracing::error!(%error, "not started");
                ExitStatus::Failed
            }
        }
    }

    async fn prepare(self) -> Result<Process<P>, PrepareError> {
        let listener = match self.data_listener {
            Some(listener) => listener,
            None => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?,
        };
        let mut metadata = wire::metadata(&self.plugin.description());
        if let Some(pattern) = self.pattern {
            metadata.name = pattern;
        }
        let process_id = self
            .process_id
            .unwrap_or_else(|| i32::try_from(std::process::id()).unwrap_or_default());
        // Named twice, a proxy would take one process for two.
        let proxies: BTreeSet<String> = self
            .proxies
            .iter()
            .map(|address| link::normalized(address))
            .collect::<Result<_, _>>()?;
        if proxies.len() > 1 {
            let process = InstanceId::generate(&metadata.name, process_id);
            metadata
                .extra
                .insert("prism.process".to_owned(), process.to_string());
        }
        let metadata = Arc::new(metadata);
        let server = DataServer::new(listener.local_addr()?, self.advertise);
        let (engine, handle) = Engine::new(self.plugin.clone(), self.settings.clone(), server.clone());
        let lifecycle = LifecycleService {
            inputs: handle.inputs.clone(),
            metadata: metadata.clone(),
            server: server.clone(),
        };
        let services = server::services(&*self.plugin, &server, lifecycle)?;
        let closing = CancellationToken::new();
        let links = proxies.into_iter().enumerate().map(|(index, address)| Link {
            id: LinkId(index),
            address,
            process_id,
            metadata: metadata.clone(),
            settings: self.settings.clone(),
            engine: handle.clone(),
            proofs: server.proofs().clone(),
            outdated: Arc::default(),
            closing: closing.clone(),
        });
        Ok(Process {
            links: links.collect(),
            plugin: self.plugin,
            engine,
            handle,
            server,
            services,
            listener,
            health_listener: self.health_listener,
            initial: self.initial,
            closing,
            settings: self.settings,
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error("the data endpoint cannot be opened: {0}")]
    Listen(#[from] io::Error),
    #[error(transparent)]
    Proxy(#[from] link::NoAddress),
    #[error("the plugin's descriptors cannot be read: {0}")]
    Descriptors(#[from] tonic_reflection::server::Error),
}

/// Everything that a running process consists of.
struct Process<P> {
    plugin: Arc<P>,
    engine: Engine<P>,
    handle: Handle,
    server: DataServer,
    services: server::Services,
    listener: TcpListener,
    health_listener: Option<TcpListener>,
    links: Vec<Link>,
    initial: Vec<Initialize>,
    closing: CancellationToken,
    settings: Settings,
}

/// For the last answers to reach the proxies, and for connections to close.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl<P: Plugin> Process<P> {
    async fn run(self, shutdown: impl Future<Output = ()> + Send) -> ExitStatus {
        let Self {
            services,
            server,
            handle,
            ..
        } = self;
        let limits = self.settings.limits;
        let data = {
            let server = server.clone();
            async move { server.run(self.listener, services.routes, &limits).await }
        };
        let data = AbortOnDropHandle::new(tokio::spawn(data));
        let _health = AbortOnDropHandle::new(tokio::spawn(services.health.run()));
        let state = handle.state.clone();
        let plugin = self.plugin;
        let _observe = AbortOnDropHandle::new(tokio::spawn(async move {
            match self.health_listener {
                Some(listener) => observe::run(listener, plugin, state).await,
                None => pending().await,
            }
        }));
        let mut engine = AbortOnDropHandle::new(tokio::spawn(self.engine.run()));
        let mut links: JoinSet<()> = self.links.into_iter().map(Link::run).collect();

        let status = tokio::select! {
            status = steer(&handle, self.initial, shutdown) => match status {
                Steered::Told => ended(engine.await),
                Steered::Refused => {
                    ended(engine.await);
                    ExitStatus::Failed
                }
            },
            status = &mut engine => ended(status),
        };

        self.closing.cancel();
        Phases::new()
            .phase("control streams close", LAST_WORDS, async {
                while links.join_next().await.is_some() {}
            })
            .phase("data endpoint closes", LAST_WORDS, server.close())
            .run()
            .await;
        drop(data);
        status
    }
}

enum Steered {
    /// The process was told to end.
    Told,
    /// It could not begin as it should.
    Refused,
}

/// Starts by itself where it should, then waits to be told to end.
async fn steer(handle: &Handle, initial: Vec<Initialize>, shutdown: impl Future<Output = ()>) -> Steered {
    let begin = async {
        if begin(handle, initial).await.is_err() {
            return;
        }
        pending().await
    };
    let steered = tokio::select! {
        () = begin => Steered::Refused,
        () = shutdown => Steered::Told,
        () = orphaned() => {
            tracing::warn!("the supervisor of this process is gone");
            Steered::Told
        }
    };
    // When the engine is gone already there is nothing left to tell.
    let _ = handle.inputs.send(Input::Leave).await;
    steered
}

/// Configures and starts without a proxy.
async fn begin(handle: &Handle, initial: Vec<Initialize>) -> Result<(), ()> {
    if initial.is_empty() {
        return Ok(());
    }
    for initialize in initial {
        let namespace = initialize.namespace.clone();
        let answer = ask(&handle.inputs, Command::Initialize(configuration(initialize))).await;
        if let Some(Answer::Initialized(Err(error))) = answer {
            tracing::error!(%namespace, %error, "cannot begin with this configuration, correct it and start again");
            return Err(());
        }
    }
    match ask(&handle.inputs, Command::Start).await {
        Some(Answer::Started(Err(_))) => Err(()),
        _ => Ok(()),
    }
}

fn configuration(initialize: Initialize) -> Configuration {
    let digest =
        Digest::from_wire(&initialize.config_digest).unwrap_or_else(|| Digest::of(&initialize.config));
    Configuration {
        namespace: initialize.namespace,
        pattern_version: initialize.version,
        config: initialize.config,
        mark: Mark {
            version: initialize.config_version,
            digest,
        },
    }
}

fn ended(engine: Result<ExitStatus, tokio::task::JoinError>) -> ExitStatus {
    engine.unwrap_or_else(|error| {
        tracing::error!(%error, "the engine was lost");
        ExitStatus::Failed
    })
}
