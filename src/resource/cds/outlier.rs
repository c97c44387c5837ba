//! When endpoints are taken out, and what a cluster then does.

use landbridge_proto::envoy::{config::cluster::v3 as envoy, r#type::v3::Percent};

use crate::{
    model::destination_rule::OutlierDetection,
    resource::{
        policy::{DEFAULT_MAX_EJECTION_TIME, Policy},
        proto::duration,
    },
};

/// Envoy's outlier detection for a rule's.
///
/// In the mode "failover by default" all endpoints may be out at once if the user does not say otherwise: Envoy's own
/// default of 10 per cent never takes out one of two (`envoy.md` 3), and with all local ones out traffic moves to the
/// next priority instead of failing.
///
/// A `maxEjectionPercent` of the user's is kept. Envoy counts it over *all* endpoints of the cluster, those of other
/// priorities included, and a remote gateway is one endpoint. With 50 (walk-through 5): one local endpoint and one
/// gateway are two, the local one may go (1 of 2), and the failover is whole. Two local ones and a gateway are three: one
/// may go (33 %), the second may not (66 %); the local priority stays half healthy and, by Envoy's overprovisioning
/// factor of 1.4, keeps 70 per cent of the requests, all to the endpoint that fails. Only the requests that are repeated
/// elsewhere ([`crate::resource::rds::retry`]) are saved. So: leave it unset, or 100.
pub fn detection(rule: &OutlierDetection, policy: &Policy) -> envoy::OutlierDetection {
    let enforce = |count: Option<u32>| count.map(|c| if c == 0 { 0 } else { 100 });
    let percent = rule.max_ejection_percent.or(policy.real_failover.then_some(100));
    envoy::OutlierDetection {
        consecutive_5xx: rule.consecutive_5xx,
        enforcing_consecutive_5xx: enforce(rule.consecutive_5xx),
        consecutive_gateway_failure: rule.consecutive_gateway_errors,
        enforcing_consecutive_gateway_failure: enforce(rule.consecutive_gateway_errors),
        interval: rule.interval.map(duration),
        base_ejection_time: rule.base_ejection_time.map(duration),
        max_ejection_percent: percent,
        max_ejection_time: policy.default_outlier.then(|| duration(DEFAULT_MAX_EJECTION_TIME)),
        // Statistical detection compares endpoints with each other; Istio has it off.
        enforcing_success_rate: Some(0),
        split_external_local_origin_errors: rule.split_local_origin,
        consecutive_local_origin_failure: rule
            .split_local_origin
            .then_some(rule.consecutive_local_origin)
            .flatten(),
        enforcing_local_origin_success_rate: rule.split_local_origin.then_some(0),
        ..Default::default()
    }
}

/// Below this share of healthy endpoints Envoy uses all of them. Zero, said explicitly (Envoy's default is 50): sick
/// endpoints get nothing and the next priority everything, unless the user asks for panic.
pub fn panic_threshold(policy: &Policy) -> Percent {
    let od = policy.settings.outlier_detection.as_ref();
    Percent { value: od.and_then(|od| od.min_health_percent).unwrap_or(0).into() }
}
