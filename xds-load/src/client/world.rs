//! What all proxies of a thread have in common: names and contents, each kept once, so that a proxy needs eight bytes per resource.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{
    expect::Type,
    wire::links::{links, meaning},
};

/// A name of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId(u32);

/// The bytes of a resource, with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub(super) u32);

/// Spreads small numbers and hashes, which are spread already.
#[derive(Clone, Copy, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= xxh3_64(bytes);
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// A map of ids.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// A name, once for all proxies.
#[derive(Debug)]
pub struct Name {
    /// The type.
    pub kind: Type,
    /// As xDS has it.
    pub text: Box<str>,
    /// What this is a part of: of a virtual host its route configuration, of an endpoint its collection, of a collection its load
    /// assignment.
    pub parent: Option<NameId>,
    /// Changes of it are waited for, or were.
    pub watched: bool,
    /// How many proxies have it, by network.
    holders: Vec<u32>,
}

/// A content, once for all proxies.
#[derive(Debug)]
pub struct Content {
    /// The hash of its bytes: what is compared.
    pub hash: u64,
    /// The version that it came with (Delta).
    pub version: Box<str>,
    /// What a proxy needs with it.
    pub needs: Box<[NameId]>,
    /// A route configuration whose virtual hosts come one by one.
    pub virtual_hosts: bool,
    /// Where an assignment's collections come from; see [`crate::wire::links::Links`].
    pub source: Option<u64>,
    /// The bytes of what is small and part of something else, and of assignments that were to be kept.
    pub bytes: Option<Box<[u8]>>,
}

/// Names and contents.
#[derive(Debug, Default)]
pub struct World {
    ids: IdMap<u64, NameId>,
    names: Vec<Name>,
    content_ids: IdMap<(u32, u64), ContentId>,
    contents: Vec<Content>,
    networks: Vec<Box<str>>,
    /// Keep the bytes of assignments from now on, to read them later.
    pub keep: bool,
    /// Resources that could not be read.
    pub malformed: u64,
}

impl World {
    /// The id of a name.
    pub fn name(&mut self, kind: Type, text: &str) -> NameId {
        let hash = xxh3_64_with_seed(text.as_bytes(), kind as u64);
        if let Some(id) = self.ids.get(&hash) {
            return *id;
        }
        let parent = parent(kind, text).map(|(kind, text)| self.name(kind, &text));
        let id = NameId(self.names.len() as u32);
        self.names.push(Name { kind, text: text.into(), parent, watched: false, holders: Vec::new() });
        self.ids.insert(hash, id);
        id
    }

    /// The id of a content; it is read only when it is seen for the first time.
    pub fn content(&mut self, name: NameId, body: &[u8], version: &str) -> ContentId {
        let hash = xxh3_64(body);
        let key = (name.0, xxh3_64_with_seed(version.as_bytes(), hash));
        let kind = self.names[name.0 as usize].kind;
        let keep = self.keep && kind == Type::Endpoint;
        if let Some(id) = self.content_ids.get(&key) {
            if keep {
                self.contents[id.0 as usize].bytes.get_or_insert_with(|| body.into());
            }
            return *id;
        }
        let found = links(kind, body).unwrap_or_else(|_| {
            self.malformed += 1;
            Default::default()
        });
        let needs = found.names.iter().map(|(kind, text)| self.name(*kind, text)).collect::<Box<[_]>>();
        for need in needs.iter().filter(|_| kind == Type::Endpoint) {
            self.names[need.0 as usize].parent = Some(name);
        }
        let small = matches!(kind, Type::VirtualHost | Type::LbEndpoint);
        let id = ContentId(self.contents.len() as u32);
        // Two ways to say the same are no difference.
        let hash = found.source.and_then(|_| meaning(body).ok()).unwrap_or(hash);
        self.contents.push(Content {
            hash,
            version: version.into(),
            needs,
            virtual_hosts: found.virtual_hosts,
            source: found.source,
            bytes: (small || keep).then(|| body.into()),
        });
        self.content_ids.insert(key, id);
        id
    }

