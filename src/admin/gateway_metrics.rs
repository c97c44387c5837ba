//! What probes say of gateways, as metrics.

use std::{collections::BTreeMap, net::SocketAddr};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{
    gateways::health::{Health, Liveness},
    model::endpoint::NetworkGateway,
};

/// Gateways that are probed, with what is known of each.
#[derive(Debug)]
pub struct ProbedGateways(Vec<(NetworkGateway, SocketAddr, Health)>);

// === impl ProbedGateways ===

impl ProbedGateways {
    /// Of these gateways those that were probed.
    pub fn new(gateways: Vec<NetworkGateway>, probed: BTreeMap<SocketAddr, Health>) -> Self {
        let known = gateways.into_iter().filter_map(|gateway| {
            let at = gateway.socket()?;
            Some((gateway, at, probed.get(&at)?.clone()))
        });
        Self(known.collect())
    }

    /// One metric of each gateway for each word of the label `by`.
    fn encode<M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, kind): (&str, &str, MetricType),
        by: &'static str,
        values: impl Fn(&Health) -> Vec<(&'static str, M)>,
    ) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (gateway, at, health) in &self.0 {
            let at = at.to_string();
            let place = [
                ("network", gateway.network.as_str()),
                ("cluster", gateway.cluster.as_str()),
                ("gateway", &at),
            ];
            for (word, metric) in values(health) {
                let labels: Vec<_> =
                    place.into_iter().chain((!word.is_empty()).then_some((by, word))).collect();
                metric.encode(family.encode_family(&labels.as_slice())?)?;
            }
        }
        Ok(())
    }
}

impl Collector for ProbedGateways {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let name = "landbridge_gateway_state";
        let help = "1 for the state that a gateway is in, as probes see it";
        self.encode(&mut encoder, (name, help, MetricType::Gauge), "state", |health| {
            let states = [Liveness::Alive, Liveness::Dead, Liveness::Unknown];
            let gauge = |state| ConstGauge::new(i64::from(state == health.liveness));
            states.map(|state| (state.word(), gauge(state))).into()
        })?;
        let name = "landbridge_gateway_latency_seconds";
        let help = "A moving average of how long a gateway takes to answer a probe";
        self.encode(&mut encoder, (name, help, MetricType::Gauge), "", |health| {
            let latency = health.smoothed.map(|latency| ("", ConstGauge::new(latency.as_secs_f64())));
            latency.into_iter().collect()
        })?;
        let name = "landbridge_gateway_probes";
        let help = "Probes of a gateway, by how they ended";
        self.encode(&mut encoder, (name, help, MetricType::Counter), "result", |health| {
            let (answered, failed) = health.probes;
            vec![("answered", ConstCounter::new(answered)), ("failed", ConstCounter::new(failed))]
        })
    }
}
