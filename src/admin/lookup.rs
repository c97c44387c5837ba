//! Finding a service by what a person types: `backend`, `backend.production`, the host, each with `:port` or without.

use std::sync::Arc;

use super::{answer::Refusal, registryz::export_to};
use crate::{
    index::{Index, Scope},
    model::service::Service,
};

/// The service as seen from a namespace, and the port if one was named.
pub fn resolve(
    index: &Index,
    scope: &Scope,
    namespace: &str,
    wanted: &str,
) -> Result<(Arc<Service>, Option<u16>), Refusal> {
    let (host, port) = split_port(wanted)?;
    let candidates = find(index, namespace, host);
    let service = match candidates.as_slice() {
        [] => return Err(unknown(index, host)),
        [one] => (*one).clone(),
        many => {
            let hosts: Vec<_> = many.iter().map(|s| &*s.key.host).collect();
            return Err(Refusal::bad(format!(
                "`{host}` can be any of {}: name one of them.\n",
                hosts.join(", ")
            )));
        }
    };
    if !index.sees(scope, &service) {
        let seen = export_to(&service.export_to).join(", ");
        return Err(Refusal::not_found(format!(
            "{} exists, and namespace {namespace} does not see it: its exportTo is {seen}.\n",
            service.key.host
        )));
    }
    if let Some(port) = port.filter(|p| service.port(*p).is_none()) {
        let ports: Vec<_> = service.ports.iter().map(|p| p.number.to_string()).collect();
        return Err(Refusal::not_found(format!(
            "{} has no port {port}: it has {}.\n",
            service.key.host,
            ports.join(", ")
        )));
    }
    Ok((service, port))
}

fn split_port(wanted: &str) -> Result<(&str, Option<u16>), Refusal> {
    match wanted.rsplit_once(':') {
        None => Ok((wanted, None)),
        Some((host, port)) => match port.parse() {
            Ok(port) => Ok((host, Some(port))),
            Err(_) => Err(Refusal::bad(format!("`{port}` in `{wanted}` is not a port number.\n"))),
        },
    }
}

/// The host itself; `name.namespace`; the name in the caller's namespace, else in any. Short names are those of hosts in the clusters'
/// own domain, as for whoever calls them.
fn find<'a>(index: &'a Index, namespace: &str, host: &str) -> Vec<&'a Arc<Service>> {
    let exact: Vec<_> = index.services().filter(|s| *s.key.host == *host).collect();
    if !exact.is_empty() {
        return exact;
    }
    let called = |name: &str| -> Vec<_> {
        let domain = &index.options().domain;
        index.services().filter(|s| s.key.short(domain) == Some(name)).collect()
    };
    let short = host.strip_suffix(".svc").unwrap_or(host);
    if let Some((name, ns)) = short.split_once('.') {
        return called(name).into_iter().filter(|s| *s.key.namespace == *ns).collect();
    }
    let named = called(short);
    match named.iter().find(|s| *s.key.namespace == *namespace) {
        Some(own) => vec![own],
        None => named,
    }
}

fn unknown(index: &Index, host: &str) -> Refusal {
    let name = host.split('.').next().unwrap_or(host);
    let close: Vec<_> =
        index.services().filter(|s| distance(&s.name, name) <= 2).map(|s| &*s.key.host).take(5).collect();
    let hint = if close.is_empty() {
        "`landbridge service-map` shows the services of every cluster".to_owned()
    } else {
        format!("did you mean {}?", close.join(" or "))
    };
    Refusal::not_found(format!("No service `{host}` is known: {hint}\n"))
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        index::Options,
        model::{
            Change, Object, ObjectKey,
            kubernetes::{Meta, Service as Definition},
            mcs::{Mcs, ServiceImport},
        },
    };

    /// A service that is imported has two hosts, of which one is called by short names.
    #[test]
    fn short_names_are_of_the_clusters_own_domain() {
        let mut index = Index::new(Options {
            config_cluster: "east".into(),
            failover_by_default: true,
            domain: "cluster.local".into(),
            mcs: Mcs::Hosts,
        });
        let meta = Meta { namespace: "production".into(), name: "backend".into(), ..Meta::default() };
        let ips = vec![[10, 9, 0, 1].into()];
        let objects = [
            Object::Service(Arc::new(Definition {
                meta: meta.clone(),
                cluster_ips: ips.clone(),
                ..Definition::default()
            })),
            Object::ServiceImport(Arc::new(ServiceImport { meta, ips })),
        ];
        index.update(objects.map(|object| {
            let (namespace, name) = ("production".into(), "backend".into());
            let key = ObjectKey { cluster: "east".into(), kind: object.kind(), namespace, name };
            Change::Upsert(key, object)
        }));
        let found = |wanted| {
            let (service, _) = resolve(&index, &Scope::Public, "production", wanted).ok()?;
            Some(service.key.host.to_string())
        };
        for (wanted, domain) in [
            ("backend", "cluster.local"),
            ("backend.production", "cluster.local"),
            ("backend.production.svc", "cluster.local"),
            ("backend.production.svc.cluster.local", "cluster.local"),
            ("backend.production.svc.clusterset.local", "clusterset.local"),
        ] {
            assert_eq!(found(wanted), Some(format!("backend.production.svc.{domain}")), "{wanted}");
        }
    }

    #[test]
    fn distances_count_typing_mistakes() {
        for (a, b, n) in
            [("backend", "backend", 0), ("bakend", "backend", 1), ("web", "", 3), ("abc", "acb", 2)]
        {
            assert_eq!(distance(a, b), n, "{a} {b}");
        }
    }
}
