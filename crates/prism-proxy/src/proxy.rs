//! All of it together: three ports, the control plane, the data path, supervised runners.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::body::Incoming;
use prism_core::shutdown::{Phases, Report};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tower::ServiceExt;

use crate::{
    admin::Admin,
    config::{Config, Manifest, Timeouts, Versions},
    control::{self, Control},
    descriptors,
    forward::{Forward, lane::Lanes, method},
    health::HealthService,
    listen,
    metrics::{Metrics, ReloadResult},
    readiness::Readiness,
    reload::{Asked, Reloader},
    route::Table,
    serve::{Port, Settings},
    supervisor::{self, Supervisor},
    watch::FileWatch,
};

/// Three open ports.
#[derive(Debug)]
pub struct Listeners {
    /// For runners.
    pub control: TcpListener,
    /// For clients.
    pub data: TcpListener,
    /// For operators and probes.
    pub admin: TcpListener,
}

impl Listeners {
    /// Opens what a configuration says.
    ///
    /// # Errors
    /// The first address that cannot be listened on.
    pub async fn bind(listen: &crate::config::Listen) -> Result<Self, listen::CannotListen> {
        Ok(Self {
            control: listen::bind(&listen.control).await?,
            data: listen::bind(&listen.data).await?,
            admin: listen::bind(&listen.admin).await?,
        })
    }
}

/// Where a proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For runners.
    pub control: SocketAddr,
    /// For clients.
    pub data: SocketAddr,
    /// For operators and probes.
    pub admin: SocketAddr,
}

/// Why a proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener has no address.
    #[error("a listener is unusable: {0}")]
    Listener(#[from] io::Error),
    /// The compiled-in descriptors are damaged.
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A proxy that is yet to start.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    file: Option<FileWatch>,
    known: Vec<Manifest>,
    control: control::Settings,
    supervisor: supervisor::Settings,
}

impl Builder {
    /// Follows a file: the configuration is read from it again when it changes. A watch that was made
    /// before the configuration was read misses no change.
    #[must_use]
    pub fn follow(mut self, file: Option<FileWatch>) -> Self {
        self.file = file;
        self
    }

    /// Plugins that are known without a manifest file, for checking what is read later.
    #[must_use]
    pub fn known(mut self, manifests: Vec<Manifest>) -> Self {
        self.known = manifests;
        self
    }

    /// Other timings of the control plane.
    #[must_use]
    pub fn control(mut self, settings: control::Settings) -> Self {
        self.control = settings;
        self
    }

    /// Other timings of the supervisor.
    #[must_use]
    pub fn supervisor(mut self, settings: supervisor::Settings) -> Self {
        self.supervisor = settings;
        self
    }

    /// Starts serving. The proxy is ready when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(self, listeners: Listeners) -> Result<Proxy, StartError> {
        let metrics = Arc::new(Metrics::new());
        let lanes = Arc::new(Lanes::new(self.config.lane_settings()));
        let table = Arc::new(Table::new(lanes.clone(), metrics.clone()));
        let forward = Arc::new(Forward::new(table.clone(), self.config.call_limits()));
        let watching = forward.clone();
        let watching = AbortOnDropHandle::new(tokio::spawn(async move { watching.gate().watch().await }));
        let control = Control::new(table.clone(), self.control);
        let readiness = Arc::new(Readiness::default());

        let mut reloader = Reloader {
            effective: self.config.clone(),
            versions: Versions::default(),
            known: self.known,
            table: table.clone(),
            forward: forward.clone(),
            control: control.clone(),
            metrics: metrics.clone(),
        };
        // Before the first runner or client can ask.
        reloader.put_into_effect().await;

        let control_address = control.serve(listeners.control)?;
        let local = local_services(&table, &readiness, &forward)?;
        let mut settings = self.config.port_settings();
        settings.connections = descriptors::leave_some(settings.connections);
        let data = serve_data(listeners.data, settings, &metrics, &forward, local)?;
        let admin = Admin {
            table,
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            control: control.watch(),
        };
        let admin = serve_admin(listeners.admin, admin)?;
        let addresses = Addresses {
            control: control_address,
            data: data.address(),
            admin: admin.address(),
        };

        let (reload, asked) = mpsc::channel(1);
        let following = self
            .file
            .map(|file| AbortOnDropHandle::new(tokio::spawn(reloader.follow(file, asked))));
        let dial = listen::reachable(control_address).to_string();
        let supervisor = Supervisor::start(&self.config.runners, &dial, &metrics, self.supervisor);
        readiness.listening();
        Ok(Proxy {
            addresses,
            timeouts: self.config.timeouts,
            data,
            admin,
            control,
            forward,
            lanes,
            readiness,
            metrics,
            supervisor,
            reload,
            following,
            _watching: watching,
        })
    }
}

/// A running proxy. Dropping it ends everything at once.
pub struct Proxy {
    addresses: Addresses,
    timeouts: Timeouts,
    data: Port,
    admin: Port,
    control: Control,
    forward: Arc<Forward>,
    lanes: Arc<Lanes>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    supervisor: Supervisor,
    reload: mpsc::Sender<Asked>,
    following: Option<AbortOnDropHandle<()>>,
    /// Over how much there is to do.
    _watching: AbortOnDropHandle<()>,
}

