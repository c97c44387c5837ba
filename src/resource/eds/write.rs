//! Load assignments as bytes: what prost would give for the same message (a test holds the two together), without the
//! message. Metadata is encoded once for a cohort; an endpoint is its address, port, health and weight, and a copy.
//!
//! Every length is known before it is written, so that the bytes are written once, into memory of the right size.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv6Addr},
    ops::Range,
};

use prost::encoding::{encode_varint, encoded_len_varint};

use super::{
    locality::Group,
    member::{Cohort, Member, Origin},
};
use crate::model::{endpoint::Health, locality::Locality};

/// Wire types, in the low three bits of a key.
const VARINT: u32 = 0;
const LENGTH: u32 = 2;

/// `ClusterLoadAssignment`
pub fn write(name: &str, cohorts: &[Cohort], groups: &[Group]) -> Vec<u8> {
    let metadata = Metadata::of(cohorts);
    let sizes: Vec<usize> = groups.iter().map(|group| group_len(group, cohorts, &metadata)).collect();
    let total = field_len(name.len()) + sizes.iter().map(|size| field_len(*size)).sum::<usize>();
    let mut out = Vec::with_capacity(total);
    put_bytes(&mut out, 1, name.as_bytes());
    for (group, size) in groups.iter().zip(sizes) {
        put_head(&mut out, 2, size);
        put_group(&mut out, group, cohorts, &metadata);
    }
    debug_assert_eq!(out.len(), total, "lengths are those of what is written");
    out
}

// === LocalityLbEndpoints ===

fn group_len(group: &Group, cohorts: &[Cohort], metadata: &Metadata) -> usize {
    let member_len = |m: &Member| field_len(Lengths::of(m, &metadata.get(m, cohorts)).member);
    field_len(locality_len(group.locality))
        + group.members.iter().map(member_len).sum::<usize>()
        + field_len(wrapped_len(group.weight))
        + number_len(group.priority)
}

fn put_group(out: &mut Vec<u8>, group: &Group, cohorts: &[Cohort], metadata: &Metadata) {
    put_head(out, 1, locality_len(group.locality));
    let Locality { region, zone, subzone } = group.locality;
    for (tag, text) in [(1, region), (2, zone), (3, subzone)] {
        if !text.is_empty() {
            put_bytes(out, tag, text.as_bytes());
        }
    }
    for member in &group.members {
        let metadata = metadata.get(member, cohorts);
        let lengths = Lengths::of(member, &metadata);
        put_head(out, 2, lengths.member);
        put_member(out, member, &lengths, &metadata);
    }
    put_wrapped(out, 3, group.weight);
    put_number(out, 5, group.priority);
}

fn locality_len(locality: &Locality) -> usize {
    let texts = [&locality.region, &locality.zone, &locality.subzone].into_iter();
    texts.filter(|text| !text.is_empty()).map(|text| field_len(text.len())).sum()
}

// === LbEndpoint ===

/// Of an `LbEndpoint` and the messages around its address.
struct Lengths {
    text: Text,
    socket_address: usize,
    address: usize,
    endpoint: usize,
    member: usize,
}

impl Lengths {
    fn of(member: &Member, metadata: &MemberMetadata) -> Self {
        let (ip, port) = member.target;
        let text = Text::of(ip);
        let socket_address = field_len(text.as_bytes().len()) + 1 + encoded_len_varint(port.into());
        let address = field_len(socket_address);
        let endpoint = field_len(address);
        let member = field_len(endpoint)
            + number_len(health(member))
            + metadata.as_bytes().len()
            + field_len(wrapped_len(member.weight));
        Self { text, socket_address, address, endpoint, member }
    }
}

fn put_member(out: &mut Vec<u8>, member: &Member, lengths: &Lengths, metadata: &MemberMetadata) {
    put_head(out, 1, lengths.endpoint);
    put_head(out, 1, lengths.address);
    put_head(out, 1, lengths.socket_address);
    put_bytes(out, 2, lengths.text.as_bytes());
    // A port is part of a oneof: written even if it is 0.
    put_key(out, 3, VARINT);
    encode_varint(member.target.1.into(), out);
    put_number(out, 2, health(member));
    out.extend_from_slice(metadata.as_bytes());
    put_wrapped(out, 4, member.weight);
}

/// Envoy's `HealthStatus`. A gateway has none of its own.
fn health(member: &Member) -> u32 {
    match member.health {
        _ if member.endpoint.is_none() => 0,
        Health::Healthy => 1,
        Health::Unhealthy => 2,
        Health::Draining | Health::Terminating => 3,
    }
}

// === Metadata ===

/// The metadata field of every cohort's members, one behind the other. `tlsMode` chooses the transport socket of the
/// cluster; `workload` is for Istio's telemetry.
struct Metadata {
    bytes: Vec<u8>,
    of: Vec<Range<usize>>,
}

