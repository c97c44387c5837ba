//! Which services are called by the same names or addresses.
//!
//! Envoy takes each domain and each address once, so that a service's virtual hosts and listeners depend on the services
//! that claim what it claims. There are few such rivals, mostly none: this table finds them without a look at the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use foldhash::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{Delta, Index, Scope};
use crate::model::{
    endpoint::ServiceEndpoints,
    service::{Resolution, Service, ServiceKey},
};

/// Claims by hash. Two texts with one hash make services rivals that are none, which costs a comparison.
#[derive(Debug, Default)]
pub struct Names {
    claims: HashMap<ServiceKey, Claims>,
    claimants: HashMap<u64, Claimants>,
    /// ExternalName services, by the host that they point to.
    aliases: BTreeMap<Arc<str>, BTreeSet<ServiceKey>>,
}

/// What a service claims.
#[derive(Debug, Default)]
struct Claims {
    hashes: Box<[u64]>,
    /// How many of them others claim, too. Mostly none.
    shared: usize,
}

#[derive(Debug)]
enum Claimants {
    One(ServiceKey),
    Several(BTreeSet<ServiceKey>),
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
        for hash in self.claims.remove(key).unwrap_or_default().hashes {
            self.release(hash, key);
        }
        let Some(service) = service else { return };
        let hashes = claims(service, endpoints, domain);
        let mut shared = 0;
        for hash in &hashes {
            let Some(claimants) = self.claimants.get_mut(hash) else {
                self.claimants.insert(*hash, Claimants::One(key.clone()));
                continue;
            };
            shared += 1;
            match claimants {
                Claimants::Several(all) => drop(all.insert(key.clone())),
                Claimants::One(first) => {
                    if let Some(claims) = self.claims.get_mut(first) {
                        claims.shared += 1;
                    }
                    *claimants = Claimants::Several([first.clone(), key.clone()].into());
                }
            }
        }
        self.claims.insert(key.clone(), Claims { hashes: hashes.into(), shared });
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
        let Some(Claimants::Several(all)) = self.claimants.get_mut(&hash) else {
            self.claimants.remove(&hash);
            return;
        };
        all.remove(key);
        if all.len() > 1 {
            return;
        }
        if let Some(last) = all.pop_first() {
            if let Some(claims) = self.claims.get_mut(&last) {
                claims.shared -= 1;
            }
            self.claimants.insert(hash, Claimants::One(last));
        }
    }

    fn aliases(&self, host: &str) -> impl Iterator<Item = &ServiceKey> {
        self.aliases.get(host).into_iter().flatten()
    }

    /// The others that claim something which `key` claims.
    fn sharing<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a ServiceKey> {
        let shares = self.claims.get(key).filter(|claims| claims.shared > 0);
        let hashes = shares.into_iter().flat_map(|claims| &claims.hashes);
        let several = hashes.filter_map(|hash| match self.claimants.get(hash) {
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

    /// The other visible services that may claim a name or address of this one, or of one of its aliases, oldest first.
    /// Mostly none.
    pub fn rivals<'a>(&'a self, scope: &Scope, service: &'a Service) -> Vec<&'a Service> {
        let alias = matches!(service.resolution, Resolution::Alias(_));
        let target = alias.then(|| self.called(&service.key)).into_iter().flatten();
        let keys = target.chain(self.sharing(&service.key)).filter(|key| **key != service.key);
        let keys: BTreeSet<_> = keys.collect();
        self.by_age(scope, keys.into_iter().filter_map(|key| self.services.get(key)))
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
        self.called(key).chain(self.sharing(key))
    }

    /// Who is called by what `key` and its aliases claim, too.
    fn sharing<'a>(&'a self, key: &'a ServiceKey) -> impl Iterator<Item = &'a ServiceKey> {
        let own = std::iter::once(key).chain(self.names.aliases(&key.host));
        own.flat_map(|key| self.names.sharing(key)).flat_map(|key| self.called(key))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Labels, service::ExportTo};

    fn service(name: usize, addresses: &[u8]) -> Service {
        let host = format!("s{name}.ns.svc.cluster.local");
        let ips = addresses.iter().map(|a| std::net::IpAddr::from([10, 0, 0, *a])).collect();
        Service {
            key: ServiceKey { host: host.into(), namespace: "ns".into() },
            name: "s".into(),
            ports: Vec::new(),
            resolution: Resolution::ClientSide,
            vips: BTreeMap::from([("east".into(), ips)]),
            node_local: false,
            cluster_local: false,
            exported_by: None,
            export_to: ExportTo::Public,
            labels: Labels::default(),
            created: 0,
            extra_identities: BTreeSet::new(),
            sources: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn who_shares_is_what_a_look_at_all_says(
            steps in proptest::collection::vec(
                (0..6_usize, proptest::option::of(proptest::collection::vec(0..5_u8, 0..4))),
                1..40,
            ),
        ) {
            let mut names = Names::default();
            let mut all = BTreeMap::new();
            for (name, addresses) in steps {
                let key = service(name, &[]).key;
                let now = addresses.map(|addresses| service(name, &addresses));
                names.set(&key, now.as_ref(), &ServiceEndpoints::default(), "cluster.local");
                match now {
                    Some(now) => drop(all.insert(key, now)),
                    None => drop(all.remove(&key)),
                }
                for one in all.values() {
                    let shares = |other: &&Service| {
                        let ips = one.vips[&"east".into()].iter();
                        other.key != one.key && ips.clone().any(|ip| other.vips[&"east".into()].contains(ip))
                    };
                    let expected: BTreeSet<_> = all.values().filter(shares).map(|s| &s.key).collect();
                    prop_assert_eq!(names.sharing(&one.key).collect::<BTreeSet<_>>(), expected);
                }
            }
        }
    }
}