    /// A name.
    pub fn of_name(&self, id: NameId) -> &Name {
        &self.names[id.0 as usize]
    }

    /// A content.
    pub fn of_content(&self, id: ContentId) -> &Content {
        &self.contents[id.0 as usize]
    }

    /// Says that changes of a name are waited for.
    pub fn watch(&mut self, id: NameId) {
        self.names[id.0 as usize].watched = true;
    }

    /// The number of a network.
    pub fn network(&mut self, name: &str) -> u16 {
        let at = self.networks.iter().position(|n| **n == *name).unwrap_or_else(|| {
            self.networks.push(name.into());
            self.networks.len() - 1
        });
        at as u16
    }

    /// A proxy of this network has the name now, or has it no more.
    pub fn hold(&mut self, id: NameId, network: u16, holds: bool) {
        let holders = &mut self.names[id.0 as usize].holders;
        let at = usize::from(network);
        if holders.len() <= at {
            holders.resize(at + 1, 0);
        }
        holders[at] = if holds { holders[at] + 1 } else { holders[at].saturating_sub(1) };
    }

    /// How many proxies (of a network) have the name.
    pub fn holders(&self, id: NameId, network: Option<u16>) -> u32 {
        let holders = &self.names[id.0 as usize].holders;
        match network {
            Some(network) => holders.get(usize::from(network)).copied().unwrap_or(0),
            None => holders.iter().sum(),
        }
    }
}

/// What a name of these types is part of.
fn parent(kind: Type, text: &str) -> Option<(Type, String)> {
    match kind {
        Type::VirtualHost => text.split_once('/').map(|(route, _)| (Type::Route, route.to_owned())),
        Type::LbEndpoint if !text.ends_with("/*") => {
            text.rsplit_once('/').map(|(collection, _)| (Type::LbEndpoint, format!("{collection}/*")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Type, World};

    #[test]
    fn equal_names_and_contents_are_one() {
        let mut world = World::default();
        let a = world.name(Type::Cluster, "a");
        assert_eq!(world.name(Type::Cluster, "a"), a);
        assert_ne!(world.name(Type::Endpoint, "a"), a);
        let one = world.content(a, b"\x0a\x01a", "1");
        assert_eq!(world.content(a, b"\x0a\x01a", "1"), one);
        let two = world.content(a, b"\x0a\x01a", "2");
        assert_ne!(two, one);
        assert_eq!(world.of_content(one).hash, world.of_content(two).hash, "the bytes are compared");
    }

    #[test]
    fn parts_know_what_they_belong_to() {
        let mut world = World::default();
        let assignment = world.name(Type::Endpoint, "svc");
        let collection = "xdstp://x/envoy.config.endpoint.v3.LbEndpoint/svc/zone/*";
        let locality = crate::wire::Writer::default().message(8, |c| _ = c.text(2, collection)).0.clone();
        let body = crate::wire::Writer::default().text(1, "svc").item(2, &locality).0.clone();
        let content = world.content(assignment, &body, "");
        let endpoint =
            world.name(Type::LbEndpoint, "xdstp://x/envoy.config.endpoint.v3.LbEndpoint/svc/zone/1");
        let parent = world.of_name(endpoint).parent.unwrap();
        assert_eq!(world.of_content(content).needs[..], [parent]);
        assert_eq!(world.of_name(parent).parent, Some(assignment));
        let host = world.name(Type::VirtualHost, "80/a.b:80");
        let route = world.name(Type::Route, "80");
        assert_eq!(world.of_name(host).parent, Some(route));
    }

    #[test]
    fn holders_are_counted_by_network() {
        let mut world = World::default();
        let (name, n1, n2) = (world.name(Type::Cluster, "a"), world.network("n1"), world.network("n2"));
        world.hold(name, n1, true);
        world.hold(name, n2, true);
        world.hold(name, n2, true);
        world.hold(name, n1, false);
        assert_eq!(
            (world.holders(name, Some(n1)), world.holders(name, Some(n2)), world.holders(name, None)),
            (0, 2, 2)
        );
    }
}
