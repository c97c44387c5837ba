//! What writers count.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};
use tokio::sync::watch;

use super::Standing;
use crate::model::ClusterId;

/// Who leads, by cluster. Looked at when it is asked for: a process that was stopped for longer than a Lease must not say that
/// it leads when it goes on, not even until its tasks have had their turn.
#[derive(Clone, Debug, Default)]
struct Leading(Arc<Mutex<BTreeMap<ClusterId, watch::Receiver<Standing>>>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Written {
    cluster: String,
    result: &'static str,
}

/// How an object came to be written, or was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was new, or its content was ours and is another now.
    Written,
    /// Somebody had changed or deleted it.
    Repaired,
    /// It was not: tried again later.
    Failed,
}

const OUTCOMES: [Outcome; 3] = [Outcome::Written, Outcome::Repaired, Outcome::Failed];

/// What became of something that an Event was to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// By a new Event.
    Written,
    /// By one that was there, which counts it.
    Repeated,
    /// It was not: tried again later.
    Failed,
    /// It was not, because there is too much to say.
    LeftOut,
}

const TOLD: [Told; 4] = [Told::Written, Told::Repeated, Told::Failed, Told::LeftOut];

/// Counters of all clusters.
#[derive(Clone, Debug, Default)]
pub struct WriterMetrics {
    leading: Leading,
    root_certs: Family<Written, Counter>,
    webhooks: Family<Written, Counter>,
    events: Family<Written, Counter>,
    exports: Family<Written, Counter>,
}

// === impl WriterMetrics ===

impl WriterMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { leading, root_certs, webhooks, events, exports } = metrics.clone();
        registry.register_collector(Box::new(leading));
        registry.register(
            "landbridge_root_cert_configmaps",
            "ConfigMaps istio-ca-root-cert, by what was done",
            root_certs,
        );
        registry.register(
            "landbridge_webhook_configurations",
            "ValidatingWebhookConfigurations, by what was done to caBundle and failurePolicy",
            webhooks,
        );
        registry.register(
            "landbridge_events",
            "What Events say at objects that are not applied, or not as a whole, by what became of it",
            events,
        );
        registry.register(
            "landbridge_service_exports",
            "ServiceExports that were made for Services, by what was done",
            exports,
        );
        metrics
    }

    /// A cluster is written to by who leads.
    pub fn stands(&self, cluster: &ClusterId, standing: watch::Receiver<Standing>) {
        self.leading.0.lock().insert(cluster.clone(), standing);
    }

    /// A ConfigMap was tried.
    pub fn root_cert(&self, cluster: &ClusterId, outcome: Outcome) {
        self.root_certs.get_or_create(&written(cluster, outcome)).inc();
    }

    /// A ValidatingWebhookConfiguration was tried.
    pub fn webhook(&self, cluster: &ClusterId, outcome: Outcome) {
        self.webhooks.get_or_create(&written(cluster, outcome)).inc();
    }

    /// A ServiceExport was tried.
    pub fn export(&self, cluster: &ClusterId, outcome: Outcome) {
        self.exports.get_or_create(&written(cluster, outcome)).inc();
    }

    /// Events were to say so much.
    pub fn told(&self, cluster: &ClusterId, told: Told, count: u64) {
        self.events.get_or_create(&of_event(cluster, told)).inc_by(count);
    }

    /// A cluster is not written to any more.
    pub fn forget(&self, cluster: &ClusterId) {
        self.leading.0.lock().remove(cluster);
        for outcome in OUTCOMES {
            self.root_certs.remove(&written(cluster, outcome));
            self.webhooks.remove(&written(cluster, outcome));
            self.exports.remove(&written(cluster, outcome));
        }
        for told in TOLD {
            self.events.remove(&of_event(cluster, told));
        }
    }
}

// === impl Leading ===

impl Collector for Leading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let (name, help) = ("landbridge_is_leader", "1 where this replica writes to the cluster");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let now = Instant::now();
        for (cluster, standing) in &*self.0.lock() {
            let leads = ConstGauge::new(i64::from(standing.borrow().leads(now)));
            leads.encode(family.encode_family(&[("cluster", cluster.as_str())].as_slice())?)?;
        }
        Ok(())
    }
}

fn written(cluster: &ClusterId, outcome: Outcome) -> Written {
    let result = match outcome {
        Outcome::Written => "written",
        Outcome::Repaired => "repaired",
        Outcome::Failed => "failed",
    };
    Written { cluster: cluster.to_string(), result }
}

fn of_event(cluster: &ClusterId, told: Told) -> Written {
    let result = match told {
        Told::Written => "written",
        Told::Repeated => "repeated",
        Told::Failed => "failed",
        Told::LeftOut => "left_out",
    };
    Written { cluster: cluster.to_string(), result }
}
