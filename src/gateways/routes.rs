//! What can be asked of each gateway: the services that are reached through it, and the SNIs by which it knows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    index::{Index, Networks},
    model::{
        endpoint::{Health, NetworkGateway, ServiceEndpoints},
        port::Protocol,
        service::{Resolution, Service},
    },
    resource::name,
};

/// So many SNIs of each gateway are kept: when one leads nowhere, others are asked for.
const SNIS: usize = 64;

/// Shared pointers to what routes depend on, collected between two batches.
#[derive(Clone, Debug)]
pub struct Tables {
    networks: Networks,
    services: Vec<(Arc<Service>, Arc<ServiceEndpoints>)>,
}

/// What is known of a way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Services with endpoints behind it.
    pub services: usize,
    /// What to ask for: services whose endpoints are ready and speak mutual TLS and HTTP. By host, at most 64.
    pub snis: Vec<Arc<str>>,
}

/// Where all gateways are.
pub fn addresses(networks: &Networks) -> BTreeSet<SocketAddr> {
    networks.iter().filter_map(NetworkGateway::socket).collect()
}

// === impl Tables ===

impl Tables {
    /// Collects.
    pub fn of(index: &Index) -> Self {
        let all = index.all_endpoints().filter_map(|(key, endpoints)| {
            let service = index.service(key)?;
            let crosses = !service.cluster_local
                && !service.node_local
                && !matches!(service.resolution, Resolution::Alias(_));
            crosses.then(|| (service.clone(), endpoints.clone()))
        });
        let services = if index.networks().any() { all.collect() } else { Vec::new() };
        Self { networks: index.networks().clone(), services }
    }

    /// The routes of every gateway.
    pub fn routes(&self) -> BTreeMap<NetworkGateway, Routes> {
        let mut routes: BTreeMap<NetworkGateway, Routes> =
            self.networks.iter().map(|gateway| (gateway.clone(), Routes::default())).collect();
        for (service, endpoints) in &self.services {
            let mut reached: BTreeMap<&NetworkGateway, bool> = BTreeMap::new();
            let http = service.ports.iter().find(|port| is_http(port.protocol));
            let crosses = |cluster| service.exported_by.as_ref().is_none_or(|by| by.contains(cluster));
            for (cluster, shard) in endpoints.shards().filter(|(cluster, _)| crosses(*cluster)) {
                let networks: BTreeSet<_> = shard.workloads().iter().map(|w| &w.network).collect();
                for network in networks {
                    let gateways = self.networks.gateways(network, cluster);
                    if gateways.is_empty() {
                        continue;
                    }
                    let answers = http.is_some_and(|port| {
                        shard.port(&port.name).any(|endpoint| {
                            let workload = endpoint.workload();
                            workload.network == *network
                                && workload.accepts_mtls
                                && endpoint.health() == Health::Healthy
                        })
                    });
                    for gateway in gateways {
                        *reached.entry(gateway).or_default() |= answers;
                    }
                }
            }
            for (gateway, answers) in reached {
                let Some(routes) = routes.get_mut(gateway) else { continue };
                routes.services += 1;
                if let Some(port) = http.filter(|_| answers && routes.snis.len() < SNIS) {
                    routes.snis.push(name::sni_dnat(port.number, "", &service.key.host).into());
                }
            }
        }
        routes
    }
}

fn is_http(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
}
