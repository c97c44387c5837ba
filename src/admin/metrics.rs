//! `/metrics`: what the modules count, and figures of the tables, read at each scrape.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::{AdminState, answer::Refusal, endpointz, gateway_metrics::ProbedGateways, topology};
use crate::{
    model::{
        ClusterId,
        change::ClusterState,
        endpoint::{Health, NetworkGateway, ServiceEndpoints},
        node::ProxyKind,
        service::Resolution,
    },
    pipeline::{self, Totals},
    registry::{Events, Severity, SourceReport},
};

const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as OpenMetrics text.
pub async fn scrape(State(admin): State<AdminState>) -> Response {
    let mut registry = Registry::default();
    let uptime = admin.started.elapsed().as_secs_f64();
    let ready = *admin.ready.borrow();
    // Metrics that do not need the pipeline are shown even if it does not answer: that is when they are needed most.
    let tables = admin.inspector.ask(Tables::read).await;
    let gateways = tables.as_ref().map(|tables| tables.gateways.clone()).unwrap_or_default();
    let probed = ProbedGateways::new(gateways, admin.gateways.read().unwrap_or_default());
    registry.register_collector(Box::new(probed));
    let (sources, secrets) = (admin.sources.reports(), admin.sources.joined().events());
    registry.register_collector(Box::new(Figures { uptime, ready, tables, sources, secrets }));
    let mut body = String::new();
    let written = text::encode_registry(&mut body, &admin.metrics)
        .and_then(|()| text::encode_registry(&mut body, &registry))
        .and_then(|()| text::encode_eof(&mut body));
    match written {
        Ok(()) => ([(CONTENT_TYPE, CONTENT)], body).into_response(),
        Err(error) => {
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response()
        }
    }
}

/// What is read between two batches: counts and shared pointers.
#[derive(Debug)]
struct Tables {
    config_cluster: ClusterId,
    clusters: Vec<(ClusterId, ClusterState)>,
    services: usize,
    conflicts: usize,
    /// Ports of services that nobody serves: load assignments without an endpoint.
    unserved: usize,
    endpoints: Vec<Arc<ServiceEndpoints>>,
    gateways: Vec<NetworkGateway>,
    classes: usize,
    proxies: BTreeMap<(ClusterId, &'static str), u64>,
    rejections: BTreeMap<&'static str, u64>,
    totals: Totals,
}

#[derive(Debug)]
struct Figures {
    uptime: f64,
    ready: bool,
    tables: Option<Tables>,
    sources: Vec<SourceReport>,
    secrets: Events,
}

// === impl Tables ===

impl Tables {
    fn read(state: &pipeline::State) -> Self {
        let index = &state.index;
        let mut proxies = BTreeMap::new();
        for (_, proxy, ..) in state.classes.proxies() {
            let kind = match proxy.kind {
                ProxyKind::Sidecar => "sidecar",
                ProxyKind::Router => "router",
            };
            *proxies.entry((proxy.cluster.clone(), kind)).or_default() += 1;
        }
        let mut rejections = BTreeMap::new();
        for rejection in state.layers.rejections() {
            *rejections.entry(rejection.nack.kind.short()).or_default() += 1;
        }
        Self {
            config_cluster: index.options().config_cluster.clone(),
            clusters: index.clusters().map(|(id, state)| (id.clone(), state.clone())).collect(),
            services: index.services().count(),
            conflicts: index.services().filter(|s| !s.conflicts.is_empty()).count(),
            unserved: index
                .services()
                .filter(|s| s.resolution == Resolution::ClientSide && index.endpoints(&s.key).is_empty())
                .map(|s| s.ports.len())
                .sum(),
            endpoints: index.all_endpoints().map(|(_, e)| e.clone()).collect(),
            gateways: index.networks().iter().cloned().collect(),
            classes: state.classes.len(),
            proxies,
            rejections,
            totals: state.totals,
        }
    }

