//! Load assignments as bytes: what prost would give for the same message (a test holds the two together), without the
//! message. Metadata is encoded once for a cohort; an endpoint is its address, port, health and weight, and a copy.
//!
//! A member is written once: what is before its metadata into a few bytes of its own, since all lengths in it are small;
//! a group's members one behind the other, and then behind the group's length.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv6Addr},
    ops::Range,
};

use bytes::BufMut;
use landbridge_proto::wire::{field_len, put_field, put_head};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{
    locality::Group,
    member::{Cohort, Member, Origin},
};
use crate::model::{endpoint::Health, locality::Locality, workload::Workload};

/// Wire types, in the low three bits of a key.
const VARINT: u32 = 0;
const LENGTH: u32 = 2;
/// Where an address's text is in an `LbEndpoint`: behind the heads of four messages.
const TEXT: usize = 8;

/// `ClusterLoadAssignment`; `workloads`: endpoints say which workload they belong to.
pub fn write(name: &str, cohorts: &[Cohort], groups: &[Group], workloads: bool) -> Vec<u8> {
    let metadata = Metadata::of(cohorts, workloads);
    let members: usize = groups.iter().map(|group| group.members.len()).sum();
    let mut out = Vec::with_capacity(name.len() + 100 * groups.len() + metadata.around(members) + 16);
    put_field(&mut out, 1, name.as_bytes());
    let mut body =
        Vec::with_capacity(metadata.around(groups.iter().map(|g| g.members.len()).max().unwrap_or(0)));
    let mut start = Start::default();
    for group in groups {
        body.clear();
        for member in &group.members {
            put(&mut body, &mut start, member, &metadata, cohorts, true);
        }
        put_group(&mut out, group, &body);
    }
    out
}

/// `LocalityLbEndpoints`; `members` are encoded.
fn put_group(out: &mut Vec<u8>, group: &Group, members: &[u8]) {
    let Locality { region, zone, subzone } = group.locality;
    let texts = [(1, region), (2, zone), (3, subzone)].into_iter().filter(|(_, text)| !text.is_empty());
    let locality = texts.clone().map(|(_, text)| field_len(text.len())).sum();
    let len = field_len(locality)
        + members.len()
        + field_len(number_len(group.weight))
        + number_len(group.priority);
    put_head(out, 2, len);
    put_head(out, 1, locality);
    texts.for_each(|(tag, text)| put_field(out, tag, text.as_bytes()));
    out.extend_from_slice(members);
    put_wrapped(out, 3, group.weight);
    put_number(out, 5, group.priority);
}

/// `LbEndpoint`, as a message of its own. A weight of 1 is Envoy's default and is left out: here a few bytes are the size of a
/// change. In a whole assignment istiod says it.
pub fn put_endpoint(out: &mut Vec<u8>, member: &Member, metadata: &Metadata, cohorts: &[Cohort]) {
    put(out, &mut Start::default(), member, metadata, cohorts, false);
}

// Once for each of the two: what it decides by `as_field` is decided for each endpoint otherwise.
#[inline(always)]
fn put(
    out: &mut Vec<u8>,
    start: &mut Start,
    member: &Member,
    metadata: &Metadata,
    cohorts: &[Cohort],
    as_field: bool,
) {
    start.set(member);
    let own;
    let metadata = match metadata.of[member.cohort].clone() {
        Some(range) => &metadata.bytes[range],
        None => {
            own = unknown_metadata(member, &cohorts[member.cohort]);
            own.as_slice()
        }
    };
    let weight = start.weight(member.weight);
    if as_field {
        put_head(out, 2, start.len + metadata.len() + weight.1);
    }
    put_start(out, (&start.bytes, start.len));
    out.extend_from_slice(metadata);
    if as_field || member.weight != 1 {
        put_start(out, (&weight.0, weight.1));
    }
}

