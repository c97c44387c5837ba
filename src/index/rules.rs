//! Destination rules: merged per host, looked up per client namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Delta, Options, Scope, inputs::Inputs};
use crate::model::{
    ClusterId, Kind, ObjectKey,
    destination_rule::{DestinationRule, LocalityLb, PolicySettings, Subset, TrafficPolicy},
    gateway::host_within,
    mesh::MeshConfig,
    service::{ExportTo, Service, ServiceKey},
};

/// Rules for one host, of one namespace, with the same visibility, as one. Istio merges them (two rules for one host is
/// what people write): subsets are the union, the policy is that of the oldest rule that has one.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedRule {
    /// The host, which may start with `*`.
    pub host: Arc<str>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// For all subsets.
    pub policy: TrafficPolicy,
    /// Named subsets.
    pub subsets: Vec<Subset>,
    /// What it was merged from.
    pub sources: Vec<ObjectKey>,
}

/// All merged rules.
#[derive(Debug, Default)]
pub struct Rules {
    namespaces: BTreeMap<Arc<str>, Namespace>,
    /// Namespaces in which clients see rules that others do not.
    exceptions: BTreeSet<Arc<str>>,
    /// Labels that some `failoverPriority` compares.
    failover_labels: BTreeSet<Arc<str>>,
    /// Whether some rule makes a client's locality matter.
    locality_matters: bool,
}

/// The merged rules of a namespace.
#[derive(Debug, Default)]
struct Namespace {
    /// Rules that differ in visibility stay apart.
    by_host: BTreeMap<Arc<str>, Vec<MergedRule>>,
    /// Hosts with a wildcard.
    wildcards: BTreeSet<Arc<str>>,
}

// === impl Rules ===

impl Rules {
    /// Merges all rules again, and records the services whose rules changed. There are few rules and they change
    /// seldom; what they touch is found exactly.
    pub fn rebuild(
        &mut self,
        inputs: &Inputs,
        options: &Options,
        mesh: &MeshConfig,
        services: &BTreeMap<ServiceKey, Arc<Service>>,
        delta: &mut Delta,
    ) {
        let mut sorted: Vec<_> = inputs
            .clusters
            .get(&options.config_cluster)
            .into_iter()
            .flat_map(|c| c.destination_rules.values())
            // Rules for selected client workloads are not supported yet; reading one says so.
            .filter(|r| r.workload_selector.is_none())
            .collect();
        sorted.sort_by_key(|r| (r.meta.created, r.meta.name.clone(), r.meta.namespace.clone()));

        let mut new = Self::default();
        for rule in sorted {
            new.add(rule, &options.config_cluster, mesh);
        }
        for (namespace, host, rules) in all(&new.namespaces) {
            for rule in rules {
                new.locality_matters |= policies(rule).any(locality_matters);
                for policy in policies(rule) {
                    if let Some(locality) = policy.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref())
                    {
                        new.failover_labels.extend(compared_labels(locality));
                    }
                }
                match &rule.export_to {
                    ExportTo::Namespaces(names) => new.exceptions.extend(names.iter().cloned()),
                    ExportTo::Nobody => drop(new.exceptions.insert(namespace.clone())),
                    ExportTo::Public => {}
                }
            }
            // A rule for another namespace's service holds for this namespace's clients only.
            let own_suffix = format!(".{namespace}.svc.{}", options.domain);
            if *namespace != mesh.root_namespace && (host.starts_with('*') || !host.ends_with(&own_suffix)) {
                new.exceptions.insert(namespace.clone());
            }
        }

