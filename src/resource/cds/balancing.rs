//! How an endpoint is picked.

use landbridge_proto::envoy::{
    config::{
        cluster::v3::{
            Cluster,
            cluster::{
                LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
                RoundRobinLbConfig, SlowStartConfig,
            },
        },
        core::v3::RuntimeDouble,
    },
    r#type::v3::Percent,
};

use crate::{
    model::destination_rule::{LbAlgorithm, LoadBalancer, Warmup},
    resource::proto::duration,
};

/// Istio's default for a ring.
const MINIMUM_RING_SIZE: u64 = 1024;
/// Envoy's default share of a new endpoint, per cent.
const MINIMUM_PERCENT: f64 = 10.0;

/// Sets the algorithm; LEAST_REQUEST if nothing is said.
pub fn apply(cluster: &mut Cluster, lb: Option<&LoadBalancer>) {
    let slow_start = lb.and_then(|lb| lb.warmup.as_ref()).map(slow_start);
    let (policy, config) = match lb.map(|lb| &lb.algorithm) {
        None | Some(LbAlgorithm::Unspecified | LbAlgorithm::LeastRequest) => {
            let config = slow_start.map(|s| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(s),
                    ..Default::default()
                })
            });
            (LbPolicy::LeastRequest, config)
        }
        Some(LbAlgorithm::RoundRobin) => {
            let config = slow_start
                .map(|s| LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(s) }));
            (LbPolicy::RoundRobin, config)
        }
        Some(LbAlgorithm::Random) => (LbPolicy::Random, None),
        Some(LbAlgorithm::Passthrough) => (LbPolicy::ClusterProvided, None),
        Some(LbAlgorithm::Hash(hash)) => match hash.maglev {
            Some(size) => {
                let table_size = (size > 0).then_some(size);
                (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size })))
            }
            None => {
                let minimum_ring_size = Some(hash.minimum_ring_size.unwrap_or(MINIMUM_RING_SIZE));
                let ring = RingHashLbConfig { minimum_ring_size, ..Default::default() };
                (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(ring)))
            }
        },
    };
    cluster.lb_policy = policy.into();
    cluster.lb_config = config;
}

/// New endpoints get their share slowly; what equals Envoy's default is left out.
fn slow_start(warmup: &Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(duration(warmup.duration)),
        aggression: (warmup.aggression != 1.0).then(|| RuntimeDouble {
            default_value: warmup.aggression,
            runtime_key: "landbridge.slow_start_aggression".to_owned(),
        }),
        min_weight_percent: (warmup.minimum_percent != MINIMUM_PERCENT)
            .then_some(Percent { value: warmup.minimum_percent }),
    }
}
