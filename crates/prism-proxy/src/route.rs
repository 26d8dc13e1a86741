//! Which runners serve which namespace.
//!
//! The control plane writes the [`Table`], the data path reads it. A reader sees one version of the whole
//! table; a writer replaces it in one step.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prism_core::{caller::Proof, id::InstanceId};
use tokio::sync::watch;

use crate::{
    forward::lane::{Lane, Lanes},
    metrics::{Metrics, NO_NAMESPACE, Series},
};

/// One runner as a place to send calls to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which process it is.
    pub instance_id: InstanceId,
    /// `host:port` of its data endpoint.
    pub endpoint: String,
    /// Paths of the methods that may be called twice, e.g. `/package.Service/Get`, as the runner's
    /// interfaces declare them.
    pub idempotent: Arc<HashSet<String>>,
    /// By what it knows that a call comes from this proxy; `None` for one that does not ask.
    pub proof: Option<Proof>,
}

/// How a declared namespace stands.
#[derive(Debug, Clone)]
pub enum Standing {
    /// No runner serves it.
    Unserved,
    /// Its runners are changing over: calls wait a moment.
    Held,
    /// These serve it; never empty.
    Served(Arc<[Arc<Lane>]>),
}

/// A declared namespace.
#[derive(Debug, Clone)]
pub struct Route {
    /// Who serves it.
    pub standing: Standing,
    /// Where its calls are counted.
    pub series: Arc<Series>,
}

type Routes = HashMap<Box<str>, Route>;

/// Namespace → who serves it.
///
/// Methods of a table do not block beyond the time of a copy of the map, and wait for nothing.
#[derive(Debug)]
pub struct Table {
    routes: ArcSwap<Routes>,
    writer: Mutex<()>,
    lanes: Arc<Lanes>,
    metrics: Arc<Metrics>,
    nowhere: Arc<Series>,
    version: watch::Sender<u64>,
}

impl Default for Table {
    fn default() -> Self {
        Self::new(Arc::default(), Arc::default())
    }
}

impl Table {
    /// An empty table, whose lanes to runners belong to `lanes`.
    pub fn new(lanes: Arc<Lanes>, metrics: Arc<Metrics>) -> Self {
        Self {
            routes: ArcSwap::default(),
            writer: Mutex::default(),
            nowhere: metrics.namespace(NO_NAMESPACE),
            lanes,
            metrics,
            version: watch::Sender::new(0),
        }
    }

    /// Declares exactly these namespaces, in one step. Those that were declared before keep who serves
    /// them; new ones are unserved; all others are gone, and calls to them become `UNKNOWN_NAMESPACE`.
    pub fn declare<N: Into<String>>(&self, namespaces: impl IntoIterator<Item = N>) {
        let namespaces: HashSet<String> = namespaces.into_iter().map(Into::into).collect();
        self.write(|routes| {
            routes.retain(|name, _| {
                let stays = namespaces.contains(&**name);
                if !stays {
                    self.metrics.set_targets(name, None);
                }
                stays
            });
            for name in namespaces {
                routes.entry(name.into_boxed_str()).or_insert_with_key(|name| {
                    self.metrics.set_targets(name, Some(0));
                    let series = self.metrics.namespace(name);
                    Route {
                        standing: Standing::Unserved,
                        series,
                    }
                });
            }
            true
        });
    }

    /// Routes a namespace to these targets from now on; none of them makes it unserved. Connections to
    /// targets that were there before are kept; calls under way to those that were taken out go on to
    /// their end. `false` when the namespace is not declared: nothing has changed then.
    pub fn set(&self, namespace: &str, targets: Vec<Target>) -> bool {
        let lanes: Arc<[_]> = targets.into_iter().map(|target| self.lanes.get(target)).collect();
        let count = lanes.len();
        let standing = if lanes.is_empty() {
            Standing::Unserved
        } else {
            Standing::Served(lanes)
        };
        let known = self.replace(namespace, standing);
        if known {
            self.metrics.set_targets(namespace, Some(count));
        }
        known
    }

    /// Makes calls to a namespace wait, for a bounded time, until [`Self::set`] says who serves it.
    /// `false` when the namespace is not declared.
    pub fn hold(&self, namespace: &str) -> bool {
        self.replace(namespace, Standing::Held)
    }

    /// Breaks all connections to a runner that is known to be dead or deaf, so that calls under way
    /// end now instead of at their deadline. Not for a runner whose control stream merely broke: its
    /// data endpoint goes on serving.
    pub fn disconnect(&self, instance: &InstanceId) {
        self.lanes.disconnect(instance);
    }

    /// How a namespace stands now; `None` when it is not declared.
    pub fn find(&self, namespace: &str) -> Option<Route> {
        self.routes.load().get(namespace).cloned()
    }

