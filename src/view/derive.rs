//! From a proxy to its views.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ClusterView, EndpointView, GatewayRef, GatewayView, InboundPort, InboundView, ListenerView,
    PassthroughMode, RouteView, Scope,
};
use crate::{
    index::{Index, Target},
    model::{
        Labels,
        gateway::ServerTlsMode,
        locality::Locality,
        name::selects,
        node::{Interception, Proxy, ProxyKind},
        service::Resolution,
    },
};

/// What the services of a proxy's workload make it listen on, by port.
type Targets = BTreeMap<u16, Target>;

/// All views of one proxy. Proxies with equal ones are one class and share snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyViews {
    /// CDS, outbound.
    pub clusters: ClusterView,
    /// EDS.
    pub endpoints: EndpointView,
    /// What is special to the kind of proxy.
    pub kind: KindViews,
}

/// Views that only one kind of proxy has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KindViews {
    /// Beside a workload.
    Sidecar {
        /// LDS, outbound.
        listeners: ListenerView,
        /// RDS.
        routes: RouteView,
        /// CDS and LDS, inbound.
        inbound: InboundView,
    },
    /// A gateway.
    Router(GatewayView),
}

/// Derives a proxy's views from the registry as it is. The only place that sees both a proxy and configuration.
pub fn derive(index: &Index, proxy: &Proxy) -> ProxyViews {
    let facts = index.workload_facts(proxy);
    let matters = index.discriminators();
    let scope = index.scope(&proxy.namespace);
    let gateways: Vec<_> = match proxy.kind {
        ProxyKind::Sidecar => Vec::new(),
        ProxyKind::Router => {
            let all = index.gateways().into_iter();
            all.filter(|g| selects(&g.selector, &facts.labels)).map(|g| GatewayRef(g.clone())).collect()
        }
    };
    let sni_dnat = gateways
        .iter()
        .flat_map(|g| &g.0.servers)
        .any(|server| server.tls == Some(ServerTlsMode::AutoPassthrough));

    let clusters = ClusterView {
        kind: proxy.kind,
        scope: scope.clone(),
        secrets: proxy.secrets,
        extensions: proxy.extensions,
        sni_dnat,
    };
    let endpoints = EndpointView {
        kind: proxy.kind,
        scope: scope.clone(),
        cluster: proxy.cluster.clone(),
        network: index.proxy_network(proxy),
        requested_networks: proxy.requested_networks.clone(),
        locality: if matters.locality { facts.locality } else { Locality::default() },
        labels: compared(&facts.labels, &matters.labels),
        node: proxy.node.clone().filter(|_| matters.node),
        sni_dnat,
        workloads: proxy.extensions.read_workloads() || matters.endpoint_metadata,
        one_by_one_above: proxy.one_by_one_above,
    };
    let kind = match proxy.kind {
        ProxyKind::Sidecar => {
            let targets = index.targets(proxy);
            KindViews::Sidecar {
                listeners: listeners(index, proxy, scope.clone(), &targets),
                routes: RouteView {
                    scope,
                    namespace: proxy.namespace.clone(),
                    cluster: proxy.cluster.clone(),
                    virtual_hosts: proxy.virtual_hosts,
                },
                inbound: inbound(index, proxy, &facts.labels, targets),
            }
        }
        ProxyKind::Router => KindViews::Router(GatewayView {
            scope,
            gateways,
            extensions: proxy.extensions,
            secrets: proxy.secrets,
        }),
    };
    ProxyViews { clusters, endpoints, kind }
}

fn compared(labels: &Labels, wanted: &BTreeSet<std::sync::Arc<str>>) -> Labels {
    wanted.iter().filter_map(|name| Some((name.clone(), labels.get(name)?.clone()))).collect()
}

fn listeners(index: &Index, proxy: &Proxy, scope: Scope, targets: &Targets) -> ListenerView {
    let headless = targets.values().any(|target| {
        index.service(&target.service).is_some_and(|s| s.resolution == Resolution::Passthrough)
    });
    ListenerView {
        scope,
        cluster: proxy.cluster.clone(),
        interception: proxy.interception,
        extensions: proxy.extensions,
        own_headless_ips: proxy.ips.iter().copied().filter(|_| headless).collect(),
    }
}

fn inbound(index: &Index, proxy: &Proxy, labels: &Labels, targets: Targets) -> InboundView {
    let mtls = index.proxy_mtls(&proxy.namespace, labels);
    let exceptions = mtls.ports.iter().filter(|(port, _)| !targets.contains_key(port));
    let passthrough =
        PassthroughMode { default: mtls.default, ports: exceptions.map(|(p, m)| (*p, *m)).collect() };
    let ports = targets.into_values().map(|target| InboundPort {
        mode: mtls.mode(target.port),
        target: target.port,
        service_port: target.service_port,
        service: target.service,
        service_name: target.service_name,
        protocol: target.protocol,
    });
    InboundView {
        ports: ports.collect(),
        passthrough,
        interception: proxy.interception,
        extensions: proxy.extensions,
        secrets: proxy.secrets,
        bind: if proxy.interception == Interception::None { proxy.ips.clone() } else { Vec::new() },
    }
}
