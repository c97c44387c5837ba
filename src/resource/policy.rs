//! What clients do with one port of a service: the destination rule, the mesh's defaults, and failover by default.

use std::time::Duration;

use crate::{
    index::{Index, MergedRule, Scope},
    model::{
        ObjectKey,
        destination_rule::{ClientTls, ClientTlsMode, LocalityLb, OutlierDetection, PolicySettings, Subset},
        mesh::MeshConfig,
        peer_authentication::MtlsMode,
        service::{Port, Resolution, Service},
    },
};

/// The effective settings for a port and subset of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The rule's settings, filled with the mesh's, and with our outlier detection where it applies.
    pub settings: PolicySettings,
    /// Locality settings in force; none if turned off.
    pub locality: Option<LocalityLb>,
    /// The outlier detection is ours: neither a rule nor the mesh says anything.
    pub default_outlier: bool,
    /// The mode "failover by default": outlier detection and retries get what makes a failover work.
    pub real_failover: bool,
    /// In that mode: the service has endpoints in several localities, so that there is somewhere else to go.
    pub many_localities: bool,
}

/// How clients talk to a service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClientMode<'a> {
    /// Plaintext.
    Plain,
    /// Mutual TLS to every endpoint that accepts it.
    Auto,
    /// As a rule says; never DISABLE.
    Rule(&'a ClientTls),
}

/// Our outlier detection for services with endpoints in more than one locality that have none, in the mode "failover by
/// default".
///
/// - Three failures in a row (5xx, or a connection that fails) take an endpoint out. Fewer would let a single unlucky
///   pair of requests do it.
/// - For 3 s at first, checked every second: an endpoint that is back gets traffic within 4 s. A longer failure makes
///   the pause longer, but not beyond 10 s, so that coming home takes no longer than that after any outage; the price
///   is that a dead endpoint costs three requests in 10 s per proxy, which the retries of [`super::rds::retry`]
///   repeat elsewhere.
/// - How many may be out is set by [`super::cds::outlier`]: all of them.
pub fn default_outlier_detection() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: Some(3),
        consecutive_gateway_errors: Some(3),
        interval: Some(Duration::from_secs(1)),
        base_ejection_time: Some(Duration::from_secs(3)),
        ..OutlierDetection::default()
    }
}

/// The longest pause of [`default_outlier_detection`].
pub const DEFAULT_MAX_EJECTION_TIME: Duration = Duration::from_secs(10);

/// The connect timeout of services that fail over, where nobody says otherwise, in the mode "failover by default".
pub const FAILOVER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The effective settings of a port and subset, and the rule that they come from.
pub fn effective<'a>(
    index: &'a Index,
    scope: &Scope,
    service: &Service,
    port: &Port,
    subset: Option<&Subset>,
) -> (Policy, Option<&'a MergedRule>) {
    let rule = index.rule(scope, service);
    let mesh = index.mesh();
    let mut settings = rule.map(|r| for_port(r, port.number)).unwrap_or_default();
    settings.connection_pool = settings.connection_pool.or_else(|| mesh.connection_pool.clone());
    settings.outlier_detection = settings.outlier_detection.or_else(|| mesh.outlier_detection.clone());
    if let Some(subset) = subset {
        settings = with_subset(settings, subset, port.number);
    }

    let own = settings.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref());
    let locality = own.or(mesh.locality_lb.as_ref()).filter(|l| l.enabled).cloned();
    let real_failover = index.options().failover_by_default;
    let many_localities = index.spans_localities(service);
    let default_outlier =
        real_failover && many_localities && locality.is_some() && settings.outlier_detection.is_none();
    if default_outlier {
        settings.outlier_detection = Some(default_outlier_detection());
    }
    (Policy { settings, locality, default_outlier, real_failover, many_localities }, rule)
}

/// A port's entry replaces the rule's settings as a whole: Istio inherits no single field.
fn for_port(rule: &MergedRule, port: u16) -> PolicySettings {
    rule.policy.ports.get(&port).unwrap_or(&rule.policy.settings).clone()
}

/// A subset's fields win one by one; its entry for a port replaces everything.
fn with_subset(base: PolicySettings, subset: &Subset, port: u16) -> PolicySettings {
    if let Some(own) = subset.policy.ports.get(&port) {
        return own.clone();
    }
    let own = subset.policy.settings.clone();
    PolicySettings {
        connection_pool: own.connection_pool.or(base.connection_pool),
        outlier_detection: own.outlier_detection.or(base.outlier_detection),
        load_balancer: own.load_balancer.or(base.load_balancer),
        tls: own.tls.or(base.tls),
    }
}

impl Policy {
    /// Whether endpoints are ordered by the caller's locality. As in Istio, nothing fails over without outlier
    /// detection, and `distribute` excludes it.
    pub fn fails_over(&self) -> bool {
        self.settings.outlier_detection.is_some()
            && self.locality.as_ref().is_some_and(|l| l.distribute.is_empty())
    }

    /// How long a connection may take to open: the rule's word, else the mesh's. Istio's default of 10 s makes a pod that
    /// vanished without a word cost every request 10 s before it is tried elsewhere; where we fail over by default
    /// and nobody said otherwise it is [`FAILOVER_CONNECT_TIMEOUT`].
    pub fn connect_timeout(&self, mesh: &MeshConfig) -> Duration {
        let said = self.settings.connection_pool.as_ref().and_then(|pool| pool.connect_timeout);
        let mesh_says = mesh.connect_timeout != MeshConfig::default().connect_timeout;
        match said {
            Some(timeout) => timeout,
            None if self.real_failover && self.fails_over() && !mesh_says => FAILOVER_CONNECT_TIMEOUT,
            None => mesh.connect_timeout,
        }
    }

    /// Whether endpoints that are not ready are sent. With a panic threshold (`minHealthPercent`) Envoy would use
    /// them.
    pub fn sends_unhealthy(&self) -> bool {
        let od = self.settings.outlier_detection.as_ref();
        od.and_then(|od| od.min_health_percent).is_none_or(|percent| percent == 0)
    }

    /// How clients talk to the service: the rule decides, else the mesh's auto mutual TLS by what the service accepts.
    pub fn client_mode(&self, index: &Index, service: &Service) -> ClientMode<'_> {
        match &self.settings.tls {
            Some(tls) if tls.mode == ClientTlsMode::Disable => ClientMode::Plain,
            Some(tls) => ClientMode::Rule(tls),
            None if !index.mesh().auto_mtls => ClientMode::Plain,
            None if service.resolution == Resolution::Passthrough => {
                // Envoy picks no endpoint here, so it cannot pick the transport by endpoint: all or none.
                let all = index.endpoints(&service.key).all_accept_mtls();
                if all { ClientMode::Auto } else { ClientMode::Plain }
            }
            None if index.service_mtls(&service.key.namespace) == MtlsMode::Disable => ClientMode::Plain,
            None => ClientMode::Auto,
        }
    }
}

/// The objects that a service's resources come from.
pub fn sources(service: &Service, rule: Option<&MergedRule>) -> Vec<ObjectKey> {
    service.sources.iter().chain(rule.into_iter().flat_map(|r| &r.sources)).cloned().collect()
}
