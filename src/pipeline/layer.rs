//! One layer: built units as a persistent set.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tracing::error;

use super::{
    Totals,
    classes::ClassId,
    units::{LayerKey, Unit},
};
use crate::{
    index::Index,
    model::ObjectKey,
    resource::{Built, eds::Pieces},
    snapshot::{Encoded, ResourceSet, ResourceType, Version},
};

/// Refused versions: type, name, version.
pub type Quarantine = HashSet<(ResourceType, Arc<str>, Version)>;

/// All resources of one type for one view.
#[derive(Debug, Default)]
pub struct Layer {
    /// What is published.
    pub set: ResourceSet,
    /// The classes that see it; a layer without any is dropped.
    pub classes: BTreeSet<ClassId>,
    /// The endpoints that assignments leave out.
    pub pieces: ResourceSet,
    units: BTreeMap<Unit, Vec<Arc<str>>>,
    /// What the names of an assignment's pieces begin with.
    prefixes: HashMap<Arc<str>, Arc<str>>,
    /// The bytes before the present ones, to fall back to when those are refused. Not kept for assignments, which are
    /// many, large and never refused for what they say.
    previous: HashMap<Arc<str>, Arc<Encoded>>,
}

impl Layer {
    /// Builds everything.
    pub fn build_all(
        &mut self,
        key: &LayerKey,
        index: &Index,
        quarantine: &Quarantine,
        totals: &mut Totals,
    ) -> bool {
        let mut units: BTreeSet<_> = self.units.keys().cloned().collect();
        units.extend(key.units(index));
        self.build(units, key, index, quarantine, totals)
    }

    /// Builds these units again; tells whether anything differs.
    pub fn build(
        &mut self,
        units: impl IntoIterator<Item = Unit>,
        key: &LayerKey,
        index: &Index,
        quarantine: &Quarantine,
        totals: &mut Totals,
    ) -> bool {
        let mut changed = false;
        let (mut built_names, mut gone) = (HashSet::new(), Vec::new());
        for unit in units {
            // A builder that fails costs its own unit's news, nothing else: the last good bytes stay.
            match catch_unwind(AssertUnwindSafe(|| key.build(index, &unit))) {
                Ok(built) => {
                    built_names.extend(built.iter().map(|b| b.name.clone()));
                    changed |= self.install(unit, built, key.kind(), quarantine, totals, &mut gone);
                }
                Err(_) => {
                    totals.failed_builds += 1;
                    error!(layer = %key.describe(), ?unit, "a builder panicked; its last good resources stay. This is a bug: report it with the panic message above");
                }
            }
        }
        // Of two services at one address the one that comes first builds it: a name may move from unit to unit.
        for name in gone.into_iter().filter(|name| !built_names.contains(name)) {
            changed |= self.set.remove(&name).is_some();
            self.previous.remove(&name);
            changed |= self.put_pieces(&name, None, &Arc::from([]), quarantine, totals);
        }
        changed
    }

    fn install(
        &mut self,
        unit: Unit,
        built: Vec<Built>,
        kind: ResourceType,
        quarantine: &Quarantine,
        totals: &mut Totals,
        gone: &mut Vec<Arc<str>>,
    ) -> bool {
        let mut changed = false;
        let mut names = Vec::with_capacity(built.len());
        for resource in built {
            let name = resource.name.clone();
            let (encoded, pieces) = encode(resource, kind);
            names.push(name.clone());
            if pieces.is_some() || !self.prefixes.is_empty() {
                changed |= self.put_pieces(&name, pieces.as_deref(), &encoded.sources, quarantine, totals);
            }
            let present = self.set.get(&name);
            if present.is_some_and(|p| p.version == encoded.version)
                || (!quarantine.is_empty() && quarantine.contains(&(kind, name.clone(), encoded.version)))
            {
                continue;
            }
            totals.resources += 1;
            changed = true;
            let old = self.set.insert(name.clone(), Arc::new(encoded));
            if let Some(old) = old.filter(|_| kind != ResourceType::Endpoint) {
                self.previous.insert(name, old);
            }
        }
        let before = match names.is_empty() {
            true => self.units.remove(&unit),
            false => self.units.insert(unit, names.clone()),
        };
        gone.extend(before.unwrap_or_default().into_iter().filter(|name| !names.contains(name)));
        changed
    }

    /// Makes the pieces of an assignment these. Takes time for each, and memory for those that changed.
    fn put_pieces(
        &mut self,
        name: &Arc<str>,
        pieces: Option<&Pieces>,
        sources: &Arc<[ObjectKey]>,
        quarantine: &Quarantine,
        totals: &mut Totals,
    ) -> bool {
        const KIND: ResourceType = ResourceType::LbEndpoint;
        let mut changed = false;
        let before = match pieces {
            Some(pieces) => self.prefixes.insert(name.clone(), pieces.prefix.clone()),
            None => self.prefixes.remove(name),
        };
        if let Some(before) = before.filter(|before| pieces.is_none_or(|p| p.prefix != *before)) {
            changed = true;
            let gone: Vec<_> = self.pieces.with_prefix(&before).map(|piece| piece.name.clone()).collect();
            gone.iter().for_each(|name| drop(self.pieces.remove(name)));
        }
        for collection in pieces.into_iter().flat_map(|pieces| &pieces.collections) {
            let present = self.pieces.clone();
            let mut present = present.with_prefix(&collection.prefix).peekable();
            collection.for_each(|name, message| {
                while let Some(gone) = present.next_if(|present| *present.name < *name) {
                    changed = true;
                    self.pieces.remove(&gone.name);
                }
                let known = present.next_if(|present| *present.name == *name);
                if known.is_some_and(|known| known.version == Version::of(message)) {
                    return;
                }
                let name: Arc<str> = name.into();
                let encoded = Encoded::part(name.clone(), KIND.type_url(), message, sources.clone());
                if quarantine.contains(&(KIND, name.clone(), encoded.version)) {
                    return;
                }
                totals.resources += 1;
                changed = true;
                self.pieces.insert(name, Arc::new(encoded));
            });
            for gone in present {
                changed = true;
                self.pieces.remove(&gone.name);
            }
        }
        changed
    }

    /// Withholds a refused piece; tells whether it was published here.
    pub fn withdraw_piece(&mut self, name: &Arc<str>, version: Version) -> bool {
        let published = self.pieces.get(name).is_some_and(|e| e.version == version);
        published && self.pieces.remove(name).is_some()
    }

    /// Goes back to the last good bytes of a refused resource, or withholds it; tells whether it was published here.
    pub fn withdraw(&mut self, name: &Arc<str>, version: Version) -> bool {
        if self.set.get(name).is_none_or(|e| e.version != version) {
            return false;
        }
        match self.previous.remove(name) {
            Some(good) => drop(self.set.insert(name.clone(), good)),
            None => drop(self.set.remove(name)),
        }
        true
    }
}

/// Puts a resource into its envelope. One with pieces exists in two spellings.
fn encode(resource: Built, kind: ResourceType) -> (Encoded, Option<Box<Pieces>>) {
    let Built { name, message, waits_for, pieces, sources } = resource;
    let (url, sources): (_, Arc<[ObjectKey]>) = (kind.type_url(), sources.into());
    let encoded = match &pieces {
        Some(pieces) => {
            Encoded::in_two_spellings(&name, url, [&message, &pieces.respelt], waits_for, sources)
        }
        None => Encoded::new(name, url, &message, waits_for, sources),
    };
    (encoded, pieces)
}
