//! In which order a snapshot reaches a proxy.
//!
//! Additions: clusters and their endpoints first; listeners and routes follow when these were acknowledged, which
//! Envoy does when the new clusters are warm. Removals: a cluster, its endpoints or a route table that vanished stays
//! until the listeners and routes of the same snapshot were acknowledged, so that nothing names it any more. ("Routes"
//! are route configurations and virtual hosts alike.)
//! A client that does not answer delays this for [`PATIENCE`], not for ever.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    kind::Kind,
    watch::{Step, Watch},
    watches::Watches,
};
use crate::snapshot::ResourceType::{Cluster, Endpoint, LbEndpoint, Listener, Route, VirtualHost};

/// For how long other types wait for the answer to one response. Envoy itself stops waiting for a warming cluster's
/// endpoints after 15 s.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The types whose acknowledgement lets go of what vanished from this one.
const fn namers(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Snapshot(Cluster | Endpoint) => {
            &[Kind::Snapshot(Listener), Kind::Snapshot(Route), Kind::Snapshot(VirtualHost)]
        }
        Kind::Snapshot(Route) => &[Kind::Snapshot(Listener)],
        // What one virtual host loses another may get: both at once, or the domain is there twice. Endpoints stay with their
        // assignment.
        Kind::Snapshot(LbEndpoint | Listener | VirtualHost) | Kind::Secret => &[],
    }
}

/// The types which must be in place before this one.
const fn needs(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Snapshot(Listener | Route | VirtualHost) => {
            &[Kind::Snapshot(Cluster), Kind::Snapshot(Endpoint)]
        }
        // A cluster is acknowledged when it is warm, with the endpoints of all its collections.
        Kind::Snapshot(Cluster | Endpoint | LbEndpoint) | Kind::Secret => &[],
    }
}

/// Whether what vanished from this type is held back.
pub fn holds(kind: Kind, watches: &Watches) -> bool {
    namers(kind).iter().any(|kind| watches.get(*kind).started)
}

/// Up to which step what vanished may now be removed.
pub fn released(kind: Kind, watches: &Watches, newest: &Step, now: Instant) -> u64 {
    namers(kind)
        .iter()
        .map(|kind| watches.get(*kind))
        .filter(|w| waited_for(w, now))
        .map(|w| w.settled.sequence)
        .min()
        .unwrap_or(newest.sequence)
}

/// The step that this type may be brought to.
pub fn target<'a>(kind: Kind, watches: &'a Watches, newest: &'a Arc<Step>, now: Instant) -> &'a Arc<Step> {
    let needed = || needs(kind).iter().map(|kind| watches.get(*kind)).filter(|w| waited_for(w, now));
    let step = if watches.get(kind).step.sequence == 0 {
        // The first answer to a client is not held back, it is only never ahead of the clusters that were sent.
        needed().map(|w| &w.step).next()
    } else {
        needed().map(|w| &w.settled).min_by_key(|step| step.sequence)
    };
    step.filter(|step| step.sequence > 0).unwrap_or(newest)
}

/// When waiting for answers ends, if any is waited for.
pub fn deadline(watches: &Watches, now: Instant) -> Option<Instant> {
    let answers = watches.iter().filter_map(|w| w.in_flight.as_ref().map(|f| f.sent_at));
    let held = watches.iter().filter_map(Watch::held_since);
    answers.chain(held).map(|since| since + PATIENCE).filter(|end| *end > now).min()
}

/// Whether this time is too long ago to wait on.
pub fn expired(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= PATIENCE
}

fn waited_for(watch: &Watch, now: Instant) -> bool {
    watch.started
        && !watch.subscription.is_empty()
        && watch.in_flight.as_ref().is_none_or(|f| !expired(f.sent_at, now))
}
