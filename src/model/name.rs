//! Identifiers and labels.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// Kubernetes labels or annotations.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Whether every label of `selector` is present with the same value in `labels`. An empty selector matches all.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selects_by(selector, |name| labels.get(name))
}

/// The same, for labels that are looked up in some other way.
pub fn selects_by<'a>(selector: &Labels, label: impl Fn(&str) -> Option<&'a Arc<str>>) -> bool {
    selector.iter().all(|(name, value)| label(name) == Some(value))
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub Arc<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

identifier! {
    /// A registered cluster, by the name that the operator gave it (Istio's cluster id).
    ClusterId
}
identifier! {
    /// A network: workloads with the same one reach each other's addresses directly. Empty means unknown, which
    /// Istio treats as "the same as any".
    NetworkId
}
