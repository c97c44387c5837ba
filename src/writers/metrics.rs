//! What writers count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::model::ClusterId;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    cluster: String,
}

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
    leads: Family<Cluster, Gauge>,
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
        let Self { leads, root_certs, webhooks, events, exports } = metrics.clone();
        registry.register("landbridge_is_leader", "1 where this replica writes to the cluster", leads);
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

    /// Whether this replica writes to a cluster.
    pub fn leads(&self, cluster: &ClusterId, leads: bool) {
        self.leads.get_or_create(&Cluster { cluster: cluster.to_string() }).set(i64::from(leads));
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
        self.leads.remove(&Cluster { cluster: cluster.to_string() });
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
