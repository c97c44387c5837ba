//! The protocol state of one stream: a pure type, without a clock or a task. Requests, snapshots and secrets go in,
//! frames come out when the transport has room for one.

use std::{sync::Arc, time::Instant};

use lean_http2::fetch;
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3Default;

use super::{
    contents::{Bundles, Contents},
    frame::{Frame, FrameVersion, Nonce, Protocol},
    kind::{CDS, EDS, Kind},
    nack,
    names::SharedNames,
    order,
    watch::{InFlight, Step, Watch},
    watches::Watches,
};
use crate::snapshot::{Encoded, Resources, Snapshot};

/// Bounds on what one stream may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Names in all subscriptions of a stream.
    pub names: usize,
    /// Bytes of one name.
    pub name_bytes: usize,
    /// Bytes of the resources in one response that may be split. gRPC clients take 4 MiB by default.
    pub response_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { names: 100_000, name_bytes: 2048, response_bytes: 3_500_000 }
    }
}

/// What a client may not do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// Resource exhaustion.
    #[error(
        "this stream subscribes to {asked} resource names, the limit is {limit}; ask for `*` or split the streams"
    )]
    TooManyNames {
        /// How many it would have.
        asked: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Nothing has such a name.
    #[error("a resource name in the {kind} request has {bytes} bytes; 1 to {limit} are allowed")]
    NameLength {
        /// `cds`, `eds`, …
        kind: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest.
        limit: usize,
    },
}

/// What a request was.
#[derive(Debug)]
pub enum Heard {
    /// A subscription, or a change of one.
    Subscribed,
    /// The client has what was sent in this response.
    Acked(InFlight),
    /// The client refused this response, and these resources of it; the others are with it.
    Nacked(InFlight, Vec<Arc<Encoded>>),
    /// Its nonce is not the last one's: an answer to something that is no longer the question.
    Stale,
}

/// What streams have in common.
#[derive(Debug, Default)]
pub struct Shared {
    /// What they ask for.
    pub names: SharedNames,
    /// What they are given.
    pub bundles: Bundles,
}

impl Shared {
    /// Lets go of what is kept for those who come next, if nobody came for it since this was called last.
    pub fn age(&self) {
        self.bundles.age();
    }

    /// Lets go of what is kept of sets and bundles that nobody has any more.
    pub fn forget(&self) {
        self.names.forget();
        self.bundles.forget();
    }
}

/// All types of one stream.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    limits: Limits,
    pub(super) shared: Arc<Shared>,
    watches: Watches,
    newest: Arc<Step>,
    next_nonce: Nonce,
}

impl Session {
    /// A stream that begins with this snapshot.
    pub fn new(protocol: Protocol, snapshot: Arc<Snapshot>, limits: Limits) -> Self {
        Self {
            protocol,
            limits,
            shared: Arc::default(),
            watches: Watches::default(),
            newest: Arc::new(Step { sequence: 1, snapshot, secrets: Resources::default() }),
            next_nonce: Nonce::FIRST,
        }
    }

    /// Shares what there is to be shared with other streams.
    #[must_use]
    pub fn sharing(self, shared: Arc<Shared>) -> Self {
        Self { shared, ..self }
    }

    /// Asks for the memory of what each push looks at.
    pub fn fetch(&self) {
        self.watches.iter().for_each(fetch);
    }

    /// A newer snapshot. Those that were never sent are skipped.
    pub fn snapshot(&mut self, snapshot: Arc<Snapshot>) {
        let Step { sequence, secrets, .. } = &*self.newest;
        self.newest = Arc::new(Step { sequence: sequence + 1, snapshot, secrets: secrets.clone() });
    }

    /// All secrets that the stream's identity has now.
    pub fn secrets(&mut self, secrets: Resources) {
        self.newest = Arc::new(Step { secrets, ..(*self.newest).clone() });
    }

    /// The state of one type.
    pub fn watch(&self, kind: Kind) -> &Watch {
        self.watches.get(kind)
    }

    pub(super) fn watch_mut(&mut self, kind: Kind) -> &mut Watch {
        self.watches.make(kind)
    }

    /// Shares what was asked for with other streams that ask for the same. Tells whether that took time for each name.
    pub fn share_names(&mut self) -> bool {
        let share = |took, watch: &mut Watch| self.shared.names.share(&mut watch.subscription.names) | took;
        self.watches.iter_mut().fold(false, share)
    }

