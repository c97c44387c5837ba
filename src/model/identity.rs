//! Workload identities.
