//! All layers, and the resources that proxies refused.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use tracing::warn;

use super::{
    Totals,
    classes::ClassId,
    layer::{Layer, Quarantine},
    units::{LayerKey, Unit},
};
use crate::{
    index::{Delta, Index},
    model::ObjectKey,
    snapshot::{Nack, ResourceSet},
};

/// At most so many refusals are remembered; the oldest go first.
const MAX_REJECTIONS: usize = 1_000;

/// All layers in use.
#[derive(Debug, Default)]
pub struct Layers {
    layers: HashMap<LayerKey, Layer>,
    quarantine: Quarantine,
    rejections: Vec<Rejection>,
}

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
    pub fn join(&mut self, key: &LayerKey, class: ClassId, index: &Index, totals: &mut Totals) {
        if !self.layers.contains_key(key) {
            let mut layer = Layer::default();
            layer.build_all(key, index, &self.quarantine, totals);
            self.layers.insert(key.clone(), layer);
        }
        if let Some(layer) = self.layers.get_mut(key) {
            layer.classes.insert(class);
        }
    }

    /// The class does not need the layer any more.
    pub fn leave(&mut self, key: &LayerKey, class: ClassId) {
        if let Some(layer) = self.layers.get_mut(key) {
            layer.classes.remove(&class);
            if layer.classes.is_empty() {
                self.layers.remove(key);
            }
        }
    }

    /// What a layer publishes.
    pub fn set(&self, key: &LayerKey) -> ResourceSet {
        self.layers.get(key).map(|l| l.set.clone()).unwrap_or_default()
    }

    /// Every layer, with what it publishes.
    pub fn iter(&self) -> impl Iterator<Item = (&LayerKey, &Layer)> {
        self.layers.iter()
    }

    /// Builds what a change made dirty; returns the classes that see something new.
    pub fn rebuild(&mut self, index: &Index, delta: &Delta, totals: &mut Totals) -> Vec<ClassId> {
        let mut touched = Vec::new();
        for (key, layer) in &mut self.layers {
            let changed = if delta.everything {
                layer.build_all(key, index, &self.quarantine, totals)
            } else {
                let units: Vec<Unit> = key.dirty(delta);
                layer.build(units, key, index, &self.quarantine, totals)
            };
            if changed {
                touched.extend(&layer.classes);
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
        for (key, layer) in self.layers.iter_mut().filter(|(key, _)| key.kind() == nack.kind) {
            if let Some(encoded) = layer.set.get(&nack.name).filter(|e| e.version == nack.version) {
                sources = encoded.sources.clone();
            }
            if layer.withdraw(&nack.name, nack.version) {
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
