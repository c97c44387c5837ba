//! What a proxy has and waits for of one type.

use super::{
    proxy::Protocol,
    world::{ContentId, IdMap, NameId, World},
};
use crate::{expect::Type, wire::discovery::Response};

/// What stands beside a name, in four bytes: a content, or the lack of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u32);

impl Slot {
    /// Asked for, and not answered.
    const WANTED: Self = Self(u32::MAX);
    /// The server has answered that there is none; of a collection, that it has answered.
    const ANSWERED: Self = Self(u32::MAX - 1);

    fn content(self) -> Option<ContentId> {
        (self.0 < Self::ANSWERED.0).then_some(ContentId(self.0))
    }
}

/// A subscription and its state.
#[derive(Debug)]
pub struct Subscription {
    pub kind: Type,
    wildcard: bool,
    /// Its first request was sent on this stream.
    pub begun: bool,
    answered: bool,
    slots: IdMap<NameId, Slot>,
    wanted: u32,
    /// Of the last response, and of the last one that was not refused (state of the world).
    nonce: Box<str>,
    version: Box<str>,
}

impl Subscription {
    pub fn new(kind: Type, wildcard: bool) -> Self {
        Self {
            kind,
            wildcard,
            begun: false,
            answered: false,
            slots: IdMap::default(),
            wanted: 0,
            nonce: "".into(),
            version: "".into(),
        }
    }

    /// A new stream: nonces are of the old one, and a response in the state of the world is due again.
    pub fn begin(&mut self, protocol: Protocol) {
        self.begun = false;
        if protocol == Protocol::Sotw {
            self.nonce = "".into();
            self.answered = false;
        }
    }

    /// Asks for a name.
    pub fn want(&mut self, name: NameId) {
        if self.slots.insert(name, Slot::WANTED).is_none() {
            self.wanted += 1;
        }
    }

    /// Whether a resource of this name is part of what was asked for.
    pub fn asked(&self, name: NameId, world: &World) -> bool {
        self.wildcard || self.slots.contains_key(&name) || self.collection(name, world).is_some()
    }

    /// Takes a resource; returns what was there before.
    pub fn insert(&mut self, name: NameId, content: ContentId, world: &World) -> Option<ContentId> {
        if let Some(collection) = self.collection(name, world) {
            self.settle(collection);
        }
        let old = self.slots.insert(name, Slot(content.0));
        if old == Some(Slot::WANTED) {
            self.wanted -= 1;
        }
        old.and_then(Slot::content)
    }

    /// The server says that there is no such resource; returns what was there before.
    pub fn remove(&mut self, name: NameId, world: &World) -> Option<ContentId> {
        if self.wildcard || self.collection(name, world).is_some() {
            return self.slots.remove(&name).and_then(Slot::content);
        }
        let old = self.slots.get(&name).copied()?;
        self.settle(name);
        self.slots.insert(name, Slot::ANSWERED);
        old.content()
    }

    /// Names that a response in the state of the world does not have any more: only of types of which it has all.
    pub fn vanished(&self, protocol: Protocol, response: &Response<'_>, world: &mut World) -> Vec<NameId> {
        let has_all = self.wildcard && protocol == Protocol::Sotw;
        if !has_all || self.slots.len() <= response.resources.len() {
            return Vec::new();
        }
        let there: IdMap<NameId, ()> =
            response.resources.iter().map(|resource| (world.name(self.kind, resource.name), ())).collect();
        self.slots.keys().copied().filter(|name| !there.contains_key(name)).collect()
    }

    /// A response came.
    pub fn answered(&mut self, response: &Response<'_>) {
        self.answered = true;
        // Collections that are empty have nothing that could name them.
        if self.kind == Type::LbEndpoint && response.resources.is_empty() && response.removed.is_empty() {
            for slot in self.slots.values_mut().filter(|slot| **slot == Slot::WANTED) {
                *slot = Slot::ANSWERED;
            }
            self.wanted = 0;
        }
    }

