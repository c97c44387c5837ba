//! Metrics of the xDS server, with istiod's names where the meaning is equal.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{Frame, Kind, Protocol};

/// `type`: `cds`, `eds`, …
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

/// `protocol`: `delta` or `sotw`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabel {
    protocol: &'static str,
}

/// `reason`: why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// A count under a name that istiod's dashboards know. OpenMetrics appends `_total` to counters, which would make it
/// another name; so these are exposed as gauges that only grow.
type Count = Gauge;

/// The metrics; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    connected: Family<ProtocolLabel, Gauge>,
    pushes: ByKind<Count>,
    rejects: ByKind<Count>,
    stale: ByKind<Count>,
    refused_streams: Family<ReasonLabel, Count>,
    withheld: Family<ReasonLabel, Count>,
    ignored: Count,
    shed: Count,
    size: ByKind<Histogram>,
    convergence: Histogram,
    acked: ByKind<Histogram>,
}

/// A metric for each type, found once and not for each push.
type ByKind<M> = [M; Kind::ALL.len()];

fn by_kind<M: Clone, C: MetricConstructor<M>>(family: &Family<TypeLabel, M, C>) -> ByKind<M> {
    Kind::ALL.map(|kind| family.get_or_create(&TypeLabel { r#type: kind.short() }).clone())
}

/// From 0.5 ms to 16 s, in steps of two.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

/// From 256 B to 64 MB, in steps of four.
fn bytes() -> Histogram {
    Histogram::new(exponential_buckets(256.0, 4.0, 10))
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let (pushes, rejects, stale) = (Family::default(), Family::default(), Family::default());
        let size = Family::new_with_constructor(bytes as fn() -> Histogram);
        let acked = Family::new_with_constructor(seconds as fn() -> Histogram);
        let new = Self {
            connected: Family::default(),
            pushes: by_kind(&pushes),
            rejects: by_kind(&rejects),
            stale: by_kind(&stale),
            refused_streams: Family::default(),
            withheld: Family::default(),
            ignored: Count::default(),
            shed: Count::default(),
            size: by_kind(&size),
            convergence: seconds(),
            acked: by_kind(&acked),
        };
        registry.register("pilot_xds", "Streams that are connected", new.connected.clone());
        registry.register("pilot_xds_pushes", "Responses sent", pushes);
        registry.register("pilot_total_xds_rejects", "Responses that proxies refused", rejects);
        registry.register("pilot_xds_expired_nonce", "Requests with a stale nonce", stale);
        registry.register(
            "landbridge_xds_refused_streams",
            "Streams that were ended for what they asked",
            new.refused_streams.clone(),
        );
        registry.register(
            "landbridge_sds_withheld",
            "Secrets that were asked for and not given",
            new.withheld.clone(),
        );
        registry.register(
            "landbridge_xds_ignored_types",
            "Types that were asked for and are not served",
            new.ignored.clone(),
        );
        registry.register(
            "landbridge_xds_shed_connections",
            "Connections that were asked to go elsewhere because there are too many streams",
            new.shed.clone(),
        );
        registry.register_with_unit(
            "pilot_xds_config_size",
            "Size of the resources in a response",
            Unit::Bytes,
            size,
        );
        registry.register(
            "pilot_proxy_convergence_time",
            "Seconds from an event to the last response with it, for each proxy",
            new.convergence.clone(),
        );
        registry.register_with_unit(
            "landbridge_event_to_ack",
            "From an event to a proxy's acknowledgement of the response with it",
            Unit::Seconds,
            acked,
        );
        new
    }

    pub(super) fn connected(&self, protocol: Protocol) -> ConnectedGuard {
        let protocol = match protocol {
            Protocol::Delta => "delta",
            Protocol::Sotw => "sotw",
        };
        let gauge = self.connected.get_or_create(&ProtocolLabel { protocol }).clone();
        gauge.inc();
        ConnectedGuard(gauge)
    }

    pub(super) fn sent(&self, frame: &Frame) {
        let index = frame.kind.index();
        self.pushes[index].inc();
        self.size[index].observe(frame.bytes() as f64);
        if frame.push {
            self.convergence.observe(frame.step.snapshot.event.elapsed().as_secs_f64());
        }
    }

    pub(super) fn acked(&self, kind: Kind, since_event: Duration) {
        self.acked[kind.index()].observe(since_event.as_secs_f64());
    }

    pub(super) fn rejected(&self, kind: Kind) {
        self.rejects[kind.index()].inc();
    }

    pub(super) fn stale(&self, kind: Kind) {
        self.stale[kind.index()].inc();
    }

    pub(super) fn refused_stream(&self, reason: &'static str) {
        self.refused_streams.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn withheld(&self, reason: &'static str) {
        self.withheld.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn shed(&self, connections: usize) {
        self.shed.inc_by(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    pub(super) fn ignored_type(&self) {
        self.ignored.inc();
    }
}

/// Counts a stream until dropped.
pub(super) struct ConnectedGuard(Gauge);

impl Drop for ConnectedGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