        let both = all(&self.namespaces).chain(all(&new.namespaces));
        let changed: BTreeSet<_> = both
            .filter(|(namespace, host, _)| self.on(namespace, host) != new.on(namespace, host))
            .map(|(_, host, _)| host)
            .collect();
        for service in services.values() {
            if changed.iter().any(|host| host_within(&service.key.host, host)) {
                delta.services.insert(service.key.clone());
                delta.ports.extend(service.ports.iter().map(|p| p.number));
            }
        }
        *self = new;
    }

    fn add(&mut self, rule: &DestinationRule, config_cluster: &ClusterId, mesh: &MeshConfig) {
        let namespace = rule.meta.namespace.clone();
        let export_to = ExportTo::parse(
            rule.export_to.iter().map(|e| e.as_ref()),
            &namespace,
            &mesh.default_rule_export_to,
        );
        let source = ObjectKey {
            cluster: config_cluster.clone(),
            kind: Kind::DestinationRule,
            namespace: namespace.clone(),
            name: rule.meta.name.clone(),
        };
        let own = self.namespaces.entry(namespace).or_default();
        if rule.host.starts_with('*') {
            own.wildcards.insert(rule.host.clone());
        }
        let rules = own.by_host.entry(rule.host.clone()).or_default();
        let Some(merged) = rules.iter_mut().find(|m| m.export_to == export_to) else {
            rules.push(MergedRule {
                host: rule.host.clone(),
                export_to,
                policy: rule.policy.clone(),
                subsets: rule.subsets.clone(),
                sources: vec![source],
            });
            return;
        };
        for subset in &rule.subsets {
            if merged.subsets.iter().all(|s| s.name != subset.name) {
                merged.subsets.push(subset.clone());
            }
        }
        if merged.policy == TrafficPolicy::default() {
            merged.policy = rule.policy.clone();
        }
        merged.sources.push(source);
    }

    /// The rules of a namespace on exactly this host.
    fn on(&self, namespace: &str, host: &str) -> Option<&Vec<MergedRule>> {
        self.namespaces.get(namespace)?.by_host.get(host)
    }

    /// Istio's order: the client's namespace, the service's, the root namespace; the first that has a visible rule
    /// decides. Within a namespace the exact host wins, then the longest wildcard.
    pub fn lookup(&self, scope: &Scope, service: &Service, root: &Arc<str>) -> Option<&MergedRule> {
        let client = scope.namespace();
        let visible = |rule: &&MergedRule| match client {
            Some(client) => rule.export_to.includes(client),
            None => rule.export_to == ExportTo::Public,
        };
        if let Some(client) = client.filter(|c| **c != **root) {
            // Whatever its exportTo says, a rule holds in its own namespace.
            if let Some(rule) = self.in_namespace(client, service, |_| true) {
                return Some(rule);
            }
        } else if client.is_some()
            && let Some(rule) = self.in_namespace(root, service, |rule| rule.export_to != ExportTo::Public)
        {
            return Some(rule);
        }
        self.in_namespace(&service.key.namespace, service, visible)
            .or_else(|| self.in_namespace(root, service, visible))
    }

    fn in_namespace(
        &self,
        namespace: &str,
        service: &Service,
        accept: impl Fn(&&MergedRule) -> bool,
    ) -> Option<&MergedRule> {
        let own = self.namespaces.get(namespace)?;
        let rules = |host: &Arc<str>| own.by_host.get(host).into_iter().flatten();
        if let Some(rule) = rules(&service.key.host).find(&accept) {
            return Some(rule);
        }
        let wildcards = own.wildcards.iter().filter(|host| host_within(&service.key.host, host));
        wildcards.flat_map(rules).filter(&accept).max_by_key(|rule| rule.host.len())
    }

    /// Whether clients in a namespace see rules that others do not.
    pub fn is_exception(&self, namespace: &str) -> bool {
        self.exceptions.contains(namespace)
    }

    /// All such namespaces.
    pub fn exceptions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.exceptions.iter()
    }

    /// Labels that some `failoverPriority` compares.
    pub fn failover_labels(&self) -> &BTreeSet<Arc<str>> {
        &self.failover_labels
    }

    /// Whether some rule makes a client's locality matter.
    pub fn locality_matters(&self) -> bool {
        self.locality_matters
    }
}

/// All rules, with their namespaces and hosts.
fn all(
    namespaces: &BTreeMap<Arc<str>, Namespace>,
) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Vec<MergedRule>)> {
    namespaces
        .iter()
        .flat_map(|(namespace, own)| own.by_host.iter().map(move |(host, rules)| (namespace, host, rules)))
}

fn policies(rule: &MergedRule) -> impl Iterator<Item = &PolicySettings> {
    let all = std::iter::once(&rule.policy).chain(rule.subsets.iter().map(|s| &s.policy));
    all.flat_map(|p| std::iter::once(&p.settings).chain(p.ports.values()))
}

fn locality_matters(policy: &PolicySettings) -> bool {
    let locality = policy.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref());
    policy.outlier_detection.is_some() || locality.is_some_and(|l| l.enabled)
}

/// Labels that need the client's value: entries without a value of their own.
pub fn compared_labels(locality: &LocalityLb) -> impl Iterator<Item = Arc<str>> {
    locality.failover_priority.iter().filter(|l| !l.contains('=')).cloned()
}
