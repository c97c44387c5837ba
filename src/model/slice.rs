//! EndpointSlices, packed: a registry holds hundreds of thousands of endpoints.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::endpoint::Health;

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Label `kubernetes.io/service-name`; slices without it are dropped when read.
    pub service: Arc<str>,
    /// Ports that every endpoint of the slice has, none twice.
    pub ports: Box<[SlicePort]>,
    /// The endpoints.
    pub endpoints: SliceRows,
}

/// A port of a slice. A slice port without a number ("all ports") is dropped when read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlicePort {
    /// Equal to the service port's name.
    pub name: Arc<str>,
    /// The pod's port.
    pub number: u16,
}

/// One endpoint of a slice, as it is read and collected into [`SliceRows`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceEndpoint<'a> {
    /// The first; further ones are not used by anybody.
    pub address: IpAddr,
    /// From its conditions.
    pub health: Health,
    /// `nodeName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// The pod's name, if `targetRef` names a Pod (always of the slice's namespace).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Cow<'a, str>>,
}

/// The endpoints of a slice, ordered by address; of two with one address the first holds. An order of the API server's
/// own is no change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceRows {
    rows: Box<[Packed]>,
    /// The pods' names, one behind the other.
    pods: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Packed {
    address: IpAddr,
    health: Health,
    /// Where the pod's name ends; it begins where that of the row before ends. Nothing between: no pod.
    pod_end: u32,
    node: Option<Arc<str>>,
}

// === impl SliceEndpoint ===

impl SliceEndpoint<'_> {
    /// A healthy endpoint of which nothing else is known.
    pub fn at(address: impl Into<IpAddr>) -> Self {
        Self { address: address.into(), health: Health::Healthy, node: None, pod: None }
    }
}

// === impl SliceRows ===

impl<'a> FromIterator<SliceEndpoint<'a>> for SliceRows {
    fn from_iter<T: IntoIterator<Item = SliceEndpoint<'a>>>(iter: T) -> Self {
        let mut all: Vec<_> = iter.into_iter().collect();
        all.sort_by_key(|e| e.address);
        all.dedup_by_key(|e| e.address);
        let mut pods = String::with_capacity(all.iter().map(|e| e.pod.as_ref().map_or(0, |p| p.len())).sum());
        let pack = |endpoint: SliceEndpoint<'a>| {
            let pod = endpoint.pod.as_deref().unwrap_or_default();
            // Four gigabytes of names are not a slice; what is beyond has no pod.
            if u32::try_from(pods.len() + pod.len()).is_ok() {
                pods.push_str(pod);
            }
            Packed {
                address: endpoint.address,
                health: endpoint.health,
                pod_end: pods.len() as u32,
                node: endpoint.node,
            }
        };
        let rows = all.into_iter().map(pack).collect();
        Self { rows, pods: pods.into() }
    }
}

impl SliceRows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The address of a row.
    pub fn address(&self, row: usize) -> IpAddr {
        self.rows[row].address
    }

    /// The health of a row.
    pub fn health(&self, row: usize) -> Health {
        self.rows[row].health
    }

    /// The node of a row.
    pub fn node(&self, row: usize) -> Option<&Arc<str>> {
        self.rows[row].node.as_ref()
    }

    /// The pod's name of a row.
    pub fn pod(&self, row: usize) -> Option<&str> {
        let start = row.checked_sub(1).map_or(0, |before| self.rows[before].pod_end);
        let name = &self.pods[start as usize..self.rows[row].pod_end as usize];
        (!name.is_empty()).then_some(name)
    }

    /// The pods' names.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|row| self.pod(row))
    }

    /// Whether the same pods are named in the same rows.
    pub fn same_pods(&self, other: &Self) -> bool {
        self.pods == other.pods
            && self.rows.iter().map(|row| row.pod_end).eq(other.rows.iter().map(|row| row.pod_end))
    }

    /// All rows, in their order.
    pub fn iter(&self) -> impl Iterator<Item = SliceEndpoint<'_>> {
        (0..self.len()).map(|row| SliceEndpoint {
            address: self.address(row),
            health: self.health(row),
            node: self.node(row).cloned(),
            pod: self.pod(row).map(Cow::Borrowed),
        })
    }

    /// Exchanges the names of nodes for equal ones that are kept elsewhere, too.
    pub fn share_nodes(&mut self, mut shared: impl FnMut(&str) -> Arc<str>) {
        for node in self.rows.iter_mut().filter_map(|row| row.node.as_mut()) {
            *node = shared(node);
        }
    }

    /// All addresses, in their order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.rows.iter().map(|row| row.address)
    }
}

/// As a list of endpoints: what is read can be anything, and is packed again.
impl Serialize for SliceRows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for SliceRows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<SliceEndpoint<'static>>::deserialize(deserializer).map(Self::from_iter)
    }
}
