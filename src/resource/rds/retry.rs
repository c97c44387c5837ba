//! Which requests are repeated, and where.
//!
//! Istio repeats twice what surely never reached the application. In the mode "failover by default" that is kept for
//! services without outlier detection; with it
//! - connections that fail, or break before a byte of the request was sent, are repeated for every method;
//! - answers of 5xx are repeated only for GET, HEAD and OPTIONS, which may be repeated by definition, by a route of their
//!   own before the general one;
//! - where there are several priorities, a repetition skips those already tried: the first request that meets a dead
//!   locality is answered by the next one, before anything was ejected (`envoy.md` 3: 0 failed requests).
//!
//! A user who sets `defaultHttpRetryPolicy.retryOn` gets exactly that, for all methods.

use landbridge_proto::envoy::{
    config::route::v3::{
        RetryPolicy,
        retry_policy::{RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority},
    },
    extensions::retry::{
        host::previous_hosts::v3::PreviousHostsPredicate,
        priority::previous_priorities::v3::PreviousPrioritiesConfig,
    },
};

use crate::{
    model::{destination_rule::LbAlgorithm, mesh::HttpRetryPolicy},
    resource::{
        policy::Policy,
        proto::{any, duration},
    },
};

/// Methods that may be repeated whatever the answer was.
pub const REPEATABLE_METHODS: &str = "GET|HEAD|OPTIONS";
/// Istio's default.
const NEVER_REACHED: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const ATTEMPTS: u32 = 2;
/// How often Envoy looks for an endpoint that was not tried yet.
const HOST_SELECTION_ATTEMPTS: i64 = 5;

/// The retry policies of a service's routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retries {
    /// Of every request; none: nothing is repeated.
    pub any: Option<RetryPolicy>,
    /// Of requests that may be repeated, if it differs.
    pub repeatable: Option<RetryPolicy>,
}

/// What is repeated. `own`: the mesh's word.
pub fn retries(own: Option<&HttpRetryPolicy>, policy: &Policy) -> Retries {
    let attempts = own.map_or(ATTEMPTS, |r| r.attempts);
    if attempts == 0 {
        return Retries::default();
    }
    let failover = policy.real_failover && policy.settings.outlier_detection.is_some();
    let hashed =
        policy.settings.load_balancer.as_ref().is_some_and(|lb| matches!(lb.algorithm, LbAlgorithm::Hash(_)));
    let base = RetryPolicy {
        num_retries: Some(attempts),
        per_try_timeout: own.and_then(|r| r.per_try_timeout).map(duration),
        // A hash must lead to the same endpoint again.
        retry_host_predicate: if hashed { Vec::new() } else { vec![previous_hosts()] },
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        retry_priority: (failover && policy.many_localities && policy.fails_over()).then(previous_priorities),
        ..Default::default()
    };
    let with = |conditions: String| RetryPolicy { retry_on: conditions, ..base.clone() };
    if let Some(conditions) = own.and_then(|r| r.retry_on.as_deref()) {
        return Retries { any: Some(by_user(base, conditions)), repeatable: None };
    }
    if !failover {
        return Retries { any: Some(with(NEVER_REACHED.to_owned())), repeatable: None };
    }
    Retries {
        any: Some(with(format!("{NEVER_REACHED},reset-before-request"))),
        repeatable: Some(with(format!("{NEVER_REACHED},reset,5xx"))),
    }
}

/// Numbers among the conditions are status codes.
fn by_user(base: RetryPolicy, conditions: &str) -> RetryPolicy {
    let mut names = Vec::new();
    let mut codes = Vec::new();
    for condition in conditions.split(',').map(str::trim).filter(|c| !c.is_empty()) {
        match condition.parse::<u32>() {
            Ok(code) => codes.push(code),
            Err(_) => names.push(condition),
        }
    }
    if !codes.is_empty() && !names.contains(&"retriable-status-codes") {
        names.push("retriable-status-codes");
    }
    RetryPolicy { retry_on: names.join(","), retriable_status_codes: codes, ..base }
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            &PreviousHostsPredicate {},
        ))),
    }
}

fn previous_priorities() -> RetryPriority {
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(any(
            "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            &PreviousPrioritiesConfig { update_frequency: 1 },
        ))),
    }
}