    /// Drops a name that is needed no more; returns the names of what was there.
    pub fn drop_name(&mut self, name: NameId, world: &World) -> Vec<NameId> {
        let slot = self.slots.remove(&name);
        if slot == Some(Slot::WANTED) {
            self.wanted -= 1;
        }
        let mut gone: Vec<_> = slot.and_then(Slot::content).map(|_| name).into_iter().collect();
        if self.kind == Type::LbEndpoint {
            let of_collection = self.slots.extract_if(|entry, _| world.of_name(*entry).parent == Some(name));
            gone.extend(of_collection.map(|(entry, _)| entry));
        }
        gone
    }

    /// All that is here, which is dropped.
    pub fn clear(&mut self) -> impl Iterator<Item = NameId> + use<> {
        self.wanted = 0;
        let slots = std::mem::take(&mut self.slots);
        slots.into_iter().filter(|(_, slot)| slot.content().is_some()).map(|(name, _)| name)
    }

    /// Remembers what a response is to be acknowledged with.
    pub fn note(&mut self, response: &Response<'_>, accepted: bool) {
        self.nonce = response.nonce.into();
        if accepted && *self.version != *response.version {
            self.version = response.version.into();
        }
    }

    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// The names for a request; none for a wildcard.
    pub fn names<'a>(&'a self, world: &'a World) -> impl Iterator<Item = &'a str> + Clone {
        let asked = self.slots.keys().filter(|_| !self.wildcard).map(|name| (*name, world.of_name(*name)));
        asked.filter(|(name, _)| self.collection(*name, world).is_none()).map(|(_, name)| &*name.text)
    }

    /// Names and versions of what is here. Envoy does not tell them of the members of collections.
    pub fn versions<'a>(&'a self, world: &'a World) -> impl Iterator<Item = (&'a str, &'a str)> {
        let here = self.slots.iter().filter(|_| self.kind != Type::LbEndpoint);
        here.filter_map(|(name, slot)| {
            Some((&*world.of_name(*name).text, &*world.of_content(slot.content()?).version))
        })
    }

    /// Every name, with what is here.
    pub fn state(&self) -> impl Iterator<Item = (NameId, Option<ContentId>)> {
        self.slots.iter().map(|(name, slot)| (*name, slot.content()))
    }

    /// What is here of one name.
    pub fn content(&self, name: NameId) -> Option<ContentId> {
        self.slots.get(&name).and_then(|slot| slot.content())
    }

    /// Whether something that is here needs the name.
    pub fn needs(&self, name: NameId, world: &World) -> bool {
        let contents = self.slots.values().filter_map(|slot| slot.content());
        contents.into_iter().any(|content| world.of_content(content).needs.contains(&name))
    }

    pub fn has(&self, name: NameId) -> bool {
        self.slots.contains_key(&name)
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Names that wait for an answer.
    pub fn missing(&self) -> u32 {
        self.wanted
    }

    /// The same, one by one.
    pub fn wanted(&self) -> impl Iterator<Item = NameId> {
        self.slots.iter().filter(|(_, slot)| **slot == Slot::WANTED).map(|(name, _)| *name)
    }

    /// An answer came on this stream, or (Delta) on an earlier one.
    pub fn has_answer(&self) -> bool {
        self.answered
    }

    /// All that was asked for was answered.
    pub fn is_settled(&self) -> bool {
        let nothing_asked = !self.wildcard && self.slots.is_empty();
        self.wanted == 0 && (self.answered || nothing_asked)
    }

    /// A name was answered, one way or the other.
    fn settle(&mut self, name: NameId) {
        if let Some(slot) = self.slots.get_mut(&name).filter(|slot| **slot == Slot::WANTED) {
            *slot = Slot::ANSWERED;
            self.wanted -= 1;
        }
    }

    /// The collection that was asked for and that this name is a member of.
    fn collection(&self, name: NameId, world: &World) -> Option<NameId> {
        if self.kind != Type::LbEndpoint {
            return None;
        }
        world.of_name(name).parent.filter(|parent| self.slots.contains_key(parent))
    }
}
