//! Resources whose parts are resources of their own, and the parts: route configurations and their virtual hosts (VHDS),
//! assignments and their endpoints (LEDS).
//!
//! Envoy drops parts that it has no place for, so that they are held back until what they belong to was accepted. Endpoints
//! are asked for by collection (`…/*`); Envoy waits for an answer of each.

use std::{
    collections::{BTreeSet, HashSet},
    ops::Bound,
    sync::Arc,
};

use super::{EDS, Has, LEDS, RDS, Watch, rare::Rare};
use crate::{
    snapshot::Encoded,
    xds::{Bundle, Contents, subscription::Subscription},
};

/// What happened to a table, which is a route configuration whose virtual hosts are resources of their own, or an assignment
/// whose endpoints are: its parts. By what their names begin with.
#[derive(Clone, Debug)]
pub enum Table {
    /// The client waits for its parts, and has none of them, whatever it says.
    New(Arc<str>),
    /// The client had it before it connected, and the parts that it says.
    Known(Arc<str>),
    /// It has no place for parts any more; or it is sent again, and they have to wait.
    Gone(Arc<str>),
}

/// What the names of an endpoint's collection begin with.
pub(in crate::xds) fn collection(name: &str) -> &str {
    name.rfind('/').map_or("", |at| &name[..=at])
}

impl Watch {
    /// What happened to tables since this was asked last.
    pub fn take_news(&mut self) -> Vec<Table> {
        self.rare.some().map(|rare| std::mem::take(&mut rare.news)).unwrap_or_default()
    }

    /// A table that parts belong to came or went.
    pub fn follow(&mut self, table: Table) {
        let Rare { open, awaited, .. } = self.rare.make();
        match table {
            Table::New(prefix) => {
                open.insert(prefix.clone());
                awaited.insert(prefix, true);
            }
            Table::Known(prefix) => {
                open.insert(prefix.clone());
                awaited.entry(prefix).or_insert(false);
            }
            Table::Gone(prefix) => {
                open.remove(&prefix);
                awaited.remove(&prefix);
            }
        }
    }

    /// Marks what tables wait for. Where a table has no hosts, the removal of a name that nothing has is an answer, too;
    /// Envoy knows no other for this. Collections of endpoints are never empty: one that Envoy asks for and that is not
    /// there belongs to an assignment that is about to be replaced, and a cluster must not become warm without endpoints.
    ///
    /// `everything`: all that there is is about to be sent.
    pub fn want_awaited(&mut self, everything: bool) {
        let awaited = self.rare.some().map(|rare| std::mem::take(&mut rare.awaited)).unwrap_or_default();
        for (prefix, all) in awaited {
            if everything && self.root().with_prefix(&prefix).next().is_some() {
                continue;
            }
            if self.kind == LEDS {
                if all {
                    self.want_all_of(&prefix);
                }
                continue;
            }
            let found = self.root().with_prefix(&prefix).map(|r| r.name.clone());
            let mut names: Vec<Arc<str>> = found.filter(|name| self.covers(name)).collect();
            if names.is_empty() {
                names.push(format!("{prefix}none").into());
            } else if !all {
                continue;
            }
            names.into_iter().for_each(|name| self.want(name, Has::Unknown));
        }
    }

    /// Whether a client that wants everything and has nothing is to get all of it: parts only if it does not know their tables.
    pub(super) fn waits_for_all(&self) -> bool {
        match self.kind.whole() {
            None => true,
            Some(_) => {
                self.kind != LEDS
                    && self.subscription.names.is_empty()
                    && self.rare.awaited.values().all(|all| *all)
            }
        }
    }

    /// The client has this table: it said so (`known`), or it accepted it.
    pub(super) fn has_table(&mut self, resource: &Encoded, known: bool) {
        let none = || resource.waits_for.is_none() && !self.has_tables();
        if !matches!(self.kind, EDS | RDS) || none() || !self.covers(&resource.name) {
            return;
        }
        let Some(prefix) = &resource.waits_for else { return self.forget_table(&resource.name) };
        let Rare { spared, tables, news, .. } = self.rare.make();
        if self.kind == RDS {
            spared.insert(resource.name.clone());
        }
        let before = tables.insert(resource.name.clone(), prefix.clone());
        if before.as_ref() != Some(prefix) {
            news.extend(before.map(Table::Gone));
            news.push(if known { Table::Known(prefix.clone()) } else { Table::New(prefix.clone()) });
        }
    }

    /// Whether there is any table to forget.
    pub(super) fn has_tables(&self) -> bool {
        !(self.rare.tables.is_empty() && self.rare.spared.is_empty())
    }

    pub(super) fn forget_table(&mut self, name: &Arc<str>) {
        if let Some(rare) = self.rare.some() {
            rare.spared.remove(name);
            rare.news.extend(rare.tables.remove(name).map(Table::Gone));
        }
    }

    /// Whether the client has a place for a resource of this name.
    pub(super) fn has_place(&self, name: &str) -> bool {
        let up_to = (Bound::Unbounded, Bound::Included(name));
        let is_open =
            || self.rare.open.range::<str, _>(up_to).next_back().is_some_and(|p| name.starts_with(&**p));
        self.kind.whole().is_none() || is_open()
    }