    fn encode(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let is_remote = |id: &ClusterId| *id != self.config_cluster;
        let remote = self.clusters.iter().filter(|(id, _)| is_remote(id)).count();
        out.gauges(
            "istiod_managed_clusters",
            "Clusters that are read, by type",
            [
                ([("cluster_type", "local")], self.clusters.len() - remote),
                ([("cluster_type", "remote")], remote),
            ],
        )?;
        let statuses = self.clusters.iter().filter(|(id, _)| is_remote(id)).flat_map(|(id, state)| {
            let now = topology::status_of(state);
            ["synced", "syncing", "stale"]
                .map(|status| ([("cluster", id.as_str()), ("status", status)], usize::from(status == now)))
        });
        out.gauges(
            "istiod_remote_cluster_sync_status",
            "1 for the status that a remote cluster is in",
            statuses,
        )?;
        let stale = self.clusters.iter().map(|(id, state)| {
            let age = match state {
                ClusterState::Stale { since, .. } => topology::seconds_since(*since),
                _ => 0,
            };
            ([("cluster", id.as_str())], age as usize)
        });
        out.gauges(
            "landbridge_cluster_stale_seconds",
            "How long a cluster's source has been away; 0: it is watched",
            stale,
        )?;

        out.gauge("pilot_services", "Services, merged over all clusters", self.services)?;
        out.gauge(
            "landbridge_conflicting_services",
            "Services whose definitions contradict each other",
            self.conflicts,
        )?;
        out.gauge("pilot_eds_no_instances", "Ports of services without any endpoint", self.unserved)?;
        let mut endpoints: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for endpoint in self.endpoints.iter().flat_map(|e| e.iter()) {
            *endpoints
                .entry((endpoint.workload().cluster.as_str(), endpointz::health(endpoint.health())))
                .or_default() += 1;
        }
        let not_ready =
            endpoints.iter().filter(|((_, health), _)| *health == endpointz::health(Health::Unhealthy));
        let not_ready = not_ready.map(|(_, n)| n).sum();
        out.gauge("pilot_endpoint_not_ready", "Endpoints that are not ready", not_ready)?;
        let endpoints = endpoints.into_iter().map(|((c, h), n)| ([("cluster", c), ("health", h)], n));
        out.gauges("landbridge_endpoints", "Endpoints, by cluster and health", endpoints)?;
        let mut gateways: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for gateway in &self.gateways {
            *gateways.entry((gateway.network.as_str(), gateway.cluster.as_str())).or_default() += 1;
        }
        let gateways = gateways
            .into_iter()
            .map(|((network, cluster), n)| ([("network", network), ("cluster", cluster)], n));
        out.gauges("landbridge_network_gateways", "Addresses through which a network is entered", gateways)?;

        out.gauge(
            "landbridge_proxy_classes",
            "Classes of proxies that share all their resources",
            self.classes,
        )?;
        let proxies = self
            .proxies
            .iter()
            .map(|((cluster, kind), n)| ([("cluster", cluster.as_str()), ("kind", *kind)], *n as usize));
        out.gauges("landbridge_proxies", "Attached streams, by the proxy's cluster and kind", proxies)?;
        let rejections = self.rejections.iter().map(|(kind, n)| ([("type", *kind)], *n as usize));
        out.gauges(
            "landbridge_rejected_resources",
            "Refused resource versions that are remembered and withheld",
            rejections,
        )?;

        let totals = &self.totals;
        for (name, help, value) in [
            ("landbridge_pipeline_batches", "Batches of changes worked on", totals.batches),
            ("landbridge_pipeline_changes", "Changes in them", totals.changes),
            ("landbridge_pipeline_resources_built", "Resources whose bytes changed", totals.resources),
            (
                "landbridge_pipeline_failed_builds",
                "Builders that panicked; the last good bytes stayed",
                totals.failed_builds,
            ),
        ] {
            out.counter(name, help, value as f64)?;
        }
        out.counter("landbridge_pipeline_busy_seconds", "Time spent on changes", totals.busy)
    }
}

// === impl Figures ===

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> std::fmt::Result {
        let mut out = Out(encoder);
        let version = env!("CARGO_PKG_VERSION");
        out.gauges("pilot_info", "The version that runs", [([("version", version)], 1)])?;
        out.gauges(
            "istio_build",
            "The same, as Istio's dashboards ask for it",
            [([("component", "pilot"), ("tag", version)], 1)],
        )?;
        out.gauge_f64("istiod_uptime_seconds", "Since the process started", self.uptime)?;
        out.gauge("landbridge_ready", "1 when proxies are answered", usize::from(self.ready))?;
        if let Some(bytes) = resident_bytes() {
            out.gauge_f64("process_resident_memory_bytes", "Resident memory", bytes)?;
        }
        out.gauge(
            "landbridge_pipeline_up",
            "1 when the pipeline answered this scrape in time",
            usize::from(self.tables.is_some()),
        )?;
        self.encode_sources(&mut out)?;
        match &self.tables {
            Some(tables) => tables.encode(&mut out),
            None => Ok(()),
        }
    }
}

