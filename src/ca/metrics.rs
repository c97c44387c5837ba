//! Counters of the certificate service, with istiod's names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::authority::Authority;

/// Labels of `citadel_server_csr_sign_err_count`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SignErrorLabels {
    /// The kind of error: `ttl`, `signer` or `sign`.
    pub error: &'static str,
}

/// A count under istiod's name. The encoder appends `_total` to counters, which would make it another name; so these are
/// exposed as gauges that only grow.
type Count = Gauge;

/// What the certificate service counts.
#[derive(Clone, Debug, Default)]
pub struct CaMetrics {
    /// Requests.
    pub requests: Count,
    /// Requests without a credential that counts.
    pub authentication_failures: Count,
    /// Requests whose CSR was refused.
    pub csr_parsing_errors: Count,
    /// Requests that could not be signed.
    pub sign_errors: Family<SignErrorLabels, Count>,
    /// Certificates issued.
    pub issued: Count,
    root_expiry: Gauge,
    chain_expiry: Gauge,
}

// === impl CaMetrics ===

impl CaMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            requests,
            authentication_failures,
            csr_parsing_errors,
            sign_errors,
            issued,
            root_expiry,
            chain_expiry,
        } = metrics.clone();
        registry.register("citadel_server_csr_count", "Certificate requests", requests);
        registry.register(
            "citadel_server_authentication_failure_count",
            "Certificate requests that were not authenticated",
            authentication_failures,
        );
        registry.register(
            "citadel_server_csr_parsing_err_count",
            "Certificate requests whose CSR was refused",
            csr_parsing_errors,
        );
        registry.register(
            "citadel_server_csr_sign_err_count",
            "Certificate requests not signed",
            sign_errors,
        );
        registry.register("citadel_server_success_cert_issuance_count", "Certificates issued", issued);
        registry.register(
            "citadel_server_root_cert_expiry_timestamp",
            "Unix time at which the first trusted root ends",
            root_expiry,
        );
        registry.register(
            "citadel_server_cert_chain_expiry_timestamp",
            "Unix time at which the signing chain ends",
            chain_expiry,
        );
        metrics
    }

    /// Shows an authority's end; to be called with each new one.
    pub fn observe(&self, authority: &Authority) {
        let first = authority.roots().iter().map(|root| root.not_after.unix_timestamp()).min();
        self.root_expiry.set(first.unwrap_or(0));
        self.chain_expiry.set(authority.not_after().unix_timestamp());
    }
}
