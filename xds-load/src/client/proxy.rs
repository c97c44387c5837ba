//! One proxy as a pure type: responses in, requests out, in Envoy's order.
//!
//! ```text
//! CDS ─► EDS (─► LEDS) and SDS, by the clusters' names ─► when they are there: LDS ─► RDS by the listeners' names (─► VHDS)
//! ```
//!
//! A request for what a response makes necessary goes out before that response is acknowledged, as Envoy's does.

use std::time::Instant;

use super::{
    board::{Step, Watch},
    follow::{Follow, rewarm},
    held::Subscription,
    nack::Nack,
    speak::{self, Names},
    tally::Tally,
    world::{ContentId, IdMap, NameId, World},
};
use crate::{
    expect::Type,
    wire::{
        self, Malformed,
        discovery::{self, Response},
    },
};

/// The protocol of a stream.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Each response has all (of CDS and LDS) or what is asked for.
    Sotw,
    /// Each response has what changed.
    #[default]
    Delta,
}

/// What proxies ask for.
#[derive(Clone, Debug)]
pub struct Asks {
    pub protocol: Protocol,
    /// The types that are followed, of those that come up.
    pub types: Vec<Type>,
    /// A proxy follows the endpoints of at most so many of its clusters.
    pub clusters: usize,
    pub nack: Nack,
}

/// What a proxy shares with the others of its thread, for one step.
pub struct Shared<'a> {
    pub asks: &'a Asks,
    pub world: &'a mut World,
    pub watch: &'a mut Watch,
    pub tally: &'a mut Tally,
    /// When the bytes came.
    pub now: Instant,
}

/// A proxy.
#[derive(Debug)]
pub struct Proxy {
    network: u16,
    /// Draws what this one follows.
    seed: u64,
    /// In the order in which they were begun.
    subscriptions: Vec<Subscription>,
    /// Endpoints that changed clusters wait for.
    warming: IdMap<NameId, ()>,
    /// It has not asked for clusters on this stream, as Envoy does not while one is warming.
    silent: bool,
    responses: u32,
    /// Since when it has had an answer to all that it asked for on this stream.
    pub complete: Option<Instant>,
    /// It waits for clusters no longer.
    impatient: bool,
    /// It has refused something: what it has is its own affair.
    pub refused: bool,
}

impl Proxy {
    /// A proxy that follows `names` from the beginning, beside what it learns of.
    pub fn new(network: u16, seed: u64, names: impl IntoIterator<Item = NameId>, world: &World) -> Self {
        let mut proxy = Self {
            network,
            seed,
            subscriptions: Vec::new(),
            warming: IdMap::default(),
            silent: false,
            responses: 0,
            complete: None,
            impatient: false,
            refused: false,
        };
        for name in names {
            let kind = world.of_name(name).kind;
            let at = proxy.position(kind).unwrap_or_else(|| proxy.subscribe(kind, false));
            proxy.subscriptions[at].want(name);
        }
        proxy
    }

    /// A stream begins: asks for all that the proxy followed before, or for the first types.
    pub fn begin(&mut self, node: &[u8], shared: &mut Shared<'_>, send: &mut dyn FnMut(&[u8])) {
        let known = self.complete.take().is_some();
        let mut node = Some(node);
        for kind in [Type::Cluster, Type::Listener] {
            // Listeners wait for clusters, if there are any.
            let first = kind == Type::Cluster || !shared.asks.types.contains(&Type::Cluster);
            if first && shared.asks.types.contains(&kind) && self.position(kind).is_none() {
                self.subscribe(kind, true);
            }
        }
        self.silent = !self.warming.is_empty() && !self.impatient;
        for at in 0..self.subscriptions.len() {
            self.subscriptions[at].begin(shared.asks.protocol);
            if !(self.silent && self.subscriptions[at].kind == Type::Cluster) {
                self.ask(at, node.take(), &[], &[], shared, send);
            }
        }
        // A Delta proxy that comes back is told of changes only, which may be none.
        if known && shared.asks.protocol == Protocol::Delta && self.is_answered() {
            self.complete = Some(shared.now);
        }
    }

