//! Endpoints: one address and port of a workload that serves a service port.
//!
//! ```text
//! ServiceEndpoints: (cluster, slice) -> Shard: the slice's rows + a Workload for each
//! ```
//!
//! What endpoints share is kept once: a [`Workload`] is everything that the pods of one deployment in one place have in
//! common, so that whatever is decided or encoded for one of them holds for all.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    locality::Locality,
    name::{ClusterId, Labels, NetworkId},
    slice::{EndpointSlice, SliceRows},
    small_map::SmallMap,
    workload::{HOSTNAME_LABEL, Workload},
};

/// Whether an endpoint may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    /// Ready.
    Healthy,
    /// Not ready, not going away: sent as UNHEALTHY so that Envoy counts it when it spills to the next priority.
    Unhealthy,
    /// Going away, still serving: gets no new requests.
    Draining,
    /// Going away and not serving: never sent.
    Terminating,
}

/// The endpoints of one slice, with what is known of their pods and nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    slice: Arc<EndpointSlice>,
    /// None twice, in the order in which the rows name them. Interned by the index: equal ones are one object.
    workloads: Box<[Arc<Workload>]>,
    /// Nothing where there is one workload.
    of_row: Box<[u32]>,
    /// What an earlier slice (by name) of the same cluster and service has, too: row * ports + port, ascending. Slices
    /// overlap while the controller moves endpoints between them: the first by name holds.
    hidden: Box<[u32]>,
}

/// One address and port. Equal if it is the same port of the same row of the same shard.
#[derive(Clone, Copy)]
pub struct Endpoint<'a> {
    shard: &'a Shard,
    row: u32,
    port: u32,
}

/// All endpoints of a service, slice by slice. A cluster that is away keeps its slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEndpoints {
    shards: SmallMap<(ClusterId, Arc<str>), Arc<Shard>>,
    /// What the shards' workloads have, and how many shards: counted, so that one slice's change costs one slice.
    identities: SmallMap<Arc<str>, u32>,
    localities: SmallMap<Locality, u32>,
    without_mtls: u32,
}

/// A gateway through which a network is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkGateway {
    /// The network behind it.
    pub network: NetworkId,
    /// The cluster whose gateway it is; empty for gateways of `meshNetworks`.
    pub cluster: ClusterId,
    /// IP address, or a host name that was not resolved.
    pub address: Arc<str>,
    /// The host name that stands for it, if it has one.
    pub host: Option<Arc<str>>,
    /// The port that routes by SNI, 15443 unless said otherwise.
    pub port: u16,
}

// === impl NetworkGateway ===

impl NetworkGateway {
    /// Where it is; none for a host name that was not resolved.
    pub fn socket(&self) -> Option<SocketAddr> {
        let ip = self.address.parse().ok()?;
        (self.port != 0).then(|| SocketAddr::new(ip, self.port))
    }
}

// === impl Health ===

impl Health {
    /// From the conditions of a slice's endpoint.
    pub fn of(ready: bool, serving: bool, terminating: bool) -> Self {
        match (ready, terminating, serving) {
            (true, _, _) => Self::Healthy,
            (false, true, true) => Self::Draining,
            (false, true, false) => Self::Terminating,
            (false, false, _) => Self::Unhealthy,
        }
    }
}

// === impl Shard ===

impl Shard {
    /// Joins a slice with the workload of each row; nothing is hidden.
    pub fn new(slice: Arc<EndpointSlice>, of_rows: impl Iterator<Item = Arc<Workload>>) -> Self {
        let mut workloads: Vec<Arc<Workload>> = Vec::new();
        let mut of_row = Vec::with_capacity(slice.endpoints.len());
        for workload in of_rows {
            let known = workloads.iter().rposition(|known| Arc::ptr_eq(known, &workload));
            of_row.push(known.unwrap_or_else(|| {
                workloads.push(workload);
                workloads.len() - 1
            }) as u32);
        }
        if workloads.len() == 1 {
            of_row = Vec::new();
        }
        Self { slice, workloads: workloads.into(), of_row: of_row.into(), hidden: Box::default() }
    }

    /// The same workloads, row by row, with another slice's rows.
    pub fn with_slice(&self, slice: Arc<EndpointSlice>) -> Self {
        let (workloads, of_row) = (self.workloads.clone(), self.of_row.clone());
        Self { slice, workloads, of_row, hidden: Box::default() }
    }

    /// The slice.
    pub fn slice(&self) -> &Arc<EndpointSlice> {
        &self.slice
    }

    /// The workloads behind it, none twice.
    pub fn workloads(&self) -> &[Arc<Workload>] {
        &self.workloads
    }

