//! Istio's MeshConfig.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{
    check, connection_pool,
    finding::{Finding, Result, Warnings},
    label_selector,
    load_balancer::{self, WireLocality},
    outlier_detection,
    wire::{Flag, Int, Span, Text},
};
use crate::model::{
    mesh::{HttpRetryPolicy, MeshConfig},
    service::ExportTo,
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wire {
    trust_domain: Option<Text>,
    trust_domain_aliases: Vec<Text>,
    root_namespace: Option<Text>,
    outbound_traffic_policy: Mode,
    enable_auto_mtls: Option<Flag>,
    connect_timeout: Option<Span>,
    protocol_detection_timeout: Option<Span>,
    default_service_export_to: Vec<Text>,
    default_destination_rule_export_to: Vec<Text>,
    locality_lb_setting: Option<WireLocality>,
    default_traffic_policy: TrafficPolicy,
    default_http_retry_policy: Option<Retry>,
    service_settings: Vec<ServiceSettings>,
    proxy_listen_port: Option<Int>,
    proxy_inbound_listen_port: Option<Int>,
    access_log_file: Option<Text>,
    access_log_format: Option<Text>,
    access_log_encoding: Option<Text>,
    h2_upgrade_policy: Option<Text>,
    discovery_selectors: Vec<label_selector::Wire>,
}

/// The fields above, as they are written; `defaultConfig` configures proxies, which bring their own bootstrap.
const READ: &[&str] = &[
    "trustDomain",
    "trustDomainAliases",
    "rootNamespace",
    "outboundTrafficPolicy",
    "enableAutoMtls",
    "connectTimeout",
    "protocolDetectionTimeout",
    "defaultServiceExportTo",
    "defaultDestinationRuleExportTo",
    "localityLbSetting",
    "defaultTrafficPolicy",
    "defaultHttpRetryPolicy",
    "serviceSettings",
    "proxyListenPort",
    "proxyInboundListenPort",
    "accessLogFile",
    "accessLogFormat",
    "accessLogEncoding",
    "h2UpgradePolicy",
    "discoverySelectors",
    "defaultConfig",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mode {
    mode: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TrafficPolicy {
    connection_pool: Option<connection_pool::Wire>,
    outlier_detection: Option<outlier_detection::Wire>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Retry {
    attempts: Option<Int>,
    retry_on: Option<Text>,
    per_try_timeout: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceSettings {
    settings: Locality,
    hosts: Vec<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Locality {
    cluster_local: Flag,
}

/// Names what is in the text and not read, once for all fields.
pub fn note_unread(value: &Value, warnings: &mut Warnings) {
    let Some(map) = value.as_object() else { return };
    let unread: Vec<_> = map.keys().map(String::as_str).filter(|key| !READ.contains(key)).collect();
    let Some(first) = unread.first() else { return };
    let remedy = match check::nearest(first, READ.iter().copied()) {
        Some(near) => format!("nothing, if the defaults will do; or is {first} meant to be {near}?"),
        None => "nothing, if the defaults will do".into(),
    };
    warnings.push(Finding::new(*first, format!("not read yet and ignored: {}", unread.join(", ")), remedy));
}

pub fn convert(wire: Wire, warnings: &mut Warnings) -> Result<MeshConfig> {
    let d = MeshConfig::default();
    let text = |value: Option<Text>| value.map(|t| t.0).filter(|t| !t.is_empty());
    let root_namespace = text(wire.root_namespace).unwrap_or(d.root_namespace);
    let export_to =
        |list: &[Text]| ExportTo::parse(list.iter().map(|t| &**t), &root_namespace, &ExportTo::Public);
    let port =
        |field: &str, value: Option<Int>, default| value.map_or(Ok(default), |n| check::port(field, n));
    let default_service_export_to = export_to(&wire.default_service_export_to);
    let default_rule_export_to = export_to(&wire.default_destination_rule_export_to);
    let pool = wire.default_traffic_policy.connection_pool;
    let detection = wire.default_traffic_policy.outlier_detection;
    Ok(MeshConfig {
        trust_domain: text(wire.trust_domain).unwrap_or(d.trust_domain),
        trust_domain_aliases: wire.trust_domain_aliases.into_iter().map(|t| t.0).collect(),
        registry_only: match wire.outbound_traffic_policy.mode.as_deref() {
            Some(mode) => check::choice(
                "outboundTrafficPolicy.mode",
                mode,
                &[("ALLOW_ANY", false), ("REGISTRY_ONLY", true)],
            )?,
            None => d.registry_only,
        },
        auto_mtls: wire.enable_auto_mtls.map_or(d.auto_mtls, |f| f.0),
        connect_timeout: check::some_duration("connectTimeout", wire.connect_timeout.as_ref(), warnings)?
            .unwrap_or(d.connect_timeout),
        // Zero is a value here: wait for ever.
        protocol_detection_timeout: match &wire.protocol_detection_timeout {
            Some(span) => check::duration("protocolDetectionTimeout", span, warnings)?,
            None => Duration::ZERO,
        },
        default_service_export_to,
        default_rule_export_to,
        locality_lb: match &wire.locality_lb_setting {
            Some(setting) => {
                Some(load_balancer::locality("localityLbSetting", setting, warnings)?).filter(|l| l.enabled)
            }
            None => d.locality_lb,
        },
        connection_pool: pool
            .map(|p| connection_pool::convert("defaultTrafficPolicy.connectionPool", &p, warnings))
            .transpose()?,
        outlier_detection: detection
            .map(|o| outlier_detection::convert("defaultTrafficPolicy.outlierDetection", &o, warnings))
            .transpose()?,
        http_retries: wire.default_http_retry_policy.map(|r| retry(r, warnings)).transpose()?,
        cluster_local: cluster_local(wire.service_settings)?,
        outbound_port: port("proxyListenPort", wire.proxy_listen_port, d.outbound_port)?,
        inbound_port: port("proxyInboundListenPort", wire.proxy_inbound_listen_port, d.inbound_port)?,
        access_log_file: text(wire.access_log_file),
        access_log_format: text(wire.access_log_format),
        access_log_json: match wire.access_log_encoding.as_deref() {
            Some(encoding) => {
                check::choice("accessLogEncoding", encoding, &[("TEXT", false), ("JSON", true)])?
            }
            None => false,
        },
        h2_upgrade: match wire.h2_upgrade_policy.as_deref() {
            Some(policy) => {
                check::choice("h2UpgradePolicy", policy, &[("DO_NOT_UPGRADE", false), ("UPGRADE", true)])?
            }
            None => false,
        },
        discovery_selectors: wire
            .discovery_selectors
            .into_iter()
            .enumerate()
            .map(|(i, selector)| label_selector::convert(&format!("discoverySelectors[{i}]"), selector))
            .collect::<Result<_>>()?,
        networks: d.networks,
        root_namespace,
    })
}

fn retry(wire: Retry, warnings: &mut Warnings) -> Result<HttpRetryPolicy> {
    let at = "defaultHttpRetryPolicy";
    Ok(HttpRetryPolicy {
        attempts: check::number(&format!("{at}.attempts"), wire.attempts)?.unwrap_or(0),
        retry_on: wire.retry_on.map(|t| t.0).filter(|t| !t.is_empty()),
        per_try_timeout: check::some_duration(
            &format!("{at}.perTryTimeout"),
            wire.per_try_timeout.as_ref(),
            warnings,
        )?,
    })
}

fn cluster_local(wire: Vec<ServiceSettings>) -> Result<Vec<(std::sync::Arc<str>, bool)>> {
    let mut hosts = Vec::new();
    for (i, settings) in wire.iter().enumerate() {
        for (h, host) in settings.hosts.iter().enumerate() {
            let host = check::host(&format!("serviceSettings[{i}].hosts[{h}]"), host)?;
            hosts.push((host, settings.settings.cluster_local.0));
        }
    }
    Ok(hosts)
}
