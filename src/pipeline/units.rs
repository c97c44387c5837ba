//! Layers and units: what is built together, and what a change makes dirty.
//!
//! A layer is all resources of one type for one view. It is built in units: a service for what is its own (clusters,
//! assignments, virtual hosts, listeners of its addresses), a port number for what all services of a port share (its
//! listener, its table of routes).

use crate::{
    index::{Delta, Index, Scope},
    model::{
        node::{ProxyKind, VirtualHosts},
        service::{Service, ServiceKey},
    },
    resource::{self, Built},
    snapshot::ResourceType,
    view::{
        ClusterView, EndpointView, GatewayView, InboundView, KindViews, ListenerView, ProxyViews, RouteView,
    },
};

/// A layer's identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LayerKey {
    /// CDS, outbound.
    Clusters(ClusterView),
    /// CDS, inbound.
    InboundClusters(InboundView),
    /// EDS.
    Endpoints(EndpointView),
    /// LDS, outbound.
    Listeners(ListenerView),
    /// LDS, inbound.
    InboundListeners(InboundView),
    /// LDS of a gateway.
    GatewayListeners(GatewayView),
    /// RDS: the tables of ports.
    Routes(RouteView),
    /// RDS: the tables of sniffed listeners, of one service each.
    SniffedRoutes(Scope),
    /// VHDS.
    VirtualHosts(RouteView),
}

/// What makes layers dirty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Concern {
    /// Any service.
    Services,
    /// Any service's endpoints.
    Endpoints,
    /// Any port.
    Ports,
    /// The names or addresses of any service.
    Names,
    /// One service.
    Service(ServiceKey),
}

/// What is built together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// What is always there.
    Fixed,
    /// All of one service.
    Service(ServiceKey),
    /// All on one port.
    Port(u16),
}

/// The layers of a class, by type.
pub fn layers_of(views: &ProxyViews) -> Vec<LayerKey> {
    let mut layers =
        vec![LayerKey::Clusters(views.clusters.clone()), LayerKey::Endpoints(views.endpoints.clone())];
    match &views.kind {
        KindViews::Sidecar { listeners, routes, inbound } => {
            layers.extend([
                LayerKey::InboundClusters(inbound.clone()),
                LayerKey::Listeners(listeners.clone()),
                LayerKey::InboundListeners(inbound.clone()),
                LayerKey::Routes(routes.clone()),
                LayerKey::SniffedRoutes(routes.scope.clone()),
            ]);
            if routes.virtual_hosts == VirtualHosts::OneByOne {
                layers.push(LayerKey::VirtualHosts(routes.clone()));
            }
        }
        KindViews::Router(gateway) => layers.push(LayerKey::GatewayListeners(gateway.clone())),
    }
    layers
}

// === impl Concern ===

impl Concern {
    /// What a change concerns, mesh-wide changes aside.
    pub fn of(delta: &Delta) -> Vec<Self> {
        let any = [
            (!delta.services.is_empty(), Self::Services),
            (!delta.endpoints.is_empty(), Self::Endpoints),
            (!delta.ports.is_empty(), Self::Ports),
            (!delta.names.is_empty(), Self::Names),
        ];
        let any = any.into_iter().filter(|(is, _)| *is).map(|(_, concern)| concern);
        any.chain(delta.services.iter().cloned().map(Self::Service)).collect()
    }
}

// === impl LayerKey ===

impl LayerKey {
    /// What its resources are.
    pub fn kind(&self) -> ResourceType {
        match self {
            Self::Clusters(_) | Self::InboundClusters(_) => ResourceType::Cluster,
            Self::Endpoints(_) => ResourceType::Endpoint,
            Self::Listeners(_) | Self::InboundListeners(_) | Self::GatewayListeners(_) => {
                ResourceType::Listener
            }
            Self::Routes(_) | Self::SniffedRoutes(_) => ResourceType::Route,
            Self::VirtualHosts(_) => ResourceType::VirtualHost,
        }
    }

    /// Whether some of its resources may leave out what are resources of their own, built with them.
    pub fn has_pieces(&self) -> bool {
        matches!(self, Self::Endpoints(view) if view.one_by_one_above.is_some())
    }

    /// All units that the registry gives rise to.
    pub fn units(&self, index: &Index) -> Vec<Unit> {
        let services = || index.services().map(|s| Unit::Service(s.key.clone()));
        let ports = || index.ports().map(Unit::Port);
        let fixed = std::iter::once(Unit::Fixed);
        match self {
            Self::Clusters(_) => fixed.chain(services()).collect(),
            Self::Endpoints(_) | Self::SniffedRoutes(_) | Self::VirtualHosts(_) => services().collect(),
            Self::Listeners(_) => fixed.chain(ports()).chain(services()).collect(),
            Self::Routes(_) => ports().collect(),
            Self::InboundClusters(_) | Self::InboundListeners(_) | Self::GatewayListeners(_) => {
                fixed.collect()
            }
        }
    }

