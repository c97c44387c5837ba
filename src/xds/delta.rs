//! Requests of Delta streams.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    kind::Kind,
    names::Change,
    request::DeltaRequest,
    session::{CDS, EDS, Heard, Session, Violation},
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

        // Envoy asks for clusters first, unless one of them is warming: its last stream has ended before the assignment came.
        // Until it has come on this one, it does not speak of clusters (`ClusterManagerImpl::updateClusterCounts`).
        let said = if kind == EDS && !self.watch(CDS).started { Has::Awaits } else { Has::Said };
        let shared = self.shared.clone();
        let watch = self.watch_mut(kind);
        let first = !std::mem::replace(&mut watch.started, true);
        // A client that was connected before says what it has. An equal version stands for equal bytes, or as good ones.
        let has = |name: &str| match known.get(name).map(|version| version.parse()) {
            Some(Ok(version)) if first => said(version),
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
        Ok(heard)
    }
}