/// That of one member.
enum MemberMetadata<'a> {
    Shared(&'a [u8]),
    Own(Vec<u8>),
}

impl Metadata {
    fn of(cohorts: &[Cohort]) -> Self {
        let mut all =
            Self { bytes: Vec::with_capacity(160 * cohorts.len()), of: Vec::with_capacity(cohorts.len()) };
        for cohort in cohorts {
            let start = all.bytes.len();
            match &cohort.origin {
                Origin::Endpoint { workload, .. } => {
                    if let Some(text) = &workload.telemetry {
                        put_metadata(&mut all.bytes, cohort.mtls, text);
                    }
                }
                Origin::Gateway { gateway, .. } => {
                    put_metadata(&mut all.bytes, cohort.mtls, &format!(";;;;{}", gateway.cluster));
                }
            }
            all.of.push(start..all.bytes.len());
        }
        all
    }

    fn get(&self, member: &Member, cohorts: &[Cohort]) -> MemberMetadata<'_> {
        let range = self.of[member.cohort].clone();
        let cohort = &cohorts[member.cohort];
        if let (true, Origin::Endpoint { workload, .. }) = (range.is_empty(), &cohort.origin) {
            // A pod that is not known is called by its address.
            let mut own = Vec::new();
            put_metadata(&mut own, cohort.mtls, &workload.telemetry_text(&member.target.0.to_string()));
            return MemberMetadata::Own(own);
        }
        MemberMetadata::Shared(&self.bytes[range])
    }
}

impl MemberMetadata<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// `filter_metadata`: from names to objects with one text field each.
fn put_metadata(out: &mut Vec<u8>, mtls: bool, workload: &str) {
    let tls = ("envoy.transport_socket_match", "tlsMode", "istio");
    let istio = ("istio", "workload", workload);
    let entries = [Some(tls).filter(|_| mtls), Some(istio)];
    let value_len = |text: &str| field_len(text.len());
    let field_of = |key: &str, text: &str| field_len(key.len()) + field_len(value_len(text));
    let entry_len = |(name, key, text): (&str, &str, &str)| {
        field_len(name.len()) + field_len(field_len(field_of(key, text)))
    };
    put_head(out, 3, entries.into_iter().flatten().map(|entry| field_len(entry_len(entry))).sum());
    for (name, key, text) in entries.into_iter().flatten() {
        put_head(out, 1, entry_len((name, key, text)));
        put_bytes(out, 1, name.as_bytes());
        // Struct, its one field, the field's value.
        put_head(out, 2, field_len(field_of(key, text)));
        put_head(out, 1, field_of(key, text));
        put_bytes(out, 1, key.as_bytes());
        put_head(out, 2, value_len(text));
        put_bytes(out, 3, text.as_bytes());
    }
}

// === parts ===

/// A field with a length before it; all tags here are below 16.
fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// A number that is left out if it is 0.
fn number_len(value: u32) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value.into()) }
}

/// A `UInt32Value`.
fn wrapped_len(value: u32) -> usize {
    number_len(value)
}

fn put_key(out: &mut Vec<u8>, tag: u32, wire_type: u32) {
    out.push((tag << 3 | wire_type) as u8);
}

fn put_head(out: &mut Vec<u8>, tag: u32, len: usize) {
    put_key(out, tag, LENGTH);
    encode_varint(len as u64, out);
}

fn put_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_head(out, tag, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, tag: u32, value: u32) {
    if value != 0 {
        put_key(out, tag, VARINT);
        encode_varint(value.into(), out);
    }
}

fn put_wrapped(out: &mut Vec<u8>, tag: u32, value: u32) {
    put_head(out, tag, wrapped_len(value));
    put_number(out, 1, value);
}

/// An address as text, without memory of its own.
struct Text {
    bytes: [u8; 45],
    len: u8,
}

impl Text {
    fn of(ip: IpAddr) -> Self {
        let mut text = Self { bytes: [0; 45], len: 0 };
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                text.octet(a);
                for octet in [b, c, d] {
                    text.push(b'.');
                    text.octet(octet);
                }
            }
            IpAddr::V6(ip) => text.v6(ip),
        }
        text
    }

    fn octet(&mut self, octet: u8) {
        if octet >= 100 {
            self.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            self.push(b'0' + octet / 10 % 10);
        }
        self.push(b'0' + octet % 10);
    }

    fn push(&mut self, byte: u8) {
        self.bytes[usize::from(self.len)] = byte;
        self.len += 1;
    }

    fn v6(&mut self, ip: Ipv6Addr) {
        // 45 bytes hold every address: an embedded IPv4 one is the longest.
        let written = write!(self, "{ip}");
        debug_assert!(written.is_ok(), "an address fits");
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let at = usize::from(self.len);
        let room = self.bytes.get_mut(at..at + s.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len += s.len() as u8;
        Ok(())
    }
}