    /// The workload of a row.
    pub fn workload(&self, row: usize) -> &Arc<Workload> {
        &self.workloads[self.workload_index(row)]
    }

    /// The workload of each row.
    pub fn of_rows(&self) -> impl Iterator<Item = &Arc<Workload>> {
        (0..self.slice.endpoints.len()).map(|row| self.workload(row))
    }

    fn workload_index(&self, row: usize) -> usize {
        self.of_row.get(row).map_or(0, |workload| *workload as usize)
    }

    /// The workload of the row with the same address, pod and node as a row of other rows. `at`: where to look from; rows
    /// are asked for in their order.
    pub fn same_row(&self, rows: &SliceRows, row: usize, at: &mut usize) -> Option<&Arc<Workload>> {
        let own = &self.slice.endpoints;
        while *at < own.len() && own.address(*at) < rows.address(row) {
            *at += 1;
        }
        let same = *at < own.len()
            && own.address(*at) == rows.address(row)
            && own.pod(*at) == rows.pod(row)
            && own.node(*at) == rows.node(row);
        same.then(|| self.workload(*at))
    }

    /// Whether its endpoints have the same addresses and ports as another's: what hides, and is hidden, is the same.
    pub fn same_places(&self, other: &Self) -> bool {
        self.slice.ports == other.slice.ports
            && self.slice.endpoints.addresses().eq(other.slice.endpoints.addresses())
    }

    /// This shard with those endpoints hidden that one of `earlier` has, too.
    pub fn hide<'a>(&self, earlier: impl Iterator<Item = &'a Self>) -> Box<[u32]> {
        let ports = &self.slice.ports;
        let mut hidden = BTreeSet::new();
        for other in earlier {
            let shared: Vec<u32> = (0..ports.len())
                .filter(|p| other.slice.ports.contains(&ports[*p]))
                .map(|p| p as u32)
                .collect();
            if !shared.is_empty() {
                let rows = self.rows_in(other);
                hidden.extend(rows.flat_map(|row| shared.iter().map(move |p| row * ports.len() as u32 + p)));
            }
        }
        hidden.into_iter().collect()
    }

    /// What is hidden.
    pub fn hidden(&self) -> &[u32] {
        &self.hidden
    }

    /// The same with other endpoints hidden.
    pub fn with_hidden(self, hidden: Box<[u32]>) -> Self {
        Self { hidden, ..self }
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.rows_in(other).next().is_some()
    }

    /// The rows whose addresses another shard has, too. Both are ordered.
    fn rows_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> + 'a {
        let mut theirs = other.slice.endpoints.addresses().peekable();
        self.slice.endpoints.addresses().zip(0..).filter_map(move |(address, row)| {
            while theirs.next_if(|their| *their < address).is_some() {}
            (theirs.peek() == Some(&address)).then_some(row)
        })
    }

    /// The endpoints of the slice's ports with this name.
    pub fn port<'a>(&'a self, name: &str) -> impl Iterator<Item = Endpoint<'a>> + use<'a> {
        let ports = self.slice.ports.iter().zip(0..).filter(|(port, _)| *port.name == *name);
        let ports: Vec<u32> = ports.map(|(_, port)| port).collect();
        ports.into_iter().flat_map(|port| self.rows(port))
    }

    /// All of them: row by row for each port.
    pub fn iter(&self) -> impl Iterator<Item = Endpoint<'_>> {
        (0..self.slice.ports.len() as u32).flat_map(|port| self.rows(port))
    }

    fn rows(&self, port: u32) -> impl Iterator<Item = Endpoint<'_>> {
        let ports = self.slice.ports.len() as u32;
        (0..self.slice.endpoints.len() as u32)
            .filter(move |row| self.hidden.is_empty() || !self.hidden.contains(&(row * ports + port)))
            .map(move |row| Endpoint { shard: self, row, port })
    }
}

// === impl Endpoint ===

impl<'a> Endpoint<'a> {
    /// The pod's address.
    pub fn address(self) -> IpAddr {
        self.shard.slice.endpoints.address(self.row as usize)
    }

    /// The pod's port.
    pub fn port(self) -> u16 {
        self.shard.slice.ports[self.port as usize].number
    }