impl Figures {
    fn encode_sources(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let problems = self.sources.iter().flat_map(|source| {
            [("error", Severity::Error), ("warning", Severity::Warning)].map(|(word, severity)| {
                let count = source.problems.iter().filter(|p| p.severity == severity).count();
                ([("cluster", source.cluster.as_str()), ("severity", word)], count)
            })
        });
        out.gauges("landbridge_source_problems", "Objects and files that are wrong at present", problems)?;
        let objects = self.sources.iter().flat_map(|source| {
            source
                .objects
                .iter()
                .map(|(kind, n)| ([("cluster", source.cluster.as_str()), ("kind", kind.as_str())], *n))
        });
        out.gauges("landbridge_source_objects", "Objects in force, by kind", objects)?;
        let ages = self.sources.iter().flat_map(|source| {
            source.ages.iter().map(|(kind, age)| {
                ([("cluster", source.cluster.as_str()), ("kind", kind.as_str())], age.as_secs() as usize)
            })
        });
        out.gauges(
            "landbridge_watch_age_seconds",
            "Since a watch of an API server last said something; it is opened again after 90 s",
            ages,
        )?;
        let snapshots = self.sources.iter().filter_map(|source| {
            let age = topology::seconds_since(source.snapshot?);
            Some(([("cluster", source.cluster.as_str())], age as usize))
        });
        out.gauges(
            "landbridge_snapshot_age_seconds",
            "Since the durable snapshot of a cluster was last known to hold; absent without one",
            snapshots,
        )?;
        let timeouts = self.sources.iter().map(|source| source.timeouts).sum::<u64>();
        out.counter(
            "remote_cluster_sync_timeouts",
            "Remote clusters that were not read whole in the time that proxies wait for them",
            timeouts as f64,
        )?;
        let Events { added, updated, deleted } = self.secrets;
        let mut secrets = out.0.encode_descriptor(
            "remote_cluster_secret_events",
            "Remote secrets that came, changed or went",
            None,
            MetricType::Counter,
        )?;
        for (event, count) in [("add", added), ("update", updated), ("delete", deleted)] {
            ConstCounter::new(count).encode(secrets.encode_family(&[("event", event)])?)?;
        }
        let mut repaired = out.0.encode_descriptor(
            "landbridge_drift_repaired",
            "Files and objects that a slow look found changed without an event",
            None,
            MetricType::Counter,
        )?;
        for source in &self.sources {
            let labels = [("cluster", source.cluster.as_str())];
            ConstCounter::new(source.repairs).encode(repaired.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Writes figures.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: usize) -> std::fmt::Result {
        self.gauge_f64(name, help, value as f64)
    }

    fn gauge_f64(&mut self, name: &str, help: &str, value: f64) -> std::fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) -> std::fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'l str); N], usize)>,
    ) -> std::fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value as f64).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// From /proc; absent where that is not Linux.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}