    /// What makes any of its units dirty.
    pub fn concerns(&self) -> Vec<Concern> {
        match self {
            Self::Clusters(_) | Self::GatewayListeners(_) | Self::SniffedRoutes(_) => vec![Concern::Services],
            Self::Endpoints(_) => vec![Concern::Services, Concern::Endpoints],
            Self::Listeners(_) => vec![Concern::Services, Concern::Names, Concern::Ports],
            Self::Routes(_) => vec![Concern::Ports],
            Self::VirtualHosts(_) => vec![Concern::Services, Concern::Names],
            Self::InboundClusters(view) | Self::InboundListeners(view) => {
                view.ports.iter().map(|p| Concern::Service(p.service.clone())).collect()
            }
        }
    }

    /// The units that a change may concern. Building one that did not change costs time, nothing else.
    pub fn dirty(&self, delta: &Delta) -> Vec<Unit> {
        let service = |key: &ServiceKey| Unit::Service(key.clone());
        let fixed_if = |dirty: bool| if dirty { vec![Unit::Fixed] } else { Vec::new() };
        match self {
            Self::Clusters(_) | Self::SniffedRoutes(_) => delta.services.iter().map(service).collect(),
            Self::Endpoints(_) => delta.services.union(&delta.endpoints).map(service).collect(),
            Self::Listeners(_) => {
                let services = delta.services.union(&delta.names).map(service);
                services.chain(delta.ports.iter().copied().map(Unit::Port)).collect()
            }
            Self::Routes(_) => delta.ports.iter().copied().map(Unit::Port).collect(),
            Self::VirtualHosts(_) => delta.services.union(&delta.names).map(service).collect(),
            Self::InboundClusters(view) | Self::InboundListeners(view) => fixed_if(
                !delta.services.is_empty() && view.ports.iter().any(|p| delta.services.contains(&p.service)),
            ),
            Self::GatewayListeners(_) => fixed_if(!delta.services.is_empty()),
        }
    }

    /// Builds a unit. Nothing is built of what does not exist or is not visible.
    pub fn build(&self, index: &Index, unit: &Unit) -> Vec<Built> {
        let seen = |scope: &Scope, key: &ServiceKey| index.service(key).filter(|s| index.sees(scope, s));
        let of = |scope: &Scope, key: &ServiceKey, build: &dyn Fn(&Service) -> Vec<Built>| {
            seen(scope, key).map(|service| build(service)).unwrap_or_default()
        };
        match (self, unit) {
            (Self::Clusters(v), Unit::Fixed) => resource::cds::fixed(index, v),
            (Self::Clusters(v), Unit::Service(key)) => {
                of(&v.scope, key, &|s| resource::cds::service(index, v, s))
            }
            (Self::Endpoints(v), Unit::Service(key)) => {
                of(&v.scope, key, &|s| resource::eds::service(index, v, s))
            }
            (Self::InboundClusters(v), Unit::Fixed) => resource::cds::inbound(index, v),
            (Self::Listeners(v), Unit::Fixed) => resource::lds::outbound::fixed(index, v),
            (Self::Listeners(v), Unit::Port(port)) => resource::lds::outbound::port(index, v, *port),
            (Self::Listeners(v), Unit::Service(key)) => {
                of(&v.scope, key, &|s| resource::lds::outbound::service(index, v, s))
            }
            (Self::InboundListeners(v), Unit::Fixed) => resource::lds::inbound::build(index, v),
            (Self::GatewayListeners(v), Unit::Fixed) => resource::lds::gateway::build(index, v),
            (Self::Routes(v), Unit::Port(port)) => resource::rds::port(index, v, *port),
            (Self::SniffedRoutes(scope), Unit::Service(key)) => {
                of(scope, key, &|s| resource::rds::sniffed(index, scope, s))
            }
            (Self::VirtualHosts(v), Unit::Service(key)) => {
                of(&v.scope, key, &|s| resource::rds::service(index, v, s))
            }
            _ => Vec::new(),
        }
    }

    /// For logs: the type and whose.
    pub fn describe(&self) -> String {
        match self {
            Self::Clusters(v) => format!("clusters of {}s in {:?}", kind(v.kind), v.scope),
            Self::InboundClusters(v) => format!("inbound clusters of {} ports", v.ports.len()),
            Self::Endpoints(v) => {
                format!("endpoints for {}s of {} in {:?}", kind(v.kind), v.cluster, v.scope)
            }
            Self::Listeners(v) => format!("listeners of {} in {:?}", v.cluster, v.scope),
            Self::InboundListeners(v) => format!("inbound listeners of {} ports", v.ports.len()),
            Self::GatewayListeners(v) => format!("listeners of {} Gateways", v.gateways.len()),
            Self::Routes(v) => format!("routes of {} in {}", v.namespace, v.cluster),
            Self::SniffedRoutes(scope) => format!("routes of sniffed services in {scope:?}"),
            Self::VirtualHosts(v) => format!("virtual hosts of {} in {}", v.namespace, v.cluster),
        }
    }
}

fn kind(kind: ProxyKind) -> &'static str {
    match kind {
        ProxyKind::Sidecar => "sidecar",
        ProxyKind::Router => "gateway",
    }
}
