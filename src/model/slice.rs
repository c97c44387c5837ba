//! EndpointSlices, packed: a registry holds hundreds of thousands of endpoints.

use std::{borrow::Cow, fmt, net::IpAddr, sync::Arc};

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
    /// What all pods' names begin with (they are mostly of one ReplicaSet), then the rest of each.
    pods: Box<str>,
    /// Bytes of the former.
    alike: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Packed {
    address: IpAddr,
    health: Health,
    /// Where the rest of the pod's name ends; it begins where that of the row before ends. Nothing between: no pod.
    pod_end: u32,
    node: Option<Arc<str>>,
}

/// A pod's name, in two parts.
#[derive(Clone, Copy, Debug)]
pub struct PodName<'a> {
    alike: &'a str,
    rest: &'a str,
}

// === impl PodName ===

impl PodName<'_> {
    /// The name in one piece, which is written to `room`.
    pub fn text<'r>(&self, room: &'r mut String) -> &'r str {
        room.clear();
        room.push_str(self.alike);
        room.push_str(self.rest);
        room
    }
}

impl fmt::Display for PodName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.alike)?;
        f.write_str(self.rest)
    }
}

impl PartialEq for PodName<'_> {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |name: &Self| name.alike.bytes().chain(name.rest.bytes());
        match self.alike == other.alike {
            true => self.rest == other.rest,
            false => bytes(self).eq(bytes(other)),
        }
    }
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
        let names = || all.iter().filter_map(|e| e.pod.as_deref()).filter(|pod| !pod.is_empty());
        let first = names().next().unwrap_or_default();
        let alike = names().fold(first.len(), |len, pod| {
            match pod.as_bytes().starts_with(&first.as_bytes()[..len]) {
                true => len,
                false => first.bytes().zip(pod.bytes()).take_while(|(a, b)| a == b).count(),
            }
        });
        // Something is left of each name.
        let shortest = names().map(str::len).min().unwrap_or_default();
        let alike =
            (0..shortest).rev().find(|at| *at <= alike && first.is_char_boundary(*at)).unwrap_or_default();
        let rest: usize = names().map(|pod| pod.len() - alike).sum();
        let mut pods = String::with_capacity(alike + rest);
        pods.push_str(&first[..alike]);
        let pack = |endpoint: SliceEndpoint<'a>| {
            let rest = endpoint.pod.as_deref().and_then(|pod| pod.get(alike..)).unwrap_or_default();
            // Four gigabytes of names are not a slice; what is beyond has no pod.
            if u32::try_from(pods.len() + rest.len()).is_ok() {
                pods.push_str(rest);
            }
            Packed {
                address: endpoint.address,
                health: endpoint.health,
                pod_end: pods.len() as u32,
                node: endpoint.node,
            }
        };
        let rows = all.into_iter().map(pack).collect();
        Self { rows, pods: pods.into(), alike: alike as u32 }
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
    pub fn pod(&self, row: usize) -> Option<PodName<'_>> {
        let start = row.checked_sub(1).map_or(self.alike, |before| self.rows[before].pod_end);
        let rest = &self.pods[start as usize..self.rows[row].pod_end as usize];
        (!rest.is_empty()).then(|| PodName { alike: &self.pods[..self.alike as usize], rest })
    }

    /// The pods' names.
    pub fn pods(&self) -> impl Iterator<Item = PodName<'_>> {
        (0..self.len()).filter_map(|row| self.pod(row))
    }

    /// Whether the same pods are named in the same rows.
    pub fn same_pods(&self, other: &Self) -> bool {
        self.pods == other.pods
            && self.alike == other.alike
            && self.rows.iter().map(|row| row.pod_end).eq(other.rows.iter().map(|row| row.pod_end))
    }

    /// Whether nothing but the health of rows differs.
    pub fn same_but_health(&self, other: &Self) -> bool {
        let same = |(a, b): (&Packed, &Packed)| a.address == b.address && a.node == b.node;
        self.same_pods(other) && self.rows.iter().zip(&other.rows).all(same)
    }

    /// All rows, in their order.
    pub fn iter(&self) -> impl Iterator<Item = SliceEndpoint<'_>> {
        (0..self.len()).map(|row| SliceEndpoint {
            address: self.address(row),
            health: self.health(row),
            node: self.node(row).cloned(),
            pod: self.pod(row).map(|pod| pod.to_string().into()),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint((name, i): (&String, u8)) -> SliceEndpoint<'_> {
        SliceEndpoint { pod: Some(name.as_str().into()), ..SliceEndpoint::at([10, 0, 0, i]) }
    }

    proptest! {
        #[test]
        fn names_are_what_they_were(names in proptest::collection::vec("|a|p-[a-c]{0,3}|p-é?è?", 0..6)) {
            let rows: SliceRows = names.iter().zip(0..).map(endpoint).collect();
            let mut room = String::new();
            for (row, name) in names.iter().enumerate() {
                let pod = rows.pod(row);
                prop_assert_eq!(pod.map_or("", |pod| pod.text(&mut room)), name);
                prop_assert_eq!(pod.map(|pod| pod.to_string()).unwrap_or_default(), name.as_str());
                for (other, text) in names.iter().enumerate() {
                    let alone: SliceRows = names.iter().zip(0..).skip(other).take(1).map(endpoint).collect();
                    prop_assert_eq!(pod == alone.pod(0), name == text);
                }
            }
        }
    }
}
