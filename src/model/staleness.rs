//! What the staleness of a cluster does to its endpoints: the mesh's policy.

use std::{collections::BTreeMap, time::Duration};

use super::name::ClusterId;

/// What is done to the endpoints of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// Nothing.
    #[default]
    Keep,
    /// They are used only where no endpoint of another cluster is healthy.
    Deprioritise,
    /// They are not sent to clients that have a healthy endpoint of another cluster; those of others are deprioritised.
    Withdraw,
}

/// After which time a cluster that cannot be watched is treated in which way; never, if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StalePolicy {
    /// [`Treatment::Deprioritise`].
    pub deprioritise: Option<Duration>,
    /// [`Treatment::Withdraw`].
    pub withdraw: Option<Duration>,
}

/// The policies of a mesh. By default all clusters are kept as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StalePolicies {
    /// Of clusters that have none of their own.
    pub others: StalePolicy,
    /// By cluster.
    pub by_cluster: BTreeMap<ClusterId, StalePolicy>,
}

impl StalePolicies {
    /// That of a cluster.
    pub fn of(&self, cluster: &ClusterId) -> StalePolicy {
        self.by_cluster.get(cluster).copied().unwrap_or(self.others)
    }
}
