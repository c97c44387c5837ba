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
    resource::Built,
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
    units: BTreeMap<Unit, Vec<Arc<str>>>,
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
            let encoded = Encoded::new(
                name.clone(),
                kind.type_url(),
                &resource.message,
                resource.waits_for,
                resource.sources.into(),
            );
            names.push(name.clone());
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
