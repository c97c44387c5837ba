//! By which names and addresses a service is called.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    index::Index,
    model::service::{Port, Resolution, Service, ServiceKey},
    view::RouteView,
};

/// The domains of each service's virtual host. Envoy refuses a table in which a domain occurs twice, so each goes to one
/// service: full names first, then short ones and addresses in the order of the services (oldest first), where an
/// address belongs to the service that has it in the proxy's own cluster before one that only has it elsewhere.
pub fn assign(
    index: &Index,
    view: &RouteView,
    services: &[(&Service, &Port)],
) -> BTreeMap<ServiceKey, Vec<String>> {
    let domain = &*index.options().domain;
    let aliases = aliases(index, view);
    let hosts = |service: &Service| {
        let key = &service.key;
        let aliases = aliases.get(&*key.host).into_iter().flatten();
        let all = std::iter::once((*key).clone()).chain(aliases.map(|k| (*k).clone()));
        all.collect::<Vec<_>>()
    };

    let full_names: HashMap<String, ServiceKey> = services
        .iter()
        .flat_map(|(s, _)| hosts(s).into_iter().map(|h| (h.host.to_ascii_lowercase(), s.key.clone())))
        .collect();
    let mut taken: HashSet<String> = HashSet::new();
    let mut assigned: BTreeMap<ServiceKey, Vec<String>> = BTreeMap::new();
    for (service, _) in services {
        let own = assigned.entry(service.key.clone()).or_default();
        for host in hosts(service) {
            for name in names(&host, view, domain, service.resolution == Resolution::Passthrough) {
                let lower = name.to_ascii_lowercase();
                let others = full_names.get(&lower).is_some_and(|k| *k != service.key);
                if !others && taken.insert(lower) {
                    own.push(name);
                }
            }
        }
    }
    let local_first =
        |own: bool| services.iter().filter(move |(s, _)| s.vips.contains_key(&view.cluster) == own);
    for (service, _) in local_first(true).chain(local_first(false)) {
        for ip in service.vips_for(&view.cluster).iter().filter(|ip| !ip.is_unspecified()) {
            let text = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            if taken.insert(text.clone()) {
                assigned.entry(service.key.clone()).or_default().push(text);
            }
        }
    }
    assigned
}

/// ExternalName services by the service that they point to: their names are further names of it.
fn aliases<'a>(index: &'a Index, view: &RouteView) -> HashMap<&'a str, Vec<&'a ServiceKey>> {
    let mut found: HashMap<&str, Vec<&ServiceKey>> = HashMap::new();
    for service in index.visible(&view.scope) {
        if let Resolution::Alias(target) = &service.resolution {
            found.entry(&**target).or_default().push(&service.key);
        }
    }
    found
}

/// The full name with and without the final dot, and what a resolver's search path makes short names of.
fn names(host: &ServiceKey, view: &RouteView, domain: &str, headless: bool) -> Vec<String> {
    let full = &*host.host;
    let mut names = vec![full.to_owned(), format!("{full}.")];
    let suffix = format!(".{}.svc.{domain}", host.namespace);
    if let Some(short) = full.strip_suffix(&suffix).filter(|s| !s.is_empty()) {
        let namespace = &host.namespace;
        let in_namespace = format!("{short}.{namespace}");
        let with_svc = format!("{in_namespace}.svc");
        if *namespace == view.namespace {
            names.extend([short.to_owned(), with_svc, in_namespace]);
        } else {
            names.extend([in_namespace, with_svc]);
        }
    }
    if headless {
        // Pods of a headless service have names of their own below it.
        let below: Vec<_> = names.iter().map(|n| format!("*.{n}")).collect();
        names.extend(below);
    }
    names
}
