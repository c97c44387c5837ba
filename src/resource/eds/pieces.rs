//! A large load assignment in pieces (LEDS): the assignment only names collections, one for each of its groups, and each
//! endpoint is a resource of its own, so that a change sends one of them.
//!
//! ```text
//! xdstp:///envoy.config.endpoint.v3.LbEndpoint/ HASH GROUP / ENDPOINT        a collection is named …/HASH GROUP/*
//! ```
//!
//! - Names are short because they are much of what a change sends. Envoy demands scheme and type in them (`xds_resource.cc`,
//!   `watch_map.cc`); an authority may be missing.
//! - `HASH` is of the assignment's name and the places and priorities of its groups. When those change, all collections have
//!   new names: Envoy fetches them afresh, goes on with the endpoints that it has until the last has come, and then swaps
//!   all at once. With lasting names, endpoints that change their group would be missing between two responses.
//! - Weights of groups are rounded, so that an endpoint more or less seldom changes the assignment.
//! - Each assignment exists in two spellings that mean the same. Envoy knows its collections by their whole configuration,
//!   and takes one that is spelt differently for another, without endpoints; so that the other spelling makes it forget
//!   what it has. It needs that after a reconnect: it says nothing of the endpoints that it has, and would keep those that
//!   went while it was away (`envoy.md` 11).

use std::{net::IpAddr, sync::Arc};

use landbridge_proto::envoy::config::{
    core::v3::{ConfigSource, Locality},
    endpoint::v3::{
        ClusterLoadAssignment, LedsClusterLocalityConfig, LocalityLbEndpoints,
        locality_lb_endpoints::LbConfig,
    },
};
use prost::Message;
use xxhash_rust::xxh3::Xxh3Default;

use super::{
    locality::Group,
    member::{Cohort, Target},
    write::{Metadata, put_endpoint},
};
use crate::resource::proto;

/// What names of endpoints begin with. The authority is empty: whoever serves the stream.
const SCHEME: &str = "xdstp:///envoy.config.endpoint.v3.LbEndpoint/";

/// A group's weight keeps so many binary digits: what is lost is less than one part in 32.
const DIGITS: u32 = 5;

/// How long Envoy waits for a collection, in the second spelling. In the first it is 0: for ever.
const TEN_YEARS: i64 = 315_360_000;

/// An assignment in pieces.
#[derive(Clone, Debug, PartialEq)]
pub struct Pieces {
    /// What the names of all its endpoints begin with, and of nothing else.
    pub prefix: Arc<str>,
    /// The assignment in its second spelling.
    pub respelt: Vec<u8>,
    /// The endpoints of each group.
    pub collections: Vec<Collection>,
}

/// The endpoints of a group, in the order of their names.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// What their names begin with.
    pub prefix: String,
    endpoints: Vec<(Target, usize, usize)>,
    body: Vec<u8>,
}

/// An assignment without its endpoints, and these. `workloads`: they say which workload they belong to.
pub fn take_apart(name: &str, cohorts: &[Cohort], groups: &[Group], workloads: bool) -> (Vec<u8>, Pieces) {
    let mut prefix = SCHEME.to_owned();
    put_digits(&mut prefix, shape(name, groups).into(), 11);
    let outline = |wait: i64| {
        let source = ConfigSource { initial_fetch_timeout: Some(proto::seconds(wait)), ..proto::ads() };
        let endpoints = groups.iter().enumerate().map(|(i, group)| LocalityLbEndpoints {
            locality: Some(Locality {
                region: group.locality.region.to_string(),
                zone: group.locality.zone.to_string(),
                sub_zone: group.locality.subzone.to_string(),
            }),
            load_balancing_weight: Some(weight(group, groups)),
            priority: group.priority,
            lb_config: Some(LbConfig::LedsClusterLocalityConfig(LedsClusterLocalityConfig {
                leds_config: Some(source.clone()),
                leds_collection_name: format!("{prefix}{i}/*"),
            })),
            ..Default::default()
        });
        let endpoints = endpoints.collect();
        ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints, ..Default::default() }
            .encode_to_vec()
    };
    let metadata = Metadata::of(cohorts, workloads);
    let collections = groups.iter().enumerate().map(|(i, group)| {
        let mut body = Vec::with_capacity(metadata.around(group.members.len()));
        let mut endpoints = Vec::with_capacity(group.members.len());
        for member in &group.members {
            let start = body.len();
            put_endpoint(&mut body, member, &metadata, cohorts);
            endpoints.push((member.target, start, body.len()));
        }
        endpoints.sort_unstable_by_key(|(target, ..)| *target);
        Collection { prefix: format!("{prefix}{i}/"), endpoints, body }
    });
    let pieces = Pieces {
        respelt: outline(TEN_YEARS),
        collections: collections.collect(),
        prefix: prefix.as_str().into(),
    };
    (outline(0), pieces)
}