    /// A response: takes it, asks for what it makes necessary, and acknowledges it.
    pub fn receive(
        &mut self,
        message: &[u8],
        shared: &mut Shared<'_>,
        send: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Malformed> {
        let response = match shared.asks.protocol {
            Protocol::Delta => discovery::delta_response(message)?,
            Protocol::Sotw => discovery::sotw_response(message)?,
        };
        let asked = wire::type_of(response.type_url).and_then(|kind| Some((kind, self.position(kind)?)));
        let Some((kind, at)) = asked else {
            shared.tally.senseless += 1;
            return Ok(());
        };
        let counts = &mut shared.tally.counts[kind as usize];
        counts.responses += 1;
        counts.bytes += message.len() as u64;
        shared.watch.take_up(shared.world);

        self.responses += 1;
        let verdict = shared.asks.nack.verdict(self.responses, kind, &response);
        let follow = self.take(at, &response, shared);
        self.follow(follow, shared, send);
        self.acknowledge(at, &response, verdict, shared, send);
        self.proceed(shared, send);
        Ok(())
    }

    /// The patience of Envoy's `initial_fetch_timeout` is at its end: goes on without what has not come.
    pub fn lose_patience(&mut self, shared: &mut Shared<'_>, send: &mut dyn FnMut(&[u8])) {
        self.impatient = true;
        shared.tally.unanswered += self.subscriptions.iter().map(|s| s.missing() as u64).sum::<u64>();
        self.proceed(shared, send);
    }

    /// Which names of which types have not been answered, a few of each, for a report.
    pub fn waits_for<'a>(&'a self, world: &'a World) -> impl Iterator<Item = (Type, Option<&'a str>)> {
        self.subscriptions.iter().filter(|s| !s.is_settled()).flat_map(|s| {
            let names = s.wanted().map(|name| Some(&*world.of_name(name).text)).take(3).collect::<Vec<_>>();
            let names = if names.is_empty() { vec![None] } else { names };
            names.into_iter().map(move |name| (s.kind, name))
        })
    }

    /// Clusters that changed and whose endpoints did not come again.
    pub fn warming(&self) -> usize {
        self.warming.len()
    }

    /// What it has. A name that does not exist, or was not answered, has no content.
    pub fn state(&self) -> impl Iterator<Item = (NameId, Option<ContentId>)> {
        self.subscriptions.iter().flat_map(Subscription::state)
    }

    /// The network that it is in.
    pub fn network(&self) -> u16 {
        self.network
    }

    /// What it has of one name.
    pub fn content(&self, kind: Type, name: NameId) -> Option<ContentId> {
        self.subscriptions[self.position(kind)?].content(name)
    }

    /// It is no more: nobody counts on it.
    pub fn leave(&mut self, world: &mut World) {
        for subscription in &mut self.subscriptions {
            subscription.clear().for_each(|name| world.hold(name, self.network, false));
        }
        self.subscriptions.clear();
    }

    /// Takes what is in a response.
    fn take(&mut self, at: usize, response: &Response<'_>, shared: &mut Shared<'_>) -> Follow {
        let mut follow = Follow::default();
        let subscription = &mut self.subscriptions[at];
        let kind = subscription.kind;
        let Shared { asks, world, watch, tally, now } = shared;
        let counts = &mut tally.counts[kind as usize];
        let mut arrived = Vec::new();
        for resource in &response.resources {
            // Without a body it is a sign of life for something that has a time to live.
            let Some(body) = resource.body else { continue };
            counts.resources += 1;
            let name = world.name(kind, resource.name);
            if !subscription.asked(name, world) {
                counts.unasked += 1;
                continue;
            }
            if asks.nack.refuses(self.responses, kind, resource.name) {
                self.refused = true;
                continue;
            }
            let content = world.content(name, body, resource.version);
            let old = subscription.insert(name, content, world);
            if old.is_none() {
                world.hold(name, self.network, true);
            }
            if kind == Type::Endpoint && !self.warming.is_empty() {
                self.warming.remove(&name);
            }
            if old == Some(content) {
                counts.unchanged += 1;
                continue;
            }
            let step =
                Step { name, network: self.network, old, new: Some((content, body)), since: self.complete };
            watch.step(world, step, |met| arrived.push(met));
            follow.change(world, old, Some(content));
            if kind == Type::Cluster && old.is_some() {
                follow.rewarm |= rewarm(&mut self.warming, world, content);
            }
        }
        let removed = response.removed.iter().map(|name| world.name(kind, name)).collect::<Vec<_>>();
        counts.removals += removed.len() as u64;
        let vanished = subscription.vanished(asks.protocol, response, world);
        for name in removed.into_iter().chain(vanished) {
            let Some(old) = subscription.remove(name, world) else { continue };
            world.hold(name, self.network, false);
            let step = Step { name, network: self.network, old: Some(old), new: None, since: self.complete };
            watch.step(world, step, |met| arrived.push(met));
            follow.change(world, Some(old), None);
        }
        subscription.answered(response);
        arrived.into_iter().for_each(|met| tally.met(met, *now));
        // Others may need the name, too.
        follow.lost.retain(|name| !subscription.needs(*name, world));
        follow
    }