/// Appends what these bytes begin with: all of them at first, as a copy of a known length is a few instructions.
fn put_start<const N: usize>(out: &mut Vec<u8>, (bytes, len): (&[u8; N], usize)) {
    let end = out.len() + len;
    out.extend_from_slice(bytes);
    out.truncate(end);
}

/// Where an `LbEndpoint` begins: its address and health.
struct Start {
    bytes: [u8; 64],
    len: usize,
    /// The first three octets that are there from the endpoint before, and where they end: mostly the next one's, too.
    subnet: Option<(u32, usize)>,
    /// The weight of the endpoint before, as it is written: mostly the next one's, too.
    weight: Option<(u32, Weight)>,
}

/// The field of a weight, and its length.
type Weight = ([u8; 8], usize);

impl Default for Start {
    fn default() -> Self {
        Self { bytes: [0; 64], len: 0, subnet: None, weight: None }
    }
}

impl Start {
    fn set(&mut self, member: &Member) {
        let (ip, port) = member.target;
        self.text(ip);
        let text = self.len - TEXT;
        // A port is part of a oneof: written even if it is 0.
        self.push(3 << 3 | VARINT as u8);
        self.varint(port);
        let socket_address = (self.len - 6) as u8;
        // LbEndpoint.endpoint, Endpoint.address, Address.socket_address, SocketAddress.address: at most 55 bytes.
        let bytes = LENGTH as u8;
        let heads = [1 << 3 | bytes, socket_address + 4, 1 << 3 | bytes, socket_address + 2];
        self.bytes[..4].copy_from_slice(&heads);
        self.bytes[4..TEXT].copy_from_slice(&[1 << 3 | bytes, socket_address, 2 << 3 | bytes, text as u8]);
        let health = health(member);
        if health != 0 {
            self.push(2 << 3 | VARINT as u8);
            self.push(health);
        }
    }

    fn weight(&mut self, weight: u32) -> Weight {
        match self.weight {
            Some((same, written)) if same == weight => written,
            _ => {
                let mut bytes = [0; 8];
                let mut room = bytes.as_mut_slice();
                put_wrapped(&mut room, 4, weight);
                let unused = room.len();
                self.weight.insert((weight, (bytes, 8 - unused))).1
            }
        }
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn varint(&mut self, mut value: u16) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn text(&mut self, ip: IpAddr) {
        self.len = TEXT;
        match ip {
            IpAddr::V4(ip) => {
                let [first @ .., last] = ip.octets();
                match self.subnet {
                    Some((subnet, end)) if subnet == ip.to_bits() >> 8 => self.len = end,
                    _ => {
                        first.into_iter().for_each(|octet| self.octet(octet));
                        self.subnet = Some((ip.to_bits() >> 8, self.len));
                    }
                }
                self.octet(last);
                // Without the last octet's dot.
                self.len -= 1;
            }
            IpAddr::V6(ip) => {
                self.subnet = None;
                self.v6(ip);
            }
        }
    }

    fn octet(&mut self, octet: u8) {
        let (text, len) = OCTETS[usize::from(octet)];
        self.bytes[self.len..self.len + 4].copy_from_slice(&text);
        self.len += usize::from(len);
    }

    fn v6(&mut self, ip: Ipv6Addr) {
        // An embedded IPv4 address is the longest: 45 bytes.
        let written = write!(self, "{ip}");
        debug_assert!(written.is_ok(), "an address fits");
    }
}

impl Write for Start {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + s.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len += s.len();
        Ok(())
    }
}

/// Each octet as text with a dot behind it, and how long that is.
const OCTETS: [([u8; 4], u8); 256] = octets();

