//! One object of an API server, by what people call it.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    client::{Client, METADATA_LIST},
    failure::Failure,
    kinds::{self, Resource},
};
use crate::model::mcs::Api;

/// An object of a kind that is read.
#[derive(Debug)]
pub struct Named {
    resource: Resource,
    namespace: Arc<str>,
    name: Arc<str>,
}

/// What Events and owners say of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `networking.istio.io/v1`
    pub api_version: String,
    /// As Kubernetes calls it.
    pub kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What tells it from others that had its name.
    pub uid: String,
}

// === impl Named ===

impl Named {
    /// Reads `namespace/Kind/name`, or `Kind/name` of a cluster-scoped kind, as [`crate::registry::Problem`] has it; none if no such kind is
    /// read. `mcs` is where exports and imports are.
    pub fn parse(object: &str, mcs: &Api) -> Option<Self> {
        let parts: Vec<_> = object.split('/').collect();
        let (namespace, kind, name) = match parts[..] {
            [namespace, kind, name] => (namespace, kind, name),
            [kind @ ("Namespace" | "Node"), name] => ("", kind, name),
            _ => return None,
        };
        // It becomes part of a path.
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let resource =
            kinds::of_kind(kind, mcs).filter(|_| plain(namespace) && plain(name) && !name.is_empty())?;
        Some(Self { resource, namespace: namespace.into(), name: name.into() })
    }

    /// Asks what it is; none if there is no such object. Nothing but its metadata travels. The right to list its kind is enough.
    pub async fn find(&self, client: &Client, patience: Duration) -> Result<Option<Reference>, Failure> {
        for version in 0.. {
            let Some((api_version, path)) = self.resource.one(version, &self.namespace, &self.name) else {
                break;
            };
            let list = match client.get_all(&path, METADATA_LIST, patience).await {
                // This version is not served.
                Err(failure) if failure.is_missing() => continue,
                answer => answer?,
            };
            let list: Value = serde_json::from_slice(&list).map_err(|e| Failure::Garbage(e.to_string()))?;
            let uid = list.pointer("/items/0/metadata/uid").and_then(Value::as_str);
            return Ok(uid.map(|uid| Reference {
                api_version,
                kind: self.resource.kubernetes_kind(),
                namespace: self.namespace.clone(),
                name: self.name.clone(),
                uid: uid.to_owned(),
            }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_of_kinds_that_are_read() {
        let parse = |object: &str| Named::parse(object, &Api::default());
        for good in ["a/DestinationRule/b", "istio-system/RemoteSecret/x.y", "a/Secret/b", "Node/n"] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "a",
            "a/b",
            "a/Lease/b",
            "a/DestinationRule/",
            "a/DestinationRule/b?x=y",
            "Secret/b",
            "a/b/c/d",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        let secret = parse("istio-system/RemoteSecret/west").expect("is read");
        assert_eq!(secret.resource.kubernetes_kind(), "Secret");
    }
}