    /// When [`Self::next_frame`] may have something although nothing happened.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        order::deadline(&self.watches, now)
    }

    /// The next frame to send, if any. To be asked again after each request, snapshot, change of secrets and deadline,
    /// until there is none.
    pub fn next_frame(&mut self, now: Instant) -> Option<Frame> {
        let first = Kind::ALL.into_iter().find_map(|kind| self.frame(kind, now));
        // Listeners and routes that need nothing have let go of clusters just now.
        let held = first.is_none() && self.watches.iter().any(|watch| watch.held_since().is_some());
        if held { Kind::ALL.into_iter().find_map(|kind| self.frame(kind, now)) } else { first }
    }

    fn frame(&mut self, kind: Kind, now: Instant) -> Option<Frame> {
        if let Some(whole) = kind.whole().and_then(|whole| self.watches.some(whole)) {
            for table in whole.take_news() {
                self.watch_mut(kind).follow(table);
            }
        }
        // Most types most proxies never ask for.
        let watch = self.watches.some(kind).filter(|watch| watch.started && watch.in_flight.is_none())?;
        let at_rest = watch.is_at_rest();
        let target = order::target(kind, &self.watches, &self.newest, now).clone();
        let root = target.get(kind);
        let watch = self.watches.make(kind);
        // Most types have nothing to say most times. Secrets have no steps.
        if at_rest {
            let (is_newer, is_same) = (target.sequence > watch.step.sequence, root.is_same(watch.root()));
            if is_same && is_newer && watch.step.sequence > 0 {
                watch.pass(&target);
                return None;
            }
            if !is_newer && (is_same || kind != Kind::Secret) {
                return None;
            }
        }
        if kind.whole().is_some() && !root.is_served() {
            watch.skip(&target);
            return None;
        }
        let hold = order::holds(kind, &self.watches);
        let released = order::released(kind, &self.watches, &self.newest, now);
        let watch = self.watches.make(kind);
        // Not the first answer, which is older than its request.
        let push = watch.step.sequence > 0 && target.sequence > watch.step.sequence;
        let everything = target.sequence >= watch.step.sequence && watch.advance(&target, hold, now);
        watch.release(released, |since| order::expired(since, now));
        watch.want_awaited(everything);

        let whole = self.protocol == Protocol::Sotw && kind.is_complete();
        let unlimited = whole || kind.is_unlimited();
        let budget = if unlimited { usize::MAX } else { self.limits.response_bytes };
        let Some(batch) = watch.take(budget, everything, &self.shared.bundles) else {
            watch.settle();
            return None;
        };
        let owing = (kind == CDS).then(|| batch.changed.clone());
        let resources = if whole { Contents::from(watch.everything()) } else { batch.changed };
        // State of the world cannot express the removal of what is asked for by name. A secret is never removed: Envoy
        // would have to go on without the certificate that it has, or without knowing whom to trust.
        let removed = match (self.protocol, kind) {
            (Protocol::Sotw, _) | (_, Kind::Secret) => Vec::new(),
            (Protocol::Delta, Kind::Snapshot(_)) => batch.removed,
        };
        if resources.is_empty() && removed.is_empty() && !whole && !batch.answer {
            watch.settle();
            return None;
        }
        let nonce = self.next_nonce;
        self.next_nonce = nonce.next();
        watch.sent(nonce, resources.clone(), removed.clone(), push, now);
        let step = watch.step.clone();
        if let Some(clusters) = owing {
            // Envoy re-warms a changed cluster and, with Delta, does not ask for its endpoints again.
            self.watch_mut(EDS).owe(&clusters);
        }
        let version = match self.protocol {
            Protocol::Delta => FrameVersion::Epoch(step.snapshot.epoch),
            Protocol::Sotw => version_of(&resources),
        };
        Some(Frame { kind, nonce, version, resources, removed, step, push })
    }

    /// Notes the answer to the response in flight, if `nonce` is its. None: `nonce` is none of ours.
    pub(super) fn answer(&mut self, kind: Kind, nonce: &str, refusal: Option<&str>) -> Option<Heard> {
        let watch = self.watches.some(kind)?;
        if !watch.last_nonce.is_some_and(|last| last.is(nonce)) {
            return None;
        }
        let heard = match refusal {
            None => watch.acked().map(Heard::Acked),
            Some(reason) => watch
                .nacked(|resources| nack::culprits(kind, reason, resources))
                .map(|(response, culprits)| Heard::Nacked(response, culprits)),
        };
        Some(heard.unwrap_or(Heard::Subscribed))
    }

    pub(super) fn check<'a>(
        &self,
        kind: Kind,
        replaces: bool,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), Violation> {
        let others = |w: &&Watch| !(replaces && std::ptr::eq(*w, self.watch(kind)));
        let held: usize = self.watches.iter().filter(others).map(|w| w.subscription.names.len()).sum();
        let mut new = 0;
        for name in names {
            if name.is_empty() || name.len() > self.limits.name_bytes {
                let (kind, bytes, limit) = (kind.short(), name.len(), self.limits.name_bytes);
                return Err(Violation::NameLength { kind, bytes, limit });
            }
            new += usize::from(replaces || !self.watch(kind).subscription.names.contains(name));
        }
        let (asked, limit) = (held + new, self.limits.names);
        if asked > limit { Err(Violation::TooManyNames { asked, limit }) } else { Ok(()) }
    }
}

/// The version of a state-of-the-world response: a hash of what is in it, equal over restarts and replicas.
fn version_of(resources: &Contents) -> FrameVersion {
    let mut hash = Xxh3Default::new();
    for resource in resources.iter() {
        hash.update(resource.name.as_bytes());
        hash.update(&resource.version.0.to_le_bytes());
    }
    FrameVersion::Content(hash.digest())
}

/// Takes in a request as it comes over the wire.
#[cfg(test)]
fn delta(
    session: &mut Session,
    kind: Kind,
    request: &landbridge_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest,
) -> Result<Heard, Violation> {
    let bytes = prost::Message::encode_to_vec(request);
    session.delta(kind, &super::DeltaRequest::read(&bytes).expect("a request"))
}

/// All clients of a test share what there is to be shared, from run to run.
#[cfg(test)]
fn shared() -> Arc<Shared> {
    static SHARED: std::sync::LazyLock<Arc<Shared>> = std::sync::LazyLock::new(Arc::default);
    SHARED.clone()
}

#[cfg(test)]
#[path = "session_tests/mod.rs"]
mod tests;

#[cfg(test)]
#[path = "session_props.rs"]
mod props;

#[cfg(test)]
#[path = "pieces_props.rs"]
mod pieces_props;