    /// The resource in the spelling that this client gets.
    pub(super) fn spelt<'a>(&self, resource: &'a Arc<Encoded>) -> &'a Arc<Encoded> {
        match &resource.respelt {
            Some(second) if self.rare.respelt.contains(&resource.name) => second,
            _ => resource,
        }
    }

    /// What the client should have of `name`, in the spelling that it cannot have from another stream.
    pub(super) fn choose(&mut self, name: &Arc<str>, has: Has) -> Option<Arc<Encoded>> {
        if let (EDS, Has::Said(version) | Has::Awaits(version)) = (self.kind, has)
            && self.root().get(name).is_some_and(|resource| resource.respelt.is_some())
            && !version.is_respelt()
        {
            self.rare.make().respelt.insert(name.clone());
        }
        self.current(name)
    }

    /// Whether the client asks for a resource of this name. The name of a collection stands for what is in it.
    pub(super) fn covers(&self, name: &str) -> bool {
        let names = &self.subscription.names;
        // `*` comes before all that names of endpoints have in its place.
        let in_collection =
            || match names.range::<str, _>((Bound::Unbounded, Bound::Included(name))).next_back() {
                Some(below) => match below.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => names.contains(format!("{}*", collection(name)).as_str()),
                },
                None => false,
            };
        self.subscription.covers(name) || (self.kind == LEDS && in_collection())
    }

    /// Asked for by name.
    pub fn want_named(&mut self, name: Arc<str>, has: Has) {
        match name.strip_suffix('*') {
            Some(prefix) if self.kind == LEDS => self.want_all_of(prefix),
            _ => self.want(name, has),
        }
    }

    /// What there is with such names, again.
    pub(super) fn want_all_of(&mut self, prefix: &str) {
        let Subscription { names, wildcard, .. } = &self.subscription;
        let asked = names.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let asked = asked.take_while(|name| name.starts_with(prefix));
        let collections: Option<Vec<Arc<str>>> =
            asked.map(|name| name.strip_suffix('*').map(Arc::from)).collect();
        match collections {
            Some(collections) if self.kind == LEDS && !wildcard => {
                self.pending.collections().extend(collections);
            }
            _ => self.want_each_of(prefix),
        }
    }

    pub(super) fn want_each_of(&mut self, prefix: &str) {
        let names = self.root().with_prefix(prefix).map(|r| r.name.clone());
        let names: Vec<_> = names.filter(|name| self.covers(name)).collect();
        names.into_iter().for_each(|name| self.want(name, Has::Unknown));
    }

    /// Whether a response may end before this name: not within a collection, for a cluster that is waiting takes what has
    /// come for all.
    pub(super) fn may_split(&self, whole: &[Arc<Bundle>], changed: &[Arc<Encoded>], name: &str) -> bool {
        let last = || changed.last().or_else(|| whole.last()?.resources().last());
        self.kind != LEDS || last().map(|last| collection(&last.name)) != Some(collection(name))
    }

    /// An endpoint that moves to another collection is removed from the old one after it was added to the new one: Envoy
    /// takes them one after the other, in any order, and has no such endpoint in between.
    pub(super) fn add_before_removing(&mut self, changed: &Contents, removed: &mut Vec<Arc<str>>) {
        if self.kind != LEDS || changed.is_empty() || removed.is_empty() {
            return;
        }
        let id = |name: &str| name[collection(name).len()..].to_owned();
        let added: HashSet<String> = changed.iter().map(|r| id(&r.name)).collect();
        let (later, now) = std::mem::take(removed).into_iter().partition(|n| added.contains(&id(n)));
        *removed = now;
        self.pending.each().extend(later.into_iter().map(|name| (name, Has::Unknown)));
    }

    /// A collection is gone from the root, and the client still asks for it.
    pub(super) fn remember(&mut self, collection: String) {
        let mut has: BTreeSet<_> = self.root().with_prefix(&collection).map(|r| r.name.clone()).collect();
        has.extend(self.pending.each().keys().filter(|name| name.starts_with(&collection)).cloned());
        self.pending.each().retain(|name, _| !has.contains(name));
        self.pending.collections().remove(collection.as_str());
        self.rare.make().vanished.insert(collection, has);
    }

    /// It is there again before anybody told the client, which may have endpoints that are gone for good.
    pub(super) fn come_back(&mut self, collection: &str) {
        let names = self.rare.some().and_then(|rare| rare.vanished.remove(collection));
        for name in names.into_iter().flatten() {
            self.pending.each().insert(name, Has::Unknown);
        }
    }

    /// The client has dropped a collection.
    pub(super) fn forget_collection(&mut self, name: &str) {
        let prefix = name.trim_end_matches('*');
        self.pending.collections().remove(prefix);
        self.pending.each().retain(|name, _| !name.starts_with(prefix));
        if let Some(rare) = self.rare.some() {
            rare.refused.retain(|name, _| !name.starts_with(prefix));
            rare.vanished.remove(prefix);
        }
    }
}