const fn octets() -> [([u8; 4], u8); 256] {
    let mut all = [([0; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
        all[octet] = match octet {
            0..10 => ([digits[2], b'.', 0, 0], 2),
            10..100 => ([digits[1], digits[2], b'.', 0], 3),
            _ => ([digits[0], digits[1], digits[2], b'.'], 4),
        };
        octet += 1;
    }
    all
}

/// Envoy's `HealthStatus`. A gateway has none of its own.
fn health(member: &Member) -> u8 {
    match member.health {
        _ if member.endpoint.is_none() => 0,
        Health::Healthy => 1,
        Health::Unhealthy => 2,
        Health::Draining | Health::Terminating => 3,
    }
}

// === Metadata ===

/// The metadata field of every cohort's members, one behind the other. `tlsMode` chooses the transport socket of the
/// cluster; `workload` is for Istio's telemetry, where it is wanted.
pub struct Metadata {
    bytes: Vec<u8>,
    /// None: each member has its own.
    of: Vec<Option<Range<usize>>>,
}

impl Metadata {
    /// Encodes what each cohort's members share.
    pub fn of(cohorts: &[Cohort], workloads: bool) -> Self {
        let mut bytes = Vec::with_capacity(160 * cohorts.len());
        let of = cohorts.iter().map(|cohort| {
            let start = bytes.len();
            match &cohort.origin {
                _ if !workloads => put_metadata(&mut bytes, cohort.mtls, None),
                Origin::Endpoint { workload: Workload { telemetry: Some(text), .. }, .. } => {
                    put_metadata(&mut bytes, cohort.mtls, Some(text));
                }
                Origin::Endpoint { .. } => return None,
                Origin::Gateway { gateway, .. } => {
                    put_metadata(&mut bytes, cohort.mtls, Some(&format!(";;;;{}", gateway.cluster)));
                }
            }
            Some(start..bytes.len())
        });
        Self { of: of.collect(), bytes }
    }

    /// About how many bytes so many members take.
    pub fn around(&self, members: usize) -> usize {
        members * (48 + self.bytes.len() / self.of.len().max(1))
    }
}

/// A pod that is not known is called by its address.
fn unknown_metadata(member: &Member, cohort: &Cohort) -> Vec<u8> {
    let mut own = Vec::new();
    if let Origin::Endpoint { workload, .. } = &cohort.origin {
        let text = workload.telemetry_text(&member.target.0.to_string());
        put_metadata(&mut own, cohort.mtls, Some(&text));
    }
    own
}

/// `filter_metadata`: from names to objects with one text field each. Without an entry there is no metadata.
fn put_metadata(out: &mut Vec<u8>, mtls: bool, workload: Option<&str>) {
    let tls = ("envoy.transport_socket_match", "tlsMode", "istio");
    let istio = workload.map(|text| ("istio", "workload", text));
    let entries = [mtls.then_some(tls), istio];
    if entries.iter().flatten().next().is_none() {
        return;
    }
    let value_len = |text: &str| field_len(text.len());
    let field_of = |key: &str, text: &str| field_len(key.len()) + field_len(value_len(text));
    let entry_len = |(name, key, text): (&str, &str, &str)| {
        field_len(name.len()) + field_len(field_len(field_of(key, text)))
    };
    put_head(out, 3, entries.into_iter().flatten().map(|entry| field_len(entry_len(entry))).sum());
    for (name, key, text) in entries.into_iter().flatten() {
        put_head(out, 1, entry_len((name, key, text)));
        put_field(out, 1, name.as_bytes());
        // Struct, its one field, the field's value.
        put_head(out, 2, field_len(field_of(key, text)));
        put_head(out, 1, field_of(key, text));
        put_field(out, 1, key.as_bytes());
        put_head(out, 2, value_len(text));
        put_field(out, 3, text.as_bytes());
    }
}

// === parts ===

/// A number that is left out if it is 0.
fn number_len(value: u32) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value.into()) }
}

fn put_number(out: &mut impl BufMut, tag: u32, value: u32) {
    if value != 0 {
        out.put_u8((tag << 3 | VARINT) as u8);
        encode_varint(value.into(), out);
    }
}

/// A `UInt32Value`.
fn put_wrapped(out: &mut impl BufMut, tag: u32, value: u32) {
    put_head(out, tag, number_len(value));
    put_number(out, 1, value);
}