    /// Asks for names that are needed now, and drops those that are not.
    fn follow(&mut self, follow: Follow, shared: &mut Shared<'_>, send: &mut dyn FnMut(&[u8])) {
        let Follow { gained, lost, again: asked_again, virtual_hosts, rewarm } = follow;
        for kind in [Type::Endpoint, Type::LbEndpoint, Type::Secret, Type::Route] {
            if !shared.asks.types.contains(&kind) {
                continue;
            }
            let of_kind = |names: &[NameId], world: &World| -> Vec<NameId> {
                names.iter().copied().filter(|name| world.of_name(*name).kind == kind).collect()
            };
            let mut gained = of_kind(&gained, shared.world);
            let asked_again = of_kind(&asked_again, shared.world);
            let lost = of_kind(&lost, shared.world);
            let known = self.position(kind);
            if known.is_none() && gained.is_empty() && asked_again.is_empty() {
                continue;
            }
            let at = known.unwrap_or_else(|| self.subscribe(kind, false));
            gained = self.draw(at, gained, shared);
            let subscription = &mut self.subscriptions[at];
            let lost: Vec<_> = lost.into_iter().filter(|name| subscription.has(*name)).collect();
            let asked_again = asked_again.into_iter().filter(|name| subscription.has(*name));
            let asked_again: Vec<_> = asked_again.collect();
            for name in lost.iter().chain(&asked_again) {
                let dropped = subscription.drop_name(*name, shared.world);
                dropped.into_iter().for_each(|name| shared.world.hold(name, self.network, false));
                self.warming.remove(name);
            }
            gained.extend(asked_again);
            gained.iter().for_each(|name| subscription.want(*name));
            let again = rewarm && kind == Type::Endpoint && shared.asks.protocol == Protocol::Sotw;
            if !gained.is_empty() || !lost.is_empty() || again {
                self.ask(at, None, &gained, &lost, shared, send);
            }
        }
        if virtual_hosts
            && shared.asks.types.contains(&Type::VirtualHost)
            && self.position(Type::VirtualHost).is_none()
        {
            let at = self.subscribe(Type::VirtualHost, true);
            self.ask(at, None, &[], &[], shared, send);
        }
    }

    /// Of names that came up, those that are new and that this proxy follows.
    fn draw(&self, at: usize, mut names: Vec<NameId>, shared: &Shared<'_>) -> Vec<NameId> {
        let subscription = &self.subscriptions[at];
        names.retain(|name| !subscription.has(*name));
        if subscription.kind == Type::Endpoint && shared.asks.clusters < usize::MAX {
            let drawn = |name: &NameId| {
                xxhash_rust::xxh3::xxh3_64_with_seed(shared.world.of_name(*name).text.as_bytes(), self.seed)
            };
            names.sort_by_cached_key(drawn);
            names.truncate(shared.asks.clusters.saturating_sub(subscription.len()));
        }
        names
    }

    /// Goes on to clusters or listeners when the clusters are warm, and sees whether all is there.
    fn proceed(&mut self, shared: &mut Shared<'_>, send: &mut dyn FnMut(&[u8])) {
        if self.silent && (self.warming.is_empty() || self.impatient) {
            self.silent = false;
            if let Some(at) = self.position(Type::Cluster) {
                self.ask(at, None, &[], &[], shared, send);
            }
        }
        let settled = |kinds: &[Type]| {
            let mut of_kinds = self.subscriptions.iter().filter(|s| kinds.contains(&s.kind));
            of_kinds.all(|s| s.is_settled() || (self.impatient && s.kind != Type::Cluster))
        };
        if self.position(Type::Listener).is_none()
            && shared.asks.types.contains(&Type::Listener)
            && settled(&[Type::Cluster, Type::Endpoint, Type::LbEndpoint, Type::Secret])
        {
            let at = self.subscribe(Type::Listener, true);
            return self.ask(at, None, &[], &[], shared, send);
        }
        if self.complete.is_none() && self.is_answered() {
            self.complete = Some(shared.now);
        }
    }

    fn is_answered(&self) -> bool {
        !self.silent
            && self.subscriptions.iter().all(|s| s.is_settled() || (self.impatient && s.has_answer()))
    }

    fn acknowledge(
        &mut self,
        at: usize,
        response: &Response<'_>,
        verdict: Option<String>,
        shared: &mut Shared<'_>,
        send: &mut dyn FnMut(&[u8]),
    ) {
        let counter = if verdict.is_some() { &mut shared.tally.nacks } else { &mut shared.tally.acks };
        *counter += 1;
        let subscription = &mut self.subscriptions[at];
        send(&speak::acknowledgement(
            subscription,
            shared.asks.protocol,
            response,
            verdict.as_deref(),
            shared.world,
        ));
    }

    /// A request that is no acknowledgement.
    fn ask(
        &mut self,
        at: usize,
        node: Option<&[u8]>,
        gained: &[NameId],
        lost: &[NameId],
        shared: &mut Shared<'_>,
        send: &mut dyn FnMut(&[u8]),
    ) {
        let (subscription, names) = (&mut self.subscriptions[at], Names { gained, lost });
        send(&speak::request(subscription, shared.asks.protocol, node, names, shared.world));
    }

    fn subscribe(&mut self, kind: Type, wildcard: bool) -> usize {
        self.subscriptions.push(Subscription::new(kind, wildcard));
        self.subscriptions.len() - 1
    }

    fn position(&self, kind: Type) -> Option<usize> {
        self.subscriptions.iter().position(|s| s.kind == kind)
    }
}