    /// The service port's name that it serves.
    pub fn port_name(self) -> &'a Arc<str> {
        &self.shard.slice.ports[self.port as usize].name
    }

    /// Whether it may be called.
    pub fn health(self) -> Health {
        self.shard.slice.endpoints.health(self.row as usize)
    }

    /// Which of its shard's workloads it is of.
    pub fn workload_index(self) -> usize {
        self.shard.workload_index(self.row as usize)
    }

    /// What it shares with others.
    pub fn workload(self) -> &'a Arc<Workload> {
        self.shard.workload(self.row as usize)
    }

    /// The node, for node-local services.
    pub fn node(self) -> Option<&'a Arc<str>> {
        self.shard.slice.endpoints.node(self.row as usize)
    }

    /// The pod's name; the address when it has none.
    pub fn name(self) -> String {
        match self.shard.slice.endpoints.pod(self.row as usize) {
            Some(pod) if self.workload().name.is_some() => pod.to_string(),
            _ => self.address().to_string(),
        }
    }

    /// Its pod's labels with those of its place.
    pub fn labels(self) -> Labels {
        let mut labels = self.workload().all_labels();
        if let Some(node) = self.node() {
            labels.insert(HOSTNAME_LABEL.into(), node.clone());
        }
        labels
    }
}

impl PartialEq for Endpoint<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.shard, other.shard) && self.row == other.row && self.port == other.port
    }
}

impl Eq for Endpoint<'_> {}

impl fmt::Debug for Endpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.workload().cluster, self.address(), self.port())
    }
}

// === impl ServiceEndpoints ===

impl ServiceEndpoints {
    /// Every endpoint, cluster by cluster, slice by slice.
    pub fn iter(&self) -> impl Iterator<Item = Endpoint<'_>> {
        self.shards.iter().flat_map(|(_, shard)| shard.iter())
    }

    /// Cluster by cluster, slice by slice.
    pub fn shards(&self) -> impl Iterator<Item = (&ClusterId, &Arc<Shard>)> {
        self.shards.iter().map(|((cluster, _), shard)| (cluster, shard))
    }

    /// Those of a cluster, by the slice's name.
    pub fn shards_of(&self, cluster: &ClusterId) -> impl Iterator<Item = (&Arc<str>, &Arc<Shard>)> {
        let from = self.shards.from(&(cluster.clone(), "".into()));
        from.take_while(move |((id, _), _)| id == cluster).map(|((_, name), shard)| (name, shard))
    }

    /// The shard of a slice.
    pub fn shard(&self, cluster: &ClusterId, slice: &Arc<str>) -> Option<&Arc<Shard>> {
        self.shards.get(&(cluster.clone(), slice.clone()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Identities of all endpoints: what a client accepts as the service ("secure naming").
    pub fn identities(&self) -> impl Iterator<Item = &Arc<str>> {
        self.identities.iter().map(|(identity, _)| identity)
    }

    /// Whether there are endpoints in more than one locality: failover is possible.
    pub fn spans_localities(&self) -> bool {
        self.localities.len() > 1
    }

    /// Whether a proxy that accepts mutual TLS is in front of every endpoint.
    pub fn all_accept_mtls(&self) -> bool {
        !self.is_empty() && self.without_mtls == 0
    }

    /// Replaces a slice's shard; tells whether the set of identities changed.
    pub fn put(&mut self, cluster: &ClusterId, slice: &Arc<str>, shard: Option<Arc<Shard>>) -> bool {
        let key = (cluster.clone(), slice.clone());
        let new = shard.clone();
        let old = match shard {
            Some(shard) => self.shards.insert(key, shard),
            None => self.shards.remove(&key),
        };
        let workloads = |shard: &Option<Arc<Shard>>| {
            shard.iter().flat_map(|s| s.workloads.iter()).cloned().collect::<Vec<_>>()
        };
        let (old, new) = (workloads(&old), workloads(&new));
        if old.len() == new.len() && old.iter().zip(&new).all(|(a, b)| Arc::ptr_eq(a, b)) {
            return false;
        }
        let mut changed = false;
        // First what comes: what both have is there all the time.
        for (workloads, add) in [(&new, true), (&old, false)] {
            for workload in workloads {
                count(&mut self.localities, &workload.locality, add);
                if !workload.accepts_mtls {
                    self.without_mtls = if add { self.without_mtls + 1 } else { self.without_mtls - 1 };
                }
                if let Some(identity) = &workload.identity {
                    changed |= count(&mut self.identities, identity, add);
                }
            }
        }
        changed
    }
}

/// Whether it is the first, or was the last.
fn count<K: Ord + Clone>(counts: &mut SmallMap<K, u32>, key: &K, add: bool) -> bool {
    match counts.get_mut(key) {
        Some(count) if add => *count += 1,
        Some(count) if *count > 1 => *count -= 1,
        Some(_) => return counts.remove(key).is_some(),
        None if add => return counts.insert(key.clone(), 1).is_none(),
        None => {}
    }
    false
}
