//! By which names and addresses a service is called.

use std::collections::{HashMap, HashSet};

use crate::{
    index::Index,
    model::{
        port::ListenerClass,
        service::{Port, Resolution, Service, ServiceKey},
    },
    view::RouteView,
};

/// The domains of a service's virtual host on one port. Envoy refuses a table in which a domain occurs twice, so each goes
/// to one service: full names first, then short ones and addresses in the order of the services (oldest first), where an
/// address belongs to the service that has it in the proxy's own cluster before one that only has it elsewhere.
///
/// Only rivals can take something away, so that nothing else on the port is looked at.
pub fn of(index: &Index, view: &RouteView, service: &Service, port: u16) -> Vec<String> {
    let rivals = index.by_age(&view.scope, index.rivals(&service.key));
    let mut rivals: Vec<&Service> = rivals.into_iter().filter(|s| routed(s, port).is_some()).collect();
    if rivals.is_empty() {
        let mut own = Vec::new();
        let mut add = |text: String| {
            if !own.contains(&text) {
                own.push(text);
            }
        };
        names(index, view, service).into_iter().for_each(&mut add);
        addresses(view, service).for_each(&mut add);
        return own;
    }
    rivals.push(service);
    rivals.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    assign(index, view, &rivals).remove(&service.key).unwrap_or_default()
}

/// The port, if requests to it are routed by host.
pub fn routed(service: &Service, port: u16) -> Option<&Port> {
    let port = service.port(port)?;
    let by_bytes = port.protocol.listener_class() == ListenerClass::Tcp;
    let alias = matches!(service.resolution, Resolution::Alias(_));
    (!by_bytes && !alias).then_some(port)
}

/// The domains of each of these services, which are all on one port.
fn assign<'a>(
    index: &Index,
    view: &RouteView,
    services: &[&'a Service],
) -> HashMap<&'a ServiceKey, Vec<String>> {
    let full_names: HashMap<String, &ServiceKey> = services
        .iter()
        .flat_map(|s| hosts(index, view, s).into_iter().map(|h| (h.host.to_ascii_lowercase(), &s.key)))
        .collect();
    let mut taken: HashSet<String> = HashSet::new();
    let mut assigned: HashMap<&ServiceKey, Vec<String>> = HashMap::new();
    for service in services {
        let own = assigned.entry(&service.key).or_default();
        for name in names(index, view, service) {
            let lower = name.to_ascii_lowercase();
            let others = full_names.get(&lower).is_some_and(|key| **key != service.key);
            if !others && taken.insert(lower) {
                own.push(name);
            }
        }
    }
    let local_first = |own: bool| services.iter().filter(move |s| s.vips.contains_key(&view.cluster) == own);
    for service in local_first(true).chain(local_first(false)) {
        for text in addresses(view, service) {
            if taken.insert(text.clone()) {
                assigned.entry(&service.key).or_default().push(text);
            }
        }
    }
    assigned
}

/// Its own host, and those of the visible ExternalName services that point to it: their names are further names of it.
fn hosts<'a>(index: &'a Index, view: &RouteView, service: &'a Service) -> Vec<&'a ServiceKey> {
    let aliases = index.aliases(&service.key.host).filter(|alias| index.sees(&view.scope, alias));
    std::iter::once(&service.key).chain(aliases.map(|alias| &alias.key)).collect()
}

/// All names: each full one with and without the final dot, and what a resolver's search path makes short names of.
fn names(index: &Index, view: &RouteView, service: &Service) -> Vec<String> {
    let headless = service.resolution == Resolution::Passthrough;
    let mut all = Vec::with_capacity(6);
    for host in hosts(index, view, service) {
        let first = all.len();
        let ServiceKey { host: full, namespace } = host;
        all.extend([full.to_string(), format!("{full}.")]);
        if let Some(short) = host.short(&index.options().domain) {
            let in_namespace = format!("{short}.{namespace}");
            let with_svc = format!("{in_namespace}.svc");
            if *namespace == view.namespace {
                all.extend([short.to_owned(), with_svc, in_namespace]);
            } else {
                all.extend([in_namespace, with_svc]);
            }
        }
        if headless {
            // Pods of a headless service have names of their own below it.
            let below: Vec<_> = all[first..].iter().map(|n| format!("*.{n}")).collect();
            all.extend(below);
        }
    }
    all
}

/// The virtual addresses that the proxy's cluster calls it by.
fn addresses(view: &RouteView, service: &Service) -> impl Iterator<Item = String> {
    let ips = service.vips_for(&view.cluster).iter().filter(|ip| !ip.is_unspecified());
    ips.map(|ip| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() })
}
