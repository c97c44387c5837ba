//! What authentication counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use time::OffsetDateTime;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Issuer {
    source: String,
}

/// Counters of all issuers. The first two have istiod's names and meaning.
#[derive(Clone, Debug, Default)]
pub struct AuthnMetrics {
    fetched: Counter,
    failed: Counter,
    last_read: Family<Issuer, Gauge>,
}

// === impl AuthnMetrics ===

impl AuthnMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { fetched, failed, last_read } = metrics.clone();
        registry.register(
            "pilot_jwks_resolver_network_fetch_success",
            "Fetches of token issuers' keys that gave keys",
            fetched,
        );
        registry.register(
            "pilot_jwks_resolver_network_fetch_fail",
            "Fetches of token issuers' keys that gave none",
            failed,
        );
        registry.register(
            "landbridge_token_issuer_keys_read_timestamp_seconds",
            "When a token issuer's keys were last read, Unix time",
            last_read,
        );
        metrics
    }

    /// Keys were fetched over the network, or not.
    pub fn fetched(&self, well: bool) {
        if well { &self.fetched } else { &self.failed }.inc();
    }

    /// The keys of this source are as of now.
    pub fn read(&self, source: String) {
        self.last_read.get_or_create(&Issuer { source }).set(OffsetDateTime::now_utc().unix_timestamp());
    }
}
