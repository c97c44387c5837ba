//! All layers, and the resources that proxies refused.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::Arc,
    time::SystemTime,
};

use tracing::warn;

use super::{
    Totals,
    classes::ClassId,
    layer::{Layer, Quarantine},
    units::{Concern, LayerKey},
};
use crate::{
    index::{Delta, Index},
    model::ObjectKey,
    snapshot::{Nack, ResourceSet, ResourceType},
};

/// At most so many refusals are remembered; the oldest go first.
const MAX_REJECTIONS: usize = 1_000;

/// All layers in use.
#[derive(Debug, Default)]
pub struct Layers {
    ids: HashMap<LayerKey, LayerId>,
    slots: BTreeMap<LayerId, (LayerKey, Layer)>,
    /// By what makes them dirty: a change looks at the layers that it may concern, not at all.
    by_concern: HashMap<Concern, BTreeSet<LayerId>>,
    next: u64,
    quarantine: Quarantine,
    rejections: Vec<Rejection>,
}

/// A layer, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(u64);

/// A resource that a proxy refused, for people.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// What was refused, and Envoy's reason.
    pub nack: Nack,
    /// The objects that it was built from.
    pub sources: Arc<[ObjectKey]>,
    /// When.
    pub at: SystemTime,
}

impl Layers {
    /// Makes sure that a class's layer is there and built.
    pub fn join(&mut self, key: &LayerKey, class: ClassId, index: &Index, totals: &mut Totals) -> LayerId {
        let id = self.ids.get(key).copied().unwrap_or_else(|| {
            let id = LayerId(self.next);
            self.next += 1;
            let mut layer = Layer::default();
            layer.build_all(key, index, &self.quarantine, totals);
            for concern in key.concerns() {
                self.by_concern.entry(concern).or_default().insert(id);
            }
            self.ids.insert(key.clone(), id);
            self.slots.insert(id, (key.clone(), layer));
            id
        });
        if let Some((_, layer)) = self.slots.get_mut(&id) {
            layer.classes.insert(class);
        }
        id
    }

    /// The class does not need the layer any more.
    pub fn leave(&mut self, id: LayerId, class: ClassId) {
        let Entry::Occupied(mut slot) = self.slots.entry(id) else { return };
        let (_, layer) = slot.get_mut();
        layer.classes.remove(&class);
        if !layer.classes.is_empty() {
            return;
        }
        let (key, _) = slot.remove();
        self.ids.remove(&key);
        for concern in key.concerns() {
            if let Some(ids) = self.by_concern.get_mut(&concern) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_concern.remove(&concern);
                }
            }
        }
    }

    /// What a layer publishes.
    pub fn set(&self, id: LayerId) -> ResourceSet {
        self.slots.get(&id).map(|(_, layer)| layer.set.clone()).unwrap_or_default()
    }

    /// The endpoints that a layer's assignments leave out, if it leaves out any.
    pub fn pieces(&self, id: LayerId) -> Option<ResourceSet> {
        let (key, layer) = self.slots.get(&id)?;
        key.has_pieces().then(|| layer.pieces.clone())
    }

    /// Every layer, with what it publishes.
    pub fn iter(&self) -> impl Iterator<Item = (&LayerKey, &Layer)> {
        self.slots.values().map(|(key, layer)| (key, layer))
    }

    /// Builds what a change made dirty; returns the classes that see something new.
    pub fn rebuild(&mut self, index: &Index, delta: &Delta, totals: &mut Totals) -> Vec<ClassId> {
        let mut touched = Vec::new();
        if delta.everything {
            for (key, layer) in self.slots.values_mut() {
                if layer.build_all(key, index, &self.quarantine, totals) {
                    touched.extend(&layer.classes);
                }
            }
        } else {
            let concerned =
                Concern::of(delta).into_iter().filter_map(|concern| self.by_concern.get(&concern));
            for id in concerned.flatten().collect::<BTreeSet<_>>() {
                let Some((key, layer)) = self.slots.get_mut(id) else { continue };
                if layer.build(key.dirty(delta), key, index, &self.quarantine, totals) {
                    touched.extend(&layer.classes);
                }
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Goes back to the last good bytes of a refused resource wherever the refused ones are published.
    pub fn quarantine(&mut self, nack: Nack) -> Vec<ClassId> {
        let mut touched = Vec::new();
        let mut sources: Arc<[ObjectKey]> = Arc::new([]);
        let piece = nack.kind == ResourceType::LbEndpoint;
        let kind = if piece { ResourceType::Endpoint } else { nack.kind };
        for (key, layer) in self.slots.values_mut().filter(|(key, _)| key.kind() == kind) {
            let set = if piece { &layer.pieces } else { &layer.set };
            if let Some(encoded) = set.get(&nack.name).filter(|e| e.version == nack.version) {
                sources = encoded.sources.clone();
            }
            let withdrawn = match piece {
                true => layer.withdraw_piece(&nack.name, nack.version),
                false => layer.withdraw(&nack.name, nack.version),
            };
            if withdrawn {
                warn!(layer = %key.describe(), name = %nack.name, reason = %nack.reason, ?sources, "a proxy refused a resource; it stays at its last good bytes until its objects change");
                touched.extend(&layer.classes);
            }
        }
        if !self.quarantine.insert((nack.kind, nack.name.clone(), nack.version)) {
            return touched;
        }
        self.rejections.push(Rejection { nack, sources, at: SystemTime::now() });
        if self.rejections.len() > MAX_REJECTIONS {
            let old = self.rejections.remove(0).nack;
            self.quarantine.remove(&(old.kind, old.name, old.version));
        }
        touched
    }

    /// What was refused, oldest first.
    pub fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }
}
