//! Where addresses come from: each cluster has a part of one range, and gives them out in order.

use std::net::Ipv4Addr;

use super::spec::SpecError;

/// 10.0.0.0/8.
const PODS: Range = Range { base: 10 << 24, bits: 24 };
/// 172.16.0.0/12.
const SERVICES: Range = Range { base: 172 << 24 | 16 << 16, bits: 20 };
/// 198.18.0.0/15, which is reserved for benchmarks: the gateways as seen from outside.
const GATEWAYS: u32 = 198 << 24 | 18 << 16;

#[derive(Clone, Copy, Debug)]
struct Range {
    base: u32,
    bits: u32,
}

/// Gives out the addresses of one part of a range. When all were given out it begins again, so that an address that is
/// free comes back as late as possible.
#[derive(Clone, Debug)]
pub struct Pool {
    first: u32,
    size: u32,
    given: u64,
}

impl Pool {
    /// The pods of one cluster of `clusters`.
    pub fn pods(cluster: usize, clusters: usize) -> Self {
        Self::part(PODS, cluster, clusters)
    }

    /// The services of one cluster of `clusters`.
    pub fn services(cluster: usize, clusters: usize) -> Self {
        Self::part(SERVICES, cluster, clusters)
    }

    fn part(range: Range, cluster: usize, clusters: usize) -> Self {
        let bits = range.bits - clusters.next_power_of_two().trailing_zeros();
        // There are at most 64 clusters (`Spec::check`). The first and the last address stay free.
        Self { first: range.base + ((cluster as u32) << bits) + 1, size: (1 << bits) - 2, given: 0 }
    }

    /// The next address.
    pub fn next(&mut self) -> Ipv4Addr {
        let offset = u32::try_from(self.given % u64::from(self.size)).unwrap_or_default();
        self.given += 1;
        Ipv4Addr::from(self.first + offset)
    }

    /// Fails if more were given out than there are: some address would be there twice.
    pub fn check(&self, field: &'static str) -> Result<(), SpecError> {
        if self.given <= u64::from(self.size) {
            return Ok(());
        }
        let reason = format!("needs {} addresses per cluster, and there are {}", self.given, self.size);
        Err(SpecError { field, reason, remedy: "write fewer, or fewer clusters" })
    }
}

/// The outside address of a cluster's gateway.
pub fn gateway(cluster: usize) -> Ipv4Addr {
    Ipv4Addr::from(GATEWAYS + cluster as u32 + 1)
}