/// What collections are named after: the assignment's name, and its groups without what is in them.
fn shape(name: &str, groups: &[Group]) -> u64 {
    let mut hash = Xxh3Default::new();
    let mut text = |text: &str| {
        hash.update(text.as_bytes());
        hash.update(&[0xff]);
    };
    text(name);
    for Group { priority, locality, .. } in groups {
        text(&priority.to_string());
        [&locality.region, &locality.zone, &locality.subzone].into_iter().for_each(|part| text(part));
    }
    hash.digest()
}

/// What is alone in its priority needs no exact weight, and what `distribute` says is exact.
fn weight(group: &Group, groups: &[Group]) -> u32 {
    let by_members = group.members.iter().fold(0, |sum: u32, m| sum.saturating_add(m.weight)) == group.weight;
    if groups.iter().filter(|other| other.priority == group.priority).count() == 1 {
        1
    } else if by_members {
        round(group.weight)
    } else {
        group.weight
    }
}

/// The nearest number with [`DIGITS`] significant binary digits.
fn round(weight: u32) -> u32 {
    let dropped = (u32::BITS - weight.leading_zeros()).saturating_sub(DIGITS);
    let half = (1 << dropped) >> 1;
    (weight.saturating_add(half) >> dropped) << dropped
}

// === impl Collection ===

impl Collection {
    /// The endpoints with their names and encoded messages.
    pub fn for_each(&self, mut see: impl FnMut(&str, &[u8])) {
        let mut name = self.prefix.clone();
        for (target, start, end) in &self.endpoints {
            name.truncate(self.prefix.len());
            put_id(&mut name, *target);
            see(&name, &self.body[*start..*end]);
        }
    }
}

/// The family, address and port, in the order of addresses and ports.
fn put_id(name: &mut String, (ip, port): Target) {
    let (family, high, low) = match ip {
        IpAddr::V4(ip) => ('4', None, ip.to_bits()),
        IpAddr::V6(ip) => ('6', Some(ip.to_bits() >> 32), ip.to_bits() as u32),
    };
    name.push(family);
    if let Some(high) = high {
        put_digits(name, high, 16);
    }
    put_digits(name, u128::from(low) << 16 | u128::from(port), 8);
}

/// A number in so many digits to the base 64. They are in ASCII's order, so that texts are in the order of their numbers, and
/// have no meaning in URLs.
fn put_digits(name: &mut String, number: u128, digits: u32) {
    const ALPHABET: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
    let digit = |place: u32| char::from(ALPHABET[(number >> (6 * place) & 63) as usize]);
    name.extend((0..digits).rev().map(digit));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_rounded_to_the_nearest() {
        for weight in (0..5000).chain([u32::MAX - 1, u32::MAX]) {
            let (rounded, exact) = (f64::from(round(weight)), f64::from(weight));
            assert!((rounded - exact).abs() <= exact / 32.0, "{weight} becomes {rounded}");
            assert!(weight == 0 || rounded > 0.0);
        }
        assert_eq!(round(31), 31);
        assert!((1000..=1100).map(round).collect::<std::collections::BTreeSet<_>>().len() <= 4);
    }

    #[test]
    fn names_are_in_the_order_of_addresses() {
        let targets: Vec<Target> = [
            ("9.0.0.1", 8080),
            ("10.0.0.1", 80),
            ("10.0.0.1", 8080),
            ("10.0.1.0", 80),
            ("::1", 80),
            ("fd00::1", 80),
        ]
        .iter()
        .map(|(ip, port)| (ip.parse().expect("an address"), *port))
        .collect();
        assert!(targets.is_sorted());
        let id = |target: &Target| {
            let mut id = String::new();
            put_id(&mut id, *target);
            id
        };
        let ids: Vec<String> = targets.iter().map(id).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        assert_eq!(ids[1], "41V---F0F");
    }
}
