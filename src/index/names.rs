//! Which services are called by the same names or addresses.
//!
//! Envoy takes each domain and each address once, so that a service's virtual hosts and listeners depend on the services
//! that claim what it claims. There are few such rivals, mostly none: this table finds them without a look at the rest.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use xxhash_rust::xxh3::xxh3_64;

use super::{Delta, Index};
use crate::model::{
    endpoint::ServiceEndpoints,
    service::{Resolution, Service, ServiceKey},
};

/// Claims by hash. Two texts with one hash make services rivals that are none, which costs a comparison.
#[derive(Debug, Default)]
pub struct Names {
    claims: BTreeMap<ServiceKey, Box<[u64]>>,
    claimants: HashMap<u64, Claimants, BuildHasherDefault<AsIs>>,
    /// ExternalName services, by the host that they point to.
    aliases: BTreeMap<Arc<str>, BTreeSet<ServiceKey>>,
}

#[derive(Debug)]
enum Claimants {
    One(ServiceKey),
    Several(BTreeSet<ServiceKey>),
}

/// Keys are hashes already.
#[derive(Debug, Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

// === impl Names ===

impl Names {
    /// Notes what a service claims now, in place of what it claimed before.
    pub fn set(
        &mut self,
        key: &ServiceKey,
        service: Option<&Service>,
        endpoints: &ServiceEndpoints,
        domain: &str,
    ) {
        for hash in self.claims.remove(key).unwrap_or_default() {
            self.release(hash, key);
        }
        let Some(service) = service else { return };
        let claims = claims(service, endpoints, domain);
        for hash in &claims {
            match self.claimants.get_mut(hash) {
                None => drop(self.claimants.insert(*hash, Claimants::One(key.clone()))),
                Some(Claimants::Several(all)) => drop(all.insert(key.clone())),
                Some(one) => {
                    let Claimants::One(first) = one else { continue };
                    *one = Claimants::Several([first.clone(), key.clone()].into());
                }
            }
        }
        self.claims.insert(key.clone(), claims.into());
    }

    /// Notes that an ExternalName service came (or went).
    pub fn set_alias(&mut self, target: &Arc<str>, key: &ServiceKey, present: bool) {
        let aliases = self.aliases.entry(target.clone()).or_default();
        if present {
            aliases.insert(key.clone());
        } else {
            aliases.remove(key);
        }
        if aliases.is_empty() {
            self.aliases.remove(target);
        }
    }

    fn release(&mut self, hash: u64, key: &ServiceKey) {
        let Some(claimants) = self.claimants.get_mut(&hash) else { return };
        let empty = match claimants {
            Claimants::One(_) => true,
            Claimants::Several(all) => {
                all.remove(key);
                all.is_empty()
            }
        };
        if empty {
            self.claimants.remove(&hash);
        }
    }

    fn aliases(&self, host: &str) -> impl Iterator<Item = &ServiceKey> {
        self.aliases.get(host).into_iter().flatten()
    }

    /// The others that claim something which `key` claims.
    fn sharing<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a ServiceKey> {
        let claims = self.claims.get(key).into_iter().flatten();
        let several = claims.filter_map(|hash| match self.claimants.get(hash) {
            Some(Claimants::Several(all)) => Some(all),
            Some(Claimants::One(_)) | None => None,
        });
        several.flatten().filter(move |other| *other != key)
    }
}

/// All names in which a client anywhere could call the service, but for a first label alone: only a service of the
/// same name and namespace has that, too.
fn claims(service: &Service, endpoints: &ServiceEndpoints, domain: &str) -> Vec<u64> {
    let hash = |text: &str| xxh3_64(text.to_ascii_lowercase().as_bytes());
    let ServiceKey { host, namespace } = &service.key;
    let mut claims = vec![hash(host.trim_end_matches('.'))];
    if let Some(short) = service.key.short(domain) {
        claims.extend([hash(&format!("{short}.{namespace}")), hash(&format!("{short}.{namespace}.svc"))]);
        claims.extend(short.contains('.').then(|| hash(short)));
    }
    let addresses = service.vips.values().flatten().copied();
    claims.extend(addresses.map(|ip| hash(&ip.to_string())));
    if service.resolution == Resolution::Passthrough {
        claims.extend(endpoints.iter().map(|e| hash(&e.address().to_string())));
    }
    claims.sort_unstable();
    claims.dedup();
    claims
}

impl Index {
    /// The ExternalName services that point to this host: further names of it.
    pub fn aliases<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a Arc<Service>> {
        self.names.aliases(host).filter_map(|key| self.services.get(key))
    }

    /// The other services that may claim a name or address of this one, or of one of its aliases. Mostly none.
    pub fn rivals<'a>(&'a self, service: &'a ServiceKey) -> BTreeSet<&'a ServiceKey> {
        self.concerned(service).filter(|key| *key != service).collect()
    }

    /// Makes a change to a service, notes what it claims now, and records all others which that concerns.
    pub(super) fn rename(&mut self, key: &ServiceKey, delta: &mut Delta, change: impl FnOnce(&mut Self)) {
        let before: Vec<_> = self.concerned(key).cloned().collect();
        change(self);
        let Self { names, services, endpoints, options, no_endpoints, .. } = self;
        let own_endpoints = endpoints.get(key).map_or(&*no_endpoints, |e| e);
        names.set(key, services.get(key).map(|s| &**s), own_endpoints, &options.domain);
        let after = self.concerned(key).cloned();
        delta.names.extend(before.into_iter().chain(after).filter(|other| other != key));
    }

    /// Whose domains and addresses depend on what `key` and its aliases claim: an alias's target, and all that share
    /// something.
    fn concerned<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a ServiceKey> {
        let own = std::iter::once(key).chain(self.names.aliases(&key.host));
        let sharing = own.flat_map(|key| self.names.sharing(key));
        std::iter::once(key).chain(sharing).flat_map(|key| self.called(key))
    }

    /// Who is called by what `key` claims: itself, or whom it points to.
    fn called<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a ServiceKey> {
        let target = self.services.get(key).and_then(|s| match &s.resolution {
            Resolution::Alias(target) => Some(target),
            Resolution::ClientSide | Resolution::Passthrough => None,
        });
        let own = target.is_none().then_some(key);
        own.into_iter().chain(target.into_iter().flat_map(|host| self.with_host(host)))
    }

    /// The services with this host: one, unless several namespaces define it.
    pub(super) fn with_host<'a>(&'a self, host: &'a Arc<str>) -> impl Iterator<Item = &'a ServiceKey> {
        let from = ServiceKey { host: host.clone(), namespace: "".into() };
        self.services.range(from..).map(|(key, _)| key).take_while(move |key| key.host == *host)
    }
}
