//! Requests of Delta streams.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    kind::{CDS, EDS, Kind, LDS},
    names::Change,
    request::DeltaRequest,
    session::{Heard, Session, Violation},
    watch::Has,
};

impl Session {
    /// Takes in a request for this type.
    ///
    /// A stale nonce only means that the answer in it is void: subscriptions are increments here, and one that is
    /// dropped would be lost.
    pub fn delta(&mut self, kind: Kind, request: &DeltaRequest<'_>) -> Result<Heard, Violation> {
        let DeltaRequest { subscribe, unsubscribe, known, .. } = request;
        if !subscribe.is_empty() {
            self.check(kind, false, subscribe.iter().copied())?;
        }
        let heard = match (request.nonce, request.refusal) {
            ("", None) => Heard::Subscribed,
            (nonce, refusal) => self.answer(kind, nonce, refusal).unwrap_or(Heard::Stale),
        };
        if self.watch(kind).started && !request.resubscribes() {
            return Ok(heard);
        }

        let knew_of_warming = self.is_warming();
        let shared = self.shared.clone();
        let watch = self.watch_mut(kind);
        let first = !std::mem::replace(&mut watch.started, true);
        // A client that was connected before says what it has. An equal version stands for equal bytes, or as good ones.
        let has = |name: &str| match known.get(name).map(|version| version.parse()) {
            Some(Ok(version)) if first => Has::Said(version),
            _ => Has::Unknown,
        };

        let star = subscribe.contains(&"*");
        let implicit = first && kind.is_wildcard() && subscribe.is_empty();
        if (star || implicit) && !watch.subscription.wildcard {
            watch.subscription.wildcard = true;
            let listed = known.keys().filter(|_| first);
            watch.want_all(listed.map(|name| (Arc::from(*name), has(name))));
            if known.is_empty() {
                watch.must_answer();
            }
        }
        let named = subscribe.iter().copied().filter(|name| *name != "*");
        if first {
            watch.begin(shared.names.of(named), has);
            watch.pay(!known.is_empty());
        } else {
            let named: Vec<Arc<str>> = named.map(Arc::from).collect();
            let added: Vec<_> =
                named.iter().filter(|n| !watch.subscription.names.contains(*n)).cloned().collect();
            if !added.is_empty() {
                shared.names.change(&mut watch.subscription.names, Change::Added(added));
            }
            for name in named {
                // xDS: what is asked for again is sent again; Envoy does so for a cluster that came back.
                watch.want_named(name, Has::Unknown);
            }
        }
        let mut dropped = BTreeSet::new();
        for name in unsubscribe {
            if *name == "*" {
                watch.subscription.wildcard = false;
                watch.forget_wildcard();
            } else if let Some(name) = watch.subscription.names.get(*name) {
                dropped.insert(name.clone());
            }
        }
        if !dropped.is_empty() {
            shared.names.change(&mut watch.subscription.names, Change::Removed(dropped.clone()));
            dropped.iter().for_each(|name| watch.forget(name));
        }
        if !knew_of_warming && self.is_warming() {
            self.watch_mut(EDS).await_all();
        }
        Ok(heard)
    }

    /// Whether some cluster of the client has been waiting for its assignment since a stream ended before it came.
    ///
    /// Envoy asks for clusters first, but not while one is warming (`ClusterManagerImpl::updateClusterCounts` pauses that
    /// type); it asks for endpoints and the rest then. A client that follows endpoints alone just has no clusters from here.
    fn is_warming(&self) -> bool {
        let started = |kind| self.watch(kind).started;
        started(EDS) && !started(CDS) && [LDS, Kind::Secret].into_iter().any(started)
    }
}
