//! Where a workload runs.

use std::{fmt, str::FromStr, sync::Arc};

/// Region, zone and subzone; a missing level is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// `topology.kubernetes.io/region` of the node.
    pub region: Arc<str>,
    /// `topology.kubernetes.io/zone` of the node.
    pub zone: Arc<str>,
    /// `topology.istio.io/subzone` of the node.
    pub subzone: Arc<str>,
}

impl Locality {
    /// A locality from its three levels.
    pub fn new(region: &str, zone: &str, subzone: &str) -> Self {
        Self { region: region.into(), zone: zone.into(), subzone: subzone.into() }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty()
    }

    /// Whether `pattern` (`region/zone/subzone`, `*` for any rest, missing deeper levels match) covers this locality.
    pub fn matches(&self, pattern: &str) -> bool {
        let own = [&*self.region, &*self.zone, &*self.subzone];
        pattern.split('/').zip(own).all(|(want, have)| want == "*" || want == have)
    }
}

impl fmt::Display for Locality {
    /// `region/zone/subzone`, without empty levels at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.subzone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.subzone.is_empty() {
            write!(f, "/{}", self.subzone)?;
        }
        Ok(())
    }
}

impl FromStr for Locality {
    type Err = std::convert::Infallible;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut parts = s.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default().into();
        Ok(Self { region: next(), zone: next(), subzone: next() })
    }
}
