//! Classes of proxies: streams whose proxies have equal views share one feed of snapshots.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use super::{Layers, Totals, layers::LayerId, units::layers_of};
use crate::{
    index::{Index, delta::AffectedProxies},
    model::node::Proxy,
    snapshot::{Feed, Follower, ResourceType, Resources, Snapshot, StreamId, Tether},
    view::{ProxyViews, derive},
};

/// A class, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(u64);

/// All classes and streams.
#[derive(Debug, Default)]
pub struct Classes {
    by_views: HashMap<ProxyViews, ClassId>,
    classes: HashMap<ClassId, Class>,
    streams: HashMap<StreamId, Stream>,
    /// By the namespaces and names of their pods.
    by_pod: BTreeSet<(Arc<str>, Arc<str>, StreamId)>,
    next: u64,
    epoch: u64,
}

#[derive(Debug)]
struct Class {
    views: ProxyViews,
    layers: Vec<(ResourceType, LayerId)>,
    feed: Feed,
}

#[derive(Debug)]
struct Stream {
    proxy: Arc<Proxy>,
    class: ClassId,
    tether: Tether,
}

impl Classes {
    /// A proxy has come: finds or makes its class.
    pub fn attach(
        &mut self,
        id: StreamId,
        proxy: Arc<Proxy>,
        index: &Index,
        layers: &mut Layers,
        totals: &mut Totals,
    ) -> Follower {
        let class = self.class(derive(index, &proxy), index, layers, totals);
        let (tether, follower) = self.feed(class).attach(id);
        self.by_pod.insert((proxy.namespace.clone(), proxy.name.clone(), id));
        self.streams.insert(id, Stream { proxy, class, tether });
        follower
    }

    /// It has gone.
    pub fn detach(&mut self, id: StreamId, layers: &mut Layers) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.by_pod.remove(&(stream.proxy.namespace.clone(), stream.proxy.name.clone(), id));
        self.leave(id, stream.class, layers);
    }

    /// Gives these classes a snapshot of what their layers hold now.
    pub fn publish(&mut self, touched: &[ClassId], layers: &Layers, event: Instant) {
        if touched.is_empty() {
            return;
        }
        self.epoch += 1;
        for id in touched {
            if let Some(class) = self.classes.get_mut(id) {
                class.feed.publish(snapshot(&class.layers, layers, self.epoch, event));
            }
        }
    }

    /// Derives the views of these proxies again, and moves those that now belong elsewhere.
    pub fn move_streams(
        &mut self,
        affected: &AffectedProxies,
        index: &Index,
        layers: &mut Layers,
        totals: &mut Totals,
    ) {
        for id in self.affected(affected) {
            let Some(stream) = self.streams.get(&id) else { continue };
            let views = derive(index, &stream.proxy);
            let old = stream.class;
            if self.classes.get(&old).is_some_and(|class| class.views == views) {
                continue;
            }
            let new = self.class(views, index, layers, totals);
            if let (Some(stream), Some(class)) = (self.streams.get_mut(&id), self.classes.get_mut(&new)) {
                stream.class = new;
                class.feed.take_over(&stream.tether);
            }
            self.leave(id, old, layers);
        }
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The connected proxies, with their views and what is published for them.
    pub fn proxies(&self) -> impl Iterator<Item = (StreamId, &Arc<Proxy>, &ProxyViews, Arc<Snapshot>)> {
        self.streams.iter().filter_map(|(id, stream)| {
            let class = self.classes.get(&stream.class)?;
            Some((*id, &stream.proxy, &class.views, class.feed.newest()))
        })
    }

    fn affected(&self, affected: &AffectedProxies) -> Vec<StreamId> {
        if affected.all {
            return self.streams.keys().copied().collect();
        }
        let from = |namespace: &Arc<str>, name: Arc<str>| {
            self.by_pod.range((namespace.clone(), name, StreamId(0))..)
        };
        let mut found = BTreeSet::new();
        for namespace in &affected.namespaces {
            let streams = from(namespace, Arc::default()).take_while(|(of, ..)| of == namespace);
            found.extend(streams.map(|(.., id)| *id));
        }
        for (cluster, namespace, name) in &affected.pods {
            let streams = from(namespace, name.clone());
            let streams = streams.take_while(|(of, pod, _)| of == namespace && pod == name);
            let of_cluster =
                |id: &StreamId| self.streams.get(id).is_some_and(|s| s.proxy.cluster == *cluster);
            found.extend(streams.map(|(.., id)| *id).filter(of_cluster));
        }
        found.into_iter().collect()
    }

    /// The class of these views, which is made if there is none; to be followed by somebody.
    fn class(
        &mut self,
        views: ProxyViews,
        index: &Index,
        layers: &mut Layers,
        totals: &mut Totals,
    ) -> ClassId {
        if let Some(id) = self.by_views.get(&views) {
            return *id;
        }
        let id = ClassId(self.next);
        self.next += 1;
        let keys = layers_of(&views).into_iter();
        let joined: Vec<_> = keys.map(|key| (key.kind(), layers.join(&key, id, index, totals))).collect();
        let feed = Feed::new(snapshot(&joined, layers, self.epoch, Instant::now()));
        self.by_views.insert(views.clone(), id);
        self.classes.insert(id, Class { views, layers: joined, feed });
        id
    }

    /// A stream leaves a class, which ends with its last one.
    fn leave(&mut self, stream: StreamId, id: ClassId, layers: &mut Layers) {
        let Some(class) = self.classes.get_mut(&id) else { return };
        class.feed.leave(stream);
        if class.feed.is_empty()
            && let Some(class) = self.classes.remove(&id)
        {
            self.by_views.remove(&class.views);
            for (_, layer) in class.layers {
                layers.leave(layer, id);
            }
        }
    }

    fn feed(&mut self, id: ClassId) -> &mut Feed {
        &mut self.classes.get_mut(&id).expect("a class that was just made exists").feed
    }
}

fn snapshot(joined: &[(ResourceType, LayerId)], layers: &Layers, epoch: u64, event: Instant) -> Snapshot {
    let of = |kind: ResourceType| {
        let of_kind = joined.iter().filter(|(layer, _)| *layer == kind);
        Resources::new(of_kind.map(|(_, id)| layers.set(*id)).collect())
    };
    let of_assignments = joined.iter().filter(|(layer, _)| *layer == ResourceType::Endpoint);
    Snapshot {
        epoch,
        committed: Instant::now(),
        event,
        clusters: of(ResourceType::Cluster),
        endpoints: of(ResourceType::Endpoint),
        lb_endpoints: Resources::new(of_assignments.filter_map(|(_, id)| layers.pieces(*id)).collect()),
        listeners: of(ResourceType::Listener),
        routes: of(ResourceType::Route),
        virtual_hosts: of(ResourceType::VirtualHost),
    }
}
