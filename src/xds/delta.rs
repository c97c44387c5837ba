//! Requests of Delta streams.

use std::{collections::BTreeSet, sync::Arc};

use landbridge_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::{
    kind::Kind,
    names::Change,
    session::{Heard, Session, Violation},
    watch::Has,
};

impl Session {
    /// Takes in a request for this type.
    ///
    /// A stale nonce only means that the answer in it is void: subscriptions are increments here, and one that is
    /// dropped would be lost.
    pub fn delta(&mut self, kind: Kind, request: &DeltaDiscoveryRequest) -> Result<Heard, Violation> {
        self.check(kind, false, request.resource_names_subscribe.iter())?;
        let nonce = request.response_nonce.as_str();
        let refusal = request.error_detail.as_ref().map(|e| e.message.as_str());
        let heard = match nonce {
            "" if refusal.is_none() => Heard::Subscribed,
            _ => self.answer(kind, nonce, refusal).unwrap_or(Heard::Stale),
        };

        let shared = self.shared.clone();
        let watch = self.watch_mut(kind);
        let first = !std::mem::replace(&mut watch.started, true);
        // A client that was connected before says what it has. An equal version stands for equal bytes, or as good ones.
        let known = |name: &str| match request.initial_resource_versions.get(name).map(|v| v.parse()) {
            Some(Ok(version)) if first => Has::Said(version),
            _ => Has::Unknown,
        };

        let star = request.resource_names_subscribe.iter().any(|n| n == "*");
        let implicit = first && kind.is_wildcard() && request.resource_names_subscribe.is_empty();
        if (star || implicit) && !watch.subscription.wildcard {
            watch.subscription.wildcard = true;
            let listed = request.initial_resource_versions.keys().filter(|_| first);
            watch.want_all(listed.map(|name| (Arc::from(name.as_str()), known(name))));
            if request.initial_resource_versions.is_empty() {
                watch.must_answer();
            }
        }
        let named = request.resource_names_subscribe.iter().map(String::as_str).filter(|name| *name != "*");
        if first {
            watch.begin(shared.names.of(named), known);
            watch.pay(!request.initial_resource_versions.is_empty());
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
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                watch.subscription.wildcard = false;
                watch.forget_wildcard();
            } else if let Some(name) = watch.subscription.names.get(name.as_str()) {
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