/// The phases of the end in which something may have to be cut off.
const CALLS: &str = "calls finish";
const RUNNERS: &str = "runners end";

/// For supervised runners to end, once no call is under way any more.
const RUNNERS_END: Duration = Duration::from_secs(10);
/// For control streams and connections to runners to close.
const LINKS_CLOSE: Duration = Duration::from_secs(2);
/// For a last look at the admin port.
const ADMIN_ENDS: Duration = Duration::from_secs(1);

impl Proxy {
    /// A proxy with this configuration.
    pub fn builder(config: Config) -> Builder {
        Builder {
            config,
            file: None,
            known: Vec::new(),
            control: control::Settings::default(),
            supervisor: supervisor::Settings::default(),
        }
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What is measured.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The control plane.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Reads the configuration file again, now. `None` when none is followed.
    pub async fn reload(&self) -> Option<ReloadResult> {
        let (ask, answer) = oneshot::channel();
        self.reload.send(ask).await.ok()?;
        answer.await.ok()
    }

    /// Ends in order: readiness fails and load balancers get time to notice; clients are turned away,
    /// streams are cut, calls under way finish; supervised runners end; the links to all runners close.
    /// Each phase has a limit. Where calls or runners had to be ended at theirs, the report says so.
    /// Dropping the future ends everything at once.
    pub async fn shutdown(self) -> Report {
        let Timeouts {
            readiness_grace,
            drain,
            ..
        } = self.timeouts;
        drop(self.following);
        self.readiness.draining();
        let (data, forward, lanes, control) = (&self.data, &self.forward, &self.lanes, &self.control);
        let supervisor = self.supervisor;
        let (calls_cut, runners_cut) = (AtomicBool::new(false), AtomicBool::new(false));
        let mut report = Phases::new()
            .phase(
                "load balancers notice",
                readiness_grace + ADMIN_ENDS,
                tokio::time::sleep(readiness_grace),
            )
            .phase(CALLS, drain + ADMIN_ENDS, async {
                // Turned away before streams are cut, so that they do not come back here.
                let drained = data.drain(Instant::now() + drain);
                let (clean, ()) = tokio::join!(drained, async { forward.cut_streams() });
                let calls = forward.under_way();
                // What is left without a call is a client that does not hang up.
                if !clean && calls > 0 {
                    calls_cut.store(true, Ordering::Relaxed);
                    tracing::warn!(limit = ?drain, calls, "calls are still under way and are ended");
                }
                data.end().await;
            })
            .phase(RUNNERS, RUNNERS_END + ADMIN_ENDS, async {
                let clean = supervisor.stop(Instant::now() + RUNNERS_END).await;
                runners_cut.store(!clean, Ordering::Relaxed);
            })
            .phase("control streams close", LINKS_CLOSE, async {
                control.shutdown(Instant::now() + LINKS_CLOSE / 2).await;
            })
            .phase("connections to runners close", LINKS_CLOSE, lanes.close())
            .phase("the admin port closes", ADMIN_ENDS, async {
                self.admin.drain(Instant::now() + ADMIN_ENDS / 2).await;
                self.admin.end().await;
            })
            .run()
            .await;
        let cut = [(CALLS, calls_cut), (RUNNERS, runners_cut)].into_iter();
        let cut = cut.filter_map(|(phase, cut)| cut.into_inner().then_some(phase));
        report.abandoned.extend(cut);
        report
    }
}

/// What the data port answers by itself.
fn local_services(
    table: &Arc<Table>,
    readiness: &Arc<Readiness>,
    forward: &Arc<Forward>,
) -> Result<Routes, tonic_reflection::server::Error> {
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(prism_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        method::services().fold(builder, |builder, service| builder.with_service_name(service))
    };
    let health = HealthService::server(table.clone(), readiness.clone(), forward.cut().clone());
    Ok(Routes::new(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare())
}

fn is_local(path: &str) -> bool {
    path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.")
}

fn serve_data(
    listener: TcpListener,
    settings: Settings,
    metrics: &Arc<Metrics>,
    forward: &Arc<Forward>,
    local: Routes,
) -> io::Result<Port> {
    let forward = forward.clone();
    Port::serve(
        listener,
        settings,
        metrics.connections.clone(),
        move |request: http::Request<Incoming>| {
            let local = is_local(request.uri().path()).then(|| local.clone());
            let forward = forward.clone();
            async move {
                match local {
                    None => forward.call(request).await,
                    Some(local) => forward.local(request, local).await,
                }
            }
        },
    )
}

fn serve_admin(listener: TcpListener, admin: Admin) -> io::Result<Port> {
    let router = admin.router();
    let settings = Settings {
        connections: 256,
        streams: 64,
        ..Settings::default()
    };
    Port::serve(
        listener,
        settings,
        prometheus_client::metrics::gauge::Gauge::default(),
        move |request| {
            let router = router.clone();
            async move {
                match router.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        },
    )
}
