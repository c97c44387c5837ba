//! By which names and addresses a service is called.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use crate::{
    index::Index,
    model::{
        port::ListenerClass,
        service::{Port, Resolution, Service, ServiceKey},
    },
    resource::name,
    view::RouteView,
};

/// The domains of a service's virtual host on one port. Envoy refuses a table in which a domain occurs twice, so each goes
/// to one service: full names first, then short ones and addresses in the order of the services (oldest first), where an
/// address belongs to the service that has it in the proxy's own cluster before one that only has it elsewhere.
///
/// Only rivals can take something away, so that nothing else on the port is looked at.
pub fn of<'a>(index: &'a Index, view: &RouteView, service: &'a Service, port: u16) -> Vec<Cow<'a, str>> {
    let rivals = index.rivals(&view.scope, service).into_iter();
    let mut rivals: Vec<&Service> = rivals.filter(|s| routed(s, port).is_some()).collect();
    if rivals.is_empty() {
        let mut own: Vec<Cow<str>> = Vec::with_capacity(8);
        let texts = names(index, view, service).into_iter().chain(addresses(view, service).map(Cow::Owned));
        for text in texts {
            if !own.contains(&text) {
                own.push(text);
            }
        }
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
    index: &'a Index,
    view: &RouteView,
    services: &[&'a Service],
) -> HashMap<&'a ServiceKey, Vec<Cow<'a, str>>> {
    let full_names: HashMap<String, &ServiceKey> = services
        .iter()
        .flat_map(|s| hosts(index, view, s).map(|h| (h.host.to_ascii_lowercase(), &s.key)))
        .collect();
    let mut taken: HashSet<String> = HashSet::new();
    let mut assigned: HashMap<&ServiceKey, Vec<Cow<str>>> = HashMap::new();
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
                assigned.entry(&service.key).or_default().push(text.into());
            }
        }
    }
    assigned
}

/// Its own host, and those of the visible ExternalName services that point to it: their names are further names of it.
fn hosts<'a>(
    index: &'a Index,
    view: &RouteView,
    service: &'a Service,
) -> impl Iterator<Item = &'a ServiceKey> {
    let aliases = index.aliases(&service.key.host).filter(|alias| index.sees(&view.scope, alias));
    std::iter::once(&service.key).chain(aliases.map(|alias| &alias.key))
}

/// All names: each full one with and without the final dot, and what a resolver's search path makes short names of, which
/// are beginnings of it.
fn names<'a>(index: &'a Index, view: &RouteView, service: &'a Service) -> Vec<Cow<'a, str>> {
    let headless = service.resolution == Resolution::Passthrough;
    let mut all = Vec::with_capacity(6);
    for host in hosts(index, view, service) {
        let first = all.len();
        let ServiceKey { host: full, namespace } = host;
        all.extend([full.as_ref().into(), [full, "."].concat().into()]);
        if let Some(short) = host.short(&index.options().domain) {
            let in_namespace = &full[..short.len() + ".".len() + namespace.len()];
            let with_svc = &full[..in_namespace.len() + ".svc".len()];
            if *namespace == view.namespace {
                all.extend([short, with_svc, in_namespace].map(Cow::Borrowed));
            } else {
                all.extend([in_namespace, with_svc].map(Cow::Borrowed));
            }
        }
        if headless {
            // Pods of a headless service have names of their own below it.
            let below: Vec<_> = all[first..].iter().map(|n| ["*.", n].concat().into()).collect();
            all.extend(below);
        }
    }
    all
}

/// The virtual addresses that the proxy's cluster calls it by.
fn addresses(view: &RouteView, service: &Service) -> impl Iterator<Item = String> {
    let ips = service.vips_for(&view.cluster).iter().filter(|ip| !ip.is_unspecified());
    ips.map(|ip| if ip.is_ipv6() { format!("[{ip}]") } else { name::ip(*ip) })
}