    /// Every declared namespace with the targets that serve it.
    pub fn snapshot(&self) -> BTreeMap<String, (Standing, Vec<Target>)> {
        let routes = self.routes.load();
        let entries = routes.iter().map(|(name, route)| {
            let targets = match &route.standing {
                Standing::Served(lanes) => lanes.iter().map(|lane| lane.target().clone()).collect(),
                Standing::Unserved | Standing::Held => Vec::new(),
            };
            (name.to_string(), (route.standing.clone(), targets))
        });
        entries.collect()
    }

    /// Changes whenever the table does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Where calls without a declared namespace are counted.
    pub fn nowhere(&self) -> &Arc<Series> {
        &self.nowhere
    }

    fn replace(&self, namespace: &str, standing: Standing) -> bool {
        self.write(|routes| match routes.get_mut(namespace) {
            Some(route) => {
                route.standing = standing;
                true
            }
            None => false,
        })
    }

    fn write(&self, change: impl FnOnce(&mut Routes) -> bool) -> bool {
        let _writer = self.writer.lock();
        let mut routes = Routes::clone(&self.routes.load());
        let changed = change(&mut routes);
        if changed {
            self.routes.store(Arc::new(routes));
            self.lanes.sweep();
            self.version.send_modify(|version| *version += 1);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn target(endpoint: &str) -> Target {
        Target {
            instance_id: InstanceId::generate("test", 1),
            endpoint: endpoint.to_owned(),
            idempotent: Arc::default(),
            proof: None,
        }
    }

    fn served(table: &Table, namespace: &str) -> Vec<String> {
        match table.find(namespace).unwrap().standing {
            Standing::Served(lanes) => lanes.iter().map(|lane| lane.target().endpoint.clone()).collect(),
            Standing::Unserved | Standing::Held => Vec::new(),
        }
    }

    #[test]
    fn only_declared_namespaces_have_a_route() {
        let table = Table::default();
        assert!(!table.set("a", vec![target("h:1")]));
        assert!(table.find("a").is_none());
        table.declare(["a", "b"]);
        assert!(matches!(table.find("a").unwrap().standing, Standing::Unserved));
        assert!(table.set("a", vec![target("h:1"), target("h:2")]));
        assert_eq!(served(&table, "a"), ["h:1", "h:2"]);
        table.declare(["a"]);
        assert_eq!(
            served(&table, "a"),
            ["h:1", "h:2"],
            "a declared namespace keeps its runners"
        );
        assert!(table.find("b").is_none());
    }

    #[test]
    fn no_targets_means_unserved_and_a_hold_is_neither() {
        let table = Table::default();
        table.declare(["a"]);
        table.set("a", vec![target("h:1")]);
        table.set("a", Vec::new());
        assert!(matches!(table.find("a").unwrap().standing, Standing::Unserved));
        assert!(table.hold("a"));
        assert!(matches!(table.find("a").unwrap().standing, Standing::Held));
        assert!(!table.hold("b"));
    }

    #[test]
    fn a_target_that_stays_keeps_its_lane() {
        let table = Table::default();
        table.declare(["a", "b"]);
        let stays = target("h:1");
        table.set("a", vec![stays.clone()]);
        let lane = |namespace: &str| match table.find(namespace).unwrap().standing {
            Standing::Served(lanes) => lanes[0].clone(),
            _ => panic!("not served"),
        };
        let first = lane("a");
        table.set("a", vec![stays.clone(), target("h:2")]);
        table.set("b", vec![stays]);
        assert!(Arc::ptr_eq(&first, &lane("a")) && Arc::ptr_eq(&first, &lane("b")));
    }

    #[test]
    fn readers_see_whole_versions() {
        let table = Table::default();
        table.declare(["a", "b"]);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(60);
                let mut seen = HashSet::new();
                for reads in 0.. {
                    let names: Vec<_> = table.snapshot().into_keys().collect();
                    assert!(names == ["a", "b"] || names == ["c", "d"], "{names:?}");
                    seen.insert(names);
                    if reads >= 10_000 && seen.len() == 2 {
                        break;
                    }
                    assert!(Instant::now() < deadline, "reader and writer never met");
                }
            });
            while !reader.is_finished() {
                table.declare(["c", "d"]);
                table.declare(["a", "b"]);
            }
        });
    }

    #[test]
    fn each_change_is_announced() {
        let table = Table::default();
        let mut watch = table.watch();
        table.declare(["a"]);
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        table.set("b", Vec::new());
        assert!(!watch.has_changed().unwrap(), "nothing has changed");
        table.hold("a");
        assert!(watch.has_changed().unwrap());
    }
}
