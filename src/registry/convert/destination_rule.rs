//! Istio's DestinationRule.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    Settings, check, connection_pool,
    finding::{Finding, Invalid, Result, Warnings},
    load_balancer,
    meta::{WireMeta, meta},
    missing, outlier_detection,
    peer_authentication::Selector,
    wire::{Flag, Int, Text, labels},
};
use crate::model::{
    ObjectKey,
    destination_rule::{
        ClientTls, ClientTlsFiles, ClientTlsMode, DestinationRule, PolicySettings, Subset, TrafficPolicy,
    },
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    metadata: WireMeta,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    host: Option<Text>,
    traffic_policy: Option<Policy>,
    subsets: Vec<WireSubset>,
    export_to: Vec<Text>,
    workload_selector: Option<Selector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireSubset {
    name: Option<Text>,
    labels: BTreeMap<Text, Text>,
    traffic_policy: Option<Policy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Policy {
    connection_pool: Option<connection_pool::Wire>,
    outlier_detection: Option<outlier_detection::Wire>,
    load_balancer: Option<load_balancer::Wire>,
    tls: Option<Tls>,
    port_level_settings: Vec<PortPolicy>,
    tunnel: Option<IgnoredAny>,
    proxy_protocol: Option<IgnoredAny>,
    retry_budget: Option<IgnoredAny>,
}

/// The fields of a `Policy` without `portLevelSettings`, written out: serde's `flatten` would lose the paths of
/// errors.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PortPolicy {
    port: Option<PortSelector>,
    connection_pool: Option<connection_pool::Wire>,
    outlier_detection: Option<outlier_detection::Wire>,
    load_balancer: Option<load_balancer::Wire>,
    tls: Option<Tls>,
}

#[derive(Debug, Deserialize)]
struct PortSelector {
    number: Int,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Tls {
    mode: Option<Text>,
    sni: Option<Text>,
    subject_alt_names: Vec<Text>,
    insecure_skip_verify: Flag,
    ca_certificates: Option<Text>,
    client_certificate: Option<Text>,
    private_key: Option<Text>,
    credential_name: Option<Text>,
}

const TLS_MODES: &[(&str, ClientTlsMode)] = &[
    ("DISABLE", ClientTlsMode::Disable),
    ("SIMPLE", ClientTlsMode::Simple),
    ("MUTUAL", ClientTlsMode::Mutual),
    ("ISTIO_MUTUAL", ClientTlsMode::IstioMutual),
];

pub fn convert(
    key: &ObjectKey,
    wire: Wire,
    settings: &Settings,
    warnings: &mut Warnings,
) -> Result<DestinationRule> {
    let spec = wire.spec;
    let host = host(&spec, key, settings, warnings)?;
    let policy = traffic_policy("spec.trafficPolicy", spec.traffic_policy, settings, warnings)?;
    let mut subsets: Vec<Subset> = Vec::new();
    for (i, subset) in spec.subsets.into_iter().enumerate() {
        let field = format!("spec.subsets[{i}]");
        let name = subset.name.ok_or_else(|| missing(&format!("{field}.name")))?.0;
        check::dns_name(&format!("{field}.name"), &name)?;
        if subsets.iter().any(|s| s.name == name) {
            let reason = format!("the subset {name} is there already; this one is ignored");
            warnings.push(Finding::new(
                format!("{field}.name"),
                reason,
                "give it another name, or remove it",
            ));
            continue;
        }
        let policy =
            traffic_policy(&format!("{field}.trafficPolicy"), subset.traffic_policy, settings, warnings)?;
        subsets.push(Subset { name, labels: labels(subset.labels), policy });
    }
    let workload_selector = spec.workload_selector.and_then(Selector::labels);
    if workload_selector.is_some() {
        warnings.push(Finding::new(
            "spec.workloadSelector",
            "rules for selected client workloads are not supported yet: the whole rule is not applied",
            "remove workloadSelector to have the rule for all clients",
        ));
    }
    Ok(DestinationRule {
        meta: meta(wire.metadata, key),
        host,
        export_to: spec.export_to.into_iter().map(|t| t.0).collect(),
        workload_selector,
        policy,
        subsets,
    })
}

/// Istio expands a name without dots only; a name that was probably meant so gets a warning.
fn host(spec: &Spec, key: &ObjectKey, settings: &Settings, warnings: &mut Warnings) -> Result<Arc<str>> {
    let text = spec.host.as_deref().filter(|h| !h.is_empty()).ok_or_else(|| missing("spec.host"))?;
    let host = check::host("spec.host", text)?;
    if !host.contains(['.', '*']) {
        return Ok(format!("{host}.{}.svc.{}", key.namespace, settings.domain).into());
    }
    if let Some((service, namespace)) = host.strip_suffix(".svc").unwrap_or(&host).split_once('.')
        && (host.ends_with(".svc") || namespace == &*key.namespace)
    {
        let full = format!("{service}.{namespace}.svc.{}", settings.domain);
        let reason =
            format!("{host} is taken as it is and matches no service: only names without dots are completed");
        warnings.push(Finding::new("spec.host", reason, format!("write {full}")));
    }
    Ok(host)
}

fn traffic_policy(
    at: &str,
    wire: Option<Policy>,
    settings: &Settings,
    warnings: &mut Warnings,
) -> Result<TrafficPolicy> {
    let Some(wire) = wire else { return Ok(TrafficPolicy::default()) };
    let unsupported = [
        ("tunnel", &wire.tunnel),
        ("proxyProtocol", &wire.proxy_protocol),
        ("retryBudget", &wire.retry_budget),
    ];
    for (name, _) in unsupported.into_iter().filter(|(_, field)| field.is_some()) {
        let reason = "is not supported yet and ignored";
        warnings.push(Finding::new(format!("{at}.{name}"), reason, "remove it, or do not rely on it"));
    }
    let general = PortPolicy {
        port: None,
        connection_pool: wire.connection_pool,
        outlier_detection: wire.outlier_detection,
        load_balancer: wire.load_balancer,
        tls: wire.tls,
    };
    let mut policy =
        TrafficPolicy { settings: policy_settings(at, general, settings, warnings)?, ports: BTreeMap::new() };
    for (i, entry) in wire.port_level_settings.into_iter().enumerate() {
        let field = format!("{at}.portLevelSettings[{i}]");
        let selector = entry.port.as_ref().ok_or_else(|| missing(&format!("{field}.port.number")))?;
        let number = check::port(&format!("{field}.port.number"), selector.number)?;
        if policy.ports.contains_key(&number) {
            let reason = format!("port {number} has an entry already; this one is ignored");
            warnings.push(Finding::new(field, reason, "merge the two entries"));
            continue;
        }
        policy.ports.insert(number, policy_settings(&field, entry, settings, warnings)?);
    }
    Ok(policy)
}

fn policy_settings(
    at: &str,
    wire: PortPolicy,
    settings: &Settings,
    warnings: &mut Warnings,
) -> Result<PolicySettings> {
    let field = |name: &str| format!("{at}.{name}");
    let connection_pool = wire.connection_pool.as_ref();
    let outlier = wire.outlier_detection.as_ref();
    let balancer = wire.load_balancer.as_ref();
    let policy = PolicySettings {
        connection_pool: connection_pool
            .map(|w| connection_pool::convert(&field("connectionPool"), w, warnings))
            .transpose()?,
        outlier_detection: outlier
            .map(|w| outlier_detection::convert(&field("outlierDetection"), w, warnings))
            .transpose()?,
        load_balancer: balancer
            .map(|w| load_balancer::convert(&field("loadBalancer"), w, warnings))
            .transpose()?,
        tls: wire.tls.map(|w| client_tls(&field("tls"), &w, warnings)).transpose()?,
    };
    explain_failover(at, &policy, settings, warnings);
    Ok(policy)
}

/// Says what outlier detection means for failover, which people get wrong.
fn explain_failover(at: &str, policy: &PolicySettings, settings: &Settings, warnings: &mut Warnings) {
    let locality = policy.load_balancer.as_ref().and_then(|b| b.locality.as_ref());
    let wanted =
        locality.is_some_and(|l| l.enabled && !(l.failover.is_empty() && l.failover_priority.is_empty()));
    let detection = policy.outlier_detection.as_ref();
    if wanted && detection.is_none() && !settings.failover_by_default {
        warnings.push(Finding::new(
            format!("{at}.loadBalancer.localityLbSetting"),
            "does nothing without outlierDetection: an endpoint that answers 500 is never taken out, so nothing fails over",
            "add outlierDetection, e.g. consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 30s, maxEjectionPercent: 100",
        ));
    }
    let distributed = locality.is_some_and(|l| !l.enabled || !l.distribute.is_empty());
    let percent = detection.and_then(|d| d.max_ejection_percent).filter(|&p| p < 100);
    if let (Some(percent), false) = (percent, distributed)
        && (wanted || settings.failover_by_default)
    {
        warnings.push(Finding::new(
            format!("{at}.outlierDetection.maxEjectionPercent"),
            format!(
                "at most {percent} % of the service's endpoints can be out at a time, near and far ones counted \
                 together and a remote network's gateway as one. If more than {percent} % are near, some that fail \
                 stay in and traffic does not fail over completely"
            ),
            "write 100, or leave it out",
        ));
    }
}

fn client_tls(at: &str, wire: &Tls, warnings: &mut Warnings) -> Result<ClientTls> {
    let field = |name: &str| format!("{at}.{name}");
    let text = |value: &Option<Text>| value.as_ref().map(|t| t.0.clone()).filter(|t| !t.is_empty());
    let mode = match wire.mode.as_deref() {
        Some(mode) => check::choice(&field("mode"), mode, TLS_MODES)?,
        // The API's default.
        None => ClientTlsMode::Disable,
    };
    if wire.credential_name.is_some() {
        warnings.push(Finding::new(
            field("credentialName"),
            "is not supported yet and ignored",
            "mount the files into the proxy and name them: caCertificates, clientCertificate, privateKey",
        ));
    }
    let certificate = text(&wire.client_certificate).zip(text(&wire.private_key));
    if mode == ClientTlsMode::Mutual && certificate.is_none() {
        return Err(Invalid::new(
            field("mode"),
            "MUTUAL needs clientCertificate and privateKey",
            "add both as paths on the proxy, or write ISTIO_MUTUAL to use the mesh's certificates",
        ));
    }
    let files = ClientTlsFiles { ca: text(&wire.ca_certificates), certificate };
    Ok(ClientTls {
        mode,
        sni: text(&wire.sni),
        subject_alt_names: wire.subject_alt_names.iter().map(|t| t.0.clone()).collect(),
        insecure_skip_verify: wire.insecure_skip_verify.0,
        files: (files != ClientTlsFiles::default()).then_some(files),
    })
}
